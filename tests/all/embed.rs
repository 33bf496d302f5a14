//! `thema embed` and `thema encoders`: vectors in every precision, and what makes them.

use std::fs;

use anyhow::{Result, ensure};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Int8Type, UInt8Type};
use harness::program::{Run, thema};
use harness::tables::{Folder, column, read_parquet, strings};

use crate::models::{ENCODER, PAPERS};

/// Dimensions of the encoder.
const DIM: usize = 384;

#[test]
fn each_precision_is_written_as_its_type_and_codes_the_same_vectors() -> Result<()> {
    let folder = Folder::new()?;
    let of = |name: &str, more: &[&str]| -> Result<RecordBatch> {
        let out = folder.path(&format!("{name}.parquet"));
        embed(PAPERS, &out, &[&["--rows", "0..40", "--precision", name], more].concat())?.succeeds()?;
        read_parquet(&out)
    };
    let float32 = of("float32", &[])?;
    let names: Vec<&str> = float32.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names.last(), Some(&"embedding"));
    assert_eq!(strings(&float32, "id")?, strings(&read_parquet(PAPERS)?.slice(0, 40), "id")?);
    let vectors = numbers::<Float32Type>(&float32, DataType::Float32, DIM)?;
    for row in vectors.chunks(DIM) {
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        // Rounding of 384 squares and of the division.
        assert!((length - 1.0).abs() < 1e-5, "a vector of length {length}");
    }

    // A bit a dimension, the first one highest; int8 counts from -128.
    let ubinary = numbers::<UInt8Type>(&of("ubinary", &[])?, DataType::UInt8, DIM / 8)?;
    for (byte, eight) in ubinary.iter().zip(vectors.chunks(8)) {
        let expected = eight.iter().fold(0, |bits, v| bits << 1 | u8::from(*v > 0.0));
        assert_eq!(*byte, expected);
    }
    let binary = numbers::<Int8Type>(&of("binary", &[])?, DataType::Int8, DIM / 8)?;
    assert!(binary.iter().zip(&ubinary).all(|(signed, byte)| i16::from(*signed) == i16::from(*byte) - 128));

    // The ranges are those of the 40 vectors: each dimension's smallest and largest value have the end codes.
    let floats = folder.path("float32.parquet");
    let uint8 = numbers::<UInt8Type>(&of("uint8", &["--calibration", &floats])?, DataType::UInt8, DIM)?;
    let int8 = numbers::<Int8Type>(&of("int8", &["--calibration", &floats])?, DataType::Int8, DIM)?;
    assert!(int8.iter().zip(&uint8).all(|(signed, byte)| i16::from(*signed) == i16::from(*byte) - 128));
    for column in 0..DIM {
        let rows = || (column..vectors.len()).step_by(DIM);
        let (low, high) = rows()
            .fold((f32::MAX, f32::MIN), |(low, high), at| (low.min(vectors[at]), high.max(vectors[at])));
        for at in rows() {
            let code = f64::from(vectors[at] - low) / f64::from(high - low) * 255.0;
            assert!(
                (f64::from(uint8[at]) - code).abs() <= 1.0,
                "{} is coded {}, not {code}",
                vectors[at],
                uint8[at]
            );
        }
    }
    Ok(())
}

#[test]
fn eight_bit_codes_without_a_calibration_are_refused_with_the_choices() -> Result<()> {
    let folder = Folder::new()?;
    let out = folder.path("codes.parquet");
    let run = embed(PAPERS, &out, &["--rows", "0..4", "--precision", "int8"])?;
    run.fails(2, &["int8", "--calibration", "--ranges"])?;
    embed(PAPERS, &out, &["--rows", "0..4", "--precision", "int9"])?.fails(2, &["int9", "ubinary"])?;
    assert_eq!(folder.names()?, [""; 0]);
    Ok(())
}

#[test]
fn a_models_own_ranges_code_vectors() -> Result<()> {
    let folder = Folder::new()?;
    let out = folder.path("codes.parquet");
    let ranges = format!("{}/v1/calibration.safetensors", crate::models::papers().model);
    embed(PAPERS, &out, &["--rows", "0..40", "--precision", "int8", "--ranges", &ranges])?.succeeds()?;
    let codes = numbers::<Int8Type>(&read_parquet(&out)?, DataType::Int8, DIM)?;
    // Of the sample itself: nothing lies outside, and the whole range is used.
    assert!(codes.iter().any(|c| *c < -100) && codes.iter().any(|c| *c > 100));
    Ok(())
}

