"""Changes a Delta table as other programs do. Arguments: what to do, the table, and what that takes:

append TABLE FILE [COLUMN]   adds the rows of a Parquet file; a new table is partitioned by a column
compact TABLE                writes small files anew as large ones
delete TABLE CONDITION       deletes rows
vacuum TABLE                 removes the files that the newest version does not need
"""

import os
import sys

import pyarrow.parquet
from deltalake import DeltaTable, write_deltalake

what, table, *more = sys.argv[1:]
if what == "append":
    rows = pyarrow.parquet.read_table(more[0])
    write_deltalake(table, rows, mode="append", partition_by=more[1:] or None)
elif what == "compact":
    DeltaTable(table).optimize.compact()
elif what == "delete":
    DeltaTable(table).delete(more[0])
elif what == "vacuum":
    DeltaTable(table).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
else:
    sys.exit(f"{what} is unknown: {__doc__}")
sys.stdout.flush()
# pyarrow's threads may abort the process while it ends ("terminate called without an active exception").
os._exit(0)
