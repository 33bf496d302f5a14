//! Leaves out row groups of which the footer's statistics prove that no row passes the filter.

use crate::filter::Filter;
use arrow::{
    array::{ArrayRef, BooleanArray, UInt64Array},
    compute::cast,
    datatypes::DataType,
};
use datafusion::{
    common::{Column, ScalarValue, pruning::PruningStatistics},
    physical_optimizer::pruning::PruningPredicateBuilder,
};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, statistics::StatisticsConverter};
use std::{collections::HashSet, sync::Arc};

/// Tells for each row group whether it can be left out. What is not known is read.
pub(super) fn prunable(filter: &Filter, metadata: &ArrowReaderMetadata) -> Vec<bool> {
    let count = metadata.metadata().num_row_groups();
    let schema = Arc::clone(filter.schema());
    let builder = PruningPredicateBuilder::new().with_file_schema(schema);
    let Some(predicate) = builder.build(Arc::clone(filter.predicate())) else {
        return vec![false; count];
    };
    match predicate.prune(&Statistics { filter, metadata }) {
        Ok(keep) if keep.len() == count => keep.into_iter().map(|keep| !keep).collect(),
        _ => vec![false; count],
    }
}

struct Statistics<'a> {
    filter: &'a Filter,
    metadata: &'a ArrowReaderMetadata,
}

impl Statistics<'_> {
    fn converter(&self, column: &Column) -> Option<StatisticsConverter<'_>> {
        let (schema, leaves) = (self.metadata.schema(), self.metadata.parquet_schema());
        StatisticsConverter::try_new(column.name(), schema, leaves).ok()
    }

    /// The type that the filter compares in. None for floats: a NaN is left out of a footer's maximum, but is greater
    /// than all numbers in a comparison.
    fn compared(&self, column: &Column) -> Option<&DataType> {
        let table = self.filter.schema().field_with_name(column.name()).ok()?.data_type();
        let file = self.metadata.schema().field_with_name(column.name()).ok()?.data_type();
        (!table.is_floating() && !file.is_floating()).then_some(table)
    }
}

impl PruningStatistics for Statistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        let groups = self.metadata.metadata().row_groups();
        let values = self.converter(column)?.row_group_mins(groups).ok()?;
        cast(&values, self.compared(column)?).ok()
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        let groups = self.metadata.metadata().row_groups();
        let values = self.converter(column)?.row_group_maxes(groups).ok()?;
        cast(&values, self.compared(column)?).ok()
    }

    fn num_containers(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        // A count that a writer left out is unknown, not none.
        let converter = self.converter(column)?.with_missing_null_counts_as_zero(false);
        let counts = converter.row_group_null_counts(self.metadata.metadata().row_groups()).ok()?;
        Some(Arc::new(counts))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let groups = self.metadata.metadata().row_groups().iter();
        let counts = groups.map(|group| u64::try_from(group.num_rows()).ok());
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
