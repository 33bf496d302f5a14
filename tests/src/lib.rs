//! What tests of the whole program need: the program run as a user runs it, small inputs, a browser, a broker,
//! readers of tables.

use std::path::PathBuf;

use anyhow::{Context, Result};

pub mod chromium;
pub mod delta;
pub mod disk;
pub mod endpoint;
pub mod http;
pub mod kafka;
pub mod program;
pub mod proxy;
pub mod registry;
pub mod s3;
pub mod stores;
pub mod tables;

/// The folder of what was fetched and is kept.
fn cache() -> Result<PathBuf> {
    match std::env::var_os("THEMA_CACHE") {
        Some(cache) => Ok(PathBuf::from(cache)),
        None => Ok(PathBuf::from(std::env::var_os("HOME").context("there is no HOME")?).join(".cache/thema")),
    }
}
