//! One schema for many files: looks at each file, then unites their columns by name.

use super::{
    Format, OnBadRow, TableConfig,
    adapt::plain,
    csv,
    discover::{Constant, DataFile, FoundFile, RowGroupSize},
    jsonl,
    output::Trouble,
    parquet, text,
};
use crate::{
    Conflict, Error, Result,
    location::Location,
    sources::{BadUnit, BadUnits},
};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use futures::{StreamExt, stream};
use std::{collections::HashMap, sync::Arc};
use tokio::runtime::Handle;

/// How many files are looked at at the same time: enough to hide the latency of an object store.
const LOOKED_AT_ONCE: usize = 16;

/// What a look at a file gives: its columns, and for Parquet the rows of each row group.
type Look = std::result::Result<(Schema, Option<Vec<RowGroupSize>>), Trouble>;

/// Looks at each file. Unreadable ones are an error, or listed if the configuration says to skip them; text files of
/// no bytes are left out. A file has the columns `partitions` of one value each, unless it holds them itself.
pub(super) async fn inspect(
    config: &TableConfig,
    id: Option<&str>,
    location: &Location,
    partitions: &[FieldRef],
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
                let schema = tidy(config, &found, schema);
                let constants = constants(&found, &schema, partitions)?;
                files.push(DataFile { found, schema, row_groups, constants });
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
    Ok((files, bad))
}

/// Unites the columns of all files; where the table itself tells its columns, these are `told`.
pub(super) fn union(config: &TableConfig, files: &[DataFile], told: Option<&SchemaRef>) -> Result<SchemaRef> {
    if let Some(told) = told {
        return Ok(Arc::clone(told));
    }
    let mut fields: Vec<(Field, &DataFile)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for file in files {
        for field in file.columns() {
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

/// The types of the columns that files have by their place: as the table tells (`told`) or the configuration says, or whole
/// numbers where all values are such, or text.
pub(super) fn partitions(
    config: &TableConfig,
    files: &[FoundFile],
    told: Option<&SchemaRef>,
) -> Vec<FieldRef> {
    let mut columns: Vec<(&str, bool)> = Vec::new();
    for (name, value) in files.iter().flat_map(|file| &file.partition) {
        // What is written with zeros before it would lose them.
        let is_whole = |value: &String| value.parse::<i64>().is_ok_and(|whole| whole.to_string() == *value);
        let is_whole = value.as_ref().is_none_or(is_whole);
        match columns.iter_mut().find(|(known, _)| known == name) {
            Some((_, all)) => *all &= is_whole,
            None => columns.push((name, is_whole)),
        }
    }
    let field = |(name, is_whole): (&str, bool)| {
        let inferred = if is_whole { DataType::Int64 } else { DataType::Utf8 };
        let told = told.and_then(|told| Some(told.field_with_name(name).ok()?.data_type().clone()));
        let said = config.types.get(name).map(|said| said.data_type());
        let data_type = told.or(said).unwrap_or(inferred);
        Arc::new(Field::new(name, data_type, true))
    };
    columns.into_iter().map(field).collect()
}

/// The columns of one value of a file whose own columns are `schema`.
fn constants(file: &FoundFile, schema: &Schema, partitions: &[FieldRef]) -> Result<Arc<[Constant]>> {
    let absent = file.partition.iter().filter(|(name, _)| schema.field_with_name(name).is_err());
    let constant = |(name, text): &(String, Option<String>)| {
        let unknown = || Error::Internal(format!("{}: a partition by {name} of no type", file.split));
        let field = partitions.iter().find(|field| field.name() == name).ok_or_else(unknown)?;
        let value = match text {
            Some(text) => ScalarValue::try_from_string(text.clone(), field.data_type()),
            None => ScalarValue::try_from(field.data_type()),
        };
        let wrong = |_| {
            let reason = format!(
                "column \"{name}\" is {}, which is no {}",
                text.as_deref().map_or_else(|| "null".into(), |text| format!("\"{text}\"")),
                field.data_type()
            );
            Error::place(file.split.as_str(), reason)
        };
        Ok(Constant { field: Arc::clone(field), value: value.map_err(wrong)? })
    };
    absent.map(constant).collect()
}

async fn look_at(config: &TableConfig, id: Option<&str>, location: &Location, file: &FoundFile) -> Look {
    let look = match file.encoding.format {
        Format::Parquet => parquet::inspect(location, file).await?,
        Format::Csv | Format::Jsonl => {
            let (location, file, id) = (location.clone(), file.clone(), id.map(String::from));
            let typed = config.types.keys().cloned().collect::<Vec<_>>();
            let runtime = Handle::current();
            let task = tokio::task::spawn_blocking(move || {
                let input = text::open(&location, &file, &runtime)?;
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
    use super::super::{ColumnType, discover::Encoding};
    use super::*;
    use crate::location::FileVersion;
    use crate::positions::Split;

    #[test]
    fn columns_of_folders_are_whole_numbers_where_all_values_are() {
        let file = |partition: &[(&str, Option<&str>)]| {
            let owned = |(name, value): &(&str, Option<&str>)| (name.to_string(), value.map(Into::into));
            let encoding = Encoding { format: Format::Parquet, delimiter: b',', gzip: false };
            let (split, path) = (Split::new("x"), "x".into());
            let partition = partition.iter().map(owned).collect();
            FoundFile { split, path, size_bytes: 1, encoding, version: FileVersion::default(), partition }
        };
        let files = [
            file(&[("year", Some("2024")), ("month", Some("01")), ("field", Some("1"))]),
            file(&[("year", None), ("month", Some("02")), ("field", Some("cs"))]),
        ];
        let types = |config: &TableConfig| -> Vec<DataType> {
            partitions(config, &files, None).iter().map(|field| field.data_type().clone()).collect()
        };
        let mut config = TableConfig::default();
        assert_eq!(types(&config), [DataType::Int64, DataType::Utf8, DataType::Utf8]);
        config.types.insert("month".into(), ColumnType::Int64);
        assert_eq!(types(&config), [DataType::Int64, DataType::Int64, DataType::Utf8]);

        // What a file holds itself is not told by its place.
        let own = Schema::new(vec![Field::new("field", DataType::Utf8, true)]);
        let constants = constants(&files[1], &own, &partitions(&config, &files, None)).unwrap();
        let values: Vec<_> = constants.iter().map(|constant| constant.value.clone()).collect();
        assert_eq!(values, [ScalarValue::Int64(None), ScalarValue::Int64(Some(2))]);
        config.types.insert("field".into(), ColumnType::Date);
        let error =
            super::constants(&files[1], &Schema::empty(), &partitions(&config, &files, None)).unwrap_err();
        assert!(error.to_string().contains("column \"field\" is \"cs\""), "{error}");
    }

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
