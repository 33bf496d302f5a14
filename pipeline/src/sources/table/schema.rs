//! One schema for many files: looks at each file, then unites their columns by name.

use super::{
    Format, OnBadRow, TableConfig,
    adapt::plain,
    csv,
    discover::{DataFile, FoundFile},
    jsonl,
    output::Trouble,
    parquet, text,
};
use crate::{
    Conflict, Error, Result,
    location::Location,
    sources::{BadUnit, BadUnits},
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{StreamExt, stream};
use std::{collections::HashMap, sync::Arc};
use tokio::runtime::Handle;

/// How many files are looked at at the same time: enough to hide the latency of an object store.
const LOOKED_AT_ONCE: usize = 16;

/// What a look at a file gives: its columns, and for Parquet the rows of each row group.
type Look = std::result::Result<(Schema, Option<Vec<u64>>), Trouble>;

/// Looks at each file. Unreadable ones are an error, or listed if the configuration says to skip them; text files of
/// no bytes are left out.
pub(super) async fn inspect(
    config: &TableConfig,
    id: Option<&str>,
    location: &Location,
    found: Vec<FoundFile>,
) -> Result<(Vec<DataFile>, BadUnits)> {
    let has_rows = |file: &FoundFile| file.size_bytes > 0 || file.encoding.format == Format::Parquet;
    let mut looks = stream::iter(found.into_iter().filter(has_rows))
        .map(|file| async move {
            let look = look_at(config, id, location, &file).await;
            (file, look)
        })
        .buffered(LOOKED_AT_ONCE);
    let mut files = Vec::new();
    let mut bad = BadUnits::default();
    while let Some((found, look)) = looks.next().await {
        match look {
            Ok((schema, row_groups)) => {
                files.push(DataFile { schema: tidy(config, &found, schema), found, row_groups });
            }
            Err(Trouble::Failed(error)) => return Err(error),
            Err(Trouble::Bad(reason)) => {
                let unit = BadUnit::file(found.split.as_str(), reason);
                if config.on_bad_row == OnBadRow::Fail {
                    return Err(Error::Bad(unit));
                }
                bad.push(unit, 0);
            }
        }
    }
    if let (true, Some(first)) = (files.is_empty(), bad.listed().first()) {
        let reason = format!("none of its {} files can be read; the first is {first}", bad.units());
        return Err(Error::Bad(BadUnit::file(&config.path, reason)));
    }
    Ok((files, bad))
}

/// Unites the columns of all files.
pub(super) fn union(config: &TableConfig, files: &[DataFile]) -> Result<SchemaRef> {
    let mut fields: Vec<(Field, &DataFile)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for file in files {
        for field in file.schema.fields() {
            let Some(&at) = places.get(field.name().as_str()) else {
                places.insert(field.name(), fields.len());
                fields.push((field.as_ref().clone(), file));
                continue;
            };
            let (known, first) = &mut fields[at];
            let Some(wider) = widened(known.data_type(), field.data_type()) else {
                let is_text = |file: &DataFile| file.found.encoding.format != Format::Parquet;
                return Err(Error::Conflict(Box::new(Conflict {
                    column: field.name().clone(),
                    first: first.name().into(),
                    first_type: known.data_type().to_string(),
                    second: file.name().into(),
                    second_type: field.data_type().to_string(),
                    advice: if is_text(first) || is_text(file) { "; say which in `types`" } else { "" },
                })));
            };
            if known.data_type().is_null() {
                *first = file;
            }
            known.set_data_type(wider);
        }
    }
    let is_jsonl = |file: &DataFile| file.found.encoding.format == Format::Jsonl;
    if let Some(column) = config.types.keys().find(|name| !places.contains_key(name.as_str()))
        && !files.iter().any(is_jsonl)
    {
        return Err(Error::MissingColumn {
            column: column.clone(),
            place: format!("{}, for which `types` says a type", config.path),
            columns: fields.iter().map(|(field, _)| field.name().clone()).collect(),
        });
    }
    if fields.is_empty() {
        return Err(Error::place(&config.path, "is empty: no file in it has a column"));
    }
    // A column without any value is text, the type that every operator can pass on.
    let settle = |(field, _): (Field, _)| {
        let settled = if field.data_type().is_null() { DataType::Utf8 } else { field.data_type().clone() };
        field.with_data_type(settled)
    };
    Ok(Arc::new(Schema::new(fields.into_iter().map(settle).collect::<Vec<_>>())))
}

async fn look_at(config: &TableConfig, id: Option<&str>, location: &Location, file: &FoundFile) -> Look {
    let look = match file.encoding.format {
        Format::Parquet => parquet::inspect(location, file).await?,
        Format::Csv | Format::Jsonl => {
            let (location, file, id) = (location.clone(), file.clone(), id.map(String::from));
            let typed = config.types.keys().cloned().collect::<Vec<_>>();
            let runtime = Handle::current();
            let task = tokio::task::spawn_blocking(move || {
                let input = text::open(&location, &file, &runtime).map_err(Trouble::Failed)?;
                match file.encoding.format {
                    Format::Csv => csv::inspect(&file, input, &typed, id.as_deref()),
                    _ => jsonl::inspect(&file, input, &typed),
                }
            });
            (task.await.map_err(|error| Trouble::Failed(Error::Internal(error.to_string())))??, None)
        }
    };
    let mut names: Vec<&str> = look.0.fields().iter().map(|field| field.name().as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Trouble::Bad(format!("column \"{}\" appears twice", pair[0]))),
        None => Ok(look),
    }
}

/// Gives the columns the types that the table will show: plain layouts, all nullable, and for text files the types
/// that the configuration says.
fn tidy(config: &TableConfig, found: &FoundFile, schema: Schema) -> SchemaRef {
    let is_text = found.encoding.format != Format::Parquet;
    let field = |field: &Arc<Field>| {
        let said = config.types.get(field.name()).filter(|_| is_text);
        let data_type = said.map_or_else(|| plain(field.data_type()), |said| said.data_type());
        Field::new(field.name(), data_type, true)
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// The type that holds the values of both, if there is one: see the table's documentation.
fn widened(a: &DataType, b: &DataType) -> Option<DataType> {
    if a == b || b.is_null() {
        return Some(a.clone());
    }
    if a.is_null() {
        return Some(b.clone());
    }
    let both = |test: fn(&DataType) -> bool| test(a) && test(b);
    if both(DataType::is_signed_integer) || both(DataType::is_unsigned_integer) || both(DataType::is_floating)
    {
        let wider = if a.primitive_width() >= b.primitive_width() { a } else { b };
        return Some(wider.clone());
    }
    if both(DataType::is_integer) {
        return Some(DataType::Int64);
    }
    if both(|t| t.is_integer() || t.is_floating()) {
        return Some(DataType::Float64);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_widen_and_other_types_do_not() {
        use DataType::*;
        assert_eq!(widened(&Int32, &Int64), Some(Int64));
        assert_eq!(widened(&Float64, &Float32), Some(Float64));
        assert_eq!(widened(&UInt8, &Int8), Some(Int64));
        assert_eq!(widened(&Int64, &Float32), Some(Float64));
        assert_eq!(widened(&Null, &Utf8), Some(Utf8));
        assert_eq!(widened(&Int64, &Utf8), None);
        assert_eq!(widened(&Date32, &Timestamp(arrow::datatypes::TimeUnit::Second, None)), None);
    }
}
