//! Labelling: the topic of a row by the vote of its nearest sample rows, or its rejection as an outlier.
//!
//! One idea: everything after the codes is integers. A row's code is compared with the sample's codes by i32 dot
//! products; the `top_k` nearest vote; equal votes go to the topic of the nearest neighbour, then to the smaller id.
//! So equal codes give equal labels on every device, in any batch, order or sharding.
//!
//! - Score: the winner's share of the votes times the mean similarity of its voters, 0 to 1.
//! - Rejection: a score below the threshold gives −1. The threshold is the (1 − coverage) quantile of the scores of
//!   sample rows that the fit put into a topic, each scored by the others; half of them (by hash) set it, the other
//!   half measure the coverage reached. This is split-conformal calibration in its simplest form.

use crate::device::on_device;
use crate::{Error, Result};
use kernels::gpu::vote::{MAX_VOTERS, VoteParams, Voters, Votes};
use kernels::norm::unit_rows;
use kernels::search_codes::SearchScale;
use kernels::topk::{Codes, topk_codes};
use kernels::{Device, Matrix};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How rows are labelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LabelConfig {
    /// Sample rows that vote. 10: enough to outvote a stray neighbour, few enough to stay near.
    pub top_k: usize,
    /// Topics listed for each row, best first. 3: what a reader can take in.
    pub top_topics: usize,
    /// Of rows that belong to a topic, the share that keeps one: the others are rejected as outliers, as are rows that
    /// belong to none. 0.95: the usual level.
    pub coverage: f64,
    /// What neighbours that are outliers themselves do.
    pub outliers: OutlierVote,
}

impl Default for LabelConfig {
    fn default() -> Self {
        Self { top_k: 10, top_topics: 3, coverage: 0.95, outliers: OutlierVote::Vote }
    }
}

impl LabelConfig {
    /// Checks each setting against its range.
    pub fn check(&self) -> Result<()> {
        if self.top_k == 0 {
            return Err(Error::setting("label.top_k", "0 neighbours cannot vote, expected at least 1"));
        }
        if !(0.0..=1.0).contains(&self.coverage) {
            return Err(Error::setting(
                "label.coverage",
                format!("{} is not between 0 and 1", self.coverage),
            ));
        }
        Ok(())
    }
}

/// What a job changes of the labelling that a model was fitted with; what is absent stays as it is there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LabelChanges {
    /// Sample rows that vote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Topics listed for each row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_topics: Option<usize>,
    /// Of rows that belong to a topic, the share that keeps one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<f64>,
    /// What neighbours that are outliers themselves do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outliers: Option<OutlierVote>,
}

impl LabelChanges {
    /// Returns `config` with the changes, checked.
    pub fn of(&self, config: &LabelConfig) -> Result<LabelConfig> {
        let changed = LabelConfig {
            top_k: self.top_k.unwrap_or(config.top_k),
            top_topics: self.top_topics.unwrap_or(config.top_topics),
            coverage: self.coverage.unwrap_or(config.coverage),
            outliers: self.outliers.unwrap_or(config.outliers),
        };
        changed.check()?;
        Ok(changed)
    }
}

impl From<LabelConfig> for LabelChanges {
    fn from(config: LabelConfig) -> Self {
        let LabelConfig { top_k, top_topics, coverage, outliers } = config;
        Self {
            top_k: Some(top_k),
            top_topics: Some(top_topics),
            coverage: Some(coverage),
            outliers: Some(outliers),
        }
    }
}

/// What a neighbour that is an outlier does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutlierVote {
    /// Votes −1.
    Vote,
    /// Does not vote.
    Abstain,
}

/// The label of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The topic, −1 for an outlier.
    pub topic: i32,
    /// How sure that is, 0 to 1; for a rejected row the score that was too low.
    pub score: f32,
    /// The best topics (never −1) with their scores, best first.
    pub topics: Vec<(i32, f32)>,
}

impl Assignment {
    /// No topic at all.
    pub fn none() -> Self {
        Self { topic: -1, score: 0.0, topics: Vec::new() }
    }
}

/// Labels vectors by a fitted sample; shared by all workers of a process.
#[derive(Debug, Clone)]
pub struct Assigner {
    codes: Arc<Codes>,
    gpus: Arc<OnGpus>,
    scale: SearchScale,
    topics: Arc<[i32]>,
    config: LabelConfig,
    threshold: f32,
    /// Rows that a GPU labels at a time.
    gpu_rows: usize,
}

