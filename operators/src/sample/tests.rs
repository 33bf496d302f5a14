use super::*;
use crate::text::Template;
use arrow::array::{ArrayRef, AsArray, Int64Array, ListArray, StringArray, StringViewArray};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Int32Type, Int64Type};
use std::sync::Arc;

/// Numbers that look random (splitmix64), to cut and order sources by.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * end as u128) >> 64) as usize
    }

    fn shuffled(&mut self, len: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..len as u32).collect();
        for i in (1..len).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

/// Rows whose ids come `copies` times, with different content each time.
fn source(rows: usize, copies: usize) -> RecordBatch {
    let ids: Int64Array = (0..rows as i64).map(|i| i / copies as i64).collect();
    let texts: StringViewArray =
        (0..rows).map(|i| Some(format!("text {i} which is too long for a view"))).collect();
    let lists =
        ListArray::from_iter_primitive::<Int32Type, _, _>((0..rows as i32).map(|i| Some(vec![Some(i); 2])));
    RecordBatch::try_from_iter([
        ("id", Arc::new(ids) as ArrayRef),
        ("text", Arc::new(texts)),
        ("list", Arc::new(lists)),
    ])
    .unwrap()
}

fn id() -> Identity {
    Identity::Id("id".into())
}

/// Draws from `rows` cut at random into batches, which come in random order.
fn draw(selection: Selection, identity: &Identity, rows: &RecordBatch, random: &mut Random) -> Sample {
    let mut batches = Vec::new();
    let mut start = 0;
    while start < rows.num_rows() {
        let len = (1 + random.below(97)).min(rows.num_rows() - start);
        batches.push((start as u64, rows.slice(start, len)));
        start += len;
    }
    let mut sampler = Sampler::try_new(selection, identity.clone(), rows.schema()).unwrap();
    for batch in random.shuffled(batches.len()) {
        let (first_row, batch) = &batches[batch as usize];
        sampler.push(*first_row, batch).unwrap();
    }
    sampler.finish().unwrap()
}

#[test]
fn a_hash_sample_depends_neither_on_batches_nor_on_the_order_of_rows() {
    let mut random = Random(1);
    for copies in [1, 3] {
        let rows = source(3000, copies);
        let selection = Selection::Hash { rows: 200, seed: 7 };
        let first = draw(selection, &id(), &rows, &mut random);
        assert_eq!(first.rows.num_rows(), 200);
        for _ in 0..10 {
            let order: arrow::array::UInt32Array = random.shuffled(3000).into();
            let shuffled = take_record_batch(&rows, &order).unwrap();
            let other = draw(selection, &id(), &shuffled, &mut random);
            assert_eq!(other.rows, first.rows);
            assert_eq!((other.keys, other.seen), (first.keys.clone(), 3000));
        }
    }
}

#[test]
fn a_hash_sample_is_the_n_smallest_hashes_in_order() {
    let rows = source(1000, 2);
    let sample = draw(Selection::Hash { rows: 50, seed: 3 }, &id(), &rows, &mut Random(2));
    let mut expected: Vec<u64> =
        (0..500).map(|id| xxh3_64_with_seed(format!("{id}").as_bytes(), 3)).collect();
    expected.sort_unstable();
    assert_eq!(sample.keys, expected[..50]);
    // Of the two rows of an id the first has the smaller text except where a digit more comes in ("9", "10").
    for (i, &number) in sample.row_numbers.iter().enumerate() {
        let row = |column: &str| sample.rows.column_by_name(column).unwrap().clone();
        assert_eq!(row("id").as_primitive::<Int64Type>().value(i), number as i64 / 2);
        assert_eq!(
            row("text").as_string_view().value(i),
            format!("text {number} which is too long for a view")
        );
        assert_eq!(number % 2, 0);
    }
}

#[test]
fn hashes_are_those_of_the_xxhash_library() {
    // xxhash.xxh3_64_intdigest of python-xxhash, of the UTF-8 bytes.
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["2401.00001", "é"]));
    let rows = RecordBatch::try_from_iter([("id", ids)]).unwrap();
    assert_eq!(id().hashes(&rows, 0, 42).unwrap(), [0xdc53_837e_4fd1_6bc9, 0x8001_c741_4850_805b]);
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![12345]));
    let rows = RecordBatch::try_from_iter([("id", ids)]).unwrap();
    assert_eq!(id().hashes(&rows, 0, 0).unwrap(), [0xf340_99ed_e96b_5581]);
}

#[test]
fn rows_without_ids_are_known_by_their_text() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("b"), Some("a"), None]));
    let rows = RecordBatch::try_from_iter_with_nullable([("text", texts, true)]).unwrap();
    let template = Template::parse("{text}").unwrap().bind(&rows.schema()).unwrap();
    let sample = draw(Selection::Hash { rows: 9, seed: 0 }, &Identity::Text(template), &rows, &mut Random(3));
    let mut numbers = sample.row_numbers;
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
}

#[test]
fn a_sample_has_n_rows_or_all_there_are() {
    for selection in [Selection::Hash { rows: 100, seed: 0 }, Selection::Shuffle { rows: 100, seed: 0 }] {
        for (there, expected) in [(0, 0), (1, 1), (99, 99), (100, 100), (101, 100), (2500, 100)] {
            let sample = draw(selection, &id(), &source(there, 1), &mut Random(4));
            assert_eq!((sample.rows.num_rows(), sample.seen), (expected, there as u64));
            assert_eq!(sample.row_numbers.len(), expected);
            let mut numbers = sample.row_numbers;
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), expected);
        }
    }
}

