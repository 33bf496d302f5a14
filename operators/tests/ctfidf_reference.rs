//! c-TF-IDF against BERTopic's, over scikit-learn's `CountVectorizer`, on 5,000 texts.
//!
//! The reference joins each topic's documents to one text before it counts, so its n-grams reach across documents;
//! the test joins them too. `tests/reference/ctfidf.py` wrote the numbers.

// A test fails by panicking, its helpers too.
#![allow(clippy::unwrap_used)]

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int32Type};
use operators::words::{
    CtfidfConfig, MinDf, StopWords, TermCounts, TokenPattern, Tokens, VocabularyConfig, ctfidf,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::{collections::BTreeMap, fs::File};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/reference");

fn texts_joined_by_topic() -> BTreeMap<i32, String> {
    let file = File::open(format!("{FOLDER}/debian5000.parquet")).unwrap();
    let mut joined: BTreeMap<i32, String> = BTreeMap::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
        let batch = batch.unwrap();
        let texts = arrow::compute::cast(batch.column_by_name("text").unwrap(), &DataType::Utf8).unwrap();
        let topics = batch.column_by_name("topic").unwrap().as_primitive::<Int32Type>();
        for (text, topic) in texts.as_string::<i32>().iter().zip(topics.values()) {
            let all = joined.entry(*topic).or_default();
            if !all.is_empty() {
                all.push(' ');
            }
            all.push_str(text.unwrap());
        }
    }
    joined
}

fn compare(case: &str, vocabulary: VocabularyConfig, weighting: CtfidfConfig) {
    let reference: Value =
        serde_json::from_reader(File::open(format!("{FOLDER}/ctfidf.json")).unwrap()).unwrap();
    let reference = &reference[case];
    let joined = texts_joined_by_topic();
    let texts: Vec<&String> = joined.values().collect();
    let topics: Vec<i32> = joined.keys().copied().collect();

    let vocabulary = VocabularyConfig { token_pattern: TokenPattern::Sklearn, max_terms: None, ..vocabulary };
    let tokens = Tokens::read(&texts, &vocabulary).unwrap();
    let counts = TermCounts::count(&tokens, &topics, &vocabulary).unwrap();
    assert_eq!(counts.terms().len() as u64, reference["terms"].as_u64().unwrap());
    assert_eq!(counts.iter().count() as u64, reference["cells"].as_u64().unwrap());
    assert_eq!(counts.totals().iter().sum::<u64>(), reference["occurrences"].as_u64().unwrap());

    let words = ctfidf(&counts, &CtfidfConfig { top_n_words: 15, ..weighting }).unwrap();
    assert_eq!(words.len(), reference["topics"].as_object().unwrap().len());
    for topic in words {
        let expected = reference["topics"][topic.topic.to_string()].as_array().unwrap();
        assert_eq!(topic.words.len(), expected.len());
        for ((word, weight), expected) in topic.words.iter().zip(expected) {
            assert_eq!(word, expected[0].as_str().unwrap(), "topic {}", topic.topic);
            let expected = expected[1].as_f64().unwrap();
            // Weights are f64 up to their last step: half a unit of f32 is 6e-8 relative.
            let error = (f64::from(*weight) - expected).abs() / expected;
            assert!(error <= 6e-8, "topic {}, {word}: {weight} for {expected}", topic.topic);
        }
    }
}

#[test]
fn default_weights_equal_the_reference() {
    let vocabulary = VocabularyConfig { stop_words: StopWords::None, ngrams: (1, 1), ..Default::default() };
    compare("default", vocabulary, CtfidfConfig::published());
}

#[test]
fn bm25_weights_of_pairs_without_stop_words_equal_the_reference() {
    let vocabulary =
        VocabularyConfig { stop_words: StopWords::Sklearn, ngrams: (1, 2), ..Default::default() };
    let weighting = CtfidfConfig { bm25_weighting: true, reduce_frequent_words: true, ..Default::default() };
    compare("stop_bigram_bm25_sqrt", vocabulary, weighting);
}

#[test]
fn weights_of_a_pruned_vocabulary_of_trigrams_equal_the_reference() {
    let vocabulary = VocabularyConfig {
        stop_words: StopWords::None,
        ngrams: (2, 3),
        min_df: MinDf::Documents(3),
        ..Default::default()
    };
    compare("min_df_trigram", vocabulary, CtfidfConfig::published());
}
