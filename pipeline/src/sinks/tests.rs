//! Writing real files.

use super::*;
use crate::{Kind, positions::Covers};
use ::parquet::{
    basic::Compression, file::reader::FileReader, file::serialized_reader::SerializedFileReader,
};
use arrow::{array::*, datatypes::*};
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
use std::{fs, sync::Arc};

/// `count` rows from row `start` on: a number, a text, a vector of floats that are not all numbers, a date.
fn batch(start: u64, count: u64) -> Batch {
    let ids = Int64Array::from_iter_values((start..start + count).map(|i| i as i64));
    let texts: StringArray =
        (start..start + count).map(|i| (i != 1).then(|| format!("{i}: \"ü\"\n"))).collect();
    let vectors = (0..count).map(|_| Some(vec![Some(1.5), Some(f32::NAN), Some(f32::NEG_INFINITY)]));
    let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, 3);
    let days = Date32Array::from_iter_values((0..count).map(|i| 19782 + i as i32));
    let point: StructArray = vec![
        (
            Arc::new(Field::new("topic", DataType::Int32, true)),
            Arc::new(Int32Array::from(vec![7; count as usize])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("score", DataType::Float64, true)),
            Arc::new(Float64Array::from(vec![f64::NAN; count as usize])),
        ),
    ]
    .into();
    let rows = RecordBatch::try_from_iter([
        ("id", Arc::new(ids) as ArrayRef),
        ("text", Arc::new(texts) as ArrayRef),
        ("vector", Arc::new(vectors) as ArrayRef),
        ("day", Arc::new(days) as ArrayRef),
        ("best", Arc::new(point) as ArrayRef),
    ])
    .unwrap();
    Batch::new(rows, Covers::from([(Split::new("in"), start..start + count)]))
}

fn files(folder: &tempfile::TempDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn config(folder: &tempfile::TempDir, name: &str) -> SinkConfig {
    SinkConfig::for_path(folder.path().join(name).to_str().unwrap()).unwrap()
}

#[tokio::test]
async fn parquet_is_visible_at_commit_with_all_rows_in_zstd() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, "new/out.parquet");
    let mut sink = config.open(&batch(0, 1).rows.schema(), false).await.unwrap();
    sink.write(batch(0, 1000)).await.unwrap();
    sink.write(batch(1000, 500)).await.unwrap();
    let split = [Split::new("in")];
    assert!(!fs::exists(config.path().unwrap()).unwrap());
    assert_eq!(sink.positions(&split).await.unwrap().next(&split[0]), None, "nothing is visible yet");
    sink.commit().await.unwrap();
    assert_eq!(sink.positions(&split).await.unwrap().next(&split[0]), Some(1500));
    let reader = SerializedFileReader::new(fs::File::open(config.path().unwrap()).unwrap()).unwrap();
    assert_eq!(reader.metadata().file_metadata().num_rows(), 1500);
    let group = reader.metadata().row_group(0);
    assert!(group.columns().iter().all(|column| matches!(column.compression(), Compression::ZSTD(_))));
    let folder_of_file = folder.path().join("new");
    assert_eq!(fs::read_dir(folder_of_file).unwrap().count(), 1, "no temporary file is left");
}

#[tokio::test]
async fn jsonl_has_lists_structs_dates_and_null_for_what_is_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, "out.jsonl");
    let mut sink = config.open(&batch(0, 1).rows.schema(), false).await.unwrap();
    sink.write(batch(0, 1)).await.unwrap();
    sink.write(batch(1, 1)).await.unwrap();
    sink.commit().await.unwrap();
    let text = fs::read_to_string(config.path().unwrap()).unwrap();
    let expected = "{\"id\":0,\"text\":\"0: \\\"ü\\\"\\n\",\"vector\":[1.5,null,null],\"day\":\"2024-02-29\",\"best\":{\"topic\":7,\"score\":null}}\n\
                    {\"id\":1,\"text\":null,\"vector\":[1.5,null,null],\"day\":\"2024-02-29\",\"best\":{\"topic\":7,\"score\":null}}\n";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn an_abort_and_a_drop_leave_nothing_and_do_not_harm_what_was_there() {
    for name in ["out.parquet", "out.jsonl"] {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder, name);
        fs::write(config.path().unwrap(), "precious").unwrap();
        let mut sink = config.open(&batch(0, 1).rows.schema(), true).await.unwrap();
        sink.write(batch(0, 1000)).await.unwrap();
        sink.abort().await.unwrap();
        sink.abort().await.unwrap();
        assert!(sink.write(batch(1000, 1)).await.is_err(), "an aborted sink takes no rows");
        assert_eq!(files(&folder), [name]);
        assert_eq!(fs::read_to_string(config.path().unwrap()).unwrap(), "precious");
    }
}

