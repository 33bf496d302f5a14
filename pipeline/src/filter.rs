//! A `where`: an SQL condition on a table's columns, parsed, typed and evaluated by DataFusion.
//!
//! Column names are taken as written (`Title` is not `title`); a name that is no plain word, such as one with a space
//! or a dash, stands in double quotes.

use crate::{Error, Result, error::readable};
use arrow::{
    array::{Array, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{DataType, SchemaRef},
};
use datafusion::{
    common::DFSchema,
    execution::context::SessionContext,
    logical_expr::Expr,
    physical_expr::{PhysicalExpr, utils::collect_columns},
    prelude::SessionConfig,
};
use std::sync::Arc;

/// A condition that keeps the rows for which it is true; a row for which it is null is left out.
#[derive(Debug, Clone)]
pub struct Filter {
    name: &'static str,
    expression: String,
    predicate: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
}

impl Filter {
    /// Parses the `where` `expression` against the columns of `schema`. An unknown column, a condition that is not
    /// boolean and text that is no SQL are errors that say so.
    pub fn try_new(expression: &str, schema: &SchemaRef) -> Result<Self> {
        Self::try_named("where", expression, schema)
    }

    /// The same for a condition that users know by another name.
    pub fn try_named(name: &'static str, expression: &str, schema: &SchemaRef) -> Result<Self> {
        let refuse = |reason: String| Error::Filter { name, expression: expression.into(), reason };
        let typed = DFSchema::try_from(schema.as_ref().clone()).map_err(|error| refuse(readable(&error)))?;
        let context = session();
        let logical = context.parse_sql_expr(expression, &typed).map_err(|error| refuse(readable(&error)))?;
        if contains_query(&logical) {
            return Err(refuse("may not hold a query, an aggregate or a window function".into()));
        }
        let predicate =
            context.create_physical_expr(logical, &typed).map_err(|error| refuse(readable(&error)))?;
        let found = predicate.data_type(schema).map_err(|error| refuse(readable(&error)))?;
        if found != DataType::Boolean {
            return Err(refuse(format!("is {found}, expected a condition (true or false)")));
        }
        let filter = Self { name, expression: expression.into(), predicate, schema: Arc::clone(schema) };
        // No rows are enough to find a constant that does not fit: topic = 'a'.
        filter.mask(&RecordBatch::new_empty(Arc::clone(schema)))?;
        Ok(filter)
    }

    /// The names of the columns that the condition reads.
    pub fn columns(&self) -> Vec<String> {
        let mut columns: Vec<_> = collect_columns(&self.predicate).into_iter().collect();
        columns.sort_by_key(|column| column.index());
        columns.into_iter().map(|column| column.name().into()).collect()
    }

    /// Keeps the rows of `rows` (of the schema given to [`Filter::try_new`]) for which the condition is true.
    pub fn apply(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let mask = self.mask(rows)?;
        filter_record_batch(rows, &mask).map_err(|error| self.refused(error.to_string()))
    }

    /// Whether the condition is true, for each row of `rows` (of the schema given to [`Filter::try_new`]); null is not.
    pub fn mask(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let mask = self
            .predicate
            .evaluate(rows)
            .and_then(|value| value.into_array(rows.num_rows()))
            .map_err(|error| self.refused(readable(&error)))?;
        let Some(mask) = mask.as_any().downcast_ref::<BooleanArray>() else {
            return Err(Error::Internal(format!("\"{}\" gave {}", self.expression, mask.data_type())));
        };
        Ok(mask.clone())
    }

    fn refused(&self, reason: String) -> Error {
        Error::Filter { name: self.name, expression: self.expression.clone(), reason }
    }

    /// The condition as DataFusion evaluates it, to prune what cannot match.
    pub(crate) fn predicate(&self) -> &Arc<dyn PhysicalExpr> {
        &self.predicate
    }

    /// The columns that [`Filter::apply`] expects.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

/// A context that takes column names as written.
fn session() -> SessionContext {
    let mut config = SessionConfig::new();
    config.options_mut().sql_parser.enable_ident_normalization = false;
    SessionContext::new_with_config(config)
}

fn contains_query(expression: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    expression
        .exists(|node| {
            Ok(matches!(
                node,
                Expr::ScalarSubquery(_)
                    | Expr::Exists(_)
                    | Expr::InSubquery(_)
                    | Expr::AggregateFunction(_)
                    | Expr::WindowFunction(_)
            ))
        })
        .unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        array::*,
        datatypes::{Field, Schema},
    };

    fn papers() -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("Title", DataType::Utf8, true),
            Field::new("year", DataType::Int32, true),
        ]);
        RecordBatch::try_new(
            schema.into(),
            vec![
                Arc::new(StringArray::from(vec![Some("a"), Some("b"), None])),
                Arc::new(Int32Array::from(vec![Some(2020), None, Some(2024)])),
            ],
        )
        .unwrap()
    }

    fn refusal(expression: &str) -> String {
        Filter::try_new(expression, &papers().schema()).unwrap_err().to_string()
    }

    #[test]
    fn rows_for_which_it_is_true_are_kept_and_null_is_not_true() {
        let rows = papers();
        let kept = |expression| {
            Filter::try_new(expression, &rows.schema()).unwrap().apply(&rows).unwrap().num_rows()
        };
        assert_eq!(kept("year >= 2020"), 2);
        assert_eq!(kept("not year >= 2021"), 1);
        assert_eq!(kept("Title = 'b' or year = 2024"), 2);
        assert_eq!(kept("Title is null"), 1);
        assert_eq!(kept("length(Title) = 1 and year is null"), 1);
        assert_eq!(kept("true"), 3);
    }

    #[test]
    fn an_unknown_column_is_named_with_the_columns_there_are() {
        let text = refusal("titel = 'x'");
        assert!(
            text.contains(
                "where \"titel = 'x'\": no column \"titel\" (did you mean \"Title\"?); there are: \"Title\", \"year\""
            ),
            "{text}"
        );
        assert!(refusal("title = 'x'").contains("no column \"title\""), "names are taken as written");
    }

    #[test]
    fn what_is_no_condition_is_refused_in_one_line() {
        assert!(refusal("year = 'x'").contains("'x'"), "{}", refusal("year = 'x'"));
        assert!(refusal("year + 1").contains("is Int64, expected a condition"), "{}", refusal("year + 1"));
        for wrong in
            ["year = ", "year = 1 year", "sum(year) > 3", "year in (select 1)", "nosuch(year) > 1", ""]
        {
            let text = refusal(wrong);
            assert!(text.starts_with(&format!("where \"{wrong}\": ")), "{text}");
            assert!(!text.contains('\n') && text.len() < 300, "{text}");
        }
    }

    #[test]
    fn only_the_columns_it_reads_are_asked_for() {
        assert_eq!(Filter::try_new("year > 3", &papers().schema()).unwrap().columns(), ["year"]);
    }
}
