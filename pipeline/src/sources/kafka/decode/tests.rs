use super::*;
use crate::positions::Split;
use crate::sources::kafka::messages::Messages;
use arrow::array::{FixedSizeListArray, Float32Array, StringArray};
use arrow::datatypes::Float32Type;
use arrow::ipc::writer::StreamWriter;
use rdkafka::message::{OwnedMessage, Timestamp};

/// Messages with these payloads, at the offsets 0, 1, ...
fn messages(payloads: &[Option<&[u8]>]) -> RecordBatch {
    let mut messages = Messages::new();
    for (offset, payload) in payloads.iter().enumerate() {
        let key = Some(offset.to_string().into_bytes());
        let value = payload.map(Vec::from);
        let at = Timestamp::CreateTime(1);
        messages.push(&OwnedMessage::new(value, key, "papers".into(), at, 0, offset as i64, None));
    }
    messages.take().unwrap()
}

fn wanted(text: &str) -> Wanted {
    let template = Template::parse(text).unwrap();
    let needed = template.columns().into_iter().map(Into::into).collect();
    Wanted { needed, text: Some(template), added: vec!["topic".into(), "score".into()], ..Wanted::default() }
}

/// The offsets of the rows, and each letter's offset with its reason.
fn decoded(
    format: PayloadFormat,
    wanted: &Wanted,
    payloads: &[Option<&[u8]>],
) -> (RecordBatch, Vec<(i64, String)>, usize) {
    let mut decoder = Decoder::try_new(format, wanted).unwrap();
    let (rows, aside) = decoder.decode(&messages(payloads)).unwrap();
    assert_eq!(rows.schema(), *decoder.schema());
    let letters = aside.letters.into_iter().map(|letter| {
        assert_eq!(letter.message.split, Split::new("papers:0"));
        assert_eq!(letter.message.value.as_deref(), payloads[letter.message.offset as usize]);
        (letter.message.offset, letter.reason)
    });
    (rows, letters.collect(), aside.tombstones.len())
}

fn offsets(rows: &RecordBatch) -> Vec<i64> {
    let column = rows.column_by_name("kafka_offset").unwrap();
    column.as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
}