#[tokio::test]
async fn an_output_that_exists_is_refused_unless_it_may_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, "out.jsonl");
    fs::write(config.path().unwrap(), "precious").unwrap();
    let error = config.check(false).await.unwrap_err();
    assert!(
        error.to_string().contains("out.jsonl: exists already") && error.to_string().contains("--overwrite")
    );
    assert_eq!(error.kind(), Kind::User);
    assert!(config.open(&batch(0, 1).rows.schema(), false).await.is_err());
    config.check(true).await.unwrap();
    let mut sink = config.open(&batch(0, 1).rows.schema(), true).await.unwrap();
    sink.write(batch(0, 1)).await.unwrap();
    sink.commit().await.unwrap();
    assert!(fs::read_to_string(config.path().unwrap()).unwrap().starts_with("{\"id\":0"));
}

#[tokio::test]
async fn an_output_that_comes_up_during_the_run_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder, "out.jsonl");
    let mut sink = config.open(&batch(0, 1).rows.schema(), false).await.unwrap();
    sink.write(batch(0, 1)).await.unwrap();
    fs::write(config.path().unwrap(), "precious").unwrap();
    assert!(sink.commit().await.unwrap_err().to_string().contains("exists already"));
    assert_eq!(files(&folder), ["out.jsonl"]);
    assert_eq!(fs::read_to_string(config.path().unwrap()).unwrap(), "precious");
}

#[tokio::test]
async fn object_stores_are_written_by_the_same_code() {
    let store = Arc::new(InMemory::new());
    for (name, config) in [("lake/o.parquet", "s3://o.parquet"), ("lake/o.jsonl", "s3://o.jsonl")] {
        let config = SinkConfig::for_path(config).unwrap();
        let location = Location::new(store.clone(), Path::from(name), name);
        let mut sink = config.open_at(location.clone(), &batch(0, 1).rows.schema(), false).await.unwrap();
        for i in 0..100 {
            sink.write(batch(i * 1000, 1000)).await.unwrap();
        }
        assert!(!location.exists().await.unwrap());
        sink.commit().await.unwrap();
        let bytes = store.get(location.path()).await.unwrap().bytes().await.unwrap();
        if name.ends_with("jsonl") {
            assert_eq!(bytes.split(|&b| b == b'\n').count(), 100_001);
        } else {
            let reader = SerializedFileReader::new(bytes).unwrap();
            assert_eq!(reader.metadata().file_metadata().num_rows(), 100_000);
        }
    }
}

#[tokio::test]
async fn rows_that_come_twice_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = config(&folder, "out.jsonl").open(&batch(0, 1).rows.schema(), false).await.unwrap();
    sink.write(batch(0, 10)).await.unwrap();
    assert_eq!(sink.write(batch(5, 10)).await.unwrap_err().kind(), Kind::Internal);
}

#[tokio::test]
async fn what_is_no_file_to_write_is_refused_with_the_choices() {
    let folder = tempfile::tempdir().unwrap();
    for (name, words) in [
        ("out.txt", "expected a name that ends in .parquet or .jsonl, or in / for a folder"),
        ("out", "delta: before the name of a table"),
    ] {
        let error = SinkConfig::for_path(name).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.kind(), Kind::User);
    }
    fs::create_dir(folder.path().join("out.parquet")).unwrap();
    let error = config(&folder, "out.parquet").check(true).await.unwrap_err();
    assert!(error.to_string().contains("is a folder"), "{error}");
}
