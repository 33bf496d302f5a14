//! The texts of a model's sample, packed: what words are counted in, kept so that words can be found anew.
//!
//! They are seldom needed and several times as large unpacked, so a model holds them as they lie in its bundle: as the
//! bytes of a Parquet file.

use crate::{Error, Result};
use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// Rows that are packed at a time, so that few texts are held twice.
const CHUNK_ROWS: usize = 8192;

/// The texts that a model's words are counted in.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Texts {
    /// Those that are shown.
    #[default]
    Shown,
    /// Others.
    Packed(PackedTexts),
    /// Others, which were not read with the model.
    Left,
}

/// Texts as the bytes of a Parquet file with one column, `text`.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedTexts(Vec<u8>);

impl Texts {
    /// Packs `texts`, if they are not the ones that are shown.
    pub fn pack(texts: &[String], shown: &[String]) -> Result<Self> {
        if texts == shown {
            return Ok(Self::Shown);
        }
        PackedTexts::pack(texts).map(Self::Packed)
    }

    /// The texts, one a row of the sample; `shown` are those of the sample.
    ///
    /// # Errors
    /// `Internal` where they were left out as the model was read.
    pub fn get<'a>(&self, shown: &'a [String]) -> Result<Cow<'a, [String]>> {
        match self {
            Self::Shown => Ok(Cow::Borrowed(shown)),
            Self::Packed(packed) => Ok(Cow::Owned(packed.unpack()?)),
            Self::Left => Err(Error::Internal("the model was read without its texts".into())),
        }
    }
}

impl PackedTexts {
    fn pack(texts: &[String]) -> Result<Self> {
        let broken = |e: parquet::errors::ParquetError| Error::Internal(format!("texts: {e}"));
        let schema = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, false)]));
        // Level 3: the library's default, at which abstracts of papers shrink to two fifths. No dictionary: few texts
        // are equal.
        let level = ZstdLevel::try_new(3).map_err(broken)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_dictionary_enabled(false)
            .build();
        let mut writer =
            ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties)).map_err(broken)?;
        for chunk in texts.chunks(CHUNK_ROWS) {
            let column = Arc::new(StringArray::from_iter_values(chunk));
            writer.write(&RecordBatch::try_new(Arc::clone(&schema), vec![column])?).map_err(broken)?;
            // A row group of its own: else its pages wait beside the compressed ones.
            writer.flush().map_err(broken)?;
        }
        writer.into_inner().map_err(broken).map(Self)
    }

    /// Takes the bytes of a bundle's part at `path`, which names it in errors.
    ///
    /// # Errors
    /// `Model` where they are no table with a column `text` of so many rows.
    pub(crate) fn from_bytes(path: &Path, bytes: Vec<u8>, rows: usize) -> Result<Self> {
        let packed = Self(bytes);
        match packed.unpack() {
            Ok(texts) if texts.len() == rows => Ok(packed),
            Ok(texts) => Err(Error::model(path, format!("has {} rows, expected {rows}", texts.len()))),
            Err(e) => Err(Error::model(path, e.to_string())),
        }
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn unpack(&self) -> Result<Vec<String>> {
        let broken = |e: String| Error::Unfit(format!("cannot be read as a table of texts: {e}"));
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(self.0.clone()))
            .and_then(ParquetRecordBatchReaderBuilder::build)
            .map_err(|e| broken(e.to_string()))?;
        let mut texts = Vec::new();
        for rows in reader {
            let rows = rows.map_err(|e| broken(e.to_string()))?;
            let column = rows.column_by_name("text").and_then(|column| column.as_string_opt::<i32>());
            let column = column.ok_or_else(|| broken("no column \"text\" of strings".into()))?;
            texts.extend((0..column.len()).map(|row| column.value(row).to_owned()));
        }
        Ok(texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_out_as_they_went_in() {
        let texts: Vec<String> = (0..2 * CHUNK_ROWS + 1).map(|row| format!("text {row}\n\"β\" ")).collect();
        let shown = vec![String::new(); texts.len()];
        let packed = Texts::pack(&texts, &shown).unwrap();
        assert_eq!(*packed.get(&shown).unwrap(), texts);
        assert_eq!(Texts::pack(&texts, &texts).unwrap(), Texts::Shown);
        let Texts::Packed(PackedTexts(bytes)) = packed else { panic!("not packed") };
        let read = |rows| PackedTexts::from_bytes(Path::new("texts.parquet"), bytes.clone(), rows);
        assert!(read(texts.len()).is_ok());
        let error = read(7).unwrap_err().to_string();
        assert!(error.contains("16385 rows, expected 7"), "{error}");
        assert!(PackedTexts::from_bytes(Path::new("x"), b"no parquet".to_vec(), 1).is_err());
    }
}
