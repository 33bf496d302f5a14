//! k-means: centroids such that points lie near theirs, by Lloyd's iterations from seeds chosen by greedy k-means++.
//!
//! - Formula: least inertia `Σ_i min_j |x_i − c_j|²` (Lloyd 1982). Seeding after Arthur, Vassilvitskii (2007), each
//!   seed the best of `2 + ⌊ln k⌋` candidates, as in scikit-learn.
//! - A point's nearest centroid is that of the largest `x·c − |c|²/2`, ties to the smaller. Products are chains of
//!   fused multiply-adds over the dimensions, in f32 ([`crate::gemm`]). Points that lie a thousand times further from 0
//!   than from each other lose digits by that (unit vectors and layouts do not): take their mean away first.
//! - Centroids are sums in f64: each 256 members of a cluster in row order, then those sums in order.
//! - A centroid that is nearest to no point moves to the point that is furthest from its own.
//! - Cost: 2·n·k·d operations an iteration; for all seeds as many times that as a seed has candidates, rounded up to 8,
//!   16 or 32 on a GPU and to 32 on the processor. What passes over all points is a device's. The same bits
//!   on any device, at any thread count.

mod cpu;
mod seeds;
#[cfg(test)]
mod tests;

pub(crate) use seeds::{BLOCK, MAX_CANDIDATES, Seeding};

use crate::layout::mix64;
use crate::simd::dispatch;
use crate::{Device, Error, Isa, Matrix, Result, gpu};
use rayon::prelude::*;
use seeds::{Random, plus_plus};
use std::ops::ControlFlow;

/// Members of a cluster that are summed together.
pub(crate) const SEGMENT: usize = 256;

/// Rows of a sum over all points.
const SUMMED_ROWS: usize = 1024;

/// The longest squared length: products of such points and their sums are far from what f32 ends at.
const MAX_SQUARED_LENGTH: f32 = 1e36;

/// How centroids are looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct KMeansParams {
    /// k: how many centroids, from 1 to the number of points.
    pub clusters: usize,
    /// The most iterations of a run.
    pub max_iter: u32,
    /// A run ends when the squared distances that its centroids moved add up to this part of the mean variance of a
    /// dimension, or when no point changes its cluster.
    pub tolerance: f64,
    /// Where a run begins.
    pub init: Init,
}

/// Where a run of k-means begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Init {
    /// At seeds drawn by k-means++, so many times: the run of least inertia stays.
    PlusPlus {
        /// Runs; 0 is as 1.
        runs: u32,
        /// Candidates for a seed, 1 to 32. None: 2 + ⌊ln k⌋.
        candidates: Option<usize>,
        /// The seed of all random numbers.
        seed: u64,
    },
    /// At these (k × d).
    At(Matrix<f32>),
}

/// What k-means found.
#[derive(Debug, Clone, PartialEq)]
pub struct KMeans {
    /// k × d; fewer where fewer points differ, or where iterations ended with a centroid that is nearest to no point.
    pub centroids: Matrix<f32>,
    /// The nearest centroid of each point.
    pub labels: Vec<u32>,
    /// The simplified silhouette of each point (Hruschka et al. 2006), 0 to 1: by how much the second nearest centroid
    /// is further away than the nearest, as a part of its distance. 1 where there is one centroid.
    pub silhouettes: Vec<f32>,
    /// The sum of squared distances to the nearest centroids.
    pub inertia: f64,
    /// Iterations of the run that stayed.
    pub iterations: u32,
}

