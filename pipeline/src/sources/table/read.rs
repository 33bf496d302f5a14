//! Reads a table on a thread of its own, a few batches ahead of the consumer.

use super::{
    Format, Plan, csv, jsonl,
    output::{Message, Output, Pending, Stop, Trouble},
    parquet, text,
};
use crate::{
    Error, Result,
    filter::Filter,
    location::Location,
    positions::Event,
    sources::{BadUnit, BadUnits, Columns, Source},
};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};

/// How many batches wait for the consumer: one to take at once, one that absorbs a slow fetch.
const AHEAD: usize = 2;

/// The rows of a table, batch after batch. Made by [`Table::read`](super::Table::read).
#[derive(Debug)]
pub struct TableSource {
    plan: Arc<Plan>,
    schema: SchemaRef,
    rows_hint: Option<u64>,
    bad: BadUnits,
    messages: mpsc::Receiver<Message>,
    reader: Option<JoinHandle<()>>,
}

/// Starts the reader thread. The columns and the filter were checked.
pub(super) fn start(plan: Arc<Plan>, rows_hint: Option<u64>, columns: &Columns) -> Result<TableSource> {
    let runtime = Handle::try_current().map_err(|error| Error::Internal(error.to_string()))?;
    let schema = projected(&plan.schema, columns);
    let mut wanted = schema.fields().to_vec();
    let mut filter = None;
    if let Some(expression) = &plan.config.filter {
        for column in Filter::try_new(expression, &plan.schema)?.columns() {
            if schema.field_with_name(&column).is_err() {
                wanted.extend(plan.schema.fields().find(&column).map(|(_, field)| Arc::clone(field)));
            }
        }
        filter = Some(Filter::try_new(expression, &Arc::new(Schema::new(wanted.clone())))?);
    }
    let (sender, messages) = mpsc::channel(AHEAD);
    let output = Output {
        wanted: Arc::new(Schema::new(wanted)),
        constants: Arc::default(),
        filter,
        embeddings: columns.embeddings.clone(),
        schema: Arc::clone(&schema),
        batch_size: plan.config.batch_size,
        on_bad_row: plan.config.on_bad_row,
        sender: sender.clone(),
        pending: Pending::default(),
    };
    let bad = plan.bad.clone();
    let (thread, read_plan) = (runtime.clone(), Arc::clone(&plan));
    let reader = runtime.spawn_blocking(move || {
        if let Err(Stop::Failed(error)) = read(&read_plan, &thread, output) {
            // Nobody listens: nobody wants to know.
            let _ = sender.blocking_send(Message::Failed(error));
        }
    });
    Ok(TableSource { plan, schema, rows_hint, bad, messages, reader: Some(reader) })
}

#[async_trait]
impl Source for TableSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn rows_hint(&self) -> Option<u64> {
        self.rows_hint
    }

    async fn next(&mut self) -> Result<Event> {
        loop {
            match self.messages.recv().await {
                Some(Message::Rows(batch)) => return Ok(Event::Batch(batch)),
                Some(Message::Bad(unit, rows)) => self.bad.push(unit, rows),
                Some(Message::Failed(error)) => {
                    self.messages.close();
                    self.reader = None;
                    return Err(error);
                }
                Some(Message::End) => self.reader = None,
                None => {
                    return match self.reader.take() {
                        None => Ok(Event::End),
                        Some(reader) => match reader.await {
                            Ok(()) => Err(Error::Internal("the reader stopped without an end".into())),
                            Err(panic) => Err(Error::Internal(format!("the reader failed: {panic}"))),
                        },
                    };
                }
            }
        }
    }

    fn bad(&self) -> &BadUnits {
        &self.bad
    }

    fn reads(&self, place: &Location) -> bool {
        self.plan.files.iter().any(|file| place.is_file(&self.plan.location, &file.found.path))
    }
}

/// The columns asked for, in the order asked for.
fn projected(schema: &SchemaRef, columns: &Columns) -> SchemaRef {
    if columns.others {
        return Arc::clone(schema);
    }
    let fields = columns.needed.iter().filter_map(|name| schema.fields().find(name));
    Arc::new(Schema::new(fields.map(|(_, field)| Arc::clone(field)).collect::<Vec<_>>()))
}

fn read(plan: &Plan, runtime: &Handle, mut output: Output) -> std::result::Result<(), Stop> {
    let rows = plan.config.row_range();
    // The source's row that is the file's first.
    let mut first = 0;
    for file in &plan.files {
        if first >= rows.end {
            break;
        }
        let wanted = rows.start.saturating_sub(first)..rows.end - first;
        output.constants = Arc::clone(&file.constants);
        let (location, found) = (&plan.location, &file.found);
        let read = match (found.encoding.format, file.rows()) {
            (Format::Parquet, count) => {
                let count = count.unwrap_or_default();
                let wanted = wanted.start.min(count)..wanted.end.min(count);
                first += count;
                if !wanted.is_empty() {
                    parquet::read(location, file, wanted, runtime, &mut output)?;
                }
                continue;
            }
            (format, _) => match (text::open(location, found, runtime), format) {
                (Ok(input), Format::Csv) => csv::read(file, input, wanted, &mut output),
                (Ok(input), _) => jsonl::read(file, input, wanted, &mut output),
                (Err(Trouble::Failed(error)), _) => Err(Stop::Failed(error)),
                (Err(Trouble::Bad(reason)), _) => {
                    output.bad(BadUnit::file(file.name(), reason), 0).map(|()| 0)
                }
            },
        };
        first += read?;
    }
    output.finish()
}
