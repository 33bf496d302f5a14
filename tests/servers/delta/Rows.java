import io.delta.kernel.Scan;
import io.delta.kernel.Snapshot;
import io.delta.kernel.Table;
import io.delta.kernel.data.ColumnVector;
import io.delta.kernel.data.FilteredColumnarBatch;
import io.delta.kernel.data.Row;
import io.delta.kernel.defaults.engine.DefaultEngine;
import io.delta.kernel.engine.Engine;
import io.delta.kernel.internal.InternalScanFileUtils;
import io.delta.kernel.internal.data.ScanStateRow;
import io.delta.kernel.internal.util.Utils;
import io.delta.kernel.types.DataType;
import io.delta.kernel.types.DoubleType;
import io.delta.kernel.types.FloatType;
import io.delta.kernel.types.IntegerType;
import io.delta.kernel.types.LongType;
import io.delta.kernel.types.StringType;
import io.delta.kernel.types.StructType;
import io.delta.kernel.utils.CloseableIterator;
import java.util.Optional;
import org.apache.hadoop.conf.Configuration;

/** Prints columns of a Delta table: a line a row, with tabs between the values. Arguments: the table, then the columns. */
public final class Rows {
  public static void main(String[] arguments) throws Exception {
    Engine engine = DefaultEngine.create(new Configuration());
    Snapshot snapshot = Table.forPath(engine, arguments[0]).getLatestSnapshot(engine);
    Scan scan = snapshot.getScanBuilder().build();
    Row state = scan.getScanState(engine);
    StructType columns = ScanStateRow.getPhysicalDataReadSchema(engine, state);
    StringBuilder out = new StringBuilder();
    try (CloseableIterator<FilteredColumnarBatch> files = scan.getScanFiles(engine)) {
      while (files.hasNext()) {
        try (CloseableIterator<Row> added = files.next().getRows()) {
          while (added.hasNext()) {
            Row file = added.next();
            var place = Utils.singletonCloseableIterator(InternalScanFileUtils.getAddFileStatus(file));
            var stored = engine.getParquetHandler().readParquetFiles(place, columns, Optional.empty());
            try (var batches = Scan.transformPhysicalData(engine, state, file, stored)) {
              while (batches.hasNext()) {
                append(out, batches.next(), arguments);
              }
            }
          }
        }
      }
    }
    System.out.print(out);
  }

  private static void append(StringBuilder out, FilteredColumnarBatch batch, String[] arguments) {
    var data = batch.getData();
    ColumnVector[] columns = new ColumnVector[arguments.length - 1];
    for (int at = 0; at < columns.length; at++) {
      columns[at] = data.getColumnVector(data.getSchema().indexOf(arguments[at + 1]));
    }
    for (int row = 0; row < data.getSize(); row++) {
      for (int at = 0; at < columns.length; at++) {
        out.append(at == 0 ? "" : "\t").append(value(columns[at], row));
      }
      out.append("\n");
    }
  }

  private static String value(ColumnVector column, int row) {
    DataType type = column.getDataType();
    if (column.isNullAt(row)) {
      return "null";
    } else if (type instanceof StringType) {
      return column.getString(row);
    } else if (type instanceof IntegerType) {
      return Integer.toString(column.getInt(row));
    } else if (type instanceof LongType) {
      return Long.toString(column.getLong(row));
    } else if (type instanceof FloatType) {
      return Float.toString(column.getFloat(row));
    } else if (type instanceof DoubleType) {
      return Double.toString(column.getDouble(row));
    }
    throw new IllegalArgumentException("no column of type " + type);
  }
}
