//! Reading real files.

mod bad;

use super::*;
use crate::{
    Kind,
    positions::{Batch, Event, Positions, Split},
    sources::Source,
};
use ::parquet::{
    arrow::ArrowWriter,
    basic::Compression,
    file::{properties::WriterProperties, reader::FileReader, serialized_reader::SerializedFileReader},
};
use arrow::{
    array::*,
    compute::concat_batches,
    datatypes::{Field, Float32Type, Int64Type, Schema},
};
use object_store::{ObjectStoreExt, PutPayload, local::LocalFileSystem, memory::InMemory, path::Path};
use std::{fs, io::Write, path::PathBuf};
use tempfile::TempDir;

/// Rows `start..end` of a table of papers: `id` (the row's number), `title` ("paper 7", null for each tenth) and
/// `vector` (two floats).
fn papers(start: i64, end: i64) -> RecordBatch {
    let ids = Int64Array::from_iter_values(start..end);
    let titles: StringViewArray = (start..end).map(|i| (i % 10 != 9).then(|| format!("paper {i}"))).collect();
    let vectors = (start..end).map(|i| Some(vec![Some(i as f32), Some(-0.5)]));
    let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, 2);
    RecordBatch::try_from_iter([
        ("id", Arc::new(ids) as ArrayRef),
        ("title", Arc::new(titles) as ArrayRef),
        ("vector", Arc::new(vectors) as ArrayRef),
    ])
    .unwrap()
}

fn parquet_bytes(rows: &RecordBatch, row_group_rows: usize) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(row_group_rows))
        .set_compression(Compression::SNAPPY)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).unwrap();
    writer.write(rows).unwrap();
    writer.into_inner().unwrap()
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn parquet(&self, name: &str, start: i64, end: i64) -> PathBuf {
        self.file(name, parquet_bytes(&papers(start, end), 10))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().into()
    }

    fn table(&self, name: &str) -> TableConfig {
        TableConfig::new(self.path(name))
    }
}

/// All rows, what was skipped, and the positions after the last row.
struct Found {
    rows: RecordBatch,
    sizes: Vec<usize>,
    bad: BadUnits,
    positions: Positions,
}

impl Found {
    fn ids(&self) -> Vec<i64> {
        self.rows.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec()
    }

    fn texts(&self, column: &str) -> Vec<&str> {
        let column = self.rows.column_by_name(column).unwrap().as_string::<i32>();
        column.iter().map(|text| text.unwrap_or("null")).collect()
    }
}

async fn drain(mut source: TableSource) -> Result<Found> {
    let (mut batches, mut positions) = (Vec::new(), Positions::default());
    while let Event::Batch(Batch { rows, covers, .. }) = source.next().await? {
        positions.advance(&covers)?;
        batches.push(rows);
    }
    assert!(matches!(source.next().await, Ok(Event::End)), "the end stays the end");
    let rows = concat_batches(&source.schema(), &batches).unwrap();
    let sizes = batches.iter().map(RecordBatch::num_rows).collect();
    Ok(Found { rows, sizes, bad: source.bad().clone(), positions })
}

async fn read(config: &TableConfig, columns: &Columns) -> Result<Found> {
    drain(Table::open(config, columns.id.as_deref()).await?.read(columns)?).await
}

async fn ids(config: &TableConfig) -> Vec<i64> {
    read(config, &Columns::all_with(["id"])).await.unwrap().ids()
}

async fn refusal(config: &TableConfig, columns: &Columns) -> (String, Kind) {
    match read(config, columns).await {
        Ok(_) => panic!("{} was read", config.path),
        Err(error) => (error.to_string(), error.kind()),
    }
}

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "\"{text}\" lacks \"{word}\"");
    }
    assert!(!text.contains('\n') && text.len() < 400, "{text}");
}

