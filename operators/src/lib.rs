//! Arrow in, Arrow out: the operators of thema, its models and the algorithms that fit them.
//!
//! An [`Operator`] takes a record batch and returns a record batch; it knows nothing of where rows come from.

pub mod assign;
pub mod clusterers;
pub mod encoders;
pub mod calibration;
pub mod clusterers;
pub mod embedding_column;
pub mod evaluate;
pub mod labellers;
pub mod quantize;
pub mod reducers;
pub mod sample;
pub mod text;
pub mod words;

mod error;
mod operator;
mod text_column;

pub use error::{Error, Kind, Result};
pub use operator::Operator;
