//! The fuzzy graph of UMAP: who belongs to whose neighbourhood, and how much.
//!
//! Each row's distances are measured from its nearest neighbour (ρ) and in units (σ) that give every neighbourhood
//! the same size, log₂ k; the memberships exp(−(d − ρ) / σ) of both directions are then joined by a fuzzy union.
//! (McInnes, Healy and Melville, "UMAP", 2018, section 3.1; umap-learn's `fuzzy_simplicial_set`.)

use crate::{Error, Result};
use kernels::{Matrix, layout::Edges};
use rayon::prelude::*;

/// A symmetric weighted graph over rows, without loops, as compressed sparse rows with rising targets.
#[derive(Debug, Clone, PartialEq)]
pub struct FuzzyGraph {
    offsets: Vec<usize>,
    targets: Vec<u32>,
    weights: Vec<f32>,
    neighbours: usize,
    mean_distance: f32,
}

impl FuzzyGraph {
    /// Builds the graph from each row's k nearest rows, itself among them: `indices` and `distances` are n × k, each
    /// row's distances rising from about 0.
    ///
    /// Distances up to `rounding` count as 0, and so does a row's distance to itself: otherwise the noise of an inexact
    /// distance would pass for the nearest neighbour's. `local_connectivity` neighbours count as fully connected
    /// (fractions interpolate); `set_op_mix_ratio` goes from fuzzy intersection (0) to union (1). Fails if shapes
    /// differ, an index is no row, or a distance is no finite number.
    pub fn build(
        indices: &Matrix<u32>,
        distances: &Matrix<f32>,
        rounding: f32,
        local_connectivity: f32,
        set_op_mix_ratio: f32,
    ) -> Result<Self> {
        let (n, k) = (indices.rows(), indices.cols());
        check_neighbours(indices, distances, n)?;
        let mean_distance = mean(distances.as_slice());
        let mut weights = vec![0f32; n * k];
        weights.par_chunks_mut(k.max(1)).enumerate().for_each(|(i, weights)| {
            let apart = |(&j, &d): (&u32, &f32)| if j as usize == i || d <= rounding { 0.0 } else { d };
            let distances: Vec<f32> = indices.row(i).iter().zip(distances.row(i)).map(apart).collect();
            memberships(&distances, local_connectivity, mean_distance, weights);
            for (weight, &j) in weights.iter_mut().zip(indices.row(i)) {
                if j as usize == i {
                    *weight = 0.0;
                }
            }
        });

        let forward = Rows::sorted(indices, &weights);
        let backward = forward.transposed(n);
        let joined: Vec<Vec<(u32, f32)>> =
            (0..n).into_par_iter().map(|i| join(forward.row(i), backward.row(i), set_op_mix_ratio)).collect();
        let mut graph =
            Self { offsets: vec![0], targets: Vec::new(), weights: Vec::new(), neighbours: k, mean_distance };
        for row in &joined {
            graph.targets.extend(row.iter().map(|e| e.0));
            graph.weights.extend(row.iter().map(|e| e.1));
            graph.offsets.push(graph.targets.len());
        }
        Ok(graph)
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The size of each row's neighbourhood, the row itself included.
    pub fn neighbours(&self) -> usize {
        self.neighbours
    }

    /// The mean of all distances the graph was built from.
    pub fn mean_distance(&self) -> f32 {
        self.mean_distance
    }

    /// The graph as kernels take it.
    pub fn edges(&self) -> Edges<'_> {
        Edges { offsets: &self.offsets, targets: &self.targets, weights: &self.weights }
    }

    /// The neighbours of row `i` and the weights of its edges to them.
    pub fn row(&self, i: usize) -> impl Iterator<Item = (u32, f32)> {
        let range = self.offsets[i]..self.offsets[i + 1];
        self.targets[range.clone()].iter().copied().zip(self.weights[range].iter().copied())
    }