/// The sample on GPUs; on none where the processor labels.
#[derive(Debug)]
struct OnGpus {
    device: Device,
    voters: Vec<Voters>,
    /// Whether one had no memory left for the rows that came, so that it need not be tried again.
    full: AtomicBool,
}

/// Rows that a GPU labels at a time: enough to keep it busy, a few hundred megabytes at most.
pub(crate) const GPU_ROWS: usize = 65_536;

/// How logs call labelling.
const STAGE: &str = "labels";

/// A threshold, and what it does on rows it was not made from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// Scores below it are rejected.
    pub score: f32,
    /// The share of held-out rows that keep a topic; absent where no row was held out.
    pub coverage: Option<f64>,
    /// How many rows that share was measured on.
    pub held_out_rows: u64,
}

impl Assigner {
    /// Takes the search codes of the sample and the topic of each of its rows to `device`.
    ///
    /// # Errors
    /// `Unfit` if there are no rows, `Internal` if codes and topics differ in number; what a GPU fails with.
    pub fn try_new(
        device: &Device,
        codes: &Matrix<i8>,
        scale: SearchScale,
        topics: Vec<i32>,
        config: LabelConfig,
        threshold: f32,
    ) -> Result<Self> {
        config.check()?;
        if codes.rows() != topics.len() {
            return Err(Error::Internal(format!("{} codes, but {} topics", codes.rows(), topics.len())));
        }
        if topics.is_empty() {
            return Err(Error::Unfit("the model's sample has no rows".into()));
        }
        let beyond = (config.top_k > MAX_VOTERS)
            .then(|| format!("{} voters are more than the {MAX_VOTERS} that a GPU counts", config.top_k));
        let gpus = on_device(STAGE, device, beyond, |device| {
            let gpus = if let Device::Cuda(gpus) = device { gpus.as_slice() } else { &[] };
            let voters = gpus.iter().map(|gpu| Voters::new(gpu, codes, scale, &topics));
            let voters = voters.collect::<kernels::Result<_>>()?;
            Ok(OnGpus { device: device.clone(), voters, full: AtomicBool::new(false) })
        })?;
        let (codes, gpus, topics) = (Arc::new(Codes::pack(codes)), Arc::new(gpus), topics.into());
        Ok(Self { codes, gpus, scale, topics, config, threshold, gpu_rows: GPU_ROWS })
    }

    /// Returns this assigner with another number of rows that a GPU labels at a time; no label depends on it.
    pub fn with_gpu_rows(self, gpu_rows: usize) -> Self {
        assert!(gpu_rows > 0, "no rows at a time are no progress");
        Self { gpu_rows, ..self }
    }

    /// Labels each row of `vectors`, whatever its length.
    pub fn assign(&self, vectors: &Matrix<f32>) -> Result<Vec<Assignment>> {
        vectors.check_finite()?;
        let cols = vectors.cols();
        self.labels(
            vectors.rows(),
            |gpu, rows, params| gpu.label(&vectors.as_slice()[rows.start * cols..rows.end * cols], params),
            || self.assign_here(&self.scale.codes(&unit_rows(vectors))?, |_| None),
        )
    }

    /// The search codes of `vectors`, whatever their length.
    pub fn codes_of(&self, vectors: &Matrix<f32>) -> Result<Matrix<i8>> {
        Ok(self.scale.codes(&unit_rows(vectors))?)
    }

    /// Measures the threshold for the wanted coverage on the sample itself: each row is scored by the others.
    ///
    /// `part` says of a row whether it sets the threshold (false) or tests it (true).
    pub fn calibrate(&self, codes: &Matrix<i8>, part: impl Fn(usize) -> bool) -> Result<Threshold> {
        let open = Self { threshold: 0.0, ..self.clone() };
        let scored = open.assign_codes(codes, true)?;
        let (mut setting, mut testing) = (Vec::new(), Vec::new());
        for (row, assignment) in scored.iter().enumerate().filter(|(row, _)| self.topics[*row] >= 0) {
            // A row whose neighbours vote it out is not covered, whatever the threshold.
            let score = if assignment.topic >= 0 { assignment.score } else { 0.0 };
            if part(row) { testing.push(score) } else { setting.push(score) }
        }
        setting.sort_unstable_by(f32::total_cmp);
        let rank = ((1.0 - self.config.coverage) * setting.len() as f64).floor() as usize;
        let score = setting.get(rank).or(setting.last()).copied().unwrap_or(0.0);
        let kept = testing.iter().filter(|s| **s >= score && **s > 0.0).count();
        Ok(Threshold {
            score,
            coverage: (!testing.is_empty()).then(|| kept as f64 / testing.len() as f64),
            held_out_rows: testing.len() as u64,
        })
    }

