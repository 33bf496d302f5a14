//! The flags that say how a model is fitted, for each command that fits.

use super::given::read_topics;
use crate::job::Job;
use crate::{Error, Result};
use clap::{Args, ValueEnum};
use operators::clusterers::ClustererConfig;
use operators::clusterers::dbscan::DbscanConfig;
use operators::clusterers::hdbscan::ClusterSelectionMethod;
use operators::clusterers::kmeans::KMeansConfig;
use operators::reducers::Reducer;
use operators::sample::Selection;

/// How a model is fitted.
#[derive(Debug, Args)]
pub struct FitSettings {
    /// Rows to fit on: those with the smallest seeded hash of their id [default: 200000]
    #[arg(long, value_name = "ROWS")]
    sample: Option<usize>,
    /// Fits every row: else near duplicates are fitted once, and count as often as they are there
    #[arg(long)]
    keep_duplicates: bool,
    /// The seed of the sample, of the layouts and of k-means
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Neighbours of a row in UMAP, itself included [default: 15]
    #[arg(long, value_name = "N")]
    n_neighbors: Option<usize>,
    /// Dimensions to cluster in; 0 clusters the embeddings themselves [default: 5]
    #[arg(long, value_name = "N")]
    n_components: Option<usize>,
    /// How close points may lie in UMAP [default: 0]
    #[arg(long, value_name = "DISTANCE")]
    min_dist: Option<f32>,
    /// The fewest rows of a topic, near duplicates counted once [default: 10]
    #[arg(long, value_name = "ROWS")]
    min_cluster_size: Option<usize>,
    /// The neighbour that measures density, itself included [default: min-cluster-size]
    #[arg(long, value_name = "N")]
    min_samples: Option<usize>,
    /// How HDBSCAN chooses clusters [default: eom]
    #[arg(long, value_enum, value_name = "eom|leaf")]
    method: Option<Method>,
    /// Clusters by k-means into so many topics instead of HDBSCAN: each row of the sample is in one (labels still leave
    /// out what is unlike all, see --coverage)
    #[arg(long, value_name = "TOPICS", conflicts_with_all = ["min_cluster_size", "min_samples", "method"])]
    n_clusters: Option<usize>,
    /// Clusters by DBSCAN instead of HDBSCAN: how far a point sees. In the core of a topic is who sees 50 points, or as
    /// many as --min-samples says
    #[arg(long, value_name = "DISTANCE", conflicts_with_all = ["min_cluster_size", "method", "n_clusters"])]
    eps: Option<f64>,
    /// Topics that are given, beside those that are found: a file (thema classify --help shows one), or names with commas
    /// between them
    #[arg(long, value_name = "FILE|LIST")]
    topics: Option<String>,
    /// The least cosine of a given topic's rows, where it has no threshold of its own [default: 0.7]
    #[arg(long, value_name = "0..1")]
    min_similarity: Option<f32>,
    /// Other seeds under which the rows are laid out and clustered again, to say how stable topics are [default: 1]
    #[arg(long, value_name = "N")]
    stability_seeds: Option<usize>,
}

/// How HDBSCAN chooses clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Method {
    /// Excess of mass: few, stable clusters of any size
    Eom,
    /// Leaves of the tree: many, even clusters
    Leaf,
}

impl From<Method> for ClusterSelectionMethod {
    fn from(method: Method) -> Self {
        match method {
            Method::Eom => Self::Eom,
            Method::Leaf => Self::Leaf,
        }
    }
}

impl FitSettings {
    /// Fills in the flags.
    pub fn fill(&self, job: &mut Job) -> Result<()> {
        if let Some(wanted) = self.sample {
            let seed = self.seed.unwrap_or(0);
            job.fit.sample = Selection::Hash { rows: wanted, seed };
        }
        if let Some(topics) = &self.topics {
            job.fit.given.topics = read_topics(topics)?;
        }
        if self.min_similarity.is_some() && job.fit.given.topics.is_empty() {
            return Err(Error::setting(
                "--min-similarity",
                "is of given topics, but there are none: see --topics",
            ));
        }
        job.fit.given.min_similarity = self.min_similarity.unwrap_or(job.fit.given.min_similarity);
        job.fit.duplicates.collapse &= !self.keep_duplicates;
        job.fit.stability_seeds = self.stability_seeds.unwrap_or(job.fit.stability_seeds);
        self.fill_reducer(job)?;
        self.fill_clusterer(job)
    }

    fn fill_reducer(&self, job: &mut Job) -> Result<()> {
        if self.n_components == Some(0) {
            job.fit.reducer = Reducer::None;
        }
        if let Some(seed) = self.seed {
            match &mut job.fit.sample {
                Selection::Hash { seed: s, .. } | Selection::Shuffle { seed: s, .. } => *s = seed,
                Selection::Range { .. } | Selection::All => {}
            }
        }
        match &mut job.fit.reducer {
            Reducer::Umap(umap) => {
                umap.n_neighbors = self.n_neighbors.unwrap_or(umap.n_neighbors);
                umap.n_components = self.n_components.unwrap_or(umap.n_components);
                umap.min_dist = self.min_dist.unwrap_or(umap.min_dist);
                umap.seed = self.seed.unwrap_or(umap.seed);
            }
            Reducer::None if self.n_neighbors.is_some() || self.min_dist.is_some() => {
                return Err(Error::setting(
                    "--n-neighbors, --min-dist",
                    "needs UMAP, but the job clusters the embeddings themselves",
                ));
            }
            Reducer::None => {}
        }
        Ok(())
    }

    fn fill_clusterer(&self, job: &mut Job) -> Result<()> {
        if let Some(n_clusters) = self.n_clusters {
            let mut config = match &job.fit.clusterer {
                ClustererConfig::Kmeans(config) => config.clone(),
                _ => KMeansConfig::default(),
            };
            config.n_clusters = n_clusters;
            job.fit.clusterer = ClustererConfig::Kmeans(config);
        }
        if let (ClustererConfig::Kmeans(config), Some(seed)) = (&mut job.fit.clusterer, self.seed) {
            config.seed = seed;
        }
        if let Some(eps) = self.eps {
            let dbscan = match &job.fit.clusterer {
                ClustererConfig::Dbscan(config) => config.clone(),
                _ => DbscanConfig::default(),
            };
            job.fit.clusterer = ClustererConfig::Dbscan(DbscanConfig { eps, ..dbscan });
        }
        if let ClustererConfig::Dbscan(config) = &mut job.fit.clusterer {
            config.min_samples = self.min_samples.unwrap_or(config.min_samples);
        }
        let is_dbscan = matches!(job.fit.clusterer, ClustererConfig::Dbscan(_));
        let flags = [
            ("--min-cluster-size", self.min_cluster_size.is_some()),
            ("--min-samples", self.min_samples.is_some() && !is_dbscan),
            ("--method", self.method.is_some()),
        ];
        let asked: Vec<&str> = flags.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag).collect();
        match &mut job.fit.clusterer {
            ClustererConfig::Hdbscan(config) => {
                config.min_cluster_size = self.min_cluster_size.unwrap_or(config.min_cluster_size);
                config.min_samples = self.min_samples.or(config.min_samples);
                config.cluster_selection_method =
                    self.method.map_or(config.cluster_selection_method, Into::into);
            }
            _ if !asked.is_empty() => {
                return Err(Error::setting(
                    asked.join(", "),
                    "only for hdbscan, but the job names another clusterer: use --n-clusters, --eps or its keys in the job",
                ));
            }
            _ => {}
        }
        Ok(())
    }
}
