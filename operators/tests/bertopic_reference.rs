//! Words, tables and changes of topics beside BERTopic's, on texts with given topics (`tests/reference/bertopic_tables.py`).

// A test fails by panicking, its helpers too.
#![allow(clippy::unwrap_used)]

use arrow::array::{AsArray, ListArray, RecordBatch};
use arrow::datatypes::{Date32Type, Float64Type, Int32Type, Int64Type};
use kernels::{Device, Matrix};
use operators::clusterers::ClustererConfig;
use operators::clusterers::kmeans::KMeansConfig;
use operators::describe::{Described, describe};
use operators::duplicates::DuplicatesConfig;
use operators::evaluate::agreement;
use operators::fit::{FitConfig, Means, Rows, fit};
use operators::model::{EncoderConfig, Model, Settings, Topic};
use operators::reducers::{Reducer, UmapConfig};
use operators::revise::{Change, Reduction, Strategy, TopicVectors, relabel, revise};
use operators::tables::groups::{Documents, Interval, OverTimeConfig};
use operators::tables::hierarchy::Hierarchy;
use operators::words::{
    CtfidfConfig, DistributionConfig, KeybertConfig, MmrConfig, Refinement, StopWords, TokenPattern,
    VocabularyConfig, WordsConfig,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::LazyLock;

mod support;

static REFERENCE: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(&std::fs::read_to_string(support::reference("bertopic.json")).unwrap()).unwrap()
});