    /// How far each of `unit` (n × d, rows of length 1) is from the nearest row of the sample: 1 − cosine.
    pub fn distances(&self, unit: &Matrix<f32>) -> Result<Vec<f32>> {
        let nearest = topk_codes(&self.scale.codes(unit)?, &self.codes, 1)?;
        Ok(nearest.scores.as_slice().iter().map(|product| self.distance(*product)).collect())
    }

    /// How far every `step`-th row of the sample, whose codes are `codes`, is from the nearest other one.
    pub fn distances_within(&self, codes: &Matrix<i8>, step: usize) -> Result<Vec<f32>> {
        let rows: Vec<u32> = (0..codes.rows() as u32).step_by(step).collect();
        let nearest = topk_codes(&codes.gather(&rows), &self.codes, 2.min(codes.rows()))?;
        let other = |(at, row): (usize, &u32)| {
            let found = nearest.indices.row(at).iter().zip(nearest.scores.row(at));
            found.filter(|(found, _)| *found != row).map(|(_, product)| self.distance(*product)).next()
        };
        Ok(rows.iter().enumerate().filter_map(other).collect())
    }

    /// The share of outliers among every `step`-th row of the sample, whose codes are `codes`, each labelled by the others.
    pub fn outliers_within(&self, codes: &Matrix<i8>, step: usize) -> Result<f64> {
        let rows: Vec<u32> = (0..codes.rows() as u32).step_by(step).collect();
        let labelled = self.assign_here(&codes.gather(&rows), |at| rows.get(at).copied())?;
        let outliers = labelled.iter().filter(|assignment| assignment.topic < 0).count();
        Ok(outliers as f64 / labelled.len().max(1) as f64)
    }

    /// 1 − cosine, by the product of two rows' codes.
    fn distance(&self, product: i32) -> f32 {
        let scale = f64::from(self.scale.get());
        (1.0 - f64::from(product) / (scale * scale)).max(0.0) as f32
    }

    /// Returns this assigner with another threshold.
    pub fn with_threshold(self, threshold: f32) -> Self {
        Self { threshold, ..self }
    }

    /// The score below which a row is an outlier.
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    /// Labels codes; where they are the sample's `own`, row i of it is left out for query i.
    fn assign_codes(&self, codes: &Matrix<i8>, own: bool) -> Result<Vec<Assignment>> {
        self.labels(
            codes.rows(),
            |gpu, rows, params| {
                let part: Vec<u32> = rows.clone().map(|row| row as u32).collect();
                gpu.label_codes(&codes.gather(&part), own.then_some(rows.start), params)
            },
            || self.assign_here(codes, |row| own.then_some(row as u32)),
        )
    }

    /// Labels `rows` rows: parts of them by `on_gpu`, or all by `here` where there is no GPU or none has room.
    fn labels(
        &self,
        rows: usize,
        on_gpu: impl Fn(&Voters, Range<usize>, &VoteParams) -> kernels::Result<Votes> + Sync,
        here: impl Fn() -> Result<Vec<Assignment>>,
    ) -> Result<Vec<Assignment>> {
        let OnGpus { device, voters, full } = &*self.gpus;
        let device = if full.load(Ordering::Relaxed) { &Device::cpu() } else { device };
        on_device(STAGE, device, None, |device| match device {
            Device::Cpu(_) => here(),
            Device::Cuda(_) => {
                let found = self.on_gpus(voters, rows, &on_gpu);
                if matches!(found, Err(Error::Kernel(kernels::Error::DeviceMemory { .. }))) {
                    full.store(true, Ordering::Relaxed);
                }
                found
            }
        })
    }

    /// Labels codes on the processor; `left_out` says which row of the sample has no vote for a row of them.
    fn assign_here(
        &self,
        codes: &Matrix<i8>,
        left_out: impl Fn(usize) -> Option<u32> + Sync,
    ) -> Result<Vec<Assignment>> {
        let k = self.config.top_k.min(self.topics.len());
        let wider = (k + usize::from(left_out(0).is_some())).min(self.topics.len());
        let near = topk_codes(codes, &self.codes, wider)?;
        Ok((0..codes.rows())
            .into_par_iter()
            .map(|row| {
                let left_out = left_out(row);
                let voters = near.indices.row(row).iter().zip(near.scores.row(row));
                let voters = voters.filter(|(index, _)| Some(**index) != left_out).take(k);
                self.vote(voters.map(|(index, dot)| (self.topics[*index as usize], *dot)))
            })
            .collect())
    }

