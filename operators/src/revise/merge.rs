//! Topics merged: those that are named, or the nearest ones until few are left.

use super::topic;
use crate::clusterers::Clusterer;
use crate::clusterers::hdbscan::{Hdbscan, HdbscanConfig};
use crate::fit::FitConfig;
use crate::linkage::Linkage;
use crate::model::{Model, centroid_cosines, centroids};
use crate::words::{Ctfidf, Tokens, TopicSpace};
use crate::{Error, Result};
use kernels::norm::unit_rows;
use kernels::{Device, Matrix};
use kodama::Method;
use rustc_hash::FxHashMap;
use std::ops::ControlFlow;

/// How far topics are reduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// To so many topics: the two nearest become one, by the mean distance of their members (average linkage).
    To(usize),
    /// As far as they lie together: by HDBSCAN over topics, with two of them enough for a group.
    Auto,
}

/// What says how near two topics are: the cosine of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicVectors {
    /// Of the mean vectors of their rows.
    Embeddings,
    /// Of the weights of their terms.
    Ctfidf,
}

/// The labels after each group of topics became one, under the number of its largest.
pub(super) fn merged(model: &Model, groups: &[Vec<i32>]) -> Result<Vec<i32>> {
    let mut survivor: FxHashMap<i32, i32> = FxHashMap::default();
    for group in groups {
        let mut topics = group.iter().map(|id| topic(model, *id)).collect::<Result<Vec<_>>>()?;
        // The largest, and of equal ones the smallest number.
        topics.sort_by_key(|topic| (std::cmp::Reverse(topic.size), topic.id));
        let Some(largest) = topics.first().filter(|_| topics.len() > 1) else {
            return Err(Error::setting("merge", "one topic alone cannot be merged, expected two or more"));
        };
        for topic in &topics {
            if survivor.insert(topic.id, largest.id).is_some() {
                return Err(Error::setting("merge", format!("topic {} is named twice", topic.id)));
            }
        }
    }
    Ok(model.sample.topics.iter().map(|label| survivor.get(label).copied().unwrap_or(*label)).collect())
}

/// The labels after the nearest topics were merged.
pub(super) fn reduced(
    model: &Model,
    reduction: Reduction,
    vectors: TopicVectors,
    config: &FitConfig,
) -> Result<Vec<i32>> {
    let count = model.topics.len();
    let groups = match reduction {
        Reduction::To(wanted) => {
            if wanted == 0 || wanted >= count {
                let reason =
                    format!("{wanted}, expected fewer than the {count} topics there are, and 1 or more");
                return Err(Error::setting("reduce", reason));
            }
            Linkage::of(&similarities(model, vectors, config)?, count, Method::Average).groups(wanted)
        }
        Reduction::Auto => {
            let clusters = grouped(model, vectors, config)?;
            let mut groups: FxHashMap<i32, Vec<usize>> = FxHashMap::default();
            for (place, cluster) in clusters.iter().enumerate().filter(|(_, cluster)| **cluster >= 0) {
                groups.entry(*cluster).or_default().push(place);
            }
            groups.into_values().collect()
        }
    };
    let groups: Vec<Vec<i32>> = groups
        .into_iter()
        .filter(|group| group.len() > 1)
        .map(|group| group.into_iter().map(|place| model.topics[place].id).collect())
        .collect();
    if groups.is_empty() {
        return Err(Error::Unfit("no topics lie close together: nothing to merge".into()));
    }
    merged(model, &groups)
}

/// The clusters of topics that HDBSCAN finds, −1 for those that stand alone.
fn grouped(model: &Model, vectors: TopicVectors, config: &FitConfig) -> Result<Vec<i32>> {
    let points = match vectors {
        TopicVectors::Embeddings => unit_rows(&centroids(&model.topics)?),
        // Topics as points whose distances are those of their term weights: their cosines to each other.
        TopicVectors::Ctfidf => {
            let similarities = similarities(model, vectors, config)?.iter().map(|s| *s as f32).collect();
            Matrix::try_from_vec(model.topics.len(), model.topics.len(), similarities)?
        }
    };
    if points.rows() < 3 {
        return Ok(vec![-1; points.rows()]);
    }
    let hdbscan = Hdbscan::try_new(HdbscanConfig { min_cluster_size: 2, ..HdbscanConfig::default() })?;
    Ok(hdbscan.fit(&points, &Device::cpu(), &|| ControlFlow::Continue(()))?.labels)
}

/// The cosines of topics to each other: topics × topics, row after row.
pub(crate) fn similarities(model: &Model, vectors: TopicVectors, config: &FitConfig) -> Result<Vec<f64>> {
    match vectors {
        TopicVectors::Embeddings => centroid_cosines(&model.topics),
        TopicVectors::Ctfidf => {
            let weights = Ctfidf::fit(&model.terms, &config.words.ctfidf)?;
            // Topics alone: no text is looked up.
            let no_texts = Tokens::read(&[""; 0], &config.words.vocabulary)?;
            Ok(TopicSpace::new(&model.terms, &weights, &no_texts).between())
        }
    }
}
