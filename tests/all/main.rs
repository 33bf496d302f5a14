//! What crosses crates: the program run as a user runs it.

mod bad_input;
mod browser;
mod cases;
mod classify;
mod embed;
mod eval;
mod fit;
mod gpu;
mod interrupt;
mod job;
mod label;
mod lake;
mod lineage;
mod memory;
mod models;
mod names;
mod plan;
mod remote;
mod stream;
mod taxonomy;
mod topics;
