//! Principal components: the directions in which the rows differ most.
//!
//! The d × d covariance is summed over pieces of rows (products in f32, sums in f64), and its largest eigenvectors
//! come from the block solver that UMAP's spectral start uses.

use super::eigen::{Block, largest};
use crate::{Error, Result};
use kernels::Matrix;
use ndarray::{Array2, Axis, s};
use rayon::prelude::*;

/// A fitted projection onto the first principal components.
#[derive(Debug, Clone, PartialEq)]
pub struct Pca {
    /// The mean of each column.
    pub mean: Vec<f32>,
    /// The components as orthonormal rows, the one of the largest variance first, each with its largest value
    /// positive: k × d.
    pub components: Matrix<f32>,
    /// The variance along each component.
    pub variances: Vec<f32>,
}

impl Pca {
    /// Finds the first `n_components` components of `data` (n × d).
    ///
    /// Fails if `n_components` is 0 or above min(n, d), or if a value is no finite number.
    pub fn fit(data: &Matrix<f32>, n_components: usize) -> Result<Self> {
        let (n, d) = (data.rows(), data.cols());
        if n_components == 0 || n_components > n.min(d) {
            return Err(Error::setting(
                "n_components",
                format!("{n_components}, expected 1 to {} for {n} rows of {d} columns", n.min(d)),
            ));
        }
        data.check_finite()?;
        let mean: Vec<f32> = column_means(data);
        let covariance = covariance(data, &mean);
        let apply = |x: &Block| {
            let mut out = Block { width: x.width, data: vec![0.0; d * x.width] };
            out.data.par_chunks_mut(x.width).zip(covariance.par_chunks(d)).for_each(|(out, row)| {
                for (c, out) in out.iter_mut().enumerate() {
                    let column = x.data.iter().skip(c).step_by(x.width);
                    *out = row.iter().zip(column).map(|(r, x)| r * f64::from(*x)).sum::<f64>() as f32;
                }
            });
            out
        };
        let pairs = largest(d, n_components, 0.0, TOLERANCE, 0, &apply);
        let mut components = Matrix::zeros(n_components, d);
        for c in 0..n_components {
            let column = || pairs.vectors.data.iter().skip(c).step_by(n_components);
            let extreme = column().fold(0f32, |m, &v| if v.abs() > m.abs() { v } else { m });
            for (out, v) in components.row_mut(c).iter_mut().zip(column()) {
                *out = v * extreme.signum();
            }
        }
        let variances = pairs.values.iter().map(|&v| v.max(0.0) as f32).collect();
        Ok(Self { mean, components, variances })
    }

    /// Projects `data` (n × d, as wide as the fitted rows) onto the components: n × k.
    pub fn transform(&self, data: &Matrix<f32>) -> Result<Matrix<f32>> {
        if data.cols() != self.mean.len() {
            return Err(Error::Kernel(kernels::Error::Shape {
                what: "rows to project",
                expected: format!("{} columns", self.mean.len()),
                found: format!("{} columns", data.cols()),
            }));
        }
        let k = self.components.rows();
        let mut out = Matrix::zeros(data.rows(), k);
        out.as_mut_slice().par_chunks_mut(k).enumerate().for_each(|(i, out)| {
            for (out, component) in out.iter_mut().zip(self.components.iter_rows()) {
                let centred = data.row(i).iter().zip(&self.mean).map(|(x, m)| f64::from(x - m));
                *out = centred.zip(component).map(|(x, &c)| x * f64::from(c)).sum::<f64>() as f32;
            }
        });
        Ok(out)
    }
}

/// A residual that vectors in f32 just reach.
const TOLERANCE: f64 = 1e-6;

/// Rows that are multiplied in f32 before their sum goes into f64.
const PIECE: usize = 512;

/// The mean of each column, summed in f64 in order.
fn column_means(data: &Matrix<f32>) -> Vec<f32> {
    let mut sums = vec![0f64; data.cols()];
    for row in data.iter_rows() {
        sums.iter_mut().zip(row).for_each(|(s, &v)| *s += f64::from(v));
    }
    sums.iter().map(|s| (s / data.rows() as f64) as f32).collect()
}

/// The covariance matrix, row-major d × d; pieces are added in order, whichever thread made them.
fn covariance(data: &Matrix<f32>, mean: &[f32]) -> Vec<f64> {
    let (n, d) = (data.rows(), data.cols());
    let mean = ndarray::aview1(mean);
    let mut total = Array2::<f64>::zeros((d, d));
    let starts: Vec<usize> = (0..n).step_by(PIECE).collect();
    // Some pieces at a time, so that their partial sums stay small in memory.
    for starts in starts.chunks(16) {
        let product = |&start: &usize| {
            let rows = data.view().slice_move(s![start..(start + PIECE).min(n), ..]).to_owned()
                - mean.insert_axis(Axis(0));
            rows.t().dot(&rows)
        };
        for piece in starts.par_iter().map(product).collect::<Vec<_>>() {
            total.zip_mut_with(&piece, |t, &p| *t += f64::from(p));
        }
    }
    let scale = 1.0 / (n.max(2) - 1) as f64;
    total.iter().map(|v| v * scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on a plane in `dim` dimensions, with far more variance along one of its axes.
    fn plane(dim: usize) -> Matrix<f32> {
        let mut data = Matrix::zeros(200, dim);
        for i in 0..200 {
            let (u, v) = ((i as f32 * 0.7).sin() * 10.0, (i as f32 * 1.3).cos());
            data.row_mut(i)[..4].copy_from_slice(&[u + 3.0, v, u, 5.0 - v]);
        }
        data
    }

    #[test]
    fn two_components_hold_all_the_variance_of_a_plane() {
        // In 4 dimensions the solver's block is the whole space, in 40 it has to find the plane.
        for dim in [4, 40] {
            check_plane(&plane(dim));
        }
    }

    fn check_plane(data: &Matrix<f32>) {
        let pca = Pca::fit(data, 3).unwrap();
        assert!(pca.variances[0] > 50.0 * pca.variances[1] && pca.variances[2] < 1e-4, "{:?}", pca.variances);
        // Distances survive the projection onto the plane.
        let flat = pca.transform(data).unwrap();
        let distance = |m: &Matrix<f32>, i, j| -> f32 {
            m.row(i).iter().zip(m.row(j)).map(|(a, b): (&f32, &f32)| (a - b).powi(2)).sum::<f32>().sqrt()
        };
        for i in 1..200 {
            assert!((distance(data, 0, i) - distance(&flat, 0, i)).abs() < 1e-3);
        }
    }

    #[test]
    fn more_components_than_columns_are_refused() {
        let error = Pca::fit(&plane(4), 5).unwrap_err().to_string();
        assert!(error.contains("n_components: 5, expected 1 to 4"), "{error}");
    }
}
