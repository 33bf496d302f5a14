//! Vectors of rows: made from their text by an encoder, or taken from a column.

use crate::embedding_column::{check_field, embeddings};
use crate::encoders::{Encoded, Encoder, runs};
use crate::text::{BoundTemplate, MissingText, Template};
use crate::{Error, Result};
use arrow::array::{Array, RecordBatch};
use arrow::datatypes::Schema;
use kernels::Matrix;
use kernels::gpu::quantize::Code;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Where the vectors of rows come from.
#[derive(Clone)]
pub enum Vectors {
    /// A text made by a template, encoded.
    Encoded {
        /// The text of a row.
        template: Template,
        /// What encodes it.
        encoder: Arc<Encoder>,
    },
    /// A column of precomputed vectors.
    Column {
        /// Its name.
        name: String,
        /// Their dimensions, where a model says it.
        dim: Option<usize>,
    },
}

/// What was encoded so far, by all workers (rows and tokens a second come from it), and the way to stop them.
#[derive(Debug, Default)]
pub struct Counters {
    texts: AtomicU64,
    tokens: AtomicU64,
    truncated_texts: AtomicU64,
    truncated_tokens: AtomicU64,
    missing: Mutex<MissingText>,
    outliers: AtomicU64,
    stopped: AtomicBool,
}

/// The vectors of a batch.
pub struct RowVectors {
    /// rows × dimensions.
    pub vectors: Matrix<f32>,
    /// The rows without any text: their vectors, all equal, say nothing.
    pub blank: Vec<usize>,
}

/// Vectors whose columns are found in a schema.
pub struct BoundVectors {
    source: Bound,
    counters: Arc<Counters>,
    rows_seen: u64,
}

enum Bound {
    Encoded(BoundTemplate, Arc<Encoder>),
    Column { name: String, index: usize, dim: Option<usize> },
}

impl fmt::Display for Vectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoded { encoder, .. } => {
                write!(f, "encoder {}, {} dimensions", encoder.identity().name, encoder.dim())
            }
            Self::Column { name, .. } => write!(f, "column {name}"),
        }
    }
}

impl Vectors {
    /// Dimensions of a vector, where they are known before any row is read.
    pub fn dim(&self) -> Option<usize> {
        match self {
            Self::Encoded { encoder, .. } => Some(encoder.dim()),
            Self::Column { dim, .. } => *dim,
        }
    }

    /// Finds the columns in `schema`; an error names one that is missing or of a wrong type.
    pub fn bind(&self, schema: &Schema, counters: Arc<Counters>) -> Result<BoundVectors> {
        let source = match self {
            Self::Encoded { template, encoder } => {
                Bound::Encoded(template.bind(schema)?, Arc::clone(encoder))
            }
            Self::Column { name, dim } => {
                let (index, dim) = check_field(name, schema, *dim)?;
                Bound::Column { name: name.clone(), index, dim }
            }
        };
        Ok(BoundVectors { source, counters, rows_seen: 0 })
    }
}

impl BoundVectors {
    /// Returns the vectors of `rows`.
    ///
    /// # Errors
    /// `Row` for a precomputed vector that is null, of another length or holds what is no number.
    pub fn of(&mut self, rows: &RecordBatch) -> Result<RowVectors> {
        let first_row = self.rows_seen;
        self.rows_seen += rows.num_rows() as u64;
        match &mut self.source {
            Bound::Column { name, index, dim } => {
                let vectors = embeddings(name, rows.column(*index), *dim, first_row)?;
                // The first row's width is every row's, also in later batches.
                *dim = dim.or((vectors.rows() > 0).then_some(vectors.cols()));
                self.counters.texts.fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
                Ok(RowVectors { vectors, blank: Vec::new() })
            }
            Bound::Encoded(template, encoder) => {
                let rendered = template.render(rows)?;
                self.counters.note_missing(&rendered.missing);
                let texts: Vec<&str> = rendered.texts.iter().map(Option::unwrap_or_default).collect();
                let blank = (0..texts.len()).filter(|&row| rendered.texts.is_null(row)).collect();
                Ok(RowVectors { vectors: encode(encoder, &texts, &self.counters, || true)?, blank })
            }
        }
    }

    /// Returns codes of the vectors of `rows` where GPUs make them without giving the vectors out; nothing, and nothing
    /// done, where [`Self::of`] has to.
    pub fn codes_of(&mut self, rows: &RecordBatch, code: Code<'_>) -> Result<Option<Matrix<u8>>> {
        let Bound::Encoded(template, encoder) = &mut self.source else { return Ok(None) };
        if !encoder.makes_codes() {
            return Ok(None);
        }
        self.rows_seen += rows.num_rows() as u64;
        let rendered = template.render(rows)?;
        self.counters.note_missing(&rendered.missing);
        let texts: Vec<&str> = rendered.texts.iter().map(Option::unwrap_or_default).collect();
        let (codes, encoded) = encoder.encode_codes(&texts, code)?;
        self.counters.note_encoded(texts.len(), &encoded);
        Ok(Some(codes))
    }
}

/// Encodes `texts` in order, counting as it goes; stops with an error once `go_on` says no or the counters are told
/// to stop.
pub fn encode<T: AsRef<str> + Sync>(
    encoder: &Encoder,
    texts: &[T],
    counters: &Counters,
    go_on: impl Fn() -> bool,
) -> Result<Matrix<f32>> {
    let mut vectors = Matrix::zeros(0, encoder.dim());
    for texts in runs(texts, encoder.run_bytes()) {
        let goes_on = || go_on() && !counters.stopped.load(Ordering::Relaxed);
        let encoded = encoder.encode_while(texts, &goes_on)?;
        vectors.append(&encoded.vectors)?;
        counters.note_encoded(texts.len(), &encoded);
        if !goes_on() {
            return Err(Error::Stopped("encoding"));
        }
    }
    Ok(vectors)
}

impl Counters {
    /// Adds texts that were encoded.
    fn note_encoded(&self, texts: usize, encoded: &Encoded) {
        self.texts.fetch_add(texts as u64, Ordering::Relaxed);
        self.tokens.fetch_add(encoded.tokens, Ordering::Relaxed);
        self.truncated_texts.fetch_add(encoded.truncated_texts, Ordering::Relaxed);
        self.truncated_tokens.fetch_add(encoded.truncated_tokens, Ordering::Relaxed);
    }

    /// Texts encoded, or vectors read.
    pub fn texts(&self) -> u64 {
        self.texts.load(Ordering::Relaxed)
    }

    /// Tokens encoded.
    pub fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Texts that were cut to the encoder's maximal length, and the tokens lost.
    pub fn truncated(&self) -> (u64, u64) {
        (self.truncated_texts.load(Ordering::Relaxed), self.truncated_tokens.load(Ordering::Relaxed))
    }

    /// Adds rows that were labelled as outliers.
    pub fn note_outliers(&self, rows: u64) {
        self.outliers.fetch_add(rows, Ordering::Relaxed);
    }

    /// Rows that were labelled as outliers.
    pub fn outliers(&self) -> u64 {
        self.outliers.load(Ordering::Relaxed)
    }

    /// Asks the workers to stop soon; what they were doing fails as stopped.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Adds what a template missed.
    pub fn note_missing(&self, missing: &MissingText) {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).add(missing);
    }

    /// What the templates missed.
    pub fn missing(&self) -> MissingText {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