/// Finds centroids of the rows of `points` (n × d).
///
/// `stop` is asked once a seed and once an iteration, and may break off.
///
/// # Errors
/// `Shape` for 0 clusters or more than points, points of no columns, initial centroids of another shape, rows longer than
/// 1e18, and candidates beyond 1 to 32; `NotFinite` for what is no number; `Stopped` if `stop` breaks; what a GPU says
/// where it fails or has too little memory: it holds the points (rows padded to four numbers), of each 16 bytes and, while
/// seeds are chosen, 8 for each candidate, and sums of every 256.
pub fn kmeans(
    points: &Matrix<f32>,
    params: &KMeansParams,
    device: &Device,
    stop: &dyn Fn() -> ControlFlow<()>,
) -> Result<KMeans> {
    let (k, d) = (params.clusters, points.cols());
    let refused = |what, expected: String, found: String| Err(Error::Shape { what, expected, found });
    if k == 0 || k > points.rows() {
        return refused("clusters", format!("1 to {} points", points.rows()), k.to_string());
    }
    if d == 0 {
        return refused("points", "at least 1 column".into(), "none".into());
    }
    match &params.init {
        Init::At(centroids) if (centroids.rows(), centroids.cols()) != (k, d) => {
            let found = format!("{} x {}", centroids.rows(), centroids.cols());
            return refused("initial centroids", format!("{k} x {d}"), found);
        }
        Init::PlusPlus { candidates: Some(count), .. } if !(1..=MAX_CANDIDATES).contains(count) => {
            return refused("candidates", format!("1 to {MAX_CANDIDATES}"), count.to_string());
        }
        Init::At(centroids) => drop(check_rows(device.isa(), centroids, "initial centroids")?),
        Init::PlusPlus { .. } => {}
    }
    let squared_lengths = check_rows(device.isa(), points, "points of k-means")?;
    let stop = || if stop().is_break() { Err(Error::Stopped("k-means")) } else { Ok(()) };
    let mut passes: Box<dyn Passes + '_> = match device.gpu() {
        Some(gpu) => Box::new(gpu::kmeans::Points::upload(gpu, points, squared_lengths)?),
        None => Box::new(cpu::Points::new(device.isa(), points, squared_lengths)),
    };
    let tolerance = params.tolerance * mean_variance(device.isa(), points);
    let run = |initial, passes: &mut dyn Passes| {
        Lloyd { isa: device.isa(), points, passes, tolerance, max_iter: params.max_iter }.run(initial, &stop)
    };
    match &params.init {
        Init::At(centroids) => run(centroids.clone(), passes.as_mut()),
        Init::PlusPlus { runs, seed, candidates } => {
            let candidates = candidates.unwrap_or((2 + (k as f64).ln() as usize).min(MAX_CANDIDATES));
            let mut seeded = |number: u32| {
                let random = Random::new(mix64(seed ^ mix64(u64::from(number))));
                let seeds = plus_plus(points.rows(), k, candidates, passes.as_mut(), random, &stop)?;
                run(points.gather(&seeds), passes.as_mut())
            };
            let mut best = seeded(0)?;
            for number in 1..*runs {
                let found = seeded(number)?;
                if found.inertia < best.inertia {
                    best = found;
                }
            }
            Ok(best)
        }
    }
}

/// What a device does for k-means: the passes over all points.
pub(crate) trait Passes: Seeding {
    /// Finds the nearest centroid of each point.
    fn nearest(&mut self, centroids: &Matrix<f32>) -> Result<Vec<u32>>;
    /// The same, and the second nearest of two or more.
    fn nearest_two(&mut self, centroids: &Matrix<f32>) -> Result<[Vec<u32>; 2]>;
    /// The sum of each cluster's points: k × d.
    fn sums(&mut self, members: &Members) -> Result<Vec<f64>>;
}

/// The points of each cluster.
pub(crate) struct Members {
    /// Rows by cluster, in each in rising order.
    pub order: Vec<u32>,
    /// Where each segment's rows begin in `order`, then the end of the last one's.
    pub segments: Vec<u32>,
    /// Where each cluster's segments begin, then the end of the last one's.
    pub clusters: Vec<u32>,
}

impl Members {
    fn of(labels: &[u32], sizes: &[u32]) -> Self {
        let (mut segments, mut clusters) = (Vec::new(), vec![0]);
        let mut ends = Vec::with_capacity(sizes.len());
        let mut first = 0;
        for &size in sizes {
            ends.push(first);
            segments.extend((first..first + size).step_by(SEGMENT));
            clusters.push(segments.len() as u32);
            first += size;
        }
        segments.push(first);
        let mut order = vec![0; labels.len()];
        for (row, &label) in labels.iter().enumerate() {
            let end = &mut ends[label as usize];
            order[*end as usize] = row as u32;
            *end += 1;
        }
        Self { order, segments, clusters }
    }
}

/// The half squared lengths of centroids, by the chain that products are.
pub(crate) fn half_squared_lengths(isa: Isa, centroids: &Matrix<f32>) -> impl Iterator<Item = f32> {
    centroids.iter_rows().map(move |row| 0.5 * squared_length(isa, row))
}

