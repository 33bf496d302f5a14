//! UMAP's start: each row's place in the first eigenvectors of its graph's normalised Laplacian.
//!
//! The smallest eigenvectors of I − D^−½ W D^−½ are the largest of D^−½ W D^−½, whose spectrum lies in [−1, 1] and
//! whose first vector, √degree, says nothing; the next ones vary as slowly along the edges as vectors can.
//! (Belkin and Niyogi, "Laplacian eigenmaps", 2003.)
//!
//! A graph in pieces has no such order between them. The large pieces are laid out each on its own, and set on
//! both sides of the axes as umap-learn does; a small one goes to the place of the laid-out row nearest to its
//! centre, so that a handful of stray duplicates does not squeeze everything else together.

use super::{
    eigen::{Block, largest},
    fuzzy::FuzzyGraph,
    umap::Metric,
};
use kernels::{Matrix, layout::mix64, sparse::Sparse};
use rayon::prelude::*;

/// Places the rows of `graph` in `dim` dimensions, all coordinates within ±[`EXTENT`].
///
/// `data` (a row per vertex) says where pieces of the graph belong; `metric` is that of the graph's distances.
pub(super) fn spectral(
    graph: &FuzzyGraph,
    data: &Matrix<f32>,
    dim: usize,
    metric: Metric,
    seed: u64,
) -> Matrix<f32> {
    let mut pieces = components(graph);
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.len())); // stable: equal ones by their first row
    let least = (graph.rows() as f64 * LARGE_SHARE) as usize;
    let large = pieces.iter().take(2 * dim).take_while(|piece| piece.len() >= least.max(1)).count().max(1);
    let small = pieces.split_off(large);
    if !small.is_empty() || pieces.len() > 1 {
        tracing::info!(
            large = pieces.len(),
            small = small.len(),
            "the neighbour graph is in pieces: each large one is laid out on its own, small ones beside their nearest rows"
        );
    }

    let mut places = Matrix::zeros(graph.rows(), dim);
    // Centres at ±1 on the axes are at least √2 apart: pieces of half that extent do not overlap.
    let (offset, extent) = if pieces.len() == 1 { (0.0, EXTENT) } else { (EXTENT * 0.6, EXTENT * 0.4) };
    for (at, rows) in pieces.iter().enumerate() {
        let layout = lay_out(graph, rows, dim, seed);
        for (&row, place) in rows.iter().zip(layout.iter_rows()) {
            let out = places.row_mut(row as usize);
            out.iter_mut().zip(place).for_each(|(o, p)| *o = p * extent);
            out[at % dim] += if at < dim { offset } else { -offset };
        }
    }
    let laid_out: Vec<u32> = pieces.concat();
    place_small(&small, &laid_out, data, metric, seed, &mut places);
    places
}

/// The largest coordinate of a start.
pub(super) const EXTENT: f32 = 10.0;

/// A piece of at least this share of all rows is laid out on its own.
const LARGE_SHARE: f64 = 0.05;

/// Where the eigenvectors are good enough to start from. umap-learn asks for 1e-4; a layout that starts from 2e-3 keeps
/// neighbourhoods as well (25,000 abstracts, 15 and 100 neighbours: trustworthiness within .0001), with a filter less.
const TOLERANCE: f64 = 2e-3;

/// A number in [−1, 1) for the `i`-th value of stream `seed`.
pub(super) fn noise(seed: u64, i: u64) -> f32 {
    (mix64(mix64(seed) ^ i) >> 40) as f32 * 2f32.powi(-23) - 1.0
}

/// The connected components in the order of their first rows, each breadth first from there: rows that are joined stand
/// near each other, which keeps what they are multiplied with in the caches.
fn components(graph: &FuzzyGraph) -> Vec<Vec<u32>> {
    let mut seen = vec![false; graph.rows()];
    let mut pieces = Vec::new();
    for start in 0..graph.rows() {
        if std::mem::replace(&mut seen[start], true) {
            continue;
        }
        let mut piece = vec![start as u32]; // rows are counted in u32, as indices are
        let mut next = 0;
        while let Some(&row) = piece.get(next) {
            next += 1;
            for (other, _) in graph.row(row as usize) {
                if !std::mem::replace(&mut seen[other as usize], true) {
                    piece.push(other);
                }
            }
        }
        pieces.push(piece);
    }
    pieces
}

/// Lays out one connected piece within ±1; a row of the result for each of `rows`.
fn lay_out(graph: &FuzzyGraph, rows: &[u32], dim: usize, seed: u64) -> Matrix<f32> {
    let n = rows.len();
    let mut places = Matrix::zeros(n, dim);
    if n <= dim + 1 {
        tracing::warn!(
            rows = n,
            dim,
            "too few connected rows for a spectral start: they start at random places"
        );
        for (i, v) in places.as_mut_slice().iter_mut().enumerate() {
            *v = noise(seed ^ u64::from(rows[0]), i as u64);
        }
        return places;
    }
    let adjacency = Normalised::new(graph, rows);
    let pairs = largest(n, dim + 1, -1.0, TOLERANCE, seed, &|x| adjacency.times(x));
    tracing::debug!(rows = n, residual = pairs.residual, eigenvalues = ?pairs.values, "spectral start");
    // Of a connected graph only the first eigenvalue is 1, and its vector is left out.
    for d in 0..dim {
        let column = || pairs.vectors.data.iter().skip(d + 1).step_by(dim + 1);
        // A vector's sign is arbitrary: its largest value is made positive.
        let extreme = column().fold(0f32, |m, &v| if v.abs() > m.abs() { v } else { m });
        let scale = if extreme == 0.0 { 0.0 } else { extreme.recip() };
        for (i, v) in column().enumerate() {
            places.row_mut(i)[d] = v * scale;
        }
    }
    places
}

