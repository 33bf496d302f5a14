//! What tests of the whole program need: the program run as a user runs it, small inputs, a browser, a broker.

pub mod chromium;
pub mod endpoint;
pub mod http;
pub mod kafka;
pub mod program;
pub mod tables;