#[test]
fn missing_values_are_counted_by_their_column_and_strict_refuses_them() -> Result<()> {
    let folder = Folder::new()?;
    let lines = "{\"title\": \"One\", \"note\": \"a\"}\n{\"title\": \"Two\", \"note\": null}\n{\"title\": \"Three\"}\n";
    let input = folder.write("rows.jsonl", lines)?;
    let out = folder.write("out.parquet", "what was there before")?;
    let arguments = [
        "embed",
        "--input",
        &input,
        "--text",
        "{title} {note}",
        "--encoder",
        ENCODER,
        "--out",
        &out,
        "--overwrite",
    ];
    let told = "column \"note\" is missing in 2 of 3 rows";
    thema(&[&arguments[..], &["--strict"]].concat())?.fails(3, &["--strict", told])?;
    assert_eq!(fs::read_to_string(&out)?, "what was there before", "what was refused is visible");
    let run = thema(&arguments)?.succeeds()?;
    ensure!(run.stderr.contains(told), "{}", run.stderr);
    Ok(())
}

#[test]
fn an_encoder_in_8_bits_makes_nearly_the_same_vectors_and_is_another_encoder() -> Result<()> {
    let folder = Folder::new()?;
    let vectors = |weights: &str| -> Result<Vec<f32>> {
        let out = folder.path(&format!("{weights}.parquet"));
        embed(PAPERS, &out, &["--rows", "0..40", "--weights", weights])?.succeeds()?;
        numbers::<Float32Type>(&read_parquet(&out)?, DataType::Float32, DIM)
    };
    let (exact, int8) = (vectors("float32")?, vectors("int8")?);
    ensure!(exact != int8, "the flag does nothing");
    for (a, b) in exact.chunks(DIM).zip(int8.chunks(DIM)) {
        let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        ensure!(cosine > 0.99, "{cosine}");
    }
    let job = folder.write("job.yaml", format!("encoder: {{ name: {ENCODER}, weights: int8 }}\n"))?;
    let out = folder.path("out.parquet");
    let run =
        thema(&["label", &job, "--input", PAPERS, "--model", &crate::models::papers().model, "--out", &out])?;
    run.fails(2, &["another encoder", "weights in int8, expected float32"])?;
    thema(&["embed", "--weights", "int4"])?
        .fails(2, &["int4", "float32, int8, float16, bfloat16, float8"])?;
    Ok(())
}

#[test]
fn the_encoders_on_this_machine_are_listed_and_described() -> Result<()> {
    let list = thema(&["encoders"])?.succeeds()?;
    let line = list.stdout.lines().find(|line| line.split_whitespace().next() == Some(ENCODER));
    ensure!(line.is_some(), "{ENCODER} is not in\n{}", list.stdout);
    assert_eq!(thema(&["encoders", "list"])?.succeeds()?.stdout, list.stdout);

    let shown = thema(&["encoders", "show", ENCODER])?.succeeds()?.stdout;
    for words in ["dimensions  384", "max length  256 tokens", "normalised  true", "weights     sha256 "] {
        ensure!(shown.contains(words), "no {words:?} in\n{shown}");
    }
    let missing = thema(&["encoders", "show", "nobody/nothing"])?;
    missing.fails(2, &["nobody/nothing is not on this machine", "put the model's files"])?;
    Ok(())
}

fn embed(input: &str, out: &str, more: &[&str]) -> Result<Run> {
    let what = ["embed", "--input", input, "--text", "{title}", "--encoder", ENCODER, "--out", out];
    thema(&[&what, more].concat())
}

/// Returns the numbers of the column `embedding`, which are of type `item`, `size` a row.
fn numbers<T: ArrowPrimitiveType>(rows: &RecordBatch, item: DataType, size: usize) -> Result<Vec<T::Native>> {
    let lists = column(rows, "embedding")?.as_fixed_size_list();
    assert_eq!((lists.values().data_type(), lists.value_length() as usize), (&item, size));
    assert_eq!(lists.null_count(), 0);
    Ok(lists.values().as_primitive::<T>().values().to_vec())
}
