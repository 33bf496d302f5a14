//! Calibration: the range of each dimension over a sample, and how well it holds.
//!
//! A [`Calibration`] is additive state: shards may be observed apart and merged in any order. Its file is a
//! safetensors file of two tensors: `ranges`, f32 of 2 × d (row 0 the minima, row 1 the maxima, as
//! `quantize_embeddings(ranges=...)` of sentence-transformers takes them), and `rows`, u64 of 1, the number of rows
//! seen.

mod npy;
mod report;

pub use report::{CalibrationReport, Histogram};

use crate::{Error, Result};
use kernels::Matrix;
use kernels::quantize::Ranges;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::path::Path;

/// The ranges of the embeddings seen so far.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Calibration {
    ranges: Option<Ranges>,
    rows: u64,
}

impl Calibration {
    /// Ranges over fewer rows than this are worth a warning, as in sentence-transformers.
    pub const FEW_ROWS: u64 = 100;

    /// Starts with no rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Widens the ranges by `embeddings` (n × d).
    pub fn observe(&mut self, embeddings: &Matrix<f32>) -> Result<()> {
        if embeddings.rows() == 0 {
            return Ok(());
        }
        self.merge(&Self { ranges: Some(Ranges::of(embeddings)?), rows: embeddings.rows() as u64 })
    }

    /// Adds what another calibration has seen.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.ranges = match (self.ranges.take(), &other.ranges) {
            (Some(ours), Some(theirs)) => Some(ours.union(theirs)?),
            (ours, theirs) => ours.or_else(|| theirs.clone()),
        };
        self.rows += other.rows;
        Ok(())
    }

    /// The number of rows seen.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The ranges, to make codes with; an error if no row was seen.
    pub fn ranges(&self) -> Result<&Ranges> {
        self.ranges.as_ref().ok_or_else(|| Error::Unfit("calibration: no rows, expected at least 1".into()))
    }

    /// Returns the calibration file's bytes; the same for the same state.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let ranges = self.ranges()?;
        let numbers: Vec<u8> =
            ranges.min().iter().chain(ranges.max()).flat_map(|v| v.to_le_bytes()).collect();
        let rows = self.rows.to_le_bytes();
        let view = |dtype, shape, data| {
            TensorView::new(dtype, shape, data).map_err(|error| Error::Internal(error.to_string()))
        };
        let tensors = [
            ("ranges", view(Dtype::F32, vec![2, ranges.dim()], &numbers)?),
            ("rows", view(Dtype::U64, vec![1], &rows)?),
        ];
        safetensors::serialize(tensors, None).map_err(|error| Error::Internal(error.to_string()))
    }

    /// Reads a calibration file's bytes; `path` is for errors.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self> {
        let tensors =
            SafeTensors::deserialize(bytes).map_err(|error| Error::model(path, error.to_string()))?;
        let ranges = ranges_tensor(path, &tensors)?;
        let rows = tensors
            .tensor("rows")
            .ok()
            .filter(|rows| rows.dtype() == Dtype::U64)
            .and_then(|rows| rows.data().try_into().ok())
            .map(u64::from_le_bytes)
            .ok_or_else(|| Error::model(path, "no tensor \"rows\", expected u64 of shape [1]"))?;
        Ok(Self { ranges: Some(ranges), rows })
    }
}

/// Reads ranges alone: a `.safetensors` file with the tensor `ranges`, or a `.npy` file; f32 of 2 × d (numpy: f64,
/// too).
pub fn load_ranges(path: &Path) -> Result<Ranges> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let read = || std::fs::read(path).map_err(|error| Error::io(path, error));
    match extension {
        Some("safetensors") => {
            let bytes = read()?;
            let tensors =
                SafeTensors::deserialize(&bytes).map_err(|error| Error::model(path, error.to_string()))?;
            ranges_tensor(path, &tensors)
        }
        Some("npy") => {
            let array = npy::parse(&read()?).map_err(|reason| Error::model(path, reason))?;
            ranges_of_two_rows(path, &array.shape, array.values)
        }
        _ => Err(Error::setting(
            format!("ranges {}", path.display()),
            "unknown kind of file, expected \".safetensors\" or \".npy\"",
        )),
    }
}

fn ranges_tensor(path: &Path, tensors: &SafeTensors<'_>) -> Result<Ranges> {
    let tensor = tensors
        .tensor("ranges")
        .map_err(|_| Error::model(path, format!("no tensor \"ranges\" among {:?}", tensors.names())))?;
    if tensor.dtype() != Dtype::F32 {
        return Err(Error::model(path, format!("tensor \"ranges\" is {:?}, expected F32", tensor.dtype())));
    }
    let values = tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    ranges_of_two_rows(path, tensor.shape(), values)
}

