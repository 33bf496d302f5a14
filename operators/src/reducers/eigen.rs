//! The largest eigenpairs of a symmetric operator, by Chebyshev-filtered subspace iteration: vectors in f32,
//! their products with each other summed in f64.
//!
//! Its one idea: a Chebyshev polynomial of the operator grows fast above an interval and stays small within it, so
//! applying one to a block of vectors leaves mostly the wanted eigenvectors; the block is then made orthonormal and
//! rotated onto its Ritz vectors, whose smallest value is the next interval's upper end.
//! (Zhou, Saad, Tiago and Chelikowsky, "Self-consistent-field calculations using Chebyshev-filtered subspace
//! iteration", 2006.) The operator works on whole blocks, row by row, so it streams through memory, and sums over
//! rows are taken in fixed pieces: the result has the same bits at any thread count.

use kernels::layout::mix64;
use rayon::prelude::*;

/// Vectors side by side: `width` columns, row-major.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) width: usize,
    pub(super) data: Vec<f32>,
}

/// Eigenvalues, largest first, and their orthonormal vectors as columns.
#[derive(Debug)]
pub(super) struct Eigenpairs {
    pub(super) values: Vec<f64>,
    pub(super) vectors: Block,
    /// The largest |Av − λv| among the wanted pairs, in units of the spectrum's width.
    pub(super) residual: f64,
}

/// Finds the `k` ≤ `n` largest eigenpairs of the symmetric operator `apply` on n-vectors, all of whose eigenvalues
/// are at least `lowest`; stops at a residual of `tolerance`, or after [`MOST_APPLIED`] with the residual it has
/// reached.
pub(super) fn largest(
    n: usize,
    k: usize,
    lowest: f64,
    tolerance: f64,
    seed: u64,
    apply: &dyn Fn(&Block) -> Block,
) -> Eigenpairs {
    let width = (k + GUARDS).next_multiple_of(4).min(n);
    let data = (0..n * width).map(|i| (mix64(seed ^ i as u64) >> 40) as f32 * 2f32.powi(-24) - 0.5).collect();
    let mut pairs = ritz(Block { width, data }.orthonormal(), k, lowest, apply);
    let mut applied = 0;
    while pairs.residual > tolerance && width < n && applied < MOST_APPLIED {
        let filter = Filter::new(lowest, &pairs.values, k);
        pairs = ritz(filter.apply(pairs.vectors, apply).orthonormal(), k, lowest, apply);
        applied += filter.degree;
    }
    pairs.values.truncate(k);
    let mut first = vec![0.0; width * k];
    (0..k).for_each(|i| first[i * k + i] = 1.0);
    Eigenpairs { vectors: pairs.vectors.times(&first, k), ..pairs }
}

/// Vectors kept at least beyond the wanted ones, up to a multiple of 4 in all: they put a gap between the last wanted
/// eigenvalue and the damped interval.
const GUARDS: usize = 3;

/// The most that a filter's degree is: higher filters orthogonalise less often, but squeeze the block harder towards
/// its first vector between two orthogonalisations.
const DEGREE: usize = 20;

/// How often the operator is applied in filters: a spectrum without any gap is as good a start after these as after
/// more.
const MOST_APPLIED: usize = 8 * DEGREE;

/// What counts as nothing: blocks are f32, whose inverses must not be infinite.
const LEAST: f64 = f32::MIN_POSITIVE as f64;

/// Rows summed in one piece.
const PIECE: usize = 1024;

/// Rotates an orthonormal block onto its Ritz vectors.
fn ritz(block: Block, k: usize, lowest: f64, apply: &dyn Fn(&Block) -> Block) -> Eigenpairs {
    let width = block.width;
    let applied = apply(&block);
    let (values, rotation) = symmetric_eigen(block.inner(&applied), width);
    let (vectors, images) = (block.times(&rotation, width), applied.times(&rotation, width));
    let mut squares = vec![0.0; width];
    for (v, image) in vectors.data.chunks(width).zip(images.data.chunks(width)) {
        for j in 0..k {
            squares[j] += (f64::from(image[j]) - values[j] * f64::from(v[j])).powi(2);
        }
    }
    let spread = (values[0] - lowest).max(LEAST);
    let residual = squares.iter().fold(0f64, |m, s| m.max(s.sqrt())) / spread;
    Eigenpairs { values, vectors, residual }
}

/// The Chebyshev polynomial that stays within ±1 on an interval, scaled to 1 at the largest eigenvalue.
struct Filter {
    centre: f64,
    /// Half of the interval's length, and that over the distance from its centre to the largest eigenvalue.
    half: f64,
    first: f64,
    degree: usize,
}

