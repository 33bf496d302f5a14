//! Where the groups of a fit come from: given topics first, then a clusterer for the rows that none of them takes.
//!
//! Zero-shot topics (as in BERTopic): a row goes to the given topic that its vector is most similar to, if its cosine
//! is large enough; the other rows are clustered. Given topics come first in their order, then those that are found, by
//! falling size; a given topic that no row belongs to is none.

use crate::classify::{GivenTopic, GivenTopics, check_topics};
use crate::clusterers::kmeans::KMeansConfig;
use crate::clusterers::{ClustererConfig, Clustering};
use crate::describe::needs_encoder;
use crate::evaluate::agreement;
use crate::fit::{FitConfig, Means};
use crate::reducers::Reducer;
use crate::similarity::Similarity;
use crate::{Error, Result};
use kernels::Matrix;
use serde::{Deserialize, Serialize};

/// Topics that a fit is given, beside those that it finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GivenConfig {
    /// The topics. None by default.
    pub topics: Vec<GivenTopic>,
    /// The least cosine of a row to its topic, where that has no threshold of its own. 0.7, as in BERTopic.
    pub min_similarity: f32,
}

impl Default for GivenConfig {
    fn default() -> Self {
        Self { topics: Vec::new(), min_similarity: 0.7 }
    }
}

impl GivenConfig {
    /// Checks the topics, if there are any.
    pub fn check(&self) -> Result<()> {
        if !(-1.0..=1.0).contains(&self.min_similarity) {
            let reason = format!("{}, expected a cosine, −1 to 1", self.min_similarity);
            return Err(Error::setting("fit.given.min_similarity", reason));
        }
        let mut thresholds = self.topics.iter().filter_map(|topic| Some((topic, topic.threshold?)));
        if let Some((topic, threshold)) = thresholds.find(|(_, threshold)| !(-1.0..=1.0).contains(threshold))
        {
            let reason = format!("its threshold is {threshold}, expected a cosine, −1 to 1");
            return Err(Error::setting(format!("fit.given.topics, \"{}\"", topic.name), reason));
        }
        if self.topics.is_empty() { Ok(()) } else { check_topics(&self.topics) }
    }
}

/// The groups of a fit's rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Groups {
    /// The rows' groups, and all that the clusterer says of them.
    pub clustering: Clustering,
    /// The names of the groups that were given, by their numbers: 0, 1, ...
    pub given: Vec<String>,
}

/// What groups a fit's rows, wherever they are laid out.
pub(crate) struct Grouper<'a> {
    config: &'a FitConfig,
    means: &'a Means<'a>,
    /// The given topic of each row, −1 for none, and its similarity.
    taken: Vec<(i32, f32)>,
    /// The rows without one.
    rest: Vec<u32>,
}

impl<'a> Grouper<'a> {
    /// Gives rows of the vectors `unit` (of length 1) their given topics.
    pub(crate) fn try_new(unit: &Matrix<f32>, config: &'a FitConfig, means: &'a Means<'a>) -> Result<Self> {
        let taken = taken(unit, &config.given, means)?;
        let rest = (0u32..).zip(&taken).filter(|(_, taken)| taken.0 < 0).map(|(row, _)| row).collect();
        Ok(Self { config, means, taken, rest })
    }

    /// Groups the rows, which lie at `points`.
    pub(crate) fn group(&self, points: &Matrix<f32>) -> Result<Groups> {
        if self.rest.len() == points.rows() {
            let clustering = self.cluster(points, &self.config.clusterer)?;
            return Ok(Groups { clustering, given: Vec::new() });
        }
        let found = self.cluster(&points.gather(&self.rest), &self.config.clusterer)?;
        Ok(together(&self.taken, &self.rest, found, &self.config.given))
    }

    /// Clusters points; too few for any cluster are outliers, where given topics took the others.
    fn cluster(&self, points: &Matrix<f32>, clusterer: &ClustererConfig) -> Result<Clustering> {
        let rows = points.rows();
        if rows < self.taken.len() && clusterer.check_rows(rows).is_err() {
            let (labels, probabilities) = (vec![-1; rows], vec![0.0; rows]);
            return Ok(Clustering { labels, probabilities, ..Clustering::default() });
        }
        clusterer.build()?.fit(points, self.means.device, &|| self.means.observer.advance(0))
    }