/// Where the column `name` of a row group lies in a file: its start and its length.
fn chunk(path: &PathBuf, row_group: usize, name: &str) -> (u64, u64) {
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let group = reader.metadata().row_group(row_group);
    let column =
        group.columns().iter().find(|column| column.column_path().string().starts_with(name)).unwrap();
    column.byte_range()
}

fn overwrite(path: &PathBuf, range: std::ops::Range<usize>) {
    let mut bytes = fs::read(path).unwrap();
    bytes[range].fill(0xa5);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_parquet_file_comes_out_as_it_went_in_with_plain_text() {
    let folder = Folder::new();
    folder.parquet("a.parquet", 0, 95);
    let found = read(&folder.table("a.parquet"), &Columns::all()).await.unwrap();
    assert_eq!(found.ids(), (0..95).collect::<Vec<_>>());
    assert_eq!(found.rows.schema().field(1).data_type(), &DataType::Utf8);
    assert_eq!(found.texts("title")[8..10], ["paper 8", "null"]);
    let vectors = found.rows.column(2).as_fixed_size_list();
    assert_eq!(vectors.value(94).as_primitive::<Float32Type>().values(), &[94.0, -0.5]);
    let split = Split::new(folder.path("a.parquet"));
    assert_eq!(found.positions.next(&split), Some(95));
}

#[tokio::test]
async fn only_the_columns_asked_for_come_in_the_order_asked_for() {
    let folder = Folder::new();
    folder.parquet("a.parquet", 0, 20);
    let config = TableConfig { filter: Some("vector[1] >= 15".into()), ..folder.table("a.parquet") };
    let found = read(&config, &Columns::only(["title", "id", "title"])).await.unwrap();
    let names: Vec<_> = found.rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["title", "id"]);
    assert_eq!(found.ids(), [15, 16, 17, 18, 19]);
}

#[tokio::test]
async fn bytes_of_columns_not_asked_for_are_not_read() {
    let folder = Folder::new();
    let path = folder.parquet("a.parquet", 0, 20);
    let vector = chunk(&path, 0, "vector");
    overwrite(&path, vector.0 as usize..(vector.0 + vector.1) as usize);
    assert_eq!(read(&folder.table("a.parquet"), &Columns::only(["id"])).await.unwrap().ids().len(), 20);
    assert!(read(&folder.table("a.parquet"), &Columns::all()).await.is_err());
}

#[tokio::test]
async fn a_filter_keeps_what_it_is_true_for_and_leaves_out_whole_row_groups() {
    let folder = Folder::new();
    let path = folder.parquet("a.parquet", 0, 100);
    // Row group 1 is corrupt: a filter that its statistics rule out never touches it.
    let id = chunk(&path, 1, "id");
    overwrite(&path, id.0 as usize..(id.0 + id.1) as usize);
    let config = TableConfig {
        filter: Some("id > 41 and id <= 44 or title = 'paper 77'".into()),
        ..folder.table("a.parquet")
    };
    let found = read(&config, &Columns::all()).await.unwrap();
    assert_eq!(found.ids(), [42, 43, 44, 77]);
    assert_eq!(
        found.positions.next(&Split::new(folder.path("a.parquet"))),
        Some(100),
        "pruned rows are covered"
    );
    let config = TableConfig { filter: Some("id >= 19".into()), ..config };
    assert!(read(&config, &Columns::all()).await.is_err());
}

#[tokio::test]
async fn a_filter_that_nothing_passes_gives_one_empty_batch_that_covers_all() {
    let folder = Folder::new();
    folder.parquet("a.parquet", 0, 100);
    let config = TableConfig { filter: Some("id < 0".into()), ..folder.table("a.parquet") };
    let found = read(&config, &Columns::all()).await.unwrap();
    assert_eq!((found.rows.num_rows(), found.sizes), (0, vec![0]));
    assert_eq!(found.positions.next(&Split::new(folder.path("a.parquet"))), Some(100));
}

