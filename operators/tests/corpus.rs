//! What stands for more rows than were fitted: near duplicates, and sums of a whole corpus.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use kernels::layout::mix64;
use kernels::{Device, Matrix};
use operators::clusterers::ClustererConfig;
use operators::clusterers::hdbscan::HdbscanConfig;
use operators::fit::{FitConfig, Means, Rows, fit};
use operators::model::{EncoderConfig, Model, Settings};
use operators::words::{Cells, TermCounts};
use operators::{bundle, corpus};
use std::path::Path;

const ROWS: usize = 300;
const DIM: usize = 16;

fn random(seed: usize) -> f32 {
    (mix64(seed as u64) >> 40) as f32 * 2f32.powi(-23) - 1.0
}

/// A text of the topic `row % 5`: forty words of its own, of which no two texts have five in a row.
fn text(row: usize) -> String {
    let word = |at: usize| format!("t{}w{}", row % 5, mix64((row * 64 + at) as u64) % 30);
    (0..40).map(word).collect::<Vec<_>>().join(" ")
}

fn vector(row: usize) -> impl Iterator<Item = f32> {
    (0..DIM).map(move |d| f32::from(u8::from(d == row % 5)) + 0.12 * random(row * DIM + d))
}

/// Rows that say what the rows `which` say.
fn rows(which: &[usize]) -> Rows {
    let texts: Vec<String> = which.iter().map(|row| text(*row)).collect();
    Rows {
        ids: (0..which.len()).map(|row| row.to_string()).collect(),
        shown: texts.clone(),
        texts,
        dates: Vec::new(),
        vectors: Matrix::try_from_vec(which.len(), DIM, which.iter().flat_map(|row| vector(*row)).collect())
            .unwrap(),
        weights: Vec::new(),
    }
}

fn fitted(rows: Rows, config: &FitConfig) -> Model {
    let settings = Settings {
        encoder: EncoderConfig { column: Some("embedding".into()), ..EncoderConfig::default() },
        text: Some("{text}".into()),
        id: Some("id".into()),
        fit: serde_json::to_value(config).unwrap(),
        ..Settings::default()
    };
    fit(rows, settings, None, config, &Means::only(&Device::cpu())).unwrap()
}

fn config(collapse: bool) -> FitConfig {
    let hdbscan = HdbscanConfig { min_cluster_size: 10, ..HdbscanConfig::default() };
    let mut config = FitConfig {
        clusterer: ClustererConfig::Hdbscan(hdbscan),
        stability_seeds: 0,
        ..FitConfig::default()
    };
    config.duplicates.collapse = collapse;
    config
}

#[test]
fn a_corpus_doubled_gives_the_same_topics() {
    let once: Vec<usize> = (0..ROWS).collect();
    let twice: Vec<usize> = (0..2 * ROWS).map(|row| row % ROWS).collect();
    let (once, twice) = (fitted(rows(&once), &config(true)), fitted(rows(&twice), &config(true)));
    assert_eq!(once.topics.len(), 5);
    assert!(once.sample.weights.is_empty());
    assert_eq!(twice.sample.weights, [2; ROWS]);
    assert_eq!((&once.codes, &once.sample.topics), (&twice.codes, &twice.sample.topics));
    assert_eq!((&once.sample.map, once.threshold), (&twice.sample.map, twice.threshold));
    assert_eq!(twice.outliers, 2 * once.outliers);
    for (a, b) in once.topics.iter().zip(&twice.topics) {
        assert_eq!((a.id, &a.name, 2 * a.size), (b.id, &b.name, b.size));
        assert_eq!((&a.words, &a.centroid), (&b.words, &b.centroid));
    }
    let doubled: Vec<u64> = once.terms.iter().map(|(.., count)| 2 * count).collect();
    assert_eq!(twice.terms.iter().map(|(.., count)| count).collect::<Vec<_>>(), doubled);
    assert_eq!(twice.rows(), 2 * ROWS as u64);
}

#[test]
fn copies_that_are_kept_are_fitted() {
    let twice: Vec<usize> = (0..2 * ROWS).map(|row| row % ROWS).collect();
    let model = fitted(rows(&twice), &config(false));
    assert_eq!((model.sample.len(), model.sample.weights.len()), (2 * ROWS, 0));
}

#[test]
fn a_bundle_holds_what_rows_stand_for_and_words_that_no_topic_has() {
    let which: Vec<usize> = (0..ROWS).chain([3; 7]).collect();
    let mut model = fitted(rows(&which), &config(true));
    assert_eq!((model.sample.len(), model.sample.weights[3]), (ROWS, 8));
    let basis = corpus::basis(&model).unwrap();
    // A corpus that lacks a word.
    let lost = model.terms.terms()[4].clone();
    let rows: Vec<(i32, String, u64)> = model
        .terms
        .iter()
        .map(|(topic, term, count)| (topic, term.to_string(), if term == lost { 0 } else { count }))
        .collect();
    model.terms = TermCounts::try_from_rows(model.terms.topics(), rows).unwrap();
    assert_eq!(model.terms.unused().collect::<Vec<_>>(), [lost]);
    let parts = bundle::encode(&model).unwrap();
    let part = |name: &str| Ok(parts.iter().find(|(part, _)| *part == name).unwrap().1.clone());
    let path = Path::new("model");
    let manifest = bundle::manifest(path, &part("model.json").unwrap()).unwrap();
    let read = bundle::decode(path, &manifest, bundle::Wanted::All, part).unwrap();
    assert_eq!(read, model);
    assert_eq!(corpus::basis(&read).unwrap(), basis);
    let mut other = read;
    other.sample.topics[0] += 1;
    assert_ne!(corpus::basis(&other).unwrap(), basis);
}

#[test]
fn topics_that_no_row_was_counted_of_keep_their_words() {
    let model = fitted(rows(&(0..ROWS).collect::<Vec<_>>()), &config(true));
    let mut corpus = corpus::Corpus::default();
    let first = |topic: i32| model.sample.topics.iter().position(|of| *of == topic).unwrap() as u32;
    let codes = model.codes.gather(&[first(1), first(1)]);
    corpus.add_rows(&[1, -1], &codes, Cells::from_iter([((1, 0), 2), ((-1, 3), 1)]));
    let counted = corpus.counted(&model);
    assert_eq!(counted.outliers, 1);
    let sizes: Vec<u64> = counted.topics.values().map(|(rows, _)| *rows).collect();
    assert_eq!(sizes, [0, 1, 0, 0, 0]);
    assert_eq!(counted.topics[&0].1, model.topics[0].centroid);
    let of = |terms: &TermCounts, topic: i32| -> Vec<(String, u64)> {
        let of_topic = terms.iter().filter(|(of, ..)| *of == topic);
        of_topic.map(|(_, term, count)| (term.to_string(), count)).collect()
    };
    assert_eq!(of(&counted.terms, 0), of(&model.terms, 0));
    assert_eq!(of(&counted.terms, 1), [(model.terms.terms()[0].clone(), 2)]);
    assert_eq!(of(&counted.terms, -1), [(model.terms.terms()[3].clone(), 1)]);
    assert_eq!(counted.terms.terms(), model.terms.terms());
}