impl Filter {
    /// Damps from `low` to the least of `values`, largest first, of which `k` are wanted.
    fn new(low: f64, values: &[f64], k: usize) -> Self {
        let (top, wanted, cut) = (values[0], values[k - 1], values[values.len() - 1]);
        // An interval without length (a block of null vectors) still damps what lies in it.
        let half = ((cut - low) / 2.0).max(1e-6 * (top - low)).max(LEAST);
        let centre = low + half;
        let first = half / (top - centre).max(half);
        // The last wanted vector shrinks by cosh(degree · a) / cosh(degree · b) beside the first, a share of which
        // every column keeps by rounding: below that share it would be lost.
        let growth = first.recip().acosh() - ((wanted - centre) / half).max(1.0).acosh();
        let degree = f64::from(f32::EPSILON).recip().ln() / growth;
        Self { centre, half, first, degree: (degree as usize).clamp(1, DEGREE) }
    }

    fn apply(&self, block: Block, apply: &dyn Fn(&Block) -> Block) -> Block {
        let Self { centre, half, first, degree } = *self;
        let mut sigma = first;
        let mut before = block;
        let mut now = apply(&before);
        now.combine(sigma / half, -centre * sigma / half, &before, 0.0, None);
        for _ in 1..degree {
            let next_sigma = 1.0 / (2.0 / first - sigma);
            let mut next = apply(&now);
            let scale = 2.0 * next_sigma / half;
            next.combine(scale, -centre * scale, &now, -sigma * next_sigma, Some(&before));
            (before, now, sigma) = (now, next, next_sigma);
        }
        now
    }
}

impl Block {
    /// self ← a·self + b·x + c·y.
    fn combine(&mut self, a: f64, b: f64, x: &Block, c: f64, y: Option<&Block>) {
        let (a, b, c) = (a as f32, b as f32, c as f32);
        match y {
            Some(y) => {
                let terms = x.data.par_iter().zip(&y.data);
                self.data.par_iter_mut().zip(terms).for_each(|(v, (x, y))| *v = a * *v + b * x + c * y);
            }
            None => self.data.par_iter_mut().zip(&x.data).for_each(|(v, x)| *v = a * *v + b * x),
        }
    }

    /// selfᵀ · other, row-major.
    fn inner(&self, other: &Block) -> Vec<f64> {
        let width = self.width;
        let piece = |(left, right): (&[f32], &[f32])| {
            let mut sum = vec![0.0; width * width];
            for (l, r) in left.chunks(width).zip(right.chunks(width)) {
                for (sums, &l) in sum.chunks_mut(width).zip(l) {
                    for (sum, &r) in sums.iter_mut().zip(r) {
                        *sum += f64::from(l) * f64::from(r);
                    }
                }
            }
            sum
        };
        let step = PIECE * width;
        let pieces: Vec<Vec<f64>> =
            self.data.par_chunks(step).zip(other.data.par_chunks(step)).map(piece).collect();
        let mut total = vec![0.0; width * width];
        for sum in &pieces {
            total.iter_mut().zip(sum).for_each(|(t, s)| *t += s);
        }
        total
    }

    /// self · matrix, a row-major `width` × `cols`.
    fn times(&self, matrix: &[f64], cols: usize) -> Block {
        let matrix: Vec<f32> = matrix.iter().map(|&v| v as f32).collect();
        let mut out = Block { width: cols, data: vec![0.0; self.data.len() / self.width * cols] };
        let rows = out.data.par_chunks_mut(PIECE * cols).zip(self.data.par_chunks(PIECE * self.width));
        rows.for_each(|(out, rows)| {
            for (out, row) in out.chunks_mut(cols).zip(rows.chunks(self.width)) {
                for (&v, factors) in row.iter().zip(matrix.chunks(cols)) {
                    out.iter_mut().zip(factors).for_each(|(o, f)| *o += v * f);
                }
            }
        });
        out
    }

    /// Makes the columns orthonormal: twice divided by the square root of their Gram matrix
    /// (Stathopoulos and Wu's SVQB, 2002), which survives columns that are nearly dependent.
    fn orthonormal(mut self) -> Block {
        for _ in 0..2 {
            let width = self.width;
            let mut gram = self.inner(&self);
            let scale: Vec<f64> = (0..width).map(|i| 1.0 / gram[i * width + i].max(LEAST).sqrt()).collect();
            for i in 0..width {
                for j in 0..width {
                    gram[i * width + j] *= scale[i] * scale[j];
                }
            }
            let (values, mut vectors) = symmetric_eigen(gram, width);
            let least = f64::from(f32::EPSILON).powi(2) * values[0].max(LEAST);
            for i in 0..width {
                for j in 0..width {
                    vectors[i * width + j] *= scale[i] / values[j].max(least).sqrt();
                }
            }
            self = self.times(&vectors, width);
        }
        self
    }
}