    /// Returns the graph without the edges that a layout of `epochs` would never come to: w < max w / epochs.
    pub fn pruned(&self, epochs: u32) -> Self {
        let least = self.weights.iter().copied().fold(0f32, f32::max) / epochs.max(1) as f32;
        let mut kept = Self { offsets: vec![0], targets: Vec::new(), weights: Vec::new(), ..*self };
        for i in 0..self.rows() {
            for (target, weight) in self.row(i).filter(|&(_, w)| w >= least) {
                kept.targets.push(target);
                kept.weights.push(weight);
            }
            kept.offsets.push(kept.targets.len());
        }
        kept
    }
}

/// Fails unless `indices` and `distances` have the same shape, and hold rows below `n` and finite distances.
pub(super) fn check_neighbours(indices: &Matrix<u32>, distances: &Matrix<f32>, n: usize) -> Result<()> {
    if (indices.rows(), indices.cols()) != (distances.rows(), distances.cols()) {
        return Err(Error::Kernel(kernels::Error::Shape {
            what: "neighbours' distances",
            expected: format!("{} x {}, as the indices", indices.rows(), indices.cols()),
            found: format!("{} x {}", distances.rows(), distances.cols()),
        }));
    }
    if let Some(index) = indices.as_slice().iter().find(|&&j| j as usize >= n) {
        return Err(Error::Internal(format!("neighbour {index} is no row of the {n} that there are")));
    }
    Ok(distances.check_finite()?)
}

/// Writes the membership of each of a row's neighbours: exp(−(d − ρ) / σ), 1 up to ρ.
///
/// ρ is the distance of the `local_connectivity`-th neighbour that is not at distance 0 (0 for a connectivity of
/// 0), σ solves Σ_{j ≥ 1} exp(−max(0, dⱼ − ρ) / σ) = log₂ k, but is at least a thousandth of the row's mean
/// distance, or of `mean_distance` where ρ = 0.
pub(super) fn memberships(
    distances: &[f32],
    local_connectivity: f32,
    mean_distance: f32,
    weights: &mut [f32],
) {
    let rho = nearest_distance(distances, local_connectivity);
    let scale = if rho > 0.0 { mean(distances) } else { mean_distance };
    let sigma = bandwidth(distances, rho).max(LEAST_BANDWIDTH * scale);
    for (weight, &d) in weights.iter_mut().zip(distances) {
        *weight = if d - rho <= 0.0 || sigma == 0.0 { 1.0 } else { (-((d - rho) / sigma)).exp() };
    }
}

/// σ is at least this share of the mean distance: umap-learn's `MIN_K_DIST_SCALE`.
const LEAST_BANDWIDTH: f32 = 1e-3;

/// How close a neighbourhood's size must come to log₂ k: umap-learn's `SMOOTH_K_TOLERANCE`.
const TOLERANCE: f64 = 1e-5;

/// The distance within which a row's neighbours count as fully connected.
fn nearest_distance(distances: &[f32], local_connectivity: f32) -> f32 {
    let apart: Vec<f32> = distances.iter().copied().filter(|&d| d > 0.0).collect();
    let Some(&farthest) = apart.last() else { return 0.0 };
    let whole = local_connectivity.floor();
    let (index, rest) = (whole as usize, local_connectivity - whole);
    if (apart.len() as f32) < local_connectivity {
        return farthest;
    }
    let at = if index > 0 { apart[index - 1] } else { 0.0 };
    // The next one's distance is interpolated to; where it is missing there is nothing to add.
    match apart.get(index) {
        Some(&next) if rest > 1e-5 => at + rest * (next - at),
        _ => at,
    }
}

/// Finds σ by Newton's method, between bounds that halve where a step leaves them: some five steps, where doubling and
/// bisection take twenty.
fn bandwidth(distances: &[f32], rho: f32) -> f32 {
    let target = (distances.len() as f64).log2();
    let beyond: Vec<f64> = distances.iter().skip(1).map(|&d| f64::from((d - rho).max(0.0))).collect();
    let mean = beyond.iter().sum::<f64>() / beyond.len().max(1) as f64;
    let (mut low, mut high, mut sigma) = (0f64, f64::INFINITY, if mean > 0.0 { mean } else { 1.0 });
    for _ in 0..64 {
        let (mut size, mut slope) = (0.0, 0.0);
        for d in &beyond {
            let membership = (-d / sigma).exp();
            size += membership;
            slope += membership * d / (sigma * sigma);
        }
        if (size - target).abs() < TOLERANCE {
            break;
        }
        if size > target {
            high = sigma;
        } else {
            low = sigma;
        }
        let step = sigma - (size - target) / slope;
        sigma = if step > low && step < high {
            step
        } else if high.is_infinite() {
            sigma * 2.0
        } else {
            (low + high) / 2.0
        };
    }
    sigma as f32
}

