//! Numbers on devices: matrices, and the kernels that run on them.
//!
//! Each kernel is one file: its formula, a plain reference, and the fast path that must equal it. Nothing here
//! knows of Arrow, of text or of where rows come from. Loops over independent rows run on rayon's pool; no result
//! depends on how many threads that pool has.

pub mod activation;
pub mod attention;
pub mod gemm;
pub mod gpu;
pub mod halves;
pub mod int8;
pub mod kmeans;
pub mod layout;
pub mod norm;
pub mod pool;
pub mod quantize;
pub mod search_codes;
pub mod sparse;
pub mod topk;

mod codes;
mod dbscan;
mod device;
mod error;
mod kd_tree;
mod matrix;
#[cfg(test)]
mod random;
mod simd;
mod spanning_tree;
#[cfg(target_arch = "x86_64")]
mod tiles;

pub use dbscan::{Dbscan, dbscan};
pub use device::Device;
pub use error::{Error, Result};
pub use kd_tree::{KdTree, Nearest};
pub use matrix::Matrix;
pub use simd::Isa;
pub use spanning_tree::{Edge, core_distances, minimum_spanning_tree};
