//! What a fit of so many rows takes: the operators' own stages, and around them what this crate does: reading,
//! embedding, the report, saving.

use super::trial::Trial;
use crate::job::Job;
use crate::sources::{TableConfig, WINDOW_BYTES};
use crate::{Error, Result};
use arrow::array::{Array, RecordBatch};
use kernels::Isa;
use operators::assign::LabelConfig;
use operators::plan::{Asked, Workload};
use operators::sample::Selection;
use serde::Serialize;

/// What the program takes before it holds any row: its code as far as it is used, threads, tables of Unicode and stop
/// words. Measured (Linux, x86-64): a fit of 300 rows takes 31 MiB before and 37 MiB after its words are counted.
const PROGRAM_BYTES: f64 = 34.0 * MIB;

const MIB: f64 = 1048576.0;

/// A plan.
#[derive(Debug, Serialize)]
pub(super) struct Forecast {
    /// Rows of the input.
    pub(super) rows: u64,
    /// Rows of the sample.
    pub(super) fitted: u64,
    /// The stages in their order.
    pub(super) stages: Vec<Stage>,
    /// The most memory of any.
    pub(super) peak_bytes: f64,
    /// The most memory of a GPU; nothing where all runs on the processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gpu_peak_bytes: Option<f64>,
    /// The time of all.
    pub(super) seconds: f64,
    /// The bundle and the report.
    pub(super) disk_bytes: f64,
    /// What endpoints are asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) asked: Vec<Asked>,
}

/// A stage of a plan.
#[derive(Debug, Serialize)]
pub(super) struct Stage {
    pub(super) stage: &'static str,
    #[serde(rename = "peak_bytes")]
    pub(super) bytes: f64,
    pub(super) seconds: f64,
}

/// How rows come.
#[derive(Debug)]
pub(super) struct Input {
    /// Bytes a row of each column.
    columns: Vec<f64>,
    /// Bytes a row of the column of vectors, 0 without one.
    vectors: f64,
    /// The rows of a batch.
    batch_rows: f64,
    /// The rows of the largest row group; nothing for text files.
    group_rows: Option<f64>,
}

impl Input {
    /// Measures `rows`, the first of the input.
    pub(super) fn of(
        rows: &RecordBatch,
        config: &TableConfig,
        largest_group: Option<u64>,
        job: &Job,
    ) -> Self {
        let a_row = |array: &dyn Array| {
            // What cannot be sliced counts as it is.
            let data = array.to_data();
            data.get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()) as f64
                / rows.num_rows().max(1) as f64
        };
        let vectors = job.encoder.column.as_ref().and_then(|column| rows.column_by_name(column));
        Self {
            columns: rows.columns().iter().map(|array| a_row(array.as_ref())).collect(),
            vectors: vectors.map_or(0.0, |array| a_row(array.as_ref())),
            batch_rows: config.batch_size as f64,
            group_rows: largest_group.map(|rows| rows as f64),
        }
    }

    fn row_bytes(&self) -> f64 {
        self.columns.iter().sum()
    }

    /// The windows on the columns of a row group: see `sources::table::windows`. Text files have one buffer, which is
    /// small.
    fn windows(&self, rows: f64) -> f64 {
        let Some(group) = self.group_rows else { return 0.0 };
        // A larger input than the one at hand is taken to have row groups as large, or larger.
        let group = group.max(rows.min(1e6));
        self.columns.iter().map(|bytes| (bytes * group).min(WINDOW_BYTES as f64)).sum()
    }

    /// Reading `rows` rows, of which `fitted` stay, up to the rows of a fit; `limited` where a larger source fills the
    /// sampler with up to twice the sample.
    fn reading(&self, rows: f64, fitted: f64, limited: bool, fit: &Workload<'_>) -> f64 {
        let batch = self.batch_rows.min(rows);
        let held = if limited { rows.min(2.0 * fitted + batch) } else { fitted };
        let picks = 32.0 * held;
        // A batch that is decoded: of vectors the numbers, their levels (as large) and the list made of both.
        let decoded = batch * (self.row_bytes() + 2.0 * self.vectors);
        let before = if rows > batch { held * self.row_bytes() } else { 0.0 };
        let pass = self.windows(rows) + before + decoded + picks;
        // The sample in order: one column at a time stands twice.
        let widest = self.columns.iter().copied().fold(0.0, f64::max);
        let in_order = held * self.row_bytes() + picks + fitted * (widest + 16.0);
        let vectors = if self.vectors > 0.0 { fit.vectors_bytes() } else { 0.0 };
        let taking = fitted * (self.row_bytes() + 32.0) + vectors;
        let texts = fitted * (self.row_bytes() - self.vectors + 16.0) + vectors + fit.texts_bytes();
        pass.max(in_order).max(taking).max(texts)
    }
}

