//! Bad files, row groups, rows and embeddings: named, or skipped and counted; never a panic.

use super::*;

#[tokio::test]
async fn a_truncated_parquet_file_is_named_or_skipped_and_counted() {
    let folder = Folder::new();
    folder.parquet("1.parquet", 0, 20);
    let bytes = fs::read(folder.parquet("2.parquet", 20, 40)).unwrap();
    fs::write(folder.path("2.parquet"), &bytes[..bytes.len() / 2]).unwrap();
    folder.parquet("3.parquet", 40, 60);
    let (text, kind) = refusal(&folder.table(""), &Columns::all()).await;
    assert_says(&text, &["2.parquet: not readable as Parquet: "]);
    assert_eq!(kind, Kind::Data);
    let config = TableConfig { on_bad_row: OnBadRow::Skip, ..folder.table("") };
    let found = read(&config, &Columns::all()).await.unwrap();
    assert_eq!(found.ids(), (0..20).chain(40..60).collect::<Vec<_>>());
    assert_eq!(found.bad.units(), 1);
    assert!(found.bad.listed()[0].file.ends_with("2.parquet"));
    // If nothing is left, that is an error all the same.
    let config = TableConfig { path: folder.path("2.parquet"), ..config };
    let (text, kind) = refusal(&config, &Columns::all()).await;
    assert_says(&text, &["none of its 1 files can be read", "2.parquet: not readable as Parquet"]);
    assert_eq!(kind, Kind::Data);
}

#[tokio::test]
async fn a_corrupt_row_group_in_the_middle_is_named_or_skipped_and_counted() {
    for column in ["id", "title", "vector"] {
        let folder = Folder::new();
        let path = folder.parquet("a.parquet", 0, 50);
        let (start, length) = chunk(&path, 2, column);
        overwrite(&path, start as usize..(start + length) as usize);
        let (text, kind) = refusal(&folder.table("a.parquet"), &Columns::all()).await;
        assert_says(&text, &["a.parquet, row group 2: "]);
        assert_eq!(kind, Kind::Data);
        let config = TableConfig { on_bad_row: OnBadRow::Skip, ..folder.table("a.parquet") };
        let found = read(&config, &Columns::all()).await.unwrap();
        assert_eq!(found.ids(), (0..20).chain(30..50).collect::<Vec<_>>(), "{column}");
        assert_eq!((found.bad.units(), found.bad.rows()), (1, 10));
        assert_eq!(found.bad.listed()[0].row_group, Some(2));
        assert_eq!(
            found.positions.next(&Split::new(folder.path("a.parquet"))),
            Some(50),
            "skipped rows are covered"
        );
    }
}

#[tokio::test]
async fn no_bytes_of_any_kind_make_the_reader_panic() {
    let folder = Folder::new();
    let path = folder.parquet("a.parquet", 0, 50);
    let whole = fs::read(&path).unwrap();
    let config = TableConfig { on_bad_row: OnBadRow::Skip, ..folder.table("a.parquet") };
    // A linear congruential sequence: seeded, and enough to hit headers, pages and the footer.
    let mut state = 7u64;
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..4 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] = (state >> 25) as u8;
        }
        fs::write(&path, bytes).unwrap();
        if let Err(error) = read(&config, &Columns::all()).await {
            assert_ne!(error.kind(), Kind::Internal, "{error}");
        }
    }
}

#[tokio::test]
async fn bad_rows_of_csv_are_named_or_skipped_one_by_one() {
    let folder = Folder::new();
    let mut text: Vec<u8> =
        (0..1000).fold("id,title\n".to_string(), |text, i| format!("{text}{i},a\n")).into();
    text.extend(b"x,b\n1001,c,d\n1002,\xff\n1003,\"e\nf\"\n1004,g\n");
    folder.file("a.csv", text);
    let (text, kind) = refusal(&folder.table("a.csv"), &Columns::all()).await;
    assert_says(&text, &["a.csv, row 1001: line 1003 has 3 fields, the header 2"]);
    assert_eq!(kind, Kind::Data);
    let config = TableConfig { on_bad_row: OnBadRow::Skip, ..folder.table("a.csv") };
    let found = read(&config, &Columns::all()).await.unwrap();
    assert_eq!(found.ids()[999..], [999, 1003, 1004]);
    let mut bad: Vec<String> = found.bad.listed().iter().map(ToString::to_string).collect();
    bad.sort();
    assert_says(&bad[0], &["row 1000: line 1002, column \"id\": \"x\" is no Int64"]);
    assert_says(&bad[2], &["row 1002: line 1004 is not UTF-8"]);
    assert_eq!((found.bad.units(), found.bad.rows()), (3, 3));
    assert_eq!(found.positions.next(&Split::new(folder.path("a.csv"))), Some(1005));
}

