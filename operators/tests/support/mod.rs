//! Reads the committed outputs of the established tools.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its own part, and a test fails by panicking

use arrow::array::RecordBatch;
use kernels::Matrix;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::path::PathBuf;

/// The path of a file under `tests/data/reference`.
pub fn reference(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/reference").join(name)
}

/// Reads a Parquet file as one batch.
pub fn parquet(name: &str) -> RecordBatch {
    let file = std::fs::File::open(reference(name)).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// Reads a two-dimensional `.npy` of little-endian values of `N` bytes each.
pub fn npy<T: Copy + Default, const N: usize>(name: &str, value: impl Fn([u8; N]) -> T) -> Matrix<T> {
    let bytes = std::fs::read(reference(name)).unwrap();
    assert_eq!(&bytes[..6], b"\x93NUMPY");
    let header_len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + header_len]).unwrap();
    assert!(header.contains("'fortran_order': False"), "{header}");
    let shape = header.split('(').nth(1).unwrap().split(')').next().unwrap();
    let shape: Vec<usize> = shape.split(',').filter_map(|s| s.trim().parse().ok()).collect();
    let values = bytes[10 + header_len..].chunks_exact(N).map(|b| value(b.try_into().unwrap())).collect();
    Matrix::try_from_vec(shape[0], shape.get(1).copied().unwrap_or(1), values).unwrap()
}

/// Reads a `.npy` of f32.
pub fn npy_f32(name: &str) -> Matrix<f32> {
    npy(name, f32::from_le_bytes)
}