/// One chain, as [`crate::gemm`] multiplies a row by itself: equal rows are at distance 0 to the bit.
fn squared_length(isa: Isa, row: &[f32]) -> f32 {
    #[inline(always)]
    fn body(row: &[f32]) -> f32 {
        row.iter().fold(0.0, |sum, v| v.mul_add(*v, sum))
    }
    dispatch!(isa, body(row: &[f32]) -> f32)
}

/// The squared length of each row; fails for rows that cannot be clustered.
fn check_rows(isa: Isa, points: &Matrix<f32>, what: &'static str) -> Result<Vec<f32>> {
    points.check_finite()?;
    let lengths: Vec<f32> = points
        .as_slice()
        .par_chunks(points.cols() * SUMMED_ROWS)
        .flat_map_iter(|rows| rows.chunks(points.cols()).map(|row| squared_length(isa, row)))
        .collect();
    match lengths.iter().position(|length| *length > MAX_SQUARED_LENGTH) {
        None => Ok(lengths),
        Some(row) => Err(Error::Shape {
            what,
            expected: "rows no longer than 1e18".into(),
            found: format!("row {row} of length {:.1e}", f64::from(lengths[row]).sqrt()),
        }),
    }
}

/// The variance of a dimension's values, on average over the dimensions.
fn mean_variance(isa: Isa, points: &Matrix<f32>) -> f64 {
    let (n, d) = (points.rows() as f64, points.cols());
    let parts: Vec<(Vec<f64>, f64)> = points
        .as_slice()
        .par_chunks(d * SUMMED_ROWS)
        .map(|rows| {
            let (mut sums, zeros) = (vec![0f64; d], vec![0f32; d]);
            let of_row = |row: &[f32]| {
                cpu::add(isa, &mut sums, row);
                squared_distance(isa, row, &zeros)
            };
            let squares = rows.chunks_exact(d).map(of_row).sum();
            (sums, squares)
        })
        .collect();
    let of_mean: f64 = (0..d).map(|j| (parts.iter().map(|(sums, _)| sums[j]).sum::<f64>() / n).powi(2)).sum();
    let squares: f64 = parts.iter().map(|(_, squares)| squares).sum();
    ((squares / n - of_mean) / d as f64).max(0.0)
}

/// The squared distance of two rows, by eight sums in f64 without fused steps: the same bits on every processor.
fn squared_distance(isa: Isa, a: &[f32], b: &[f32]) -> f64 {
    #[inline(always)]
    fn body(a: &[f32], b: &[f32]) -> f64 {
        let mut sums = [0f64; 8];
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
        for (a, b) in a.iter().zip(b) {
            for i in 0..8 {
                let difference = f64::from(a[i]) - f64::from(b[i]);
                sums[i] += difference * difference;
            }
        }
        for ((sum, a), b) in sums.iter_mut().zip(a_rest).zip(b_rest) {
            let difference = f64::from(*a) - f64::from(*b);
            *sum += difference * difference;
        }
        sums.iter().sum()
    }
    dispatch!(isa, body(a: &[f32], b: &[f32]) -> f64)
}

/// Runs of Lloyd's iterations.
struct Lloyd<'a> {
    isa: Isa,
    points: &'a Matrix<f32>,
    passes: &'a mut dyn Passes,
    /// The sum of squared moves at which a run ends.
    tolerance: f64,
    max_iter: u32,
}

