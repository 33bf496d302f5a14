//! A model written and read again is the same model, bit for bit, and labels the same.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use kernels::{Device, Matrix};
use operators::assign::LabelConfig;
use operators::bundle::{self, MANIFEST, Part, Wanted};
use operators::clusterers::ClustererConfig;
use operators::clusterers::hdbscan::HdbscanConfig;
use operators::fit::{FitConfig, Means, Rows, fit};
use operators::model::{EncoderConfig, Model, Settings};
use operators::reducers::Reducer;
use std::collections::BTreeMap;
use std::path::Path;

/// Numbers from -0.5 to 0.5, the same in every run.
fn random(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32 - 0.5
    }
}

/// `count` rows in three clusters, with texts that make awkward words: quotes, other scripts, none at all.
fn rows(count: usize, dates: bool) -> Rows {
    let texts = ["red \"apple\" pie, apple", "Ελληνικά γλώσσα γλώσσα", "bicycle chain\nbicycle wheel"];
    let mut next = random(5);
    let mut vectors = Vec::new();
    for row in 0..count {
        vectors.extend((0..8).map(|column| f32::from(u8::from(column == row % 3)) * 2.0 + next()));
    }
    let text = |row: usize| if row % 50 == 7 { String::new() } else { format!("{} {row}", texts[row % 3]) };
    Rows {
        ids: (0..count).map(|row| format!("row-{row}")).collect(),
        texts: (0..count).map(text).collect(),
        shown: (0..count).map(text).collect(),
        dates: if dates {
            (0..count).map(|row| (row % 4 > 0).then_some(row as i32)).collect()
        } else {
            Vec::new()
        },
        vectors: Matrix::try_from_vec(count, 8, vectors).unwrap(),
        weights: Vec::new(),
    }
}

fn model(config: &FitConfig, dates: bool) -> Model {
    let settings = Settings {
        encoder: EncoderConfig { column: Some("embedding".into()), ..EncoderConfig::default() },
        text: Some("{text}".into()),
        id: Some("id".into()),
        date: dates.then(|| "day".into()),
        label: LabelConfig { coverage: 0.9, ..LabelConfig::default() },
        fit: serde_json::to_value(config).unwrap(),
        ..Settings::default()
    };
    fit(rows(240, dates), settings, None, config, &Means::only(&Device::cpu())).unwrap()
}

fn config(min_cluster_size: usize, reducer: Reducer) -> FitConfig {
    let hdbscan = HdbscanConfig { min_cluster_size, ..HdbscanConfig::default() };
    FitConfig { clusterer: ClustererConfig::Hdbscan(hdbscan), reducer, ..FitConfig::default() }
}

/// A model in 5 dimensions with dates, one on the embeddings themselves, one without any topic.
fn models() -> [Model; 3] {
    let few = model(&config(20, Reducer::default()), true);
    let direct = model(&config(20, Reducer::None), false);
    let none = model(&config(200, Reducer::None), false);
    assert_eq!((few.topics.len(), direct.topics.len(), none.topics.len()), (3, 3, 0));
    [few, direct, none]
}

fn decode(parts: &[Part]) -> operators::Result<Model> {
    let bytes: BTreeMap<&str, &Vec<u8>> = parts.iter().map(|(name, bytes)| (*name, bytes)).collect();
    let manifest = bundle::manifest(Path::new(MANIFEST), bytes[MANIFEST])?;
    bundle::decode(Path::new("model"), &manifest, Wanted::All, |name| Ok(bytes[name].clone()))
}

#[test]
fn a_model_read_again_is_the_model_that_was_written() {
    for model in models() {
        let parts = bundle::encode(&model).unwrap();
        assert_eq!(parts.last().unwrap().0, MANIFEST, "the manifest is written last");
        let again = decode(&parts).unwrap();
        // Field by field first: a whole model is too long to print.
        assert_eq!(again.settings, model.settings);
        assert_eq!((again.scale, again.threshold), (model.scale, model.threshold));
        assert_eq!(again.metrics, model.metrics);
        assert_eq!(again.topics, model.topics);
        assert!(again.calibration == model.calibration, "the calibration changes");
        assert!(again.codes == model.codes, "the codes change");
        assert!(again.sample == model.sample, "the sample changes");
        assert!(again.terms == model.terms, "the terms change");
        assert!(again.tree == model.tree, "the tree changes");
        assert!(again == model, "a model of {} topics changes", model.topics.len());
        assert!(bundle::encode(&again).unwrap() == parts, "written again it has other bytes");
    }
}

#[test]
fn a_model_read_again_labels_the_same_bits() {
    for model in models() {
        let again = decode(&bundle::encode(&model).unwrap()).unwrap();
        let mut next = random(9);
        let new = Matrix::try_from_vec(500, 8, (0..500 * 8).map(|_| next() * 3.0).collect()).unwrap();
        let config = model.settings.label.clone();
        let before = model.assigner(config.clone(), &Device::cpu()).unwrap().assign(&new).unwrap();
        let after = again.assigner(config, &Device::cpu()).unwrap().assign(&new).unwrap();
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(before.score.to_bits(), after.score.to_bits());
            assert_eq!(before, after);
        }
    }
}

#[test]
fn a_part_with_a_flipped_bit_is_refused_by_name() {
    let [model, ..] = models();
    let parts = bundle::encode(&model).unwrap();
    for part in 0..parts.len() - 1 {
        let mut damaged = parts.clone();
        let middle = damaged[part].1.len() / 2;
        damaged[part].1[middle] ^= 1;
        let error = decode(&damaged).unwrap_err().to_string();
        assert!(error.contains(parts[part].0) && error.contains("sha256"), "{error}");
    }
}
