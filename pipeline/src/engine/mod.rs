//! Engines: what runs operators over a source into a sink.

mod local;

pub use local::{Summary, run};