/// The mean, summed in f64 in order.
fn mean(values: &[f32]) -> f32 {
    (values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len().max(1) as f64) as f32
}

/// Directed edges as compressed sparse rows with rising targets.
struct Rows {
    offsets: Vec<usize>,
    entries: Vec<(u32, f32)>,
}

impl Rows {
    /// Takes the edges of each row; those of weight 0 stay, and make no difference.
    fn sorted(indices: &Matrix<u32>, weights: &[f32]) -> Self {
        let targets = indices.as_slice().par_iter().copied();
        let mut entries: Vec<(u32, f32)> = targets.zip(weights.par_iter().copied()).collect();
        let k = indices.cols();
        entries.par_chunks_mut(k.max(1)).for_each(|row| row.sort_unstable_by_key(|e| e.0));
        Self { offsets: (0..=indices.rows()).map(|i| i * k).collect(), entries }
    }

    fn row(&self, i: usize) -> &[(u32, f32)] {
        &self.entries[self.offsets[i]..self.offsets[i + 1]]
    }

    /// Turns each edge round.
    fn transposed(&self, n: usize) -> Self {
        let mut offsets = vec![0usize; n + 1];
        for &(target, _) in &self.entries {
            offsets[target as usize + 1] += 1;
        }
        for i in 0..n {
            offsets[i + 1] += offsets[i];
        }
        let mut next = offsets.clone();
        let mut entries = vec![(0, 0.0); self.entries.len()];
        for i in 0..n {
            for &(target, weight) in self.row(i) {
                entries[next[target as usize]] = (i as u32, weight); // rows are counted in u32, as indices are
                next[target as usize] += 1;
            }
        }
        Self { offsets, entries }
    }
}

