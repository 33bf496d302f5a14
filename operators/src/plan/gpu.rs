//! What a fit will hold in a GPU's memory, counted as in [`super`].

use super::Workload;
use crate::assign::GPU_ROWS;
use crate::clusterers::{ClustererConfig, kmeans::KMeansConfig};
use crate::reducers::{GPU_BLOCK_ROWS, Metric, Reducer, UmapConfig};
use kernels::topk::Screened;

impl Workload<'_> {
    /// The most bytes that the fit holds at once in a GPU's memory, the encoder's not among them.
    pub fn gpu_bytes(&self) -> f64 {
        let map = crate::fit::map_config(self.config);
        let mut stages = vec![self.search_on_gpu(&map), self.layout_on_gpu(&map), self.voters_on_gpu()];
        if let Reducer::Umap(umap) = &self.config.reducer {
            stages.extend([self.search_on_gpu(umap), self.layout_on_gpu(umap)]);
        }
        stages.push(match &self.config.clusterer {
            ClustererConfig::Hdbscan(_) => self.tree_on_gpu(),
            ClustererConfig::HdbscanCrate(_) | ClustererConfig::Dbscan(_) => 0.0,
            ClustererConfig::Kmeans(config) => self.kmeans_on_gpu(config),
        });
        stages.into_iter().fold(0.0, f64::max)
    }

    /// Bytes of a row of codes, padded.
    fn code_bytes(&self) -> f64 {
        self.dim.next_multiple_of(16) as f64
    }

    /// The search for neighbours ([`kernels::gpu::search::CosineSearch`]); Euclidean ones are searched on the processor.
    fn search_on_gpu(&self, umap: &UmapConfig) -> f64 {
        if umap.metric == Metric::Euclidean {
            return 0.0;
        }
        let (n, d, k) = (self.rows as f64, self.dim as f64, self.neighbours(umap));
        let queries = self.rows.min(GPU_BLOCK_ROWS) as f64;
        let candidates = (Screened::candidates(k as usize) as f64).min(n);
        // Candidates as keys twice (as found, and merged), then as points and products.
        let search = self.lists_on_gpu(queries, candidates);
        // Queries and bounds; neighbours, cosines, and whether they are exact.
        n * (4.0 * d + self.code_bytes()) + search + queries * (4.0 * d + 8.0 + 8.0 * k + 4.0)
    }

    /// A layout ([`kernels::gpu::layout`]): the schedule of its edges, 18 bytes each, and positions twice.
    fn layout_on_gpu(&self, umap: &UmapConfig) -> f64 {
        let padded = match umap.n_components {
            0..=2 => 2.0,
            3..=5 => 8.0,
            6..=16 => 16.0,
            _ => 64.0,
        };
        18.0 * self.edges(umap) + 2.0 * 4.0 * padded * self.rows as f64
    }

    /// A spanning tree ([`kernels::gpu::spanning_tree`]): coordinates, and of each point five numbers of 8 bytes and
    /// three of 4.
    fn tree_on_gpu(&self) -> f64 {
        self.rows as f64 * (4.0 * self.clustered_dims() as f64 + 5.0 * 8.0 + 3.0 * 4.0)
    }

    /// k-means ([`kernels::kmeans`]): padded points, their squared lengths and two labels; distances with each candidate
    /// for a seed, before and after; or members in order, and sums of 256 of them and of clusters.
    fn kmeans_on_gpu(&self, config: &KMeansConfig) -> f64 {
        let (n, k) = (self.rows as f64, config.n_clusters as f64);
        let (d, padded) = (self.clustered_dims() as f64, self.clustered_dims().next_multiple_of(4) as f64);
        let candidates = 2.0 + k.ln().floor();
        let sums = 8.0 * d * (n / 256.0 + 2.0 * k) + 4.0 * n;
        n * (4.0 * padded + 12.0) + 8.0 * k * padded + sums.max(8.0 * candidates * n)
    }

    /// The votes by which the threshold is measured ([`kernels::gpu::vote`]).
    fn voters_on_gpu(&self) -> f64 {
        let (queries, k) = (self.rows.min(GPU_ROWS) as f64, self.top_k as f64 + 1.0);
        self.rows as f64 * (self.code_bytes() + 4.0) + self.lists_on_gpu(queries, k) + 8.0 * queries
    }

    /// The lists of a search: queries' codes, and of each the k best as keys, twice, and as rows and products.
    fn lists_on_gpu(&self, queries: f64, k: f64) -> f64 {
        queries * (self.code_bytes() + 2.0 * 8.0 * k + 8.0 * k + 4.0)
    }
}