#[test]
fn the_buffer_is_bounded_whatever_comes() {
    for copies in [1, 2000] {
        for selection in [Selection::Hash { rows: 20, seed: 0 }, Selection::Shuffle { rows: 20, seed: 0 }] {
            let rows = source(20_000, copies);
            let mut sampler = Sampler::try_new(selection, id(), rows.schema()).unwrap();
            let mut most = 0;
            for start in (0..20_000).step_by(7) {
                sampler.push(start as u64, &rows.slice(start, 7.min(20_000 - start))).unwrap();
                most = most.max(sampler.held_rows());
            }
            assert!((20..=40).contains(&most), "{selection:?} with {copies} copies held {most}");
        }
    }
}

#[test]
fn rows_that_are_held_do_not_hold_their_batches() {
    // One row of each batch is kept at most; each batch's strings take 100 x 60,000 bytes.
    let mut sampler: Option<Sampler> = None;
    for start in 0..40u64 {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values((0..100).map(|i| start as i64 * 100 + i)));
        let texts = StringViewArray::from_iter_values((0..100).map(|i| format!("{i}").repeat(60_000)));
        let rows = RecordBatch::try_from_iter([("id", ids), ("text", Arc::new(texts) as ArrayRef)]).unwrap();
        let selection = Selection::Hash { rows: 5, seed: 0 };
        let sampler =
            sampler.get_or_insert_with(|| Sampler::try_new(selection, id(), rows.schema()).unwrap());
        sampler.push(start * 100, &rows).unwrap();
    }
    let sample = sampler.unwrap().finish().unwrap();
    assert_eq!(sample.rows.num_rows(), 5);
    let bytes = sample.rows.get_array_memory_size();
    // At most ten rows of 120,000 bytes are held between two compactions; a batch alone has 11 MB.
    assert!(bytes < 2 * 10 * 120_000, "{bytes} bytes");
}

#[test]
fn many_small_batches_are_merged_without_a_change() {
    // One row at a time: the buffer is merged many times before it is first shrunk.
    let rows = source(1500, 1);
    let selection = Selection::Hash { rows: 700, seed: 0 };
    let mut sampler = Sampler::try_new(selection, id(), rows.schema()).unwrap();
    for row in 0..1500 {
        sampler.push(row as u64, &rows.slice(row, 1)).unwrap();
    }
    let one_by_one = sampler.finish().unwrap();
    let mut sampler = Sampler::try_new(selection, id(), rows.schema()).unwrap();
    sampler.push(0, &rows).unwrap();
    let at_once = sampler.finish().unwrap();
    assert_eq!(one_by_one.rows, at_once.rows);
    assert_eq!(one_by_one.row_numbers, at_once.row_numbers);
}

#[test]
fn ranges_shuffles_and_all_come_in_the_order_of_the_source() {
    let rows = source(500, 1);
    let range = Selection::Range { start: 120, end: 130 };
    assert_eq!(range.end(), Some(130));
    assert_eq!(draw(range, &id(), &rows, &mut Random(5)).row_numbers, (120..130).collect::<Vec<_>>());
    let all = draw(Selection::All, &id(), &rows, &mut Random(6));
    assert_eq!(all.rows, concat_batches(&rows.schema(), [&rows]).unwrap());
    let shuffle = |seed| draw(Selection::Shuffle { rows: 50, seed }, &id(), &rows, &mut Random(seed));
    let one = shuffle(1);
    assert!(one.row_numbers.is_sorted());
    assert_eq!(one.row_numbers, shuffle(1).row_numbers);
    assert_ne!(one.row_numbers, shuffle(2).row_numbers);
    // A larger sample of the same shuffle holds the smaller.
    let larger = draw(Selection::Shuffle { rows: 80, seed: 1 }, &id(), &rows, &mut Random(7)).row_numbers;
    assert!(one.row_numbers.iter().all(|number| larger.contains(number)));
}

#[test]
fn a_row_without_an_id_is_named() {
    let ids: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    let rows = RecordBatch::try_from_iter_with_nullable([("id", ids, true)]).unwrap();
    let mut sampler = Sampler::try_new(Selection::Hash { rows: 1, seed: 0 }, id(), rows.schema()).unwrap();
    let error = sampler.push(10, &rows).unwrap_err().to_string();
    assert_eq!(error, "row 11, column \"id\": the id is null, expected one in every row");
    let error = Identity::Id("ids".into()).hashes(&rows, 0, 0).unwrap_err().to_string();
    assert!(error.contains("did you mean \"id\"?"), "{error}");
}

#[test]
fn selections_read_as_in_a_job_file_and_are_checked() {
    let read = |json: &str| serde_json::from_str::<Selection>(json);
    assert_eq!(read(r#"{"hash": {"rows": 5}}"#).unwrap(), Selection::Hash { rows: 5, seed: 0 });
    assert_eq!(read(r#"{"range": {"start": 1, "end": 2}}"#).unwrap(), Selection::Range { start: 1, end: 2 });
    assert_eq!(
        read(r#"{"shuffle": {"rows": 5, "seed": 9}}"#).unwrap(),
        Selection::Shuffle { rows: 5, seed: 9 }
    );
    assert_eq!(read(r#""all""#).unwrap(), Selection::All);
    assert!(read(r#"{"hash": {"rows": 5, "sed": 1}}"#).unwrap_err().to_string().contains("`sed`"));
    assert!(read(r#"{"first": {"rows": 5}}"#).unwrap_err().to_string().contains("`shuffle`"));
    for bad in [
        Selection::Hash { rows: 0, seed: 0 },
        Selection::Shuffle { rows: 0, seed: 0 },
        Selection::Range { start: 2, end: 2 },
    ] {
        assert!(bad.check().is_err());
    }
}
