use super::*;
use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, DictionaryArray, Float64Array, Int64Array, ListArray, StringArray,
    StructArray, TimestampMillisecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{Field, Int8Type};
use std::sync::Arc;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .unwrap()
}

fn papers() -> RecordBatch {
    let title: ArrayRef = Arc::new(StringArray::from(vec![Some("On A"), None, Some("On C"), None]));
    let r#abstract: ArrayRef = Arc::new(StringArray::from(vec![Some("a\nlong  one"), Some("b"), None, None]));
    batch(vec![("title", title), ("abstract", r#abstract)])
}

fn render(template: &str, rows: &RecordBatch) -> Rendered {
    Template::parse(template).unwrap().bind(&rows.schema()).unwrap().render(rows).unwrap()
}

fn texts(template: &str, rows: &RecordBatch) -> Vec<String> {
    render(template, rows).texts.iter().map(|text| text.unwrap_or_default().to_string()).collect()
}

#[test]
fn missing_values_read_as_nothing_and_are_counted_by_column() {
    let rendered = render("{title}: {abstract}", &papers());
    assert_eq!(
        (0..4).map(|i| rendered.texts.value(i)).collect::<Vec<_>>(),
        ["On A: a\nlong  one", ": b", "On C: ", ""]
    );
    assert!(rendered.texts.is_null(3) && rendered.texts.null_count() == 1);
    let mut missing = rendered.missing.clone();
    missing.add(&rendered.missing);
    assert_eq!((missing.rows, missing.empty_rows), (8, 2));
    assert_eq!(serde_json::to_string(&missing.nulls).unwrap(), r#"{"abstract":4,"title":4}"#);
}

#[test]
fn doubled_braces_are_braces_and_a_column_may_come_twice() {
    assert_eq!(texts("{{{title}}} {{x}} {title}", &papers())[0], "{On A} {x} On A");
    let template = Template::parse("{b}{a}{b:3}").unwrap();
    assert_eq!(template.columns(), ["b", "a"]);
}

#[test]
fn every_kind_of_column_reads_as_documented() {
    let strings = StringArray::from(vec!["s"]);
    let keywords = cast(
        &ListArray::try_new(
            Arc::new(Field::new_list_field(DataType::Utf8, true)),
            arrow::buffer::OffsetBuffer::from_lengths([3]),
            Arc::new(StringArray::from(vec![Some("x"), None, Some("y")])),
            None,
        )
        .unwrap(),
        &DataType::LargeList(Arc::new(Field::new_list_field(DataType::LargeUtf8, true))),
    )
    .unwrap();
    // 2026-11-21T12:00:00Z.
    let noon = TimestampMillisecondArray::from(vec![1_795_262_400_000]);
    let rows = batch(vec![
        ("utf8", Arc::new(strings.clone())),
        ("large", cast(&strings, &DataType::LargeUtf8).unwrap()),
        ("view", cast(&strings, &DataType::Utf8View).unwrap()),
        ("dictionary", Arc::new(DictionaryArray::<Int8Type>::from_iter([Some("d")]))),
        ("int", Arc::new(Int64Array::from(vec![-7]))),
        ("float", Arc::new(Float64Array::from(vec![0.25]))),
        ("date", Arc::new(Date32Array::from(vec![20_778]))),
        ("local", Arc::new(noon.clone())),
        ("zoned", Arc::new(noon.with_timezone("Europe/Paris"))),
        ("keywords", keywords),
    ]);
    let text =
        &texts("{utf8}{large}{view}{dictionary} {int} {float} {date} {local} {zoned} {keywords}", &rows)[0];
    assert_eq!(text, "sssd -7 0.25 2026-11-21 2026-11-21T12:00:00 2026-11-21T12:00:00Z x, y");
}

#[test]
fn a_row_of_blanks_has_no_text() {
    let title: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some(" \n"), None, Some("")]));
    let note: ArrayRef = Arc::new(StringArray::from(vec![None, Some(""), None, Some("b")]));
    let rows = RecordBatch::try_from_iter([("title", title), ("note", note)]).unwrap();
    let template = Template::parse("{title}: {note}").unwrap().bind(&rows.schema()).unwrap();
    let rendered = template.render(&rows).unwrap();
    let texts: Vec<_> = rendered.texts.iter().collect();
    assert_eq!(texts, [Some("a: "), None, None, Some(": b")]);
    assert_eq!((rendered.missing.empty_rows, rendered.missing.rows), (2, 4));
}

#[test]
fn fields_of_structs_are_found_and_nulls_of_the_struct_are_theirs() {
    let title: ArrayRef = Arc::new(StringArray::from(vec!["a", "behind a null"]));
    let fields = Fields::from(vec![Field::new("title", DataType::Utf8, true)]);
    let meta = StructArray::new(fields, vec![title], Some(NullBuffer::from(vec![true, false])));
    let dotted: ArrayRef = Arc::new(StringArray::from(vec!["dot", "dot"]));
    let rows = batch(vec![("meta", Arc::new(meta)), ("x.y", dotted)]);
    assert_eq!(texts("{meta.title} {x.y}", &rows), ["a dot", " dot"]);
    assert_eq!(render("{meta.title}", &rows).missing.empty_rows, 1);
    let error = Template::parse("{meta}").unwrap().bind(&rows.schema()).unwrap_err().to_string();
    assert_eq!(error, "column \"meta\": is a struct, expected one of its fields: \"meta.title\"");
}

#[test]
fn a_cut_tears_no_cluster() {
    let family = "👨‍👩‍👧"; // five code points, one cluster
    assert_eq!(cut("abc", 2), "ab");
    assert_eq!(cut("abc", 3), "abc");
    assert_eq!(cut("äöü", 2), "äö");
    assert_eq!(cut("e\u{301}x", 1), "");
    assert_eq!(cut("e\u{301}x", 2), "e\u{301}");
    assert_eq!(cut(&format!("a{family}b"), 5), "a");
    assert_eq!(cut(&format!("a{family}b"), 6), format!("a{family}"));
    assert_eq!(texts("{title:2}|{abstract:99999999999999999999999}", &papers())[0], "On|a\nlong  one");
}

#[test]
fn a_slice_of_a_batch_renders_its_own_rows() {
    let rows = papers().slice(1, 2);
    assert_eq!(texts("{title}: {abstract}", &rows), [": b", "On C: "]);
}

#[test]
fn a_missing_column_is_answered_with_the_closest_and_the_choices() {
    let bind =
        |template: &str| Template::parse(template).unwrap().bind(&papers().schema()).unwrap_err().to_string();
    assert_eq!(
        bind("{Titel}"),
        "column \"Titel\": is missing (did you mean \"title\"?), the columns are \"title\", \"abstract\""
    );
    assert_eq!(bind("{body}"), "column \"body\": is missing, the columns are \"title\", \"abstract\"");
}

#[test]
fn a_column_without_text_is_refused_with_its_type() {
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
    let rows = batch(vec![("open", flags)]);
    let error = Template::parse("{open}").unwrap().bind(&rows.schema()).unwrap_err().to_string();
    assert_eq!(error, "column \"open\": is Boolean, expected strings, numbers, dates or lists of strings");
}

#[test]
fn a_broken_template_is_refused_with_the_place() {
    let cases = [
        ("{title", "'{' at character 1 is not closed"),
        ("é {a{b}", "'{' at character 3 is not closed"),
        ("a } b", "'}' at character 3 closes nothing"),
        ("{}", "\"{}\" at character 1"),
        ("{a:0}", "\"{a:0}\" at character 1"),
        ("{:3}", "\"{:3}\" at character 1"),
        ("plain", "names no column"),
        ("{{title}}", "names no column"),
        ("", "names no column"),
    ];
    for (template, expected) in cases {
        let error = Template::parse(template).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(&format!("{template:?}")), "{error}");
    }
}

#[test]
fn a_template_is_a_string_in_a_job_file() {
    let template: Template = serde_json::from_str("\"{title}: {abstract:420}\"").unwrap();
    assert_eq!(template.to_string(), "{title}: {abstract:420}");
    assert_eq!(serde_json::to_string(&template).unwrap(), "\"{title}: {abstract:420}\"");
    assert!(serde_json::from_str::<Template>("\"{title\"").unwrap_err().to_string().contains("not closed"));
}
