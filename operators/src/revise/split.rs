//! One topic's rows, clustered again.

use super::{topic, unit_vectors};
use crate::clusterers::ClustererConfig;
use crate::fit::{FitConfig, Means};
use crate::model::Model;
use crate::reducers::{Reducer, UmapConfig, neighbour_graph};
use crate::{Error, Result};
use kernels::Matrix;

/// The labels after the rows of `id` were laid out and clustered by themselves: the largest cluster keeps the number,
/// the others get new ones, and what lies between them becomes outliers.
pub(super) fn split(
    model: &Model,
    id: i32,
    clusterer: &ClustererConfig,
    config: &FitConfig,
    means: &Means<'_>,
) -> Result<Vec<i32>> {
    topic(model, id)?;
    let labels = &model.sample.topics;
    let members: Vec<u32> =
        // A sample has fewer than 2^32 rows: see the search for neighbours.
        (0..labels.len() as u32).filter(|row| labels[*row as usize] == id).collect();
    clusterer.check_rows(members.len())?;
    let vectors = unit_vectors(model).gather(&members);
    let points = match &config.reducer {
        Reducer::Umap(umap) => lay_out(&vectors, umap, means)?,
        Reducer::None => vectors,
    };
    means.begin("clusters")?;
    let found = clusterer.build()?.fit(&points, means.device, &|| means.observer.advance(0))?;
    if found.clusters() < 2 {
        let reason = format!(
            "its {} rows are one cluster for {}: try a smaller --min-cluster-size, --method leaf, or --n-clusters",
            members.len(),
            clusterer.build()?.name(),
        );
        return Err(Error::setting(format!("topic {id}"), reason));
    }
    let mut labels = labels.clone();
    for (row, part) in members.iter().zip(&found.labels) {
        labels[*row as usize] = match part {
            0 => id,
            part if *part < 0 => -1,
            part => model.next_topic + part - 1,
        };
    }
    Ok(labels)
}

/// A layout of a few rows, with as many neighbours as they have.
fn lay_out(vectors: &Matrix<f32>, umap: &UmapConfig, means: &Means<'_>) -> Result<Matrix<f32>> {
    let umap = UmapConfig { n_neighbors: umap.n_neighbors.min(vectors.rows()), ..umap.clone() };
    means.begin("neighbours")?;
    let (graph, _) = neighbour_graph(vectors, &umap, means.device, &|done, _| means.observer.advance(done))?;
    means.begin("layout")?;
    let progress = |done: u32, _: u32| means.observer.advance(u64::from(done));
    Ok(umap.fit(means.device, &graph, vectors, &progress)?.embedding)
}
