//! A column of a table for the rows of a model, found by their ids.

use crate::positions::Event;
use crate::sources::{Columns, SourceConfig, TableConfig};
use crate::{Error, Result};
use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use operators::model::Model;
use std::collections::HashMap;

/// The value of `column` for each row of the model's sample, as text; none where the table at `input` has none. `flag`
/// asks for it, in errors.
///
/// # Errors
/// A model whose rows have no ids; a table that has none of them.
pub(super) async fn values_of_rows(
    model: &Model,
    input: &str,
    column: &str,
    flag: &str,
) -> Result<Vec<Option<String>>> {
    let Some(id) = &model.settings.id else {
        let reason = "the model's rows have no ids by which they could be found: fit it with --id COLUMN";
        return Err(Error::setting(flag, reason));
    };
    let columns = Columns::only([id.clone(), column.to_owned()]).with_id(Some(id));
    let mut source = SourceConfig::Table(TableConfig::new(input)).open(&columns).await?;
    let mut found: HashMap<String, Option<String>> = HashMap::new();
    while let Event::Batch(batch) = source.next().await? {
        let (ids, values) = (texts(&batch.rows, id)?, texts(&batch.rows, column)?);
        for row in (0..ids.len()).filter(|row| ids.is_valid(*row)) {
            let value = values.is_valid(row).then(|| values.value(row).to_owned());
            found.insert(ids.value(row).to_owned(), value);
        }
    }
    let values: Vec<Option<String>> = model.sample.ids.iter().map(|id| found.remove(id).flatten()).collect();
    let missing = values.iter().filter(|value| value.is_none()).count();
    if missing == values.len() {
        let reason = format!(
            "has a value of \"{column}\" for none of the model's {missing} rows, by \"{id}\": is it the table of the fit?"
        );
        return Err(Error::place(input, reason));
    }
    if missing > 0 {
        let rows = values.len();
        tracing::warn!("{missing} of {rows} rows have no \"{column}\" in {input}: they are left out");
    }
    Ok(values)
}

fn texts(rows: &RecordBatch, name: &str) -> Result<StringArray> {
    let array = rows.column_by_name(name);
    let array = array.ok_or_else(|| Error::Internal(format!("column {name} is gone")))?;
    Ok(cast(array, &DataType::Utf8).map_err(operators::Error::from)?.as_string().clone())
}