/// D^−½ W D^−½ of one piece.
struct Normalised(Sparse);

impl Normalised {
    fn new(graph: &FuzzyGraph, rows: &[u32]) -> Self {
        let mut local = vec![0u32; graph.rows()];
        for (i, &row) in rows.iter().enumerate() {
            local[row as usize] = i as u32; // at most as many as rows
        }
        let degree = |row: u32| graph.row(row as usize).map(|e| f64::from(e.1)).sum::<f64>();
        let scale: Vec<f64> = rows.par_iter().map(|&row| degree(row).sqrt().recip()).collect();
        let (mut offsets, mut entries) = (vec![0], Vec::new());
        for (i, &row) in rows.iter().enumerate() {
            entries.extend(graph.row(row as usize).map(|(other, weight)| {
                let j = local[other as usize];
                (j, (f64::from(weight) * scale[i] * scale[j as usize]) as f32)
            }));
            offsets.push(entries.len());
        }
        Self(Sparse::new(offsets, entries))
    }

    fn times(&self, x: &Block) -> Block {
        match x.width {
            4 => self.times_wide::<4>(x),
            8 => self.times_wide::<8>(x),
            12 => self.times_wide::<12>(x),
            16 => self.times_wide::<16>(x),
            // A column at a time: only for graphs of fewer rows than a block has columns, and for layouts in more
            // than 12 dimensions.
            width => {
                let mut out = Block { width, data: vec![0.0; x.data.len()] };
                out.data.par_chunks_mut(width).enumerate().for_each(|(i, out)| {
                    for (c, out) in out.iter_mut().enumerate() {
                        let entries = self.0.row(i).iter();
                        *out = entries.map(|&(j, w)| w * x.data[j as usize * width + c]).sum();
                    }
                });
                out
            }
        }
    }

    /// The product for blocks of exactly `W` columns, whose sums stay in registers.
    fn times_wide<const W: usize>(&self, x: &Block) -> Block {
        Block { width: W, data: self.0.times(x.data.as_chunks::<W>().0).into_flattened() }
    }
}

/// Puts each small piece beside the row, among some of `laid_out`, that is nearest to its centre.
fn place_small(
    small: &[Vec<u32>],
    laid_out: &[u32],
    data: &Matrix<f32>,
    metric: Metric,
    seed: u64,
    places: &mut Matrix<f32>,
) {
    // With evenly spread candidates a great many pieces cost no more than rows · CANDIDATES.
    let candidates: Vec<u32> =
        laid_out.iter().copied().step_by(laid_out.len().div_ceil(CANDIDATES).max(1)).collect();
    let candidates_at = metric.scaled(&data.gather(&candidates));
    let halves: Vec<f32> =
        candidates_at.iter_rows().map(|row| row.iter().map(|v| v * v).sum::<f32>() / 2.0).collect();
    // |x − y|² is least where x·y − |y|² / 2 is largest.
    let nearest = |pieces: &[Vec<u32>]| -> Vec<u32> {
        let centres = metric.scaled(&centres(pieces, data));
        let products = centres.view().dot(&candidates_at.view().t());
        let best = products.rows().into_iter().map(|row| {
            let mut best = 0;
            for (i, (product, half)) in row.iter().zip(&halves).enumerate() {
                if product - half > row[best] - halves[best] {
                    best = i;
                }
            }
            candidates[best]
        });
        best.collect()
    };
    let nearest: Vec<u32> = small.par_chunks(64).flat_map_iter(nearest).collect();
    for (piece, &anchor) in small.iter().zip(&nearest) {
        let anchor = places.row(anchor as usize).to_vec();
        for &row in piece {
            for (d, (out, a)) in places.row_mut(row as usize).iter_mut().zip(&anchor).enumerate() {
                *out = a + SCATTER * noise(seed, (u64::from(row) << 8) + d as u64);
            }
        }
    }
}

/// The mean row of each piece.
fn centres(pieces: &[Vec<u32>], data: &Matrix<f32>) -> Matrix<f32> {
    let mut centres = Matrix::zeros(pieces.len(), data.cols());
    for (i, piece) in pieces.iter().enumerate() {
        for &row in piece {
            let values = data.row(row as usize);
            centres.row_mut(i).iter_mut().zip(values).for_each(|(c, v)| *c += v / piece.len() as f32);
        }
    }
    centres
}

/// The most rows that a small piece is compared with.
const CANDIDATES: usize = 4096;

/// How far, in the units of [`EXTENT`], a small piece's rows start from their anchor.
const SCATTER: f32 = 0.1;
