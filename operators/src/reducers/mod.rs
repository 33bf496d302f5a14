//! Reducers: from rows of many columns to points of a few, near where the rows are near.
//!
//! [`neighbour_graph`] finds each row's nearest rows, once, and [`UmapConfig`] lays their [`FuzzyGraph`] out in as many
//! dimensions as asked for: some five to cluster in, two to look at. A [`UmapModel`] places new rows among the
//! fitted ones. [`Pca`] is the linear one.

mod curve;
mod eigen;
mod fuzzy;
mod neighbours;
mod pca;
mod spectral;
mod umap;

pub use curve::Curve;
pub use fuzzy::FuzzyGraph;
pub(crate) use neighbours::{BLOCK_ROWS as NEIGHBOUR_BLOCK_ROWS, GPU_BLOCK_ROWS};
pub use neighbours::{EXACT_ROWS, nearest_rows, neighbour_graph};
pub use pca::Pca;
pub use umap::{Init, Metric, UmapConfig, UmapModel};

/// Which reducer a fit runs before it clusters.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reducer {
    /// UMAP.
    Umap(UmapConfig),
    /// No reduction: the clusterer gets the embeddings themselves.
    None,
}

impl Default for Reducer {
    /// UMAP: density clustering finds little in hundreds of dimensions.
    fn default() -> Self {
        Self::Umap(UmapConfig::default())
    }
}
