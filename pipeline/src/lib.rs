//! Moves batches: sources, sinks, the job file and the engine of the program `thema`.

pub mod filter;
pub mod location;
pub mod positions;
pub mod sinks;
pub mod sources;

mod error;

pub use error::{Conflict, Error, Result};
pub use operators::Kind;
