//! Computing beside the async runtime.

use crate::{Error, Result};

/// Runs what computes or blocks away from the threads that wait on stores, streams and Ctrl-C.
pub(crate) async fn on_worker<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let died = |error| Error::Internal(format!("a worker died: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(died)?
}
