//! The sums of the rows of units, in a ledger: kept beside the marks, added up, removed with what is void.

use super::ledger::{Ledger, READ_AT_ONCE, UnitId, remove_all};
use crate::worker::on_worker;
use crate::{Error, Result};
use bytes::Bytes;
use futures::{StreamExt, stream};
use object_store::ObjectStoreExt;
use operators::corpus::{Basis, Corpus};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where sums of rows are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sums {
    /// Their file in the ledger's folder `corpus`.
    pub file: String,
    /// What they depend on: see [`operators::corpus::basis`].
    pub basis: String,
}

impl Ledger {
    /// Keeps the sums of a unit's rows, and returns their file's name.
    pub async fn put_corpus(&self, id: UnitId, corpus: Corpus) -> Result<String> {
        let name = format!("{id}-{}.parquet", self.run());
        let bytes = on_worker(move || {
            let rows = corpus.to_batch()?;
            let wrong = |error: ParquetError| Error::Internal(error.to_string());
            let level = ZstdLevel::try_new(3).map_err(wrong)?;
            let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
            let mut writer =
                ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).map_err(wrong)?;
            writer.write(&rows).map_err(wrong)?;
            writer.into_inner().map_err(wrong)
        })
        .await?;
        let place = self.folder.within("corpus").within(&name);
        let put = place.store().put(place.path(), bytes.into()).await;
        put.map_err(|error| Error::store(place.name(), error))?;
        Ok(name)
    }

    /// The sums of all rows on the `bases` of a model, and how many rows have none.
    pub async fn corpus(&self, bases: &[Basis]) -> Result<(Corpus, u64)> {
        let done: Vec<UnitId> = self.units().map(|(id, _)| id).filter(|id| self.is_done(*id)).collect();
        let parts = stream::iter(done).map(async |id| {
            let done = self.done(id).await?;
            let sums =
                done.corpus.and_then(|sums| Some((bases.iter().find(|basis| basis.id == sums.basis)?, sums)));
            let Some((basis, sums)) = sums else { return Ok(Err(done.rows_in)) };
            let place = self.folder.within("corpus").within(&sums.file);
            let failed = |error| Error::store(place.name(), error);
            let bytes =
                place.store().get(place.path()).await.map_err(failed)?.bytes().await.map_err(failed)?;
            Ok::<_, Error>(Ok((place.name().to_string(), bytes, basis.to.clone())))
        });
        let mut parts = std::pin::pin!(parts.buffer_unordered(READ_AT_ONCE));
        let (mut whole, mut without) = (Corpus::default(), 0);
        while let Some(part) = parts.next().await {
            match part? {
                // One after the other: sums take many times their bytes.
                Ok((name, bytes, to)) => {
                    whole = on_worker(move || add_sums(whole, &name, bytes, &to)).await?
                }
                Err(rows) => without += rows,
            }
        }
        Ok((whole, without))
    }

    /// Whether the unit that was planned last of those that are done has sums.
    pub async fn has_sums(&self) -> Result<bool> {
        let last = self.units().map(|(id, _)| id).filter(|id| self.is_done(*id)).last();
        match last {
            Some(id) => Ok(self.done(id).await?.corpus.is_some()),
            None => Ok(false),
        }
    }

    /// Removes the sums of what is void.
    pub(crate) async fn tidy(&self) -> Result<()> {
        let is_void = |name: &str| {
            let plan = name.split_once('-').and_then(|(plan, _)| plan.parse::<u64>().ok());
            plan.is_some_and(|plan| (1..self.first()).contains(&plan))
        };
        remove_all(&self.folder.within("corpus"), is_void).await
    }
}

/// Adds the sums in `bytes`, those of the file `name`, whose topics have become what `to` says.
fn add_sums(mut whole: Corpus, name: &str, bytes: Bytes, to: &BTreeMap<i32, i32>) -> Result<Corpus> {
    let wrong = |reason: String| Error::place(name, format!("holds no sums of ours: {reason}"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|reader| reader.build());
    for rows in reader.map_err(|error| wrong(error.to_string()))? {
        let rows = rows.map_err(|error| wrong(error.to_string()))?;
        whole.add(&Corpus::of_batch(&rows).ok_or_else(|| wrong("other columns".into()))?.regroup(to));
    }
    Ok(whole)
}