#[tokio::test]
async fn a_folder_is_read_in_the_order_of_paths_without_hidden_files() {
    let folder = Folder::new();
    folder.parquet("t/b/2.parquet", 30, 40);
    folder.parquet("t/a/1.parquet", 0, 15);
    folder.parquet("t/b/10.pq", 15, 30);
    folder.file("t/_SUCCESS", "");
    folder.file("t/_temporary/0.json", "{}");
    folder.file("t/a/.hidden.parquet", "no parquet");
    folder.file("t/readme.txt", "hello");
    for name in ["t", "t/"] {
        assert_eq!(ids(&folder.table(name)).await, (0..40).collect::<Vec<_>>(), "{name}");
    }
    let table = Table::open(&folder.table("t"), None).await.unwrap();
    assert_eq!(table.rows_hint(), Some(40));
    assert!(table.files().eq([
        folder.path("t/a/1.parquet"),
        folder.path("t/b/10.pq"),
        folder.path("t/b/2.parquet")
    ]));
}

#[tokio::test]
async fn a_glob_takes_what_matches() {
    let folder = Folder::new();
    folder.parquet("t/a/1.parquet", 0, 10);
    folder.parquet("t/a/2.parquet", 10, 20);
    folder.parquet("t/b/c/1.parquet", 20, 30);
    assert_eq!(ids(&folder.table("t/*/1.parquet")).await, (0..10).collect::<Vec<_>>());
    assert_eq!(ids(&folder.table("t/**/1.parquet")).await, (0..10).chain(20..30).collect::<Vec<_>>());
    assert_eq!(ids(&folder.table("t/a/[2-9].parquet")).await, (10..20).collect::<Vec<_>>());
    let (text, kind) = refusal(&folder.table("t/a/9*"), &Columns::all()).await;
    assert_says(&text, &["t/a/9*", "nothing matches"]);
    assert_eq!(kind, Kind::User);
}

#[tokio::test]
async fn a_file_whose_name_looks_like_a_glob_is_a_file() {
    let folder = Folder::new();
    folder.parquet("a[1]*.parquet", 0, 10);
    assert_eq!(ids(&folder.table("a[1]*.parquet")).await.len(), 10);
}

#[tokio::test]
async fn small_files_are_gathered_and_large_ones_cut() {
    let folder = Folder::new();
    for i in 0..30 {
        folder.parquet(&format!("{i:02}.parquet"), i * 3, i * 3 + 3);
    }
    folder.file("z.parquet", parquet_bytes(&papers(90, 190), 1000));
    let config = TableConfig { batch_size: 20, ..folder.table("") };
    let found = read(&config, &Columns::all()).await.unwrap();
    assert_eq!(found.ids(), (0..190).collect::<Vec<_>>());
    assert!(found.sizes.iter().all(|&size| size <= 20), "{:?}", found.sizes);
    assert!(found.sizes.windows(2).all(|pair| pair[0] >= 10 || pair[0] + pair[1] > 20), "{:?}", found.sizes);
}

#[tokio::test]
async fn formats_mix_and_columns_are_united_by_name() {
    let folder = Folder::new();
    folder.parquet("1.parquet", 0, 2);
    folder.file("2.csv", "title,id,year\n\"a, \"\"b\"\"\nc\",2,2024\n,3,\n");
    folder.file("3.jsonl", "{\"id\": 4, \"title\": \"d\", \"tags\": [\"x\", \"y\"]}\n\n{\"id\": 5.5}\n");
    folder.file("4.csv", "");
    let found = read(&folder.table(""), &Columns::all()).await.unwrap();
    let schema = found.rows.schema();
    let columns: Vec<_> = schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
    assert_eq!(
        columns,
        ["id Float64", "title Utf8", "vector FixedSizeList(2 x Float32)", "year Int64", "tags List(Utf8)"]
    );
    assert_eq!(found.texts("title"), ["paper 0", "paper 1", "a, \"b\"\nc", "null", "d", "null"]);
    let ids = found.rows.column(0).as_primitive::<arrow::datatypes::Float64Type>();
    assert_eq!(ids.values(), &[0.0, 1.0, 2.0, 3.0, 4.0, 5.5]);
    assert_eq!(found.rows.column(3).null_count(), 5);
    assert_eq!(found.rows.column(4).as_list::<i32>().value(4).as_string::<i32>().value(1), "y");
}