    /// Labels `rows` rows in parts, each by `label` on one of the GPUs.
    fn on_gpus(
        &self,
        gpus: &[Voters],
        rows: usize,
        label: impl Fn(&Voters, Range<usize>, &VoteParams) -> kernels::Result<Votes> + Sync,
    ) -> Result<Vec<Assignment>> {
        let params = VoteParams {
            k: self.config.top_k.min(self.topics.len()),
            // No more can vote than there are voters.
            listed: self.config.top_topics.min(self.config.top_k),
            threshold: self.threshold,
            outliers_abstain: self.config.outliers == OutlierVote::Abstain,
        };
        let parts: Vec<Range<usize>> =
            (0..rows).step_by(self.gpu_rows).map(|first| first..rows.min(first + self.gpu_rows)).collect();
        let of_gpu = |which: usize| {
            let own = parts.iter().skip(which).step_by(gpus.len());
            own.map(|part| Ok(label(&gpus[which], part.clone(), &params)?)).collect::<Result<Vec<Votes>>>()
        };
        let mut found: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..gpus.len()).map(|which| scope.spawn(move || of_gpu(which))).collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Result<Vec<Vec<Votes>>>>()
        })?
        .into_iter()
        .map(Vec::into_iter)
        .collect();
        let in_order = (0..parts.len()).filter_map(|part| found[part % gpus.len()].next());
        Ok(in_order.flat_map(assignments).collect())
    }

    /// Counts the votes of (topic, dot product), nearest first.
    fn vote(&self, voters: impl Iterator<Item = (i32, i32)>) -> Assignment {
        struct Tally {
            topic: i32,
            votes: usize,
            first: usize,
            dots: i64,
        }
        let mut tallies: Vec<Tally> = Vec::new();
        let mut cast = 0;
        for (rank, (topic, dot)) in voters.enumerate() {
            if topic < 0 && self.config.outliers == OutlierVote::Abstain {
                continue;
            }
            cast += 1;
            match tallies.iter_mut().find(|t| t.topic == topic) {
                Some(tally) => {
                    tally.votes += 1;
                    tally.dots += i64::from(dot);
                }
                None => tallies.push(Tally { topic, votes: 1, first: rank, dots: i64::from(dot) }),
            }
        }
        // Most votes, then the nearest voter; ranks differ, so the smaller id never needs to decide.
        tallies.sort_by(|a, b| b.votes.cmp(&a.votes).then(a.first.cmp(&b.first)).then(a.topic.cmp(&b.topic)));
        let score = |tally: &Tally| {
            let mean = self.scale.similarity(tally.dots as f64 / tally.votes as f64);
            (tally.votes as f64 / cast as f64 * mean).clamp(0.0, 1.0) as f32
        };
        let Some(winner) = tallies.first() else { return Assignment::none() };
        let best = score(winner);
        Assignment {
            topic: if best < self.threshold { -1 } else { winner.topic },
            score: best,
            topics: tallies
                .iter()
                .filter(|t| t.topic >= 0)
                .take(self.config.top_topics)
                .map(|t| (t.topic, score(t)))
                .collect(),
        }
    }
}

