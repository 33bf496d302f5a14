//! A lake at scale: many rows in a hundred files on a store, labelled by runs that are killed on the way, and counted.
//!
//! `make test` runs a small one; `make lake-check ROWS=2000000` a large one, whose last line is JSON.

use crate::models::{ENCODER, PAPERS};
use anyhow::{Context, Result, ensure};
use arrow::array::{ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Float32Type};
use harness::program::{Run, start_with, thema, thema_with};
use harness::s3::S3;
use harness::tables::{Folder, Random, column, read_parquet, strings};
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// The files of the lake.
const FILES: usize = 100;

/// The rows of a batch that is written.
const BATCH: usize = 4096;

/// How often a run is killed.
const KILLS: usize = 3;

/// Longest run.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);

/// How large it is, as variables of the environment say.
struct Size {
    /// `ROWS`: the rows of the lake.
    rows: usize,
    /// `SAMPLE`: the rows that the model is fitted on.
    sample: usize,
    /// `PAPERS`: the papers that are repeated.
    papers: usize,
    /// `NOISE`: how far a row is from its paper, in each dimension at most; with 0 rows of a paper follow each other and are
    /// the same, so that a lake of many takes little of a disk.
    noise: f32,
}

impl Size {
    fn of_environment() -> Result<Self> {
        fn said<T: std::str::FromStr>(name: &str, default: T) -> Result<T> {
            match std::env::var(name) {
                Err(_) => Ok(default),
                Ok(text) => text.parse().ok().with_context(|| format!("{name}={text} is no number")),
            }
        }
        let (rows, sample) = (said("ROWS", 20_000)?, said("SAMPLE", 2_000)?);
        Ok(Self { rows, sample, papers: said("PAPERS", 200)?, noise: said("NOISE", 0.02)? })
    }

    fn rows_of(&self, file: usize) -> std::ops::Range<usize> {
        self.rows * file / FILES..self.rows * (file + 1) / FILES
    }
}

/// Embeds the papers once.
fn papers(folder: &Folder, size: &Size) -> Result<RecordBatch> {
    let (rows, out) = (format!("0..{}", size.papers), folder.path("papers.parquet"));
    let what = ["embed", "--input", PAPERS, "--rows", &rows, "--text", "{title}", "--encoder", ENCODER];
    thema(&[&what[..], &["--out", &out]].concat())?.succeeds()?;
    read_parquet(&out)
}

/// Writes a file of the lake: papers with ids of their own and vectors that are a little off.
fn write_file(place: &Path, papers: &RecordBatch, size: &Size, rows: std::ops::Range<usize>) -> Result<()> {
    let (ids, titles) = (strings(papers, "id")?, strings(papers, "title")?);
    let vectors = column(papers, "embedding")?.as_fixed_size_list();
    let dim = vectors.value_length() as usize;
    let values = vectors.values().as_primitive::<Float32Type>().values();
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(size.noise == 0.0)
        .set_max_row_group_row_count(Some(1 << 17))
        .build();
    let mut writer: Option<ArrowWriter<File>> = None;
    let each = size.rows.div_ceil(papers.num_rows());
    for start in rows.clone().step_by(BATCH) {
        let batch = start..rows.end.min(start + BATCH);
        let paper = |row: usize| {
            if size.noise == 0.0 { row / each } else { row.wrapping_mul(7919) % papers.num_rows() }
        };
        let mut floats = Vec::with_capacity(batch.len() * dim);
        for row in batch.clone() {
            let mut random = Random::new(5, row as u64);
            let vector = &values[paper(row) * dim..][..dim];
            floats.extend(vector.iter().map(|value| value + size.noise * (2.0 * random.next() - 1.0)));
        }
        let text = |of: &[String]| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(batch.clone().map(|row| &of[paper(row)])))
        };
        let names = batch.clone().map(|row| format!("{}-{row}", ids[paper(row)]));
        let embedding = FixedSizeListArray::try_new(
            Arc::clone(&item),
            dim as i32,
            Arc::new(Float32Array::from(floats)),
            None,
        )?;
        let rows = RecordBatch::try_from_iter([
            ("id", Arc::new(StringArray::from_iter_values(names)) as ArrayRef),
            ("title", text(&titles)),
            ("embedding", Arc::new(embedding)),
        ])?;
        if writer.is_none() {
            let file = File::create(place)?;
            writer = Some(ArrowWriter::try_new(file, rows.schema(), Some(properties.clone()))?);
        }
        writer.as_mut().context("a writer")?.write(&rows)?;
    }
    writer.context("a file without rows")?.close()?;
    Ok(())
}

/// The rows of the files in a folder, and how many ids they have.
fn count(folder: &Path) -> Result<(usize, usize)> {
    let (mut rows, mut ids) = (0, HashSet::new());
    for path in parts(folder)? {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
        let mask = ProjectionMask::columns(reader.parquet_schema(), ["id"]);
        for batch in reader.with_projection(mask).build()? {
            let batch = batch?;
            rows += batch.num_rows();
            // The row's number is all that tells one from another.
            let number = |id: &str| id.rsplit_once('-').and_then(|(_, number)| number.parse::<u32>().ok());
            for id in column(&batch, "id")?.as_string::<i32>().iter().flatten() {
                ids.insert(number(id).with_context(|| format!("{id} is no id of ours"))?);
            }
        }
    }
    Ok((rows, ids.len()))
}