#[tokio::test]
async fn a_needed_column_that_a_file_lacks_is_named_with_the_file() {
    let folder = Folder::new();
    folder.parquet("1.parquet", 0, 2);
    folder.file("2.csv", "id,year\n2,2024\n");
    let (text, kind) = refusal(&folder.table(""), &Columns::all_with(["title"])).await;
    assert_says(&text, &["\"title\"", "2.csv", "\"id\", \"year\""]);
    assert_eq!(kind, Kind::User);
    let (text, _) = refusal(&folder.table(""), &Columns::only(["titel"])).await;
    assert_says(&text, &["\"titel\"", "\"id\", \"title\", \"vector\", \"year\""]);
    let config = TableConfig { filter: Some("year > 2000".into()), ..folder.table("") };
    assert_says(&refusal(&config, &Columns::only(["id"])).await.0, &["\"year\"", "1.parquet"]);
    let config = TableConfig { filter: Some("yaer > 2000".into()), ..folder.table("") };
    assert_says(&refusal(&config, &Columns::only(["id"])).await.0, &["where \"yaer > 2000\"", "\"year\""]);
}

#[tokio::test]
async fn types_that_differ_are_an_error_that_names_both_files() {
    let folder = Folder::new();
    folder.parquet("1.parquet", 0, 2);
    folder.file("2.csv", "id,title\nx7,a\n");
    let (text, kind) = refusal(&folder.table(""), &Columns::all()).await;
    assert_says(&text, &["column \"id\"", "Int64 in", "1.parquet", "Utf8 in", "2.csv", "`types`"]);
    assert_eq!(kind, Kind::User);
}

#[tokio::test]
async fn types_can_be_said_for_text_files() {
    let folder = Folder::new();
    folder.file("1.csv", "id,when\n1501.00010,2024-02-29\n");
    folder
        .file("2.jsonl", "{\"id\": \"1501.00011\", \"when\": \"2024-03-01\"}\n{\"id\": 7, \"when\": null}\n");
    let types = BTreeMap::from([("id".into(), ColumnType::Utf8), ("when".into(), ColumnType::Date)]);
    let config = TableConfig { types, ..folder.table("") };
    let found = read(&config, &Columns::all()).await.unwrap();
    assert_eq!(found.texts("id"), ["1501.00010", "1501.00011", "7"]);
    assert_eq!(found.rows.column(1).data_type(), &DataType::Date32);
    assert_eq!(found.rows.column(1).null_count(), 1);
}

#[tokio::test]
async fn the_id_of_a_csv_file_stays_as_it_is_written() {
    let folder = Folder::new();
    folder.file("a.csv", "arxiv,price\n2302.08150,1.50\n2302.08151,2.50\n");
    let config = folder.table("a.csv");
    let found = read(&config, &Columns::all().with_id(Some("arxiv"))).await.unwrap();
    assert_eq!(found.texts("arxiv"), ["2302.08150", "2302.08151"]);
    let field =
        |found: &Found, name: &str| found.rows.schema().field_with_name(name).unwrap().data_type().clone();
    assert_eq!(field(&found, "price"), DataType::Float64);
    let found = read(&config, &Columns::all()).await.unwrap();
    assert_eq!(field(&found, "arxiv"), DataType::Float64);
}