/// What a GPU found of each row.
fn assignments(votes: Votes) -> Vec<Assignment> {
    let Votes { topics, scores, listed_topics, listed_scores } = votes;
    let rows = topics.into_iter().zip(scores).enumerate();
    rows.map(|(row, (topic, score))| {
        let listed = listed_topics.row(row).iter().copied().zip(listed_scores.row(row).iter().copied());
        Assignment { topic, score, topics: listed.take_while(|(topic, _)| *topic >= 0).collect() }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigner(topics: Vec<i32>, config: LabelConfig) -> Assigner {
        // Row i of the sample is the code 100 - i: the nearest to a positive query is the first row.
        let codes: Vec<i8> = (0..topics.len()).map(|i| 100 - i as i8).collect();
        let codes = Matrix::try_from_vec(topics.len(), 1, codes).unwrap();
        Assigner::try_new(&Device::cpu(), &codes, SearchScale::try_new(100.0).unwrap(), topics, config, 0.0)
            .unwrap()
    }

    fn label(assigner: &Assigner) -> Assignment {
        assigner.assign(&Matrix::try_from_vec(1, 1, vec![1.0]).unwrap()).unwrap().remove(0)
    }

    fn with_k(top_k: usize) -> LabelConfig {
        LabelConfig { top_k, ..LabelConfig::default() }
    }

    #[test]
    fn most_votes_win_and_ties_go_to_the_nearest() {
        assert_eq!(label(&assigner(vec![1, 2, 2, 1, 3], with_k(3))).topic, 2);
        assert_eq!(label(&assigner(vec![5, 2, 2, 5], with_k(4))).topic, 5, "the nearest voter is of topic 5");
        assert_eq!(
            label(&assigner(vec![3, 1], with_k(10))).topic,
            3,
            "more neighbours asked for than there are"
        );
    }

    #[test]
    fn the_score_is_the_share_of_votes_times_the_mean_similarity() {
        let found = label(&assigner(vec![1, 2, 1, -1], with_k(4)));
        assert_eq!(found.topic, 1);
        assert!((found.score - 0.5 * (1.0 + 0.98) / 2.0).abs() < 1e-6, "{found:?}");
        let listed: Vec<i32> = found.topics.iter().map(|t| t.0).collect();
        assert_eq!(listed, [1, 2], "outliers are not listed");
    }

    #[test]
    fn the_length_of_a_vector_changes_nothing() {
        let vectors = Matrix::try_from_vec(2, 2, vec![0.8, 0.6, 0.6, -0.8]).unwrap();
        let scale = SearchScale::of(&vectors).unwrap();
        let codes = scale.codes(&vectors).unwrap();
        let assigner = Assigner::try_new(&Device::cpu(), &codes, scale, vec![0, 1], with_k(1), 0.0).unwrap();
        let near = |length: f32| Matrix::try_from_vec(1, 2, vec![0.75 * length, 0.5 * length]).unwrap();
        let found = assigner.assign(&near(1.0)).unwrap();
        assert_eq!(found[0].topic, 0);
        for length in [0.01, 0.5, 8.0, 1e6] {
            assert_eq!(assigner.assign(&near(length)).unwrap(), found, "{length}");
        }
    }

    #[test]
    fn outlying_neighbours_vote_or_abstain() {
        let topics = vec![-1, -1, 4];
        assert_eq!(label(&assigner(topics.clone(), with_k(3))).topic, -1);
        let abstain = LabelConfig { outliers: OutlierVote::Abstain, ..with_k(3) };
        let found = label(&assigner(topics, abstain.clone()));
        assert!(found.topic == 4 && (found.score - 0.98).abs() < 1e-6, "{found:?}");
        let lonely = label(&assigner(vec![-1], abstain));
        assert_eq!((lonely.topic, lonely.score), (-1, 0.0));
    }

    #[test]
    fn a_low_score_is_rejected_but_shown() {
        let found = label(&assigner(vec![1, 2, 3], with_k(3)).with_threshold(0.5));
        assert!(found.topic == -1 && found.score > 0.3 && found.topics.len() == 3, "{found:?}");
    }

    #[test]
    fn the_threshold_keeps_the_wanted_share_of_rows_it_has_not_seen() {
        // Directions in 16 dimensions: nearest neighbours differ in distance and in topic, so scores hardly tie.
        let n = 2000;
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        };
        let mut vectors = Matrix::try_from_vec(n, 16, (0..n * 16).map(|_| next()).collect()).unwrap();
        kernels::norm::l2_normalise(kernels::Isa::detect(), vectors.as_mut_slice(), 16);
        let scale = SearchScale::of(&vectors).unwrap();
        let codes = scale.codes(&vectors).unwrap();
        let config = LabelConfig { coverage: 0.8, ..LabelConfig::default() };
        let topics = vectors.iter_rows().map(|row| i32::from(row[0] > 0.0)).collect();
        let assigner = Assigner::try_new(&Device::cpu(), &codes, scale, topics, config, 0.0).unwrap();
        let threshold = assigner.calibrate(&codes, |row| row % 2 == 0).unwrap();
        assert_eq!(threshold.held_out_rows, 1000);
        let reached = threshold.coverage.unwrap();
        // Three standard deviations of a share of 0.8 over 1,000 rows.
        assert!((reached - 0.8).abs() < 0.04, "{reached}");
    }
}