/// Takes minima and maxima from an array of 2 × d.
fn ranges_of_two_rows(path: &Path, shape: &[usize], mut min: Vec<f32>) -> Result<Ranges> {
    let &[2, dim] = shape else {
        return Err(Error::model(path, format!("ranges of shape {shape:?}, expected [2, dimensions]")));
    };
    let max = min.split_off(dim);
    Ranges::try_new(min, max).map_err(|error| Error::model(path, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(rows: usize, salt: usize) -> Matrix<f32> {
        let value = |i: usize| ((i * 7919 + salt * 104_729) % 1000) as f32 / 100.0 - 5.0;
        Matrix::try_from_vec(rows, 5, (0..rows * 5).map(value).collect()).unwrap()
    }

    fn of(shards: &[&Matrix<f32>]) -> Calibration {
        let mut calibration = Calibration::new();
        shards.iter().for_each(|shard| calibration.observe(shard).unwrap());
        calibration
    }

    #[test]
    fn shards_merge_to_the_whole_in_any_order() {
        let (a, b) = (points(40, 1), points(60, 2));
        let mut whole = a.clone();
        whole.append(&b).unwrap();
        let mut backwards = of(&[&b]);
        backwards.merge(&Calibration::new()).unwrap();
        backwards.merge(&of(&[&a])).unwrap();
        for merged in [of(&[&a, &b]), of(&[&b, &a]), backwards] {
            assert_eq!(merged, of(&[&whole]));
        }
        assert_eq!(of(&[&whole]).rows(), 100);
    }

    #[test]
    fn a_saved_calibration_is_loaded_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calibration.safetensors");
        let calibration = of(&[&points(10, 3)]);
        std::fs::write(&path, calibration.to_bytes().unwrap()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(Calibration::from_bytes(&path, &bytes).unwrap(), calibration);
        assert_eq!(&load_ranges(&path).unwrap(), calibration.ranges().unwrap());
        assert_eq!(calibration.to_bytes().unwrap(), calibration.to_bytes().unwrap());
    }

    #[test]
    fn nothing_seen_gives_no_ranges() {
        let mut calibration = Calibration::new();
        calibration.observe(&Matrix::zeros(0, 5)).unwrap();
        assert!(calibration.ranges().unwrap_err().to_string().contains("at least 1"));
        assert!(calibration.to_bytes().is_err());
    }

    #[test]
    fn another_width_is_refused() {
        let mut calibration = of(&[&points(3, 1)]);
        assert!(calibration.observe(&Matrix::zeros(1, 4)).is_err());
    }

    #[test]
    fn a_broken_file_is_named_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, tensors: &[(&str, Dtype, Vec<usize>, &[u8])]| {
            let views = tensors.iter().map(|(name, dtype, shape, data)| {
                (*name, TensorView::new(*dtype, shape.clone(), data).unwrap())
            });
            std::fs::write(path(name), safetensors::serialize(views, None).unwrap()).unwrap();
        };
        write("other.safetensors", &[("scale", Dtype::F32, vec![1], &[0; 4])]);
        write("type.safetensors", &[("ranges", Dtype::I8, vec![2, 1], &[0; 2])]);
        write("shape.safetensors", &[("ranges", Dtype::F32, vec![1, 2], &[0; 8])]);
        write("rows.safetensors", &[("ranges", Dtype::F32, vec![2, 1], &[0; 8])]);
        std::fs::write(path("torn.safetensors"), b"abc").unwrap();
        let cases = [
            ("other.safetensors", "no tensor \"ranges\" among [\"scale\"]"),
            ("type.safetensors", "is I8, expected F32"),
            ("shape.safetensors", "shape [1, 2], expected [2, dimensions]"),
            ("rows.safetensors", "no tensor \"rows\""),
            ("torn.safetensors", "torn.safetensors"),
        ];
        for (name, expected) in cases {
            let bytes = std::fs::read(path(name)).unwrap();
            let error = Calibration::from_bytes(&path(name), &bytes).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(name), "{error}");
        }
        let error = load_ranges(&path("absent.safetensors")).unwrap_err().to_string();
        assert!(error.contains("absent.safetensors"), "{error}");
        let error = load_ranges(&path("ranges.txt")).unwrap_err().to_string();
        assert!(error.contains("\".npy\""), "{error}");
    }
}