fn texts() -> Vec<String> {
    REFERENCE["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().into()).collect()
}

fn labels(key: &str) -> Vec<i32> {
    REFERENCE[key].as_array().unwrap().iter().map(|topic| topic.as_i64().unwrap() as i32).collect()
}

/// The vector of a text's letters, as the reference makes it.
fn letters(text: &str) -> Vec<f32> {
    let points: Vec<u32> = format!(" {} ", text.to_lowercase()).chars().map(u32::from).collect();
    let mut vector = vec![0f64; 64];
    for three in points.windows(3) {
        vector[(three[0] + 31 * three[1] + 961 * three[2]) as usize % 64] += 1.0;
    }
    let length = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
    vector.iter().map(|v| (v / length) as f32).collect()
}

fn embed(texts: &[&str]) -> operators::Result<Matrix<f32>> {
    let values = texts.iter().flat_map(|text| letters(text)).collect();
    Ok(Matrix::try_from_vec(texts.len(), 64, values)?)
}

fn config(then: Vec<Refinement>) -> FitConfig {
    let vocabulary = VocabularyConfig {
        token_pattern: TokenPattern::Sklearn,
        stop_words: StopWords::None,
        ngrams: (1, 1),
        max_terms: None,
        ..VocabularyConfig::default()
    };
    let words = WordsConfig { vocabulary, ctfidf: CtfidfConfig::published(), then, ..WordsConfig::default() };
    FitConfig {
        words,
        reducer: Reducer::None,
        map: Some(UmapConfig { n_epochs: Some(10), n_components: 2, ..UmapConfig::default() }),
        clusterer: ClustererConfig::Kmeans(KMeansConfig::default()),
        // BERTopic fits every row.
        duplicates: DuplicatesConfig { collapse: false, ..DuplicatesConfig::default() },
        ..FitConfig::default()
    }
}

/// A model whose rows have the reference's topics.
fn model() -> Model {
    let texts = texts();
    let vectors = embed(&texts.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let rows = Rows {
        ids: (0..texts.len()).map(|row| row.to_string()).collect(),
        shown: texts.iter().map(|text| text.chars().take(20).collect()).collect(),
        // Month by month, as in the reference.
        dates: (0..texts.len()).map(|row| Some([20_454, 20_485, 20_513, 20_544][row % 4])).collect(),
        texts,
        vectors,
        weights: Vec::new(),
    };
    let settings = Settings {
        encoder: EncoderConfig { column: Some("embedding".into()), ..EncoderConfig::default() },
        text: Some("{text}".into()),
        id: Some("id".into()),
        ..Settings::default()
    };
    let device = Device::cpu();
    let means = Means::only(&device);
    let fitted = fit(rows, settings, None, &config(vec![]), &means).unwrap();
    relabel(&fitted, labels("topics"), &config(vec![]), &means).unwrap()
}

static MODEL: LazyLock<Model> = LazyLock::new(model);

/// The topics of the reference's labels.
fn described(config: &FitConfig) -> Vec<Topic> {
    let texts = texts();
    let vectors = embed(&texts.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let rows = Described { texts: &texts, shown: &texts, vectors: &vectors, weights: &[] };
    describe(rows, &labels("topics"), config, Some(&embed), None).unwrap().topics
}

fn reference_words(key: &str, topic: i32) -> Vec<(String, f64)> {
    let words = REFERENCE[key][topic.to_string()].as_array().unwrap();
    words.iter().map(|word| (word[0].as_str().unwrap().into(), word[1].as_f64().unwrap())).collect()
}

/// Fails unless words and weights are those of the reference, but for the order of words of equal weight.
fn same_words(found: &Topic, key: &str) {
    let expected = reference_words(key, found.id);
    assert_eq!(found.words.len(), expected.len());
    for (at, ((word, weight), (_, of_expected))) in found.words.iter().zip(&expected).enumerate() {
        // Cosines of vectors in f32.
        let near = |other: f64| (f64::from(*weight) - other).abs() < 1e-6;
        assert!(near(*of_expected), "{key} {}: {:?}, expected {expected:?}", found.id, found.words);
        let is_there = expected.iter().any(|(other, weight)| other == word && near(*weight));
        // The last of equal words may be another one.
        let is_last = at + 1 == expected.len();
        assert!(is_there || is_last, "{key} {}: {:?}, expected {expected:?}", found.id, found.words);
    }
}

#[test]
fn keybert_ranks_words_as_bertopic_does() {
    let keybert = KeybertConfig { nr_candidate_words: 1000, ..KeybertConfig::default() };
    let topics = described(&config(vec![Refinement::Keybert(keybert)]));
    assert_eq!(topics.len(), 8);
    topics.iter().for_each(|topic| same_words(topic, "keybert"));
}

#[test]
fn mmr_chooses_the_words_that_bertopic_does() {
    let mut thirty = config(vec![]);
    thirty.words.ctfidf.top_n_words = 30;
    let chosen = described(&config(vec![Refinement::Mmr(MmrConfig { diversity: 0.4 })]));
    let mut compared = 0;
    for (topic, from) in chosen.iter().zip(described(&thirty)) {
        // Of words of equal weight, either may be among the thirty that are chosen from, or come first.
        let ours = from.words.into_iter().map(|(word, _)| word);
        if ours.eq(reference_words("thirty", topic.id).into_iter().map(|(word, _)| word)) {
            same_words(topic, "mmr");
            compared += 1;
        }
    }
    assert!(compared >= 2, "only {compared} topics have the same thirty words");
}

#[test]
fn a_documents_topics_by_windows_are_bertopics() {
    let config = config(vec![]);
    let windows = DistributionConfig { min_similarity: 0.1, ..DistributionConfig::default() };
    let table = Documents::read(&MODEL, &config).unwrap().distributions(&windows).unwrap();
    let lists: &ListArray = table.column_by_name("topics").unwrap().as_list();
    let mut some = 0;
    for (row, expected) in REFERENCE["distributions"].as_array().unwrap().iter().enumerate() {
        let found = lists.value(row);
        let found = found.as_struct();
        let topics = found.column(0).as_primitive::<Int32Type>();
        let shares = found.column(1).as_primitive::<Float64Type>();
        let mut all = [0.0; 8];
        topics.values().iter().zip(shares.values()).for_each(|(topic, share)| all[*topic as usize] = *share);
        some += usize::from(!topics.is_empty());
        for (share, expected) in all.iter().zip(expected.as_array().unwrap()) {
            assert!((share - expected.as_f64().unwrap()).abs() < 1e-9, "row {row}: {all:?} {expected}");
        }
    }
    assert!(some > 20, "{some} rows have a topic");
}

/// How many rows of a table of groups are not as in the reference, where words of equal weight may change places.
fn differing(table: &RecordBatch, key: &str, group: impl Fn(usize) -> String) -> usize {
    let topics = table.column_by_name("Topic").unwrap().as_primitive::<Int32Type>();
    let words = table.column_by_name("Words").unwrap().as_string::<i32>();
    let counts = table.column_by_name("Frequency").unwrap().as_primitive::<Int64Type>();
    let reference: Vec<&Value> =
        REFERENCE[key].as_array().unwrap().iter().filter(|row| row[0].as_i64().unwrap() >= 0).collect();
    assert_eq!(table.num_rows(), reference.len());
    let mut differing = 0;
    for row in 0..table.num_rows() {
        let expected = reference
            .iter()
            .find(|expected| expected[0] == topics.value(row) && expected[3].as_str().unwrap() == group(row))
            .unwrap();
        assert_eq!(expected[2], counts.value(row));
        differing += usize::from(expected[1].as_str().unwrap() != words.value(row));
    }
    differing
}

#[test]
fn topics_over_time_and_by_class_are_bertopics() {
    let config = config(vec![]);
    let documents = Documents::read(&MODEL, &config).unwrap();
    let starts = Interval::Month.starts(&MODEL.sample.dates).unwrap();
    let without = OverTimeConfig { evolution_tuning: false, ..OverTimeConfig::default() };
    let table = documents.over_time(&starts, &without).unwrap();
    let days = table.column_by_name("Timestamp").unwrap().as_primitive::<Date32Type>();
    let day = |row: usize| days.value_as_date(row).unwrap().to_string();
    let differ = differing(&table, "over_time", day);
    assert!(differ * 20 <= table.num_rows(), "{differ} of {}", table.num_rows());

    let classes: Vec<Option<String>> =
        (0..MODEL.sample.len()).map(|row| Some(format!("class {}", row % 3))).collect();
    let table = documents.per_class(&classes, true).unwrap();
    let names = table.column_by_name("Class").unwrap().as_string::<i32>();
    let differ = differing(&table, "per_class", |row| names.value(row).to_string());
    assert!(differ * 20 <= table.num_rows(), "{differ} of {}", table.num_rows());
}

#[test]
fn words_of_an_interval_do_not_depend_on_later_texts_if_causal() {
    let config = config(vec![]);
    let documents = Documents::read(&MODEL, &config).unwrap();
    let starts = Interval::Month.starts(&MODEL.sample.dates).unwrap();
    let early: Vec<Option<i32>> = starts.iter().map(|start| start.filter(|start| *start < 20_513)).collect();
    let words = |starts: &[Option<i32>], causal: bool| -> Vec<String> {
        let over_time = OverTimeConfig { causal, ..OverTimeConfig::default() };
        let table = documents.over_time(starts, &over_time).unwrap();
        let words = table.column_by_name("Words").unwrap().as_string::<i32>();
        words.iter().map(|words| words.unwrap().to_string()).collect()
    };
    let (all, first) = (words(&starts, true), words(&early, true));
    assert!(first.len() > 10 && all.len() > first.len());
    assert_eq!(all[..first.len()], first);
    // The words themselves come from all texts unless causal: those of the first interval differ then.
    assert_ne!(words(&starts, false)[..first.len()], first);
}

#[test]
fn topics_join_in_bertopics_order_at_its_distances() {
    for (key, vectors, tolerance) in [
        ("hierarchy", TopicVectors::Ctfidf, 1e-9),
        // Vectors are held as 8-bit codes: each of 64 values is off by up to a 254th of the largest.
        ("hierarchy_of_vectors", TopicVectors::Embeddings, 1e-3),
    ] {
        let hierarchy = Hierarchy::of(&MODEL, vectors, &config(vec![])).unwrap();
        let found: Vec<(Vec<i32>, f64)> = hierarchy
            .nodes
            .iter()
            .rev()
            .filter(|node| node.children.is_some())
            .map(|node| (node.topics.clone(), node.distance))
            .collect();
        let expected = REFERENCE[key].as_array().unwrap();
        assert_eq!(found.len(), expected.len());
        for ((topics, distance), expected) in found.iter().zip(expected) {
            assert!((distance - expected[1].as_f64().unwrap()).abs() < tolerance, "{distance} {expected}");
            assert_eq!(serde_json::to_value(topics).unwrap(), expected[0]);
        }
        if key == "hierarchy" {
            let names: BTreeSet<&str> = REFERENCE["hierarchy_names"]
                .as_array()
                .unwrap()
                .iter()
                .map(|n| n.as_str().unwrap())
                .collect();
            let table = hierarchy.table().unwrap();
            let ours = table.column_by_name("Parent_Name").unwrap().as_string::<i32>();
            assert_eq!(ours.iter().map(Option::unwrap).collect::<BTreeSet<_>>(), names);
        }
    }
}

#[test]
fn outliers_get_the_topics_that_bertopic_gives_them() {
    let device = Device::cpu();
    for (key, strategy, threshold) in [
        ("outliers_c_tf_idf", Strategy::Ctfidf, 0.0),
        ("outliers_distributions", Strategy::Distributions, 0.1),
        ("outliers_embeddings", Strategy::Embeddings, 0.0),
    ] {
        let change = Change::Outliers(strategy, threshold, DistributionConfig::default());
        let revised = revise(&MODEL, &change, &config(vec![]), &Means::only(&device)).unwrap();
        let expected = labels(key);
        let rows = revised.sample.topics.iter().zip(&expected);
        let differ = rows.filter(|(found, expected)| found != expected).count();
        // Vectors are held as 8-bit codes: a text between two topics may go to either.
        let most = if strategy == Strategy::Embeddings { expected.len() / 50 } else { 0 };
        assert!(differ <= most, "{key}: {differ} of {}", expected.len());
        assert_eq!(revised.sample.fitted_topics, MODEL.sample.fitted_topics, "as they were fitted at first");
        let sizes: u64 = revised.topics.iter().map(|topic| topic.size).sum();
        assert_eq!(sizes as usize, expected.iter().filter(|topic| **topic >= 0).count(), "sizes follow");
        assert_eq!(revised.terms.totals().len(), revised.terms.terms().len(), "terms follow");
    }
}

#[test]
fn topics_are_reduced_to_those_that_bertopic_leaves() {
    let device = Device::cpu();
    // BERTopic counts the outliers.
    let change = Change::Reduce(Reduction::To(4), TopicVectors::Embeddings);
    let revised = revise(&MODEL, &change, &config(vec![]), &Means::only(&device)).unwrap();
    assert_eq!(revised.topics.len(), 4);
    assert!((agreement(&labels("reduced"), &revised.sample.topics).unwrap().ari - 1.0).abs() < 1e-12);
}
