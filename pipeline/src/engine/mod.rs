//! Engines: what runs operators over a source into a sink.

mod local;

pub(crate) use local::token_rate;
pub use local::{Summary, run};