fn parts(folder: &Path) -> Result<Vec<PathBuf>> {
    let paths: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "parquet")).collect())
}

#[test]
fn a_lake_is_labelled_once_though_runs_are_killed() -> Result<()> {
    let size = Size::of_environment()?;
    let (folder, store) = (Folder::new()?, S3::start(&["lake"])?);
    let rows = papers(&folder, &size)?;
    fs::create_dir(store.path("lake/rows"))?;
    let mut bytes = 0;
    for file in 0..FILES {
        let place = store.path(&format!("lake/rows/{file:03}.parquet"));
        write_file(&place, &rows, &size, size.rows_of(file))?;
        bytes += fs::metadata(place)?.len();
        store.tag(&format!("lake/rows/{file:03}.parquet"))?;
    }
    let variables = store.variables();
    let sample = size.sample.to_string();
    let fitting = Instant::now();
    let fit =
        ["fit", "--input", "s3://lake/rows/", "--id", "id", "--text", "{title}", "--embeddings", "embedding"];
    let how = ["--sample", &sample, "--min-cluster-size", "20", "--out", "s3://lake/model"];
    let fit = start_with(&[&fit[..], &how].concat(), &variables)?.wait_within(PATIENCE)?.succeeds()?;
    let (fit_seconds, fit_peak) = (fitting.elapsed().as_secs_f64(), fit.peak_kib);

    let label =
        ["label", "--input", "s3://lake/rows/", "--model", "s3://lake/model", "--out", "s3://lake/out/"];
    let label = [&label[..], &["--log", "json"]].concat();
    let mut plan = vec!["plan"];
    plan.extend(&label);
    store.fail(|_| None);
    let planned = start_with(&plan, &variables)?.wait_within(PATIENCE)?.succeeds()?;
    let plan_bytes = store.bytes();
    let planned: Value = serde_json::from_str(&planned.stdout)?;
    let planned = &planned["plans"][0];
    ensure!(planned["rows"] == size.rows, "{planned}");
    let done = store.path("lake/out/_thema/done");
    let marks = || fs::read_dir(&done).map_or(0, Iterator::count);
    let plan = store.path("lake/out/_thema/plans/000001.json");
    let units = || -> Result<Option<usize>> {
        let Ok(plan) = fs::read(&plan) else { return Ok(None) };
        // One that is being written is not there yet.
        let plan: Option<Value> = serde_json::from_slice(&plan).ok();
        Ok(plan.and_then(|plan| Some(plan["units"].as_array()?.len())))
    };
    store.fail(|_| None);
    let began = Instant::now();
    for kill in 1..=KILLS {
        let mut running = start_with(&label, &variables)?;
        // A file may be several units; what there is, the plan says.
        while units()?.is_none_or(|units| marks() < units * kill / (KILLS + 1)) && !running.has_ended()? {
            thread::sleep(Duration::from_millis(5));
        }
        ensure!(!running.has_ended()?, "a run ended before it could be killed");
        drop(running.kill()?);
    }
    let left = units()?.context("no plan")? - marks();
    let run: Run = start_with(&label, &variables)?.wait_within(PATIENCE)?.succeeds()?;
    let seconds = began.elapsed().as_secs_f64();
    let travelled = store.bytes();
    let last: Value = serde_json::from_str(&run.stdout)?;
    let written: u64 = parts(&store.path("lake/out"))?
        .iter()
        .map(|path| Ok(fs::metadata(path)?.len()))
        .sum::<Result<u64>>()?;
    let (found, ids) = count(&store.path("lake/out"))?;
    ensure!(found == size.rows && ids == size.rows, "{found} rows with {ids} ids, expected {}", size.rows);
    ensure!(last["units"].as_u64() == Some(left as u64), "{last}, and {left} units were left");

    let began = Instant::now();
    store.fail(|_| None);
    let again = thema_with(&label, &variables)?.succeeds()?;
    let again: Value = serde_json::from_str(&again.stdout)?;
    ensure!(again["rows"] == 0 && again["files"] == FILES, "{again}");
    let rate = |rows: &Value, seconds: &Value| Some(rows.as_f64()? / seconds.as_f64()?);
    let facts = json!({
        "rows": size.rows, "files": FILES, "kills": KILLS, "sample": size.sample, "dimensions": 384,
        "seconds": seconds, "rows_per_second": size.rows as f64 / seconds,
        "last_run": { "rows": last["rows"], "rows_per_second": rate(&last["rows"], &last["seconds"]) },
        "peak_mib": run.peak_kib / 1024, "bytes_of_lake": bytes, "bytes_read": travelled,
        "planned": {
            "seconds": planned["seconds"], "peak_mib": planned["peak_bytes"].as_f64().map(|bytes| bytes / 1048576.0),
            "bytes_read": planned["read_bytes"], "bytes_written": planned["written_bytes"], "bytes_of_plan": plan_bytes,
        },
        "bytes_written": written,
        "nothing_new": { "seconds": began.elapsed().as_secs_f64(), "bytes_read": store.bytes() },
        "fit": { "seconds": fit_seconds, "peak_mib": fit_peak / 1024 },
        "rows_twice": found - ids, "rows_lost": size.rows - ids,
    });
    println!("{facts}");
    Ok(())
}