impl Forecast {
    /// Plans a fit of an input of `rows` rows.
    pub(super) fn of(
        rows: u64,
        job: &Job,
        label: &LabelConfig,
        input: &Input,
        trial: &Trial,
    ) -> Result<Self> {
        let (fitted, limited) = match job.fit.sample {
            Selection::Hash { rows: most, .. } | Selection::Shuffle { rows: most, .. } => {
                (rows.min(most as u64), true)
            }
            Selection::Range { start, end } => (end.min(rows).saturating_sub(start), false),
            Selection::All => (rows, false),
        };
        let n = fitted as f64;
        let fit = Workload {
            rows: usize::try_from(fitted).unwrap_or(usize::MAX),
            dim: trial.dim,
            texts: trial.texts,
            dated: job.date.is_some(),
            threads: rayon::current_num_threads(),
            top_k: label.top_k,
            screened: Isa::detect().has_byte_products(),
            config: &job.fit,
        };
        let mut stages = Vec::new();
        let mut add = |stage, bytes: f64, seconds| {
            stages.push(Stage { stage, bytes: (PROGRAM_BYTES + bytes).round(), seconds });
        };
        let loaded = trial.encoder_bytes;
        if trial.embedding_seconds.is_some() {
            add("encoder", trial.loading_bytes, trial.loading_seconds);
        }
        let reading = input.reading(rows as f64, n, limited, &fit) + loaded;
        add("reading", reading, trial.reading_seconds * rows as f64);
        if let Some(embedding) = trial.embedding_seconds {
            // Beside the rows that are made stand those that were read.
            add("embedding", fit.rows_bytes() + n * input.row_bytes() + loaded, embedding * n);
        }
        let mut times = trial.seconds_of_stages(n);
        for memory in fit.stages() {
            // Stages of the same name, the searches for neighbours, come in the same order.
            let at = times.iter().position(|time| time.0 == memory.stage);
            let at = at.ok_or_else(|| Error::Internal(format!("the trial has no stage {}", memory.stage)))?;
            add(memory.stage, memory.bytes, times.remove(at).1);
        }
        if let Some((stage, _)) = times.first() {
            return Err(Error::Internal(format!("no memory is planned for the stage {stage}")));
        }
        let asked = fit.asked(&job.encoder)?;
        let disk = Disk::of(&fit, trial);
        let picture = picture_bytes(job);
        let titles = n * operators::plan::string(trial.texts.shown_bytes);
        let points = n * (8.0 + 4.0 + 4.0 + 1.0 + 8.0 + 16.0) + titles;
        // The picture stands twice while it is written.
        add("report", fit.model_bytes() + points + disk.page + 2.0 * picture, trial.report_seconds(n));
        // The report's titles are gone, but their blocks stay, unless they lay in those of what was gone before.
        let left = (titles - fit.gone_bytes()).max(0.0);
        add("saving", fit.model_bytes() + left + disk.saving(&fit), trial.saving_seconds * n);
        Ok(Self {
            rows,
            fitted,
            peak_bytes: stages.iter().map(|stage| stage.bytes).fold(0.0, f64::max),
            // The encoder is gone before the fit.
            gpu_peak_bytes: trial.gpu_encoder_bytes.map(|encoder| encoder.max(fit.gpu_bytes()).round()),
            seconds: stages.iter().map(|stage| stage.seconds).sum(),
            disk_bytes: disk.files().round(),
            asked,
            stages,
        })
    }
}

/// The files of a model, in bytes.
struct Disk {
    codes: f64,
    rows: f64,
    terms: f64,
    page: f64,
    picture: f64,
}

impl Disk {
    /// Scales the files of the trial's model.
    fn of(fit: &Workload<'_>, trial: &Trial) -> Self {
        let n = fit.rows as f64;
        Self {
            codes: n * fit.dim as f64,
            rows: trial.rows_file_bytes * n / trial.rows as f64,
            terms: trial.terms_file_bytes * fit.cells() / trial.cells.max(1.0),
            page: trial.page_bytes.0 + trial.page_bytes.1 * n,
            picture: trial.picture_file_bytes,
        }
    }

    /// All of them; the report and the picture also lie beside the version.
    fn files(&self) -> f64 {
        self.parts() + 2.0 * (self.page + self.picture)
    }

    fn parts(&self) -> f64 {
        self.codes + self.rows + self.terms
    }

    /// What saving holds beside the model: the page and the picture, then part by part, of which a table is built first
    /// and then encoded; last, all parts, of which one at a time is copied when it is put.
    fn saving(&self, fit: &Workload<'_>) -> f64 {
        let rows_table = fit.sample_bytes() + 16.0 * fit.rows as f64;
        let encoding_rows = self.codes + rows_table + self.rows;
        let encoding_terms = self.parts() + fit.terms_table_bytes();
        let putting = self.parts() + self.page.max(self.codes).max(self.rows);
        self.page + self.picture + encoding_rows.max(encoding_terms).max(putting)
    }
}

/// The pixels of the map's picture.
fn picture_bytes(job: &Job) -> f64 {
    let scale = f64::from(job.report.scale);
    4.0 * f64::from(job.report.width) * f64::from(job.report.height) * scale * scale
}

#[cfg(test)]
mod tests {
    use super::*;
    use operators::fit::FitConfig;
    use operators::plan::{Growth, TextSizes};

    #[test]
    fn a_page_is_held_twice_while_it_is_saved_and_lies_twice_on_the_disk() {
        let growth = Growth { texts: 1.0, distinct: 10.0, exponent: 0.0 };
        let texts = TextSizes {
            rows: 1,
            text_bytes: 0.0,
            shown_bytes: 0.0,
            id_bytes: 0.0,
            tokens: 10.0,
            occurrences: 10.0,
            words: growth,
            terms: growth,
        };
        let config = FitConfig::default();
        let fit = Workload {
            rows: 2,
            dim: 4,
            texts,
            dated: false,
            threads: 1,
            top_k: 1,
            screened: true,
            config: &config,
        };
        let disk = Disk { codes: 1e6, rows: 2e6, terms: 3e6, page: 100e6, picture: 10e6 };
        assert_eq!(disk.files(), 6e6 + 2.0 * 110e6);
        assert_eq!(disk.saving(&fit), 6e6 + 110e6 + 100e6);
        // One part at a time is copied: here the codes.
        let small = Disk { page: 1e3, codes: 50e6, ..disk };
        assert_eq!(small.saving(&fit), 55e6 + 10e6 + 1e3 + 50e6);
    }
}