#[tokio::test]
async fn a_column_with_a_dot_and_a_field_of_a_struct_are_both_found() {
    let folder = Folder::new();
    let inner = StructArray::from(vec![(
        Arc::new(Field::new("title", DataType::Utf8, true)),
        Arc::new(StringArray::from(vec!["inner"])) as ArrayRef,
    )]);
    let dotted = RecordBatch::try_from_iter([
        ("meta.title", Arc::new(StringArray::from(vec!["dotted"])) as ArrayRef),
        ("meta", Arc::new(inner) as ArrayRef),
    ])
    .unwrap();
    folder.file("a.parquet", parquet_bytes(&dotted, 10));
    let names = |found: Found| -> Vec<String> {
        found.rows.schema().fields().iter().map(|field| field.name().clone()).collect()
    };
    let config = folder.table("a.parquet");
    assert_eq!(names(read(&config, &Columns::only(["meta.title"])).await.unwrap()), ["meta.title"]);
    let only_struct = dotted.project(&[1]).unwrap();
    folder.file("a.parquet", parquet_bytes(&only_struct, 10));
    assert_eq!(names(read(&config, &Columns::only(["meta.title"])).await.unwrap()), ["meta"]);
    let (text, _) = refusal(&config, &Columns::only(["mata.title"])).await;
    assert_says(&text, &["no column \"mata.title\"", "there are: \"meta\""]);
}

#[tokio::test]
async fn gzipped_text_and_tabs_are_read() {
    let folder = Folder::new();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"{\"id\": 1}\n{\"id\": 2}").unwrap();
    folder.file("a.jsonl.gz", packed.finish().unwrap());
    folder.file("b.tsv", "id\ttitle\n3\ta, b\n");
    assert_eq!(ids(&folder.table("")).await, [1, 2, 3]);
}

#[tokio::test]
async fn a_row_range_counts_across_files_and_before_the_filter() {
    let folder = Folder::new();
    folder.parquet("1.parquet", 0, 25);
    folder.file("2.csv", (25..40).fold("id\n".to_string(), |text, i| format!("{text}{i}\n")));
    folder.file("3.jsonl", (40..50).map(|i| format!("{{\"id\": {i}}}\n")).collect::<String>());
    folder.parquet("4.parquet", 50, 60);
    for (start, end) in
        [(0, 5), (13, 17), (13, 33), (27, 29), (30, 44), (41, 43), (45, 1000), (24, 51), (7, 7)]
    {
        let rows = Some(RowRange { start, end: Some(end) });
        let config = TableConfig { rows, batch_size: 4, ..folder.table("") };
        let wanted: Vec<i64> = (start as i64..end.min(60) as i64).collect();
        let found = read(&config, &Columns::only(["id"])).await.unwrap();
        assert_eq!(found.ids(), wanted, "{start}..{end}");
        let config = TableConfig { filter: Some("id % 2 = 0".into()), ..config };
        let wanted: Vec<i64> = wanted.into_iter().filter(|id| id % 2 == 0).collect();
        assert_eq!(read(&config, &Columns::only(["id"])).await.unwrap().ids(), wanted, "{start}..{end}");
    }
    let rows = Some(RowRange { start: 5, end: Some(3) });
    let (text, _) = refusal(&TableConfig { rows, ..folder.table("") }, &Columns::all()).await;
    assert_says(&text, &["rows", "start 5 is past end 3"]);
}

#[tokio::test]
async fn rows_that_will_come_are_known_for_parquet_without_a_filter() {
    let folder = Folder::new();
    folder.parquet("1.parquet", 0, 25);
    let rows = Some(RowRange { start: 5, end: Some(100) });
    let config = TableConfig { rows, ..folder.table("1.parquet") };
    let source = Table::open(&config, None).await.unwrap().read(&Columns::all()).unwrap();
    assert_eq!(source.rows_hint(), Some(20));
    let config = TableConfig { filter: Some("id > 3".into()), ..config };
    assert_eq!(Table::open(&config, None).await.unwrap().rows_hint(), None);
    folder.file("2.csv", "id\n1\n");
    assert_eq!(Table::open(&folder.table(""), None).await.unwrap().rows_hint(), None);
}

#[tokio::test]
async fn a_table_without_rows_ends_at_once() {
    let folder = Folder::new();
    folder.parquet("a.parquet", 0, 0);
    folder.file("b.csv", "id\n");
    let found = read(&folder.table(""), &Columns::only(["id"])).await.unwrap();
    assert_eq!((found.rows.num_rows(), found.sizes.len()), (0, 0));
}