impl Lloyd<'_> {
    fn run(mut self, mut centroids: Matrix<f32>, stop: &dyn Fn() -> Result<()>) -> Result<KMeans> {
        let mut labels = self.passes.nearest(&centroids)?;
        let mut iterations = 0;
        while iterations < self.max_iter {
            stop()?;
            iterations += 1;
            let moved = self.means(&labels, &centroids)?;
            let moves: f64 = moved
                .iter_rows()
                .zip(centroids.iter_rows())
                .map(|(a, b)| squared_distance(self.isa, a, b))
                .sum();
            let found = self.passes.nearest(&moved)?;
            // A cluster that lost its last point is filled again, unless that has just changed nothing.
            let all_have_points = || !sizes(&found, moved.rows()).contains(&0);
            let settled = found == labels || (moves <= self.tolerance && all_have_points());
            (centroids, labels) = (moved, found);
            if settled {
                break;
            }
        }
        self.finish(&centroids, &labels, iterations)
    }

    /// The means of the clusters; of one without points, the point that is furthest from its centroid.
    fn means(&mut self, labels: &[u32], centroids: &Matrix<f32>) -> Result<Matrix<f32>> {
        let (k, d) = (centroids.rows(), centroids.cols());
        let mut sizes = sizes(labels, k);
        let mut labels = std::borrow::Cow::Borrowed(labels);
        if sizes.contains(&0) {
            self.fill_empty(labels.to_mut(), &mut sizes, centroids);
        }
        let sums = self.passes.sums(&Members::of(&labels, &sizes))?;
        let mut means = centroids.clone();
        for (cluster, sums) in sums.chunks_exact(d).enumerate().filter(|(cluster, _)| sizes[*cluster] > 0) {
            for (mean, sum) in means.row_mut(cluster).iter_mut().zip(sums) {
                *mean = (sum / f64::from(sizes[cluster])) as f32;
            }
        }
        Ok(means)
    }

    /// Gives each cluster without points one that another can spare, the furthest from their centroids first.
    fn fill_empty(&self, labels: &mut [u32], sizes: &mut [u32], centroids: &Matrix<f32>) {
        let (isa, points) = (self.isa, self.points);
        let row = |row: u32| points.row(row as usize);
        let mut far: Vec<(f64, u32)> = (0..labels.len() as u32)
            .into_par_iter()
            .map(|i| (squared_distance(isa, row(i), centroids.row(labels[i as usize] as usize)), i))
            .collect();
        far.par_sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut far = far.into_iter();
        for empty in 0..sizes.len() as u32 {
            if sizes[empty as usize] > 0 {
                continue;
            }
            let can_be_spared =
                |(distance, row): &(f64, u32)| *distance > 0.0 && sizes[labels[*row as usize] as usize] > 1;
            let Some((_, row)) = far.find(can_be_spared) else { break };
            sizes[labels[row as usize] as usize] -= 1;
            sizes[empty as usize] = 1;
            labels[row as usize] = empty;
        }
    }

    /// Leaves out centroids that are nearest to no point, and measures the others.
    fn finish(self, centroids: &Matrix<f32>, labels: &[u32], iterations: u32) -> Result<KMeans> {
        let sizes = sizes(labels, centroids.rows());
        let used: Vec<u32> = (0..centroids.rows() as u32).filter(|&c| sizes[c as usize] > 0).collect();
        let centroids = centroids.gather(&used);
        let [labels, second] = self.passes.nearest_two(&centroids)?;
        let (isa, points) = (self.isa, self.points);
        let measure = |rows: std::ops::Range<usize>| -> (Vec<f32>, f64) {
            let mut inertia = 0.0;
            let of_row = |row: usize| {
                let point = points.row(row);
                let to = |centroid: u32| squared_distance(isa, point, centroids.row(centroid as usize));
                let near = to(labels[row]);
                inertia += near;
                if centroids.rows() == 1 {
                    return 1.0;
                }
                let (near, far) = (near.sqrt(), to(second[row]).sqrt());
                // Ranks by rounded products may be the other way around; twice the same place is no choice at all.
                if far > near { ((far - near) / far) as f32 } else { 0.0 }
            };
            (rows.map(of_row).collect(), inertia)
        };
        let n = labels.len();
        let parts: Vec<(Vec<f32>, f64)> = (0..n.div_ceil(SUMMED_ROWS))
            .into_par_iter()
            .map(|part| measure(part * SUMMED_ROWS..n.min((part + 1) * SUMMED_ROWS)))
            .collect();
        let inertia = parts.iter().map(|(_, inertia)| inertia).sum();
        let silhouettes = parts.into_iter().flat_map(|(part, _)| part).collect();
        Ok(KMeans { centroids, labels, silhouettes, inertia, iterations })
    }
}

/// How many points each of k clusters has.
fn sizes(labels: &[u32], k: usize) -> Vec<u32> {
    let mut sizes = vec![0; k];
    for &label in labels {
        sizes[label as usize] += 1;
    }
    sizes
}