/// Joins the two directions' memberships u and v: mix · (u + v − uv) + (1 − mix) · uv, where that is above 0.
fn join(forward: &[(u32, f32)], backward: &[(u32, f32)], mix: f32) -> Vec<(u32, f32)> {
    let mut joined = Vec::with_capacity(forward.len() + backward.len());
    let (mut f, mut b) = (forward, backward);
    while let Some(target) = f.first().into_iter().chain(b.first()).map(|e| e.0).min() {
        let take = |side: &mut &[(u32, f32)]| match side.split_first() {
            Some((entry, rest)) if entry.0 == target => {
                *side = rest;
                entry.1
            }
            _ => 0.0,
        };
        let (u, v) = (take(&mut f), take(&mut b));
        let weight = mix * (u + v - u * v) + (1.0 - mix) * (u * v);
        if weight > 0.0 {
            joined.push((target, weight));
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix<T: Copy + Default>(rows: &[&[T]]) -> Matrix<T> {
        Matrix::try_from_vec(rows.len(), rows[0].len(), rows.concat()).unwrap()
    }

    /// Points 0, 1, 3 and 7 on a line, each with its two nearest others.
    fn line() -> (Matrix<u32>, Matrix<f32>) {
        let indices = matrix(&[&[0u32, 1, 2][..], &[1, 0, 2], &[2, 1, 0], &[3, 2, 1]]);
        let distances =
            matrix(&[&[0f32, 1.0, 3.0][..], &[0.0, 1.0, 2.0], &[0.0, 2.0, 3.0], &[0.0, 4.0, 6.0]]);
        (indices, distances)
    }

    #[test]
    fn each_neighbourhood_has_the_size_log2_k() {
        let (_, distances) = line();
        for row in distances.iter_rows() {
            let mut weights = [0.0; 3];
            memberships(row, 1.0, 2.0, &mut weights);
            // The nearest other row is at ρ and so fully connected; the last one makes up the rest.
            assert_eq!(weights[1], 1.0);
            assert!((weights[1] + weights[2] - 3f32.log2()).abs() < 2e-5, "{weights:?}");
        }
    }

    #[test]
    fn bandwidths_solve_their_equation_wherever_it_has_a_solution() {
        // Neighbourhoods that rise evenly, steeply, in a step, and from one distance to another thousands of times it.
        let shapes: [fn(f64) -> f64; 4] =
            [|x| x, |x| x.powi(8), |x| f64::from(x > 0.4), |x| (9.0 * x).exp() / 100.0];
        for k in [3, 15, 100] {
            for shape in shapes {
                let row: Vec<f32> = (0..k).map(|i| shape(i as f64 / f64::from(k - 1)) as f32).collect();
                let rho = nearest_distance(&row, 1.0);
                let sigma = f64::from(bandwidth(&row, rho));
                let size = |sigma: f64| -> f64 {
                    row[1..].iter().map(|d| (-f64::from((d - rho).max(0.0)) / sigma).exp()).sum()
                };
                let within = row[1..].iter().filter(|d| **d <= rho).count() as f64;
                if within < f64::from(k).log2() {
                    // σ is an f32: a ten-millionth off.
                    assert!((size(sigma) - f64::from(k).log2()).abs() < 1e-4, "{k}: {}", size(sigma));
                } else {
                    assert!(sigma < 1e-3, "{k}: too many within ρ for any σ above 0, found {sigma}");
                }
            }
        }
        let mut weights = [0.0; 4];
        memberships(&[0.0; 4], 1.0, 0.5, &mut weights);
        assert_eq!(weights, [1.0; 4]);
    }

    #[test]
    fn union_and_intersection_join_both_directions_of_an_edge() {
        let (indices, distances) = line();
        let rest = 3f32.log2() - 1.0; // the weight of each second neighbour
        let union = FuzzyGraph::build(&indices, &distances, 0.0, 1.0, 1.0).unwrap();
        let weight = |graph: &FuzzyGraph, i: usize, j| graph.row(i).find(|e| e.0 == j).map(|e| e.1);
        assert_eq!(weight(&union, 0, 1), Some(1.0));
        let both = 2.0 * rest - rest * rest;
        assert!(
            (weight(&union, 0, 2).unwrap() - both).abs() < 1e-4,
            "0 and 2 are each other's second neighbour"
        );
        assert!((weight(&union, 1, 3).unwrap() - rest).abs() < 1e-4, "1 does not have 3 as a neighbour");
        assert_eq!(weight(&union, 0, 0), None);
        for i in 0..4 {
            for (j, w) in union.row(i) {
                assert_eq!(weight(&union, j as usize, i as u32), Some(w), "edge {i} {j} is not symmetric");
            }
        }
        let intersection = FuzzyGraph::build(&indices, &distances, 0.0, 1.0, 0.0).unwrap();
        assert!((weight(&intersection, 0, 2).unwrap() - rest * rest).abs() < 1e-4);
        assert_eq!(weight(&intersection, 1, 3), None);
    }

    #[test]
    fn the_noise_of_a_rows_distance_to_itself_changes_nothing() {
        let (indices, mut distances) = line();
        let exact = FuzzyGraph::build(&indices, &distances, 1e-6, 1.0, 1.0).unwrap();
        distances.row_mut(2)[0] = 3e-7;
        let noisy = FuzzyGraph::build(&indices, &distances, 1e-6, 1.0, 1.0).unwrap();
        assert_eq!(exact.weights, noisy.weights);
    }

    #[test]
    fn a_layout_never_comes_to_pruned_edges() {
        let (indices, distances) = line();
        let graph = FuzzyGraph::build(&indices, &distances, 0.0, 1.0, 1.0).unwrap();
        let pruned = graph.pruned(1);
        assert!(pruned.weights.iter().all(|&w| w == 1.0) && !pruned.weights.is_empty());
        assert_eq!(graph.pruned(1000), graph);
    }

    #[test]
    fn distances_that_are_no_numbers_are_refused() {
        let (indices, mut distances) = line();
        distances.row_mut(1)[2] = f32::NAN;
        let error = FuzzyGraph::build(&indices, &distances, 0.0, 1.0, 1.0).unwrap_err().to_string();
        assert!(error.contains("row 1, column 2"), "{error}");
    }
}
