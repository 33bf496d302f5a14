//! Engines: what runs operators over a source into a sink.

mod label;
mod local;
mod stream;
mod watch;

pub(crate) use label::{Labeller, Stage};
pub(crate) use local::token_rate;
pub use local::{Summary, run};
pub use stream::Totals;
pub(crate) use stream::run as run_stream;
