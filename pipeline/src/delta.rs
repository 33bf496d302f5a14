//! What reading and writing Delta tables share: Delta Kernel on our stores, and what its errors mean.

use crate::location::Location;
use crate::{Error, Result};
use delta_kernel::KernelError;
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder};
use futures::StreamExt;
use std::sync::Arc;

/// What reads and writes the logs of tables.
pub(crate) type Engine = DefaultEngine<TokioMultiThreadExecutor>;

/// The folder of a table that holds its log.
pub(crate) const LOG: &str = "_delta_log";

/// Makes the engine for the store of `location`. Call it within a tokio runtime of many threads.
pub(crate) fn engine(location: &Location) -> Arc<Engine> {
    let executor = TokioMultiThreadExecutor::new(tokio::runtime::Handle::current());
    let engine = DefaultEngineBuilder::new(Arc::clone(location.store()));
    Arc::new(engine.with_task_executor(Arc::new(executor)).build())
}

/// Whether the folder at `location` has a log.
pub(crate) async fn has_log(location: &Location) -> Result<bool> {
    has_any(&location.within(LOG)).await
}

/// Whether there is any file in the folder at `location`.
pub(crate) async fn has_any(location: &Location) -> Result<bool> {
    match location.store().list(Some(location.path())).next().await.transpose() {
        Ok(first) => Ok(first.is_some()),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(Error::store(location.name(), error)),
    }
}

/// Whether there is any file in the folder at `location` but not in its folder `name`, and not hidden.
pub(crate) async fn has_any_beside(location: &Location, name: &str) -> Result<bool> {
    let mut listed = location.store().list(Some(location.path()));
    let beside = location.path().clone().join(name);
    while let Some(file) = listed.next().await {
        match file {
            Ok(file) if file.location.prefix_matches(&beside) => {}
            // What another run tries out.
            Ok(file) if file.location.filename().is_some_and(|name| name.starts_with('.')) => {}
            Ok(_) => return Ok(true),
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(Error::store(location.name(), error)),
        }
    }
    Ok(false)
}

/// What an error of Delta Kernel means: a store's failure may pass, all else is the table's.
pub(crate) fn failed(location: &Location, error: KernelError) -> Error {
    match error {
        KernelError::ObjectStore(error) => Error::store(location.name(), error),
        KernelError::IOError(error) => {
            let source = object_store::Error::Generic { store: "log", source: Box::new(error) };
            Error::store(location.name(), source)
        }
        error => Error::place(location.name(), error.to_string()),
    }
}
