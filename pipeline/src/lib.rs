//! Moves batches: sources, sinks, the job file, the engine and the commands of the program `thema`.

pub mod aside;
pub mod batch;
pub mod commands;
mod delta;
pub mod engine;
pub mod filter;
pub mod hub;
pub mod job;
pub mod kafka;
pub mod location;
mod memory;
mod metrics;
pub mod models;
pub mod positions;
pub mod progress;
pub mod report;
mod service;
pub mod sinks;
pub mod sources;
pub mod stream;
pub mod telemetry;

mod error;
mod worker;

pub use error::{Conflict, Error, Result};
pub use operators::Kind;
