//! Arrow in, Arrow out: the operators of thema, its models and the algorithms that fit them.
//!
//! An [`Operator`] takes a record batch and returns a record batch; it knows nothing of where rows come from.

pub mod assign;
pub mod bundle;
pub mod calibration;
pub mod classify;
pub mod clusterers;
pub mod corpus;
pub mod describe;
pub mod duplicates;
pub mod embed;
pub mod embedding_column;
pub mod encoders;
pub mod endpoint;
pub mod evaluate;
pub mod fit;
pub mod grouping;
pub mod label;
pub mod labellers;
pub mod lineage;
pub mod llm;
pub mod model;
pub mod monitor;
pub mod plan;
pub mod quantize;
pub mod reducers;
pub mod revise;
pub mod sample;
pub mod similarity;
pub mod tables;
pub mod taxonomy;
pub mod text;
pub mod texts;
pub mod union;
pub mod vectors;
pub mod words;

mod device;
mod error;
mod linkage;
mod operator;
mod text_column;

pub use error::{Error, Kind, Result};
pub use operator::Operator;
