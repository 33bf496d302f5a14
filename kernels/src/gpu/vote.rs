//! Labelling on a GPU: nearest sample rows by their codes, and their vote, in one go; only labels leave the device.
//!
//! The formula is that of `operators::assign`, in the same order of operations: equal codes give the same bits.

use super::quantize::{Code, Coder, unit_rows};
use super::search::{Found, Points, Rows};
use super::{Address, Buffer, Gpu, int};
use crate::search_codes::SearchScale;
use crate::{Error, Matrix, Result};
use std::sync::Arc;

/// How neighbours vote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VoteParams {
    /// Neighbours that vote.
    pub k: usize,
    /// Best topics that are listed.
    pub listed: usize,
    /// A lower score is none.
    pub threshold: f32,
    /// Whether neighbours without a topic do not vote, rather than for none.
    pub outliers_abstain: bool,
}

/// Labels of some rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Votes {
    /// The topic of each, −1 for none.
    pub topics: Vec<i32>,
    /// Its score; of a rejected row, the one that was too low.
    pub scores: Vec<f32>,
    /// rows × listed: the best topics, −1 after the last.
    pub listed_topics: Matrix<i32>,
    /// rows × listed: their scores.
    pub listed_scores: Matrix<f32>,
}

/// A fitted sample in a GPU's memory.
#[derive(Debug)]
pub struct Voters {
    points: Points,
    topics: Buffer<i32>,
    scale: SearchScale,
    coder: Coder,
}

/// `VoteParams` of search_finish.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Params {
    queries: i32,
    k: i32,
    indices: Address,
    products: Address,
    found: i32,
    first_own: i32,
    topics: Address,
    square_scale: f64,
    threshold: f32,
    outliers_abstain: i32,
    topic: Address,
    score: Address,
    listed: i32,
    padding: i32,
    best_topics: Address,
    best_scores: Address,
}

/// The most neighbours that vote: each looks at all others.
pub const MAX_VOTERS: usize = 256;

impl Voters {
    /// Takes the codes of a sample, their scale and the topic of each row to the GPU.
    pub fn new(gpu: &Arc<Gpu>, codes: &Matrix<i8>, scale: SearchScale, topics: &[i32]) -> Result<Self> {
        assert_eq!(codes.rows(), topics.len());
        Ok(Self {
            points: Points::codes(gpu, codes)?,
            topics: gpu.upload(topics)?,
            scale,
            coder: Coder::new(gpu, Code::Search(scale))?,
        })
    }

    /// Labels rows of any length, whose numbers must be finite.
    pub fn label(&self, vectors: &[f32], params: &VoteParams) -> Result<Votes> {
        let cols = self.points.cols();
        let rows = vectors.len() / cols.max(1);
        let there = self.points.gpu().upload(vectors)?;
        let unit = unit_rows(&there, rows, cols)?;
        let queries = Rows::coded(&unit, rows, cols, &self.coder)?;
        self.vote(&queries, None, params)
    }

    /// Labels rows by their codes; with `own`, query i is row `own + i` of the sample, which does not vote for itself.
    pub fn label_codes(&self, codes: &Matrix<i8>, own: Option<usize>, params: &VoteParams) -> Result<Votes> {
        self.vote(&Rows::codes(self.points.gpu(), codes)?, own, params)
    }

    fn vote(&self, queries: &Rows, own: Option<usize>, params: &VoteParams) -> Result<Votes> {
        let (rows, gpu, listed) = (queries.rows(), self.points.gpu(), params.listed);
        if params.k > MAX_VOTERS {
            let expected = format!("at most {MAX_VOTERS} on a GPU");
            return Err(Error::Shape { what: "voters", expected, found: params.k.to_string() });
        }
        let taken = (params.k + usize::from(own.is_some())).min(self.points.rows());
        let Found { indices, products, .. } = self.points.nearest(queries, taken)?;
        let (topic, score) = (gpu.allocate::<i32>(rows)?, gpu.allocate::<f32>(rows)?);
        let (best_topics, best_scores) =
            (gpu.allocate::<i32>(rows * listed)?, gpu.allocate::<f32>(rows * listed)?);
        let launch = gpu.launch("search_vote").grid(rows.div_ceil(128), 1).block(128).arg(Params {
            queries: int(rows),
            k: int(params.k),
            indices: indices.address(),
            products: products.address(),
            found: int(taken),
            first_own: own.map_or(-1, int),
            topics: self.topics.address(),
            square_scale: f64::from(self.scale.get()).powi(2),
            threshold: params.threshold,
            outliers_abstain: i32::from(params.outliers_abstain),
            topic: topic.address(),
            score: score.address(),
            listed: int(listed),
            padding: 0,
            best_topics: best_topics.address(),
            best_scores: best_scores.address(),
        });
        // SAFETY: neighbours are rows of the sample, which all have a topic; outputs have room for all queries.
        unsafe { launch.start() }?;
        Ok(Votes {
            topics: topic.download(rows)?,
            scores: score.download(rows)?,
            listed_topics: Matrix::try_from_vec(rows, listed, best_topics.download(rows * listed)?)?,
            listed_scores: Matrix::try_from_vec(rows, listed, best_scores.download(rows * listed)?)?,
        })
    }
}