    /// How alike the groups of rows at `points` are under other seeds: the mean adjusted mutual information of all pairs
    /// of groupings, there and at each of `others`, of the rows that no given topic took; outliers are a group. Nothing
    /// where no other seed was tried.
    pub(crate) fn stability(
        &self,
        points: &Matrix<f32>,
        labels: &[i32],
        others: &[Matrix<f32>],
    ) -> Result<Option<f64>> {
        let rest = |points: &Matrix<f32>| points.gather(&self.rest);
        let mut all: Vec<Vec<i32>> = vec![self.rest.iter().map(|row| labels[*row as usize]).collect()];
        match (&self.config.reducer, &self.config.clusterer) {
            (Reducer::Umap(_), clusterer) => {
                for points in others {
                    all.push(self.cluster(&rest(points), clusterer)?.labels);
                }
            }
            (Reducer::None, ClustererConfig::Kmeans(kmeans)) => {
                for seed in (kmeans.seed + 1..).take(self.config.stability_seeds) {
                    let other = ClustererConfig::Kmeans(KMeansConfig { seed, ..kmeans.clone() });
                    all.push(self.cluster(&rest(points), &other)?.labels);
                }
            }
            // Nothing of such a fit is left to chance.
            (Reducer::None, _) => {}
        }
        let mut between = Vec::new();
        for (at, a) in all.iter().enumerate() {
            for b in &all[at + 1..] {
                between.push(agreement(a, b)?.ami);
            }
        }
        Ok((!between.is_empty()).then(|| between.iter().sum::<f64>() / between.len() as f64))
    }
}

/// The given topic of each row, −1 for none, and its similarity.
fn taken(unit: &Matrix<f32>, given: &GivenConfig, means: &Means<'_>) -> Result<Vec<(i32, f32)>> {
    if given.topics.is_empty() {
        return Ok(vec![(-1, 0.0); unit.rows()]);
    }
    let embed = means.embed.ok_or_else(needs_encoder)?;
    let texts: Vec<&str> = given.topics.iter().map(GivenTopic::text).collect();
    let vectors = embed(&texts)?;
    GivenTopics::try_new(given.topics.clone(), vectors, Similarity::Cosine, Some(given.min_similarity))?
        .of(unit)
}

/// Puts rows that given topics took and the others, which were clustered, into one order.
fn together(taken: &[(i32, f32)], rest: &[u32], found: Clustering, config: &GivenConfig) -> Groups {
    let is_used = |place: usize| taken.iter().any(|(topic, _)| usize::try_from(*topic) == Ok(place));
    let used: Vec<usize> = (0..config.topics.len()).filter(|place| is_used(*place)).collect();
    let first = used.len() as i32; // topics are counted in memory
    let number = |topic: i32| {
        used.iter().position(|place| usize::try_from(topic) == Ok(*place)).map_or(-1, |at| at as i32)
    };
    let mut labels: Vec<i32> = taken.iter().map(|(topic, _)| number(*topic)).collect();
    let mut probabilities: Vec<f32> =
        taken.iter().map(|(_, similarity)| similarity.clamp(0.0, 1.0)).collect();
    let mut outlier_scores = vec![0.0; if found.outlier_scores.is_empty() { 0 } else { taken.len() }];
    for (at, row) in rest.iter().map(|row| *row as usize).enumerate() {
        labels[row] = if found.labels[at] < 0 { -1 } else { found.labels[at] + first };
        probabilities[row] = found.probabilities[at];
        if let Some(score) = found.outlier_scores.get(at) {
            outlier_scores[row] = *score;
        }
    }
    Groups {
        clustering: Clustering {
            labels,
            probabilities,
            outlier_scores,
            persistence: found.persistence,
            // It knows the rest of the rows alone.
            tree: None,
        },
        given: used.into_iter().map(|place| config.topics[place].name.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_topics_come_first_and_those_without_rows_are_none() {
        let topic = |name: &str| GivenTopic { name: name.into(), description: None, threshold: None };
        let config = GivenConfig { topics: ["a", "b", "c"].map(topic).into(), ..GivenConfig::default() };
        let taken = [(2, 0.9), (-1, 0.1), (0, 0.8), (-1, 0.2), (-1, 0.3), (2, 1.1)];
        let found = Clustering {
            labels: vec![0, -1, 1],
            probabilities: vec![0.5, 0.0, 0.25],
            outlier_scores: vec![0.1, 0.7, 0.2],
            ..Clustering::default()
        };
        let groups = together(&taken, &[1, 3, 4], found, &config);
        assert_eq!(groups.given, ["a", "c"]);
        assert_eq!(groups.clustering.labels, [1, 2, 0, -1, 3, 1]);
        assert_eq!(groups.clustering.probabilities, [0.9, 0.5, 0.8, 0.0, 0.25, 1.0]);
        assert_eq!(groups.clustering.outlier_scores, [0.0, 0.1, 0.0, 0.7, 0.2, 0.0]);
    }
}
