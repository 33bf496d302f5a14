//! A fit, and labels by it, on GPUs (emulated ones or real): the same bits as on the processor.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "../../kernels/tests/support/emulator.rs"]
mod emulator;

use kernels::layout::mix64;
use kernels::{Device, Matrix};
use operators::assign::{LabelConfig, OutlierVote};
use operators::clusterers::ClustererConfig;
use operators::clusterers::hdbscan::HdbscanConfig;
use operators::fit::{FitConfig, Rows, fit};
use operators::model::{EncoderConfig, Model, Settings};
use operators::reducers::{Reducer, UmapConfig};

const ROWS: usize = 400;
const DIM: usize = 24;

/// Rows around eight directions.
fn vectors(rows: usize, stream: u64) -> Matrix<f32> {
    let noise = |i: u64| (mix64(i) >> 40) as f32 * 2f32.powi(-23) - 1.0;
    let value = |i: usize| {
        let topic = (i / DIM % 8 * DIM + i % DIM) as u64;
        noise(topic) + 0.3 * noise(stream * 1_000_000 + i as u64 + 7777)
    };
    Matrix::try_from_vec(rows, DIM, (0..rows * DIM).map(value).collect()).unwrap()
}

fn model(device: &Device) -> Model {
    let texts: Vec<String> = (0..ROWS).map(|i| format!("topic{} word{}", i % 8, i % 50)).collect();
    let rows = Rows {
        ids: (0..ROWS).map(|i| format!("row {i}")).collect(),
        shown: texts.clone(),
        texts,
        dates: Vec::new(),
        vectors: vectors(ROWS, 1),
    };
    let hdbscan = HdbscanConfig { min_cluster_size: 15, ..HdbscanConfig::default() };
    // Few epochs: the emulator runs a few thousand blocks a second.
    let umap = UmapConfig { n_epochs: Some(25), ..UmapConfig::default() };
    let config = FitConfig {
        reducer: Reducer::Umap(umap),
        clusterer: ClustererConfig::Hdbscan(hdbscan),
        ..FitConfig::default()
    };
    let settings = Settings {
        encoder: EncoderConfig { column: Some("embedding".into()), ..EncoderConfig::default() },
        text: Some("{text}".into()),
        show: None,
        id: Some("id".into()),
        date: None,
        label: LabelConfig::default(),
        fit: serde_json::Value::Null,
    };
    fit(rows, settings, None, &config, device, &()).unwrap()
}

#[test]
fn a_fit_and_its_labels_are_those_of_the_processor() {
    emulator::load();
    let expected = model(&Device::cpu());
    assert!(expected.topics.len() >= 4, "{} topics", expected.topics.len());
    let Device::Cuda(gpus) = Device::open("cuda").unwrap() else { unreachable!("cuda is no processor") };
    // One of each kind, then all together.
    let devices = gpus.iter().map(|gpu| Device::Cuda(vec![gpu.clone()])).chain([Device::Cuda(gpus.clone())]);
    let new = vectors(150, 2);
    for device in devices {
        if let Device::Cuda(one) = &device
            && one.len() == 1
        {
            assert!(model(&device) == expected, "{device}: another model");
        }
        for config in [
            LabelConfig::default(),
            LabelConfig {
                top_k: 25,
                coverage: 0.5,
                outliers: OutlierVote::Abstain,
                ..LabelConfig::default()
            },
        ] {
            let label = |device: &Device| {
                let threshold = expected.threshold_for(&config, device).unwrap();
                let assigner = expected.assigner(config.clone(), device).unwrap();
                (threshold, assigner.with_threshold(threshold.score).assign(&new).unwrap())
            };
            assert!(label(&device) == label(&Device::cpu()), "{device}: other labels");
        }
    }
}
