//! Our codes against those that sentence-transformers and numpy wrote (tests/data/README.md says how).

// The whole file is a test: its helpers may fail like one.
#![allow(clippy::unwrap_used)]

use arrow::array::AsArray;
use arrow::datatypes::{Int8Type, UInt8Type};
use kernels::Matrix;
use kernels::quantize::{Ranges, Rule};
use operators::calibration::{Calibration, CalibrationReport, load_ranges};
use operators::quantize::{Precision, Quantizer};
use safetensors::SafeTensors;
use std::path::PathBuf;

fn reference(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/reference").join(name)
}

/// The bytes of a .npy file's numbers: format 1, C order, as all of these are.
fn npy(name: &str) -> Vec<u8> {
    let bytes = std::fs::read(reference(name)).unwrap();
    let header_bytes = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[10 + header_bytes..].to_vec()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&number| f32::from_le_bytes(number)).collect()
}

fn embeddings() -> Matrix<f32> {
    Matrix::try_from_vec(432, 384, floats(&npy("minilm_fp32_256.npy"))).unwrap()
}

/// The bytes of the column that `x` becomes.
fn codes(x: &Matrix<f32>, precision: Precision, rule: Rule, ranges: &Ranges) -> Vec<u8> {
    let column =
        Quantizer::try_new(precision, rule, Some(ranges.clone()), 384).unwrap().column(x.clone()).unwrap();
    match precision {
        Precision::Int8 | Precision::Binary => column
            .values()
            .as_primitive::<Int8Type>()
            .values()
            .iter()
            .map(|code| code.cast_unsigned())
            .collect(),
        _ => column.values().as_primitive::<UInt8Type>().values().to_vec(),
    }
}

#[test]
fn codes_are_byte_equal_to_sentence_transformers() {
    let x = embeddings();
    let ranges = load_ranges(&reference("quant_ranges_minmax.npy")).unwrap();
    for precision in [Precision::Int8, Precision::Uint8, Precision::Binary, Precision::Ubinary] {
        let ours = codes(&x, precision, Rule::Clipped, &ranges);
        assert!(ours == npy(&format!("quant_{precision}.npy")), "{precision} differs");
    }
}

#[test]
fn values_outside_their_range_clip_or_wrap_as_in_numpy() {
    let bytes = std::fs::read(reference("quant_outside.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let ranges = load_ranges(&reference("quant_outside.safetensors")).unwrap();
    let x = embeddings().gather(&(0..96).collect::<Vec<_>>());
    let calibration = embeddings().gather(&(96..136).collect::<Vec<_>>());
    let mut measured = Calibration::new();
    measured.observe(&calibration).unwrap();
    assert_eq!(measured.ranges().unwrap().min(), ranges.min());
    for precision in [Precision::Int8, Precision::Uint8] {
        for (rule, suffix) in [(Rule::Clipped, ""), (Rule::Legacy, "_legacy")] {
            let ours = codes(&x, precision, rule, &ranges);
            assert!(
                ours == tensors.tensor(&format!("{precision}{suffix}")).unwrap().data(),
                "{precision}{suffix}"
            );
        }
    }
}

#[test]
fn the_report_counts_what_numpy_counts() {
    let bytes = std::fs::read(reference("quant_outside.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let ranges = load_ranges(&reference("quant_outside.safetensors")).unwrap();
    let x = embeddings().gather(&(0..96).collect::<Vec<_>>());
    let report = CalibrationReport::of(&x, &ranges, Precision::Int8).unwrap();
    let percent = f64::from_le_bytes(tensors.tensor("inside_percent").unwrap().data().try_into().unwrap());
    // Sums of 384 shares of at most 1, in another order.
    assert!(
        (100.0 * report.inside - percent).abs() < 384.0 * 100.0 * f64::EPSILON,
        "{} {percent}",
        report.inside
    );
    let counts: Vec<u64> = tensors
        .tensor("histogram")
        .unwrap()
        .data()
        .as_chunks()
        .0
        .iter()
        .map(|&count| u64::from_le_bytes(count))
        .collect();
    assert_eq!(report.histogram.counts, counts);
    assert_eq!(report.histogram.counts.iter().sum::<u64>(), 96 * 384);
    assert_eq!((report.float_bytes, report.code_bytes), (96 * 384 * 4, 96 * 384));
}
