"""Prints columns of a Delta table: a line a row, with tabs between the values. Arguments: the table, then the columns."""

import sys

from deltalake import DeltaTable

table, *columns = sys.argv[1:]
rows = DeltaTable(table).to_pyarrow_table(columns=columns)
for row in zip(*(rows[column].to_pylist() for column in columns)):
    print(*("null" if value is None else value for value in row), sep="\t")