#[test]
fn good_objects_are_rows_and_each_bad_one_is_a_letter_that_says_why() {
    let long = format!(r#"{{"title": "{}"}}"#, "x".repeat(10 << 20));
    let payloads: Vec<(&[u8], &str)> = vec![
        (br#"{"title": "a", "abstract": "b", "more": {"of": [1, "it"]}}"#, ""),
        (b"not json", "expected one JSON object"),
        (br#"{"abstract": null}"#, "has no text: title and abstract are missing or blank"),
        (br#"{"title": "only"}"#, ""),
        (br#"{"title": "  "}"#, "has no text"),
        (br#"{"title": {"is": "a struct"}}"#, "expected"),
        (br#"{"title": "two"}{"title": "objects"}"#, "expected one JSON object"),
        (br#"{"title": "half"#, "expected one JSON object"),
        (br#"[{"title": "array"}]"#, "is an array, expected one JSON object"),
        (b"null", "is a single value"),
        (b"", "expected one JSON object"),
        (b" \n", "expected one JSON object"),
        (br#"{"title": 12}"#, ""),
        (br#"{"title": "has", "score": 1}"#, "has a field \"score\" already"),
        (br#"{"title": "has \"score\" within", "of": {"score": 1}}"#, ""),
        (b"{\"title\": \"\xff\"}", "expected one JSON object"),
        (long.as_bytes(), ""),
    ];
    let all: Vec<Option<&[u8]>> = payloads.iter().map(|(payload, _)| Some(*payload)).collect();
    let (rows, letters, _) = decoded(PayloadFormat::Json, &wanted("{title}: {abstract}"), &all);
    let bad: BTreeMap<i64, String> = letters.into_iter().collect();
    for (offset, (payload, words)) in payloads.iter().enumerate() {
        let shown = String::from_utf8_lossy(&payload[..payload.len().min(80)]).into_owned();
        match bad.get(&(offset as i64)) {
            Some(reason) => assert!(!words.is_empty() && reason.contains(words), "{shown}: {reason}"),
            None => {
                assert!(words.is_empty() && offsets(&rows).contains(&(offset as i64)), "{shown} is a row")
            }
        }
    }
    assert_eq!(rows.num_rows() + bad.len(), payloads.len());
    assert!(offsets(&rows).is_sorted());
}

#[test]
fn a_tombstone_is_no_row_and_no_letter() {
    let payloads: [Option<&[u8]>; 3] = [Some(br#"{"title": "a"}"#), None, Some(br#"{"title": "b"}"#)];
    let (rows, letters, tombstones) = decoded(PayloadFormat::Json, &wanted("{title}"), &payloads);
    assert_eq!((offsets(&rows), letters.len(), tombstones), (vec![0, 2], 0, 1));
    let (rows, letters, tombstones) = decoded(PayloadFormat::Json, &wanted("{title}"), &[None]);
    assert_eq!((rows.num_rows(), letters.len(), tombstones), (0, 0, 1));
}

#[test]
fn fields_of_structs_are_read_by_their_path() {
    let (rows, letters, _) = decoded(
        PayloadFormat::Json,
        &wanted("{meta.title}"),
        &[Some(br#"{"meta": {"title": "deep"}}"#), Some(br#"{"meta": 3}"#)],
    );
    let meta = rows.column_by_name("meta").unwrap().as_struct();
    assert_eq!(meta.column(0).as_string::<i32>().value(0), "deep");
    assert_eq!(letters.len(), 1);
}

#[test]
fn many_objects_are_read_as_few() {
    let objects: Vec<String> =
        (0..3000).map(|n| format!(r#"{{"title": "{n} {}"}}"#, "x".repeat(300))).collect();
    let mut payloads: Vec<Option<&[u8]>> = objects.iter().map(|object| Some(object.as_bytes())).collect();
    payloads[1234] = Some(b"bad");
    let (rows, letters, _) = decoded(PayloadFormat::Json, &wanted("{title}"), &payloads);
    assert_eq!((rows.num_rows(), letters[0].0), (2999, 1234));
    let titles = rows.column_by_name("title").unwrap().as_string::<i32>();
    assert!(
        titles.iter().flatten().zip(offsets(&rows)).all(|(title, at)| title.starts_with(&format!("{at} ")))
    );
}

#[test]
fn a_text_is_a_row_unless_it_is_no_text() {
    let payloads: [Option<&[u8]>; 4] = [Some(b"a text"), Some(b"\xff"), Some(b" "), Some(b"more")];
    let (rows, letters, _) = decoded(PayloadFormat::Text, &wanted("{text}"), &payloads);
    assert_eq!(offsets(&rows), [0, 3]);
    assert_eq!(letters.len(), 2);
    assert!(letters.iter().any(|(_, reason)| reason.contains("no UTF-8 from byte 0")));
    let error = Decoder::try_new(PayloadFormat::Text, &wanted("{title}")).err().unwrap().to_string();
    assert!(error.contains("{text}"), "{error}");
}

#[test]
fn a_stream_of_arrow_is_many_rows_of_one_message() {
    let stream = |titles: &[&str], vectors: &[f32]| {
        let item = Arc::new(Field::new_list_field(DataType::Float32, false));
        let vectors = FixedSizeListArray::new(item, 2, Arc::new(Float32Array::from(vectors.to_vec())), None);
        let rows = RecordBatch::try_from_iter([
            ("title", Arc::new(StringArray::from(titles.to_vec())) as ArrayRef),
            ("embedding", Arc::new(vectors)),
        ])
        .unwrap();
        let mut bytes = Vec::new();
        let mut writer = StreamWriter::try_new(&mut bytes, rows.schema_ref()).unwrap();
        writer.write(&rows).and_then(|()| writer.finish()).unwrap();
        drop(writer);
        bytes
    };
    let two = stream(&["a", "b"], &[1.0, 2.0, 3.0, 4.0]);
    let bad = stream(&["c", "d"], &[1.0, f32::NAN, 3.0, 4.0]);
    let embeddings = Some(Embeddings { column: "embedding".into(), dim: Some(2) });
    let wanted = Wanted { needed: vec!["title".into()], embeddings, ..Wanted::default() };
    let payloads: [Option<&[u8]>; 4] = [Some(&two), Some(&two[..two.len() / 2]), Some(&bad), Some(b"\0\x01")];
    let (rows, letters, _) = decoded(PayloadFormat::Arrow, &wanted, &payloads);
    assert_eq!(offsets(&rows), [0, 0]);
    let vectors = rows.column_by_name("embedding").unwrap().as_fixed_size_list();
    assert_eq!(vectors.value(1).as_primitive::<Float32Type>().values(), &[3.0, 4.0]);
    // Its payload is there once, however many rows share it.
    let values = rows.column_by_name("kafka_value").unwrap().as_binary_view();
    assert_eq!((values.value(0), values.value(1)), (&two[..], &two[..]));
    let sent: usize = payloads.iter().flatten().map(|payload| payload.len()).sum();
    assert!(values.data_buffers().iter().map(|buffer| buffer.len()).sum::<usize>() <= sent);
    assert_eq!(letters.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 3, 2]);
    assert!(letters[2].1.contains("embedding"), "{}", letters[2].1);
}

#[test]
fn a_vector_of_another_length_makes_a_letter() {
    let embeddings = Some(Embeddings { column: "embedding".into(), dim: Some(2) });
    let wanted = Wanted { embeddings, ..Wanted::default() };
    let payloads: [Option<&[u8]>; 4] = [
        Some(br#"{"embedding": [1, 2.5]}"#),
        Some(br#"{"embedding": [1, 2, 3]}"#),
        Some(br#"{"embedding": null}"#),
        Some(br#"{"embedding": [1, null]}"#),
    ];
    let (rows, letters, _) = decoded(PayloadFormat::Json, &wanted, &payloads);
    assert_eq!(offsets(&rows), [0]);
    assert_eq!(letters.len(), 3, "{letters:?}");
}

#[test]
fn attempts_are_counted_over_topics() {
    let message = |attempt: &str| Message {
        split: Split::new("a:0"),
        offset: 0,
        timestamp: None,
        key: None,
        headers: vec![(ATTEMPT.into(), Some(attempt.into()))],
        value: None,
    };
    assert_eq!(letter(message("2"), "x".into()).attempt, 3);
    assert_eq!(letter(message("two"), "x".into()).attempt, 1);
}
