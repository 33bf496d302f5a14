//! A matrix: row-major numbers.

use crate::{Error, Result};
use ndarray::ArrayView2;
use rayon::prelude::*;

/// Row-major numbers of `rows` × `cols`, without gaps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matrix<T> {
    rows: usize,
    cols: usize,
    data: Vec<T>,
}

impl<T: Copy + Default> Matrix<T> {
    /// Makes a matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        let data = vec![T::default(); rows * cols];
        ask_for_large_pages(data.as_ptr(), data.len());
        Self { rows, cols, data }
    }

    /// Takes `data` as `rows` × `cols`; an error if its length is not their product.
    pub fn try_from_vec(rows: usize, cols: usize, data: Vec<T>) -> Result<Self> {
        if data.len() != rows * cols {
            return Err(Error::Shape {
                what: "matrix data",
                expected: format!("{rows} x {cols} = {} values", rows * cols),
                found: format!("{} values", data.len()),
            });
        }
        Ok(Self { rows, cols, data })
    }

    /// Copies the rows `indices` (which must exist) into a new matrix, in that order.
    pub fn gather(&self, indices: &[u32]) -> Self {
        let mut data = Vec::with_capacity(indices.len() * self.cols);
        ask_for_large_pages(data.as_ptr(), data.capacity());
        for &i in indices {
            data.extend_from_slice(self.row(i as usize));
        }
        Self { rows: indices.len(), cols: self.cols, data }
    }

    /// Appends the rows of `other`, which must be as wide (any width will do while this matrix has no rows).
    pub fn append(&mut self, other: &Self) -> Result<()> {
        if self.rows == 0 {
            self.cols = other.cols;
        }
        if self.cols != other.cols {
            return Err(Error::Shape {
                what: "appended rows",
                expected: format!("{} columns", self.cols),
                found: format!("{} columns", other.cols),
            });
        }
        self.data.extend_from_slice(&other.data);
        self.rows += other.rows;
        Ok(())
    }
}

/// Asks the system to give memory that nobody has touched yet in pages of 2 MiB, if it is many of them: with those of 4
/// KiB, being given a page takes as long as computing what goes into it.
fn ask_for_large_pages<T>(data: *const T, len: usize) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 2 << 20;
        let start = data.addr().next_multiple_of(PAGE);
        let end = (data.addr() + len * size_of::<T>()) / PAGE * PAGE;
        if end >= start + 4 * PAGE {
            // SAFETY: advice about whole pages of an allocation of ours, whose contents stay as they are. Without such
            // pages it is refused, and nothing changes.
            unsafe {
                libc::madvise(data.with_addr(start).cast_mut().cast(), end - start, libc::MADV_HUGEPAGE)
            };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (data, len);
}

impl<T> Matrix<T> {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[T] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// Row `i`, to write.
    pub fn row_mut(&mut self, i: usize) -> &mut [T] {
        &mut self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// All values, row after row.
    pub fn as_slice(&self) -> &[T] {
        &self.data
    }

    /// All values, row after row, to write.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.data
    }

    /// Gives the values away, row after row.
    pub fn into_vec(self) -> Vec<T> {
        self.data
    }

    /// Visits the rows in order; a matrix of no columns has rows without values.
    pub fn iter_rows(&self) -> impl Iterator<Item = &[T]> {
        (0..self.rows).map(|i| self.row(i))
    }

    /// The matrix as an ndarray view.
    pub fn view(&self) -> ArrayView2<'_, T> {
        ArrayView2::from_shape((self.rows, self.cols), &self.data)
            .unwrap_or_else(|_| unreachable!("length is rows * cols by construction"))
    }
}

impl Matrix<f32> {
    /// Fails at the first value that is NaN or infinite, naming its place.
    pub fn check_finite(&self) -> Result<()> {
        const CHUNK: usize = 1 << 16;
        // Without a way out of the loop it is done a register at a time.
        let broken = |values: &[f32]| !values.iter().fold(true, |finite, v| finite & v.is_finite());
        let Some(chunk) = self.data.par_chunks(CHUNK).position_first(broken) else { return Ok(()) };
        let first = chunk * CHUNK;
        let at = self.data[first..].iter().position(|v| !v.is_finite()).map_or(first, |at| first + at);
        Err(Error::NotFinite { row: at / self.cols, column: at % self.cols, value: self.data[at] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_the_wrong_length_is_refused() {
        assert!(Matrix::try_from_vec(2, 3, vec![0f32; 5]).is_err());
    }

    #[test]
    fn gathered_rows_come_in_the_order_asked_for() {
        let m = Matrix::try_from_vec(3, 2, vec![0, 1, 10, 11, 20, 21]).unwrap();
        assert_eq!(m.gather(&[2, 0]).as_slice(), &[20, 21, 0, 1]);
    }

    #[test]
    fn the_first_value_that_is_no_number_is_named() {
        let m = Matrix::try_from_vec(2, 2, vec![0., 1., f32::NAN, f32::INFINITY]).unwrap();
        assert!(matches!(m.check_finite(), Err(Error::NotFinite { row: 1, column: 0, .. })));
    }
}