#[tokio::test]
async fn bad_lines_of_jsonl_are_named_or_skipped_one_by_one() {
    let folder = Folder::new();
    let text = "{\"id\": 0}\n{\"id\": 1\n[2]\n{\"id\": {}}\n{\"id\": 4} {\"id\": 5}\n\n{\"id\": 6}\n";
    folder.file("a.jsonl", text);
    let types = BTreeMap::from([("id".into(), ColumnType::Int64)]);
    let config = TableConfig { types, ..folder.table("a.jsonl") };
    let (text, kind) = refusal(&config, &Columns::all()).await;
    assert_says(&text, &["a.jsonl, row 1: line 2: EOF while parsing", "expected one object per line"]);
    assert_eq!(kind, Kind::Data);
    let config = TableConfig { on_bad_row: OnBadRow::Skip, ..config };
    let found = read(&config, &Columns::all()).await.unwrap();
    assert_eq!(found.ids(), [0, 6]);
    assert_eq!(found.bad.rows(), 4);
    assert_says(
        &found.bad.listed()[1].to_string(),
        &["row 2: line 3: is an array, expected one object per line"],
    );
    assert_says(&found.bad.listed()[3].to_string(), &["row 4: line 5: ", "expected one object per line"]);
}

#[tokio::test]
async fn what_is_not_the_format_is_named() {
    let folder = Folder::new();
    let cases = [
        ("a.parquet", "hello, this is text", "a.parquet: not readable as Parquet: "),
        ("b.parquet", "", "b.parquet: not readable as Parquet: "),
        (
            "c.jsonl",
            "[{\"a\": 1}]",
            "c.jsonl: not readable as JSONL: line 1: is an array, expected one object per line",
        ),
        ("d.csv", "a,b,a\n1,2,3\n", "d.csv: column \"a\" appears twice"),
        ("e.csv.gz", "not gzip at all", "e.csv.gz: "),
    ];
    for (name, bytes, words) in cases {
        folder.file(name, bytes);
        let (text, kind) = refusal(&folder.table(name), &Columns::all()).await;
        assert_says(&text, &[words]);
        assert_eq!(kind, Kind::Data, "{text}");
    }
}

#[tokio::test]
async fn what_is_not_there_or_cannot_be_read_is_named_with_the_choices() {
    let folder = Folder::new();
    folder.file("t/a.txt", "x");
    folder.file("empty.csv", "");
    fs::create_dir(folder.path("nothing")).unwrap();
    let cases = [
        ("missing.parquet", "missing.parquet: no such file"),
        ("nothing", "nothing: no such file, and no folder with files in it"),
        ("t", "none of the 1 files is one of .parquet, .pq, .csv"),
        ("t/a.txt", "cannot tell the format, expected .parquet"),
        ("empty.csv", "is empty: no file in it has a column"),
    ];
    for (name, words) in cases {
        let (text, kind) = refusal(&folder.table(name), &Columns::all()).await;
        assert_says(&text, &[words]);
        assert_eq!(kind, Kind::User, "{text}");
    }
    let (text, _) = refusal(&TableConfig::default(), &Columns::all()).await;
    assert_says(&text, &["path: is missing"]);
    let config = TableConfig { split: Some("train".into()), ..folder.table("t") };
    assert_says(&refusal(&config, &Columns::all()).await.0, &["split", "no hub data set"]);
    let config = TableConfig { batch_size: 0, ..folder.table("t") };
    assert_says(&refusal(&config, &Columns::all()).await.0, &["batch_size", "at least 1"]);
}

#[tokio::test]
async fn bad_embeddings_are_named_by_their_row_or_skipped_and_a_filter_hides_them() {
    let folder = Folder::new();
    let row = |id: i64, vector: &str| format!("{{\"id\": {id}, \"v\": {vector}}}\n");
    let text = [
        row(0, "[1.0, 2.0]"),
        "[]\n".into(),
        row(2, "null"),
        row(3, "[1.0]"),
        row(4, "[0.5, null]"),
        row(5, "[3.0, 4.0]"),
    ];
    folder.file("a.jsonl", text.concat());
    let columns = Columns::all().with_embeddings(Some(Embeddings { column: "v".into(), dim: None }));
    let skip = TableConfig { on_bad_row: OnBadRow::Skip, ..folder.table("a.jsonl") };
    let found = read(&skip, &columns).await.unwrap();
    assert_eq!(found.ids(), [0, 5]);
    let mut bad: Vec<String> = found.bad.listed().iter().map(ToString::to_string).collect();
    bad.sort();
    for (told, expected) in
        bad.iter().zip(["1: line 2", "2: column \"v\": the embedding is null", "3: ", "4: "])
    {
        assert_says(told, &[&format!("a.jsonl, row {expected}")]);
    }
    assert_eq!(bad.len(), 4);
    let filtered = TableConfig { filter: Some("id = 0 or id > 4".into()), ..skip };
    assert_eq!(read(&filtered, &columns).await.unwrap().bad.rows(), 1, "the line that is no row");
}
