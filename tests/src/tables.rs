//! Small inputs in a temporary folder, and outputs read back.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::{
    ArrayRef, AsArray, FixedSizeListArray, Float32Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

/// A temporary folder, removed with all in it at the end of a test.
pub struct Folder(TempDir);

/// Rows in clusters: points on a sphere around a few directions, each with a text made of its cluster's own words.
#[derive(Debug, Clone, Copy)]
pub struct Blobs {
    /// Clusters, none of which overlap.
    pub clusters: usize,
    /// Dimensions of a point; at least the clusters.
    pub dim: usize,
    /// The seed; the same rows come of the same seed.
    pub seed: u64,
}

/// The words of the clusters' texts.
const WORDS: [[&str; 4]; 6] = [
    ["harbour", "vessel", "anchor", "sailor"],
    ["orchard", "blossom", "harvest", "cider"],
    ["glacier", "crevasse", "summit", "moraine"],
    ["violin", "sonata", "orchestra", "conductor"],
    ["turbine", "voltage", "generator", "transformer"],
    ["parliament", "senator", "ballot", "coalition"],
];

impl Folder {
    /// Makes one.
    pub fn new() -> Result<Self> {
        Ok(Self(TempDir::new()?))
    }

    /// The path of `name` in it, as an argument.
    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Writes a file, with the folders it lies in, and returns its path.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<String> {
        let path = self.path(name);
        if let Some(parent) = Path::new(&path).parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, bytes)?;
        Ok(path)
    }

    /// Writes rows as Parquet, and returns the file's path.
    pub fn parquet(&self, name: &str, rows: &RecordBatch) -> Result<String> {
        let path = self.write(name, [])?;
        write_parquet(&path, rows.schema(), [Ok(rows.clone())], 1 << 20)?;
        Ok(path)
    }

    /// The names in it, sorted.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.0.path())? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }
}

impl Blobs {
    /// Makes `rows` rows of `id`, `text`, `truth` and `embedding`, the first of which is row `first`.
    pub fn rows(self, first: usize, rows: usize) -> Result<RecordBatch> {
        let (mut texts, mut truth, mut values) =
            (Vec::new(), Vec::new(), Vec::with_capacity(rows * self.dim));
        for row in first..first + rows {
            let mut random = Random::new(self.seed, row as u64);
            let cluster = row % self.clusters;
            let words = WORDS[cluster % WORDS.len()];
            let mut word = || words[(random.next() * 4.0) as usize % 4];
            texts.push(format!("{} {} {}", word(), word(), word()));
            truth.push(cluster as i32);
            for column in 0..self.dim {
                let centre = f32::from(u8::from(column == cluster));
                values.push(centre + 0.1 * (random.next() + random.next() - random.next() - random.next()));
            }
        }
        let item = Arc::new(Field::new_list_field(DataType::Float32, false));
        let values = Arc::new(Float32Array::from(values));
        let embedding = FixedSizeListArray::try_new(item, self.dim as i32, values, None)?;
        Ok(RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from_iter_values(first as i64..(first + rows) as i64)) as ArrayRef),
            ("text", Arc::new(StringArray::from(texts))),
            ("truth", Arc::new(Int32Array::from(truth))),
            ("embedding", Arc::new(embedding)),
        ])?)
    }
}

/// Numbers between 0 and 1: a permuted congruential generator (O'Neill 2014, PCG-XSH-RR) begun anew for each row.
pub struct Random(u64);

impl Random {
    /// Begins with `seed`, anew for each `row`.
    pub fn new(seed: u64, row: u64) -> Self {
        let mut random =
            Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ row.wrapping_mul(0xd134_2543_de82_ef95));
        // The first numbers of neighbouring seeds are alike.
        random.next();
        random.next();
        random
    }

    /// The next number, 0 to 1.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> f32 {
        let old = self.0;
        self.0 = old.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bits = ((((old >> 18) ^ old) >> 27) as u32).rotate_right((old >> 59) as u32);
        (bits >> 8) as f32 / (1 << 24) as f32
    }

    /// A number below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        (self.next() * count as f32) as usize % count.max(1)
    }
}

/// Writes batches as Parquet, one after another, in row groups of `group_rows`.
pub fn write_parquet(
    path: &str,
    schema: Arc<Schema>,
    batches: impl IntoIterator<Item = Result<RecordBatch>>,
    group_rows: usize,
) -> Result<()> {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, schema, Some(properties))?;
    for batch in batches {
        writer.write(&batch?)?;
    }
    writer.close()?;
    Ok(())
}

/// Damages a row group: the header of its last column's first page. (Damaged numbers would still be numbers.)
pub fn damage_row_group(path: &str, row_group: usize) -> Result<()> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let columns = reader.metadata().row_group(row_group).columns();
    let (start, _) = columns.last().context("a row group without columns")?.byte_range();
    let mut bytes = fs::read(path)?;
    let start = usize::try_from(start)?;
    bytes[start..start + 16].fill(0xff);
    fs::write(path, bytes)?;
    Ok(())
}

/// Reads a Parquet file whole.
pub fn read_parquet(path: &str) -> Result<RecordBatch> {
    let file = File::open(path).with_context(|| format!("{path} cannot be opened"))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let schema = Arc::clone(reader.schema());
    let batches = reader.build()?.collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(concat_batches(&schema, &batches)?)
}

/// Returns an int32 column.
pub fn ints(rows: &RecordBatch, name: &str) -> Result<Vec<i32>> {
    let column = column(rows, name)?.as_primitive_opt::<Int32Type>();
    Ok(column.with_context(|| format!("{name} is not int32"))?.values().to_vec())
}

/// Returns a float32 column.
pub fn floats(rows: &RecordBatch, name: &str) -> Result<Vec<f32>> {
    let column = column(rows, name)?.as_primitive_opt::<Float32Type>();
    Ok(column.with_context(|| format!("{name} is not float32"))?.values().to_vec())
}

/// Returns a utf8 column without nulls.
pub fn strings(rows: &RecordBatch, name: &str) -> Result<Vec<String>> {
    let column = column(rows, name)?.as_string_opt::<i32>().with_context(|| format!("{name} is not utf8"))?;
    Ok(column.iter().flatten().map(str::to_owned).collect())
}

/// Returns a column.
pub fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    rows.column_by_name(name).with_context(|| format!("no column {name:?} in {:?}", rows.schema()))
}

/// Copies a folder with all in it.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
