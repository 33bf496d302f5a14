//! A sparse matrix times a few columns side by side: the step of iterative eigensolvers.
//!
//! - Formula: `Y = A · X`, A n × n as compressed sparse rows, X and Y n × `W`, row-major.
//! - Accumulation: f32, each row's entries in order, product and sum rounded at once. All instruction sets and any
//!   number of threads give the same bits.
//! - Cost: 2·W operations and one gathered row of X for each entry. X stays in the second cache up to some 60,000 rows
//!   of 8 columns; A, 8 bytes an entry, streams.

use crate::{Isa, simd::dispatch};
use rayon::prelude::*;

/// A matrix as compressed sparse rows.
#[derive(Debug, Clone)]
pub struct Sparse {
    offsets: Vec<usize>,
    entries: Vec<(u32, f32)>,
}

impl Sparse {
    /// Takes the rows of a square matrix: row i's entries, columns and values, are
    /// `entries[offsets[i]..offsets[i + 1]]`.
    ///
    /// # Panics
    /// If offsets do not rise from 0 to the number of entries, or a column is none.
    pub fn new(offsets: Vec<usize>, entries: Vec<(u32, f32)>) -> Self {
        let rise =
            offsets.first() == Some(&0) && offsets.is_sorted() && offsets.last() == Some(&entries.len());
        assert!(rise, "offsets rise from 0 to the number of entries");
        assert!(entries.iter().all(|e| (e.0 as usize) < offsets.len() - 1), "columns are below the rows");
        Self { offsets, entries }
    }

    /// Rows, and columns.
    pub fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Row `i`'s entries.
    pub fn row(&self, i: usize) -> &[(u32, f32)] {
        &self.entries[self.offsets[i]..self.offsets[i + 1]]
    }

    /// The product with `x` (a row for each column of the matrix).
    ///
    /// # Panics
    /// If `x` has another number of rows.
    pub fn times<const W: usize>(&self, x: &[[f32; W]]) -> Vec<[f32; W]> {
        self.times_on(Isa::detect(), x)
    }

    fn times_on<const W: usize>(&self, isa: Isa, x: &[[f32; W]]) -> Vec<[f32; W]> {
        assert!(x.len() == self.rows(), "x has the rows of the matrix");
        let mut out = vec![[0.0; W]; x.len()];
        out.par_chunks_mut(ROWS).enumerate().for_each(|(i, out)| {
            let offsets = &self.offsets[i * ROWS..][..out.len() + 1];
            let entries = &self.entries[..];
            dispatch!(
                isa,
                multiply::<W>(offsets: &[usize], entries: &[(u32, f32)], x: &[[f32; W]], out: &mut [[f32; W]])
            );
        });
        out
    }
}

/// Rows of a task.
const ROWS: usize = 256;

#[inline(always)]
fn multiply<const W: usize>(offsets: &[usize], entries: &[(u32, f32)], x: &[[f32; W]], out: &mut [[f32; W]]) {
    for (out, bounds) in out.iter_mut().zip(offsets.windows(2)) {
        let mut sums = [0.0; W];
        for &(column, value) in &entries[bounds[0]..bounds[1]] {
            let row = &x[column as usize];
            for c in 0..W {
                sums[c] = value.mul_add(row[c], sums[c]);
            }
        }
        *out = sums;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    #[test]
    fn every_instruction_set_gives_the_bits_of_the_definition() {
        // Rows around a task's; row i has i mod 7 entries, some of them twice.
        let n = 300;
        let mut offsets = vec![0];
        let mut entries: Vec<(u32, f32)> = Vec::new();
        for i in 0..n {
            let values = uniform(i as u64, i % 7);
            entries.extend(values.iter().enumerate().map(|(e, v)| (((i * 31 + e / 2 * 17) % n) as u32, *v)));
            offsets.push(entries.len());
        }
        let matrix = Sparse::new(offsets, entries);
        let values = uniform(9, n * 4);
        let x: &[[f32; 4]] = values.as_chunks().0;
        let expected: Vec<[f32; 4]> = (0..n)
            .map(|i| {
                std::array::from_fn(|c| {
                    matrix.row(i).iter().fold(0f32, |sum, &(j, v)| v.mul_add(x[j as usize][c], sum))
                })
            })
            .collect();
        for isa in Isa::available() {
            assert_eq!(matrix.times_on(isa, x), expected, "{}", isa.name());
        }
    }

    #[test]
    #[should_panic(expected = "columns are below the rows")]
    fn a_column_that_is_not_there_is_refused() {
        let _ = Sparse::new(vec![0, 1], vec![(1, 1.0)]);
    }
}