#[tokio::test]
async fn object_stores_are_read_by_the_same_code() {
    let folder = tempfile::tempdir().unwrap();
    let stores: [Arc<dyn object_store::ObjectStore>; 2] =
        [Arc::new(InMemory::new()), Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap())];
    for store in stores {
        for (name, rows) in [("lake/b.parquet", 10..30), ("lake/a/x.parquet", 0..10)] {
            let bytes = parquet_bytes(&papers(rows.start, rows.end), 10);
            store.put(&Path::from(name), PutPayload::from(bytes)).await.unwrap();
        }
        store.put(&Path::from("lake/c.jsonl"), PutPayload::from("{\"id\": 30}\n")).await.unwrap();
        let location = Location::new(store, Path::from("lake"), "store://lake");
        let place = discover::Place { location, patterns: Vec::new() };
        let config =
            TableConfig { rows: Some(RowRange { start: 5, end: None }), ..TableConfig::new("store://lake") };
        let table = Listing::at(&config, place).await.unwrap().open(None).await.unwrap();
        let found = drain(table.read(&Columns::only(["id"])).unwrap()).await.unwrap();
        assert_eq!(found.ids(), (5..31).collect::<Vec<_>>());
        assert_eq!(found.positions.next(&Split::new("store://lake/b.parquet")), Some(20));
    }
}

#[tokio::test]
async fn rows_can_be_counted_without_a_column() {
    let folder = Folder::new();
    folder.parquet("1.parquet", 0, 25);
    folder.file("2.csv", "id\n1\n2\n");
    folder.file("3.jsonl", "{\"id\": 1}\n");
    let none: [&str; 0] = [];
    let mut source = Table::open(&folder.table(""), None).await.unwrap().read(&Columns::only(none)).unwrap();
    let mut rows = 0;
    while let Event::Batch(batch) = source.next().await.unwrap() {
        rows += batch.rows.num_rows();
    }
    assert_eq!(rows, 28);
}

#[tokio::test]
async fn a_source_that_is_dropped_stops_reading() {
    let folder = Folder::new();
    folder.parquet("a.parquet", 0, 5000);
    let config = TableConfig { batch_size: 1, ..folder.table("a.parquet") };
    let mut source = Table::open(&config, None).await.unwrap().read(&Columns::all()).unwrap();
    source.next().await.unwrap();
    // The runtime waits for the reader thread at the end of this test: it would hang, did it not stop.
    drop(source);
}

#[test]
fn the_configuration_is_strict() {
    let config: crate::sources::SourceConfig = serde_saphyr::from_str(
        "table: { path: a.parquet, where: \"id > 3\", rows: { start: 5 }, format: csv }",
    )
    .unwrap();
    let crate::sources::SourceConfig::Table(table) = &config else { panic!("no table") };
    assert_eq!(table.filter.as_deref(), Some("id > 3"));
    assert_eq!((table.rows, table.format), (Some(RowRange { start: 5, end: None }), Some(Format::Csv)));
    let text = serde_saphyr::to_string(&config).unwrap();
    assert_eq!(serde_saphyr::from_str::<crate::sources::SourceConfig>(&text).unwrap(), config);
    let error =
        serde_saphyr::from_str::<crate::sources::SourceConfig>("table: { path: a, wehre: x }").unwrap_err();
    assert!(error.to_string().contains("wehre"), "{error}");
}

