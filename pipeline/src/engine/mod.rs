//! Engines: what runs operators over a source into a sink.

mod label;
mod local;
mod recent;
mod stream;
mod watch;
mod write;

pub(crate) use label::{Labeller, Stage};
pub use local::{Summary, run};
pub(crate) use local::{flow, token_rate, watch};
pub(crate) use stream::run as run_stream;
pub use write::Totals;