/// All eigenpairs of a small symmetric row-major matrix, largest first, vectors as columns: Jacobi's cyclic method.
fn symmetric_eigen(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut v = vec![0.0; n * n];
    (0..n).for_each(|i| v[i * n + i] = 1.0);
    let size: f64 = a.iter().map(|x| x * x).sum();
    // Convergence is quadratic: some eight sweeps reach the last bit.
    for _ in 0..40 {
        let off: f64 =
            (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i * n + j].powi(2)).sum();
        if off <= 1e-30 * size {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[p * n + q] == 0.0 {
                    continue;
                }
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * a[p * n + q]);
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let c = 1.0 / t.hypot(1.0);
                let s = t * c;
                for i in 0..n {
                    let (x, y) = (a[i * n + p], a[i * n + q]);
                    (a[i * n + p], a[i * n + q]) = (c * x - s * y, s * x + c * y);
                    let (x, y) = (v[i * n + p], v[i * n + q]);
                    (v[i * n + p], v[i * n + q]) = (c * x - s * y, s * x + c * y);
                }
                for i in 0..n {
                    let (x, y) = (a[p * n + i], a[q * n + i]);
                    (a[p * n + i], a[q * n + i]) = (c * x - s * y, s * x + c * y);
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j * n + j].total_cmp(&a[i * n + i]).then(i.cmp(&j)));
    let values = order.iter().map(|&i| a[i * n + i]).collect();
    let vectors =
        (0..n).flat_map(|row| order.iter().map(move |&i| (row, i))).map(|(row, i)| v[row * n + i]).collect();
    (values, vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dense row-major matrix times block.
    fn dense(a: &[f64], n: usize, x: &Block) -> Block {
        let at = |i: usize, c: usize| {
            (0..n).map(|j| a[i * n + j] * f64::from(x.data[j * x.width + c])).sum::<f64>() as f32
        };
        Block { width: x.width, data: (0..n * x.width).map(|i| at(i / x.width, i % x.width)).collect() }
    }

    #[test]
    fn the_largest_eigenpairs_of_a_path_are_its_cosines() {
        // Adjacency of a path of n vertices: eigenvalues 2·cos(πj / (n + 1)), vectors sines.
        let n = 120;
        let mut a = vec![0.0; n * n];
        for i in 1..n {
            a[i * n + i - 1] = 1.0;
            a[(i - 1) * n + i] = 1.0;
        }
        let found = largest(n, 4, -2.0, 1e-6, 7, &|x| dense(&a, n, x));
        for (j, value) in found.values.iter().enumerate() {
            let angle = std::f64::consts::PI * (j + 1) as f64 / (n + 1) as f64;
            assert!((value - 2.0 * angle.cos()).abs() < 1e-6, "{j}: {value}");
            let norm = (2.0 / (n + 1) as f64).sqrt();
            let sign = found.vectors.data[j].signum();
            for i in 0..n {
                let wanted = norm * (angle * (i + 1) as f64).sin();
                assert!(
                    (f64::from(sign * found.vectors.data[i * 4 + j]) - wanted).abs() < 1e-4,
                    "vector {j}, entry {i}"
                );
            }
        }
    }

    #[test]
    fn a_vector_far_below_the_largest_is_found() {
        // A diagonal: 1, 1/20, 1/400, 1/8000, and then next to nothing.
        let n = 60;
        let mut a = vec![0.0; n * n];
        (0..n).for_each(|i| a[i * n + i] = if i < 4 { 20f64.powi(-(i as i32)) } else { 1e-7 * i as f64 });
        let found = largest(n, 4, 0.0, 1e-6, 3, &|x| dense(&a, n, x));
        for j in 0..4 {
            assert!((found.values[j] - 20f64.powi(-(j as i32))).abs() < 1e-6, "{:?}", found.values);
            assert!(
                found.vectors.data[j * 4 + j].abs() > 0.99,
                "vector {j}: {:?}",
                &found.vectors.data[..16]
            );
        }
    }

    #[test]
    fn a_matrix_no_larger_than_the_block_is_solved_at_once() {
        let a = [2.0, 1.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0, -1.0];
        let found = largest(3, 3, -1.0, 1e-6, 1, &|x| dense(&a, 3, x));
        for (value, wanted) in found.values.iter().zip([3.0, 1.0, -1.0]) {
            assert!((value - wanted).abs() < 1e-6, "{:?}", found.values);
        }
    }

    #[test]
    fn an_operator_of_zeros_has_zeros_as_eigenvalues() {
        let found =
            largest(50, 2, 0.0, 1e-4, 1, &|x| Block { width: x.width, data: vec![0.0; x.data.len()] });
        assert_eq!(found.values, [0.0, 0.0]);
        assert!(found.vectors.data.iter().all(|v| v.is_finite()));
    }
}