/// Writes a million rows of 384 floats in row groups of 100,000, then reads them; for the eye, since the peak of a
/// process is shared by all tests in it: `cargo test --release a_million -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes 1.5 GB and measures the process"]
async fn a_million_rows_stream_in_bounded_memory() {
    let folder = Folder::new();
    let item = Arc::new(Field::new_list_field(DataType::Float32, true));
    let vector = Field::new("vector", DataType::FixedSizeList(Arc::clone(&item), 384), true);
    let schema = Arc::new(Schema::new(vec![vector]));
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(100_000))
        .set_dictionary_enabled(false)
        .build();
    let file = fs::File::create(folder.path("a.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties)).unwrap();
    for block in 0..1000 {
        let values = Float32Array::from_iter_values((0..384_000).map(|i| (i * 7919 + block) as f32));
        let list = FixedSizeListArray::new(Arc::clone(&item), 384, Arc::new(values), None);
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(list)]).unwrap()).unwrap();
        if block % 10 == 0 {
            writer.flush().unwrap();
        }
    }
    writer.close().unwrap();
    let before = peak_mib(true);
    let start = std::time::Instant::now();
    let mut source =
        Table::open(&folder.table("a.parquet"), None).await.unwrap().read(&Columns::all()).unwrap();
    let mut rows = 0;
    while let Event::Batch(batch) = source.next().await.unwrap() {
        rows += batch.rows.num_rows();
    }
    let peak = peak_mib(false) - before;
    println!("{rows} rows in {:?}, peak {peak} MiB above {before}", start.elapsed());
    assert_eq!(rows, 1_000_000);
    assert!(peak < 300, "{peak} MiB");
}

/// The process's peak of resident memory; `reset` sets it back to what is resident now.
fn peak_mib(reset: bool) -> u64 {
    if reset {
        fs::write("/proc/self/clear_refs", "5").unwrap();
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn folders_tell_columns_and_a_file_that_has_one_itself_overrules_them() {
    let folder = Folder::new();
    folder.parquet("year=2023/a.parquet", 0, 10);
    folder.parquet("year=2024/title=x/b.parquet", 10, 20);
    let lines: String = (20..30).map(|id| format!("{{\"id\": {id}}}\n")).collect();
    folder.file("year=2024/c.jsonl", lines);
    let config = TableConfig { filter: Some("year >= 2024 and id < 25".into()), ..folder.table("") };
    let table = Table::open(&config, None).await.unwrap();
    assert_eq!(table.schema().field_with_name("year").unwrap().data_type(), &DataType::Int64);
    let found = drain(table.read(&Columns::only(["id", "year", "title"])).unwrap()).await.unwrap();
    assert_eq!(found.ids(), (20..25).chain(10..20).collect::<Vec<_>>());
    assert!(found.rows["year"].as_primitive::<Int64Type>().values().iter().all(|year| *year == 2024));
    assert_eq!(found.texts("title")[5], "paper 10");
}

#[tokio::test]
async fn a_table_is_cut_into_files_and_runs_of_row_groups_which_give_all_rows_once() {
    let folder = Folder::new();
    folder.parquet("a.parquet", 0, 50);
    folder.parquet("b.parquet", 50, 60);
    folder.file("c.csv", (60..70).fold("id".to_string(), |text, id| format!("{text}\n{id}")));
    let table = Table::open(&folder.table(""), None).await.unwrap();
    let small = fs::metadata(folder.path("b.parquet")).unwrap().len();
    let parts = table.parts(small);
    assert!(parts.len() > 3, "{parts:?}");
    assert!(parts.iter().filter(|part| part.file > 0).all(|part| part.rows.is_none()), "{parts:?}");
    let mut ids = Vec::new();
    for part in parts {
        let part = table.only(part.file, part.rows).unwrap();
        ids.extend(drain(part.read(&Columns::only(["id"])).unwrap()).await.unwrap().ids());
        part.check_unchanged().await.unwrap();
    }
    assert_eq!(ids, (0..70).collect::<Vec<_>>());
    let whole = table.only(0, None).unwrap();
    fs::remove_file(folder.path("a.parquet")).unwrap();
    folder.parquet("a.parquet", 0, 40);
    let error = whole.check_unchanged().await.unwrap_err().to_string();
    assert!(error.contains("a.parquet: was changed while it was read"), "{error}");
}
