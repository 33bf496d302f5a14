//! A fit, and labels by it, on GPUs (emulated ones or real): the same bits as on the processor.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "../../kernels/tests/support/emulator.rs"]
mod emulator;
#[path = "support/heard.rs"]
mod heard;

use heard::heard;
use kernels::layout::mix64;
use kernels::search_codes::SearchScale;
use kernels::{Device, Matrix};
use operators::assign::{Assigner, LabelConfig, OutlierVote};
use operators::clusterers::hdbscan::{Hdbscan, HdbscanConfig};
use operators::clusterers::kmeans::{KMeans, KMeansConfig};
use operators::clusterers::{Clusterer, ClustererConfig};
use operators::fit::{FitConfig, Means, Rows, fit};
use operators::model::{EncoderConfig, Model, Settings};
use operators::plan::{TextSizes, Workload};
use operators::reducers::{Metric, Reducer, UmapConfig, nearest_rows};
use std::ops::ControlFlow;
use std::sync::{PoisonError, RwLock};

const ROWS: usize = 400;
const DIM: usize = 24;

/// Tests of little memory, and of how much is taken, are alone: it is the emulator's, and so everyone's.
static MEMORY: RwLock<()> = RwLock::new(());

/// Rows around eight directions.
fn vectors(rows: usize, stream: u64) -> Matrix<f32> {
    let noise = |i: u64| (mix64(i) >> 40) as f32 * 2f32.powi(-23) - 1.0;
    let value = |i: usize| {
        let topic = (i / DIM % 8 * DIM + i % DIM) as u64;
        noise(topic) + 0.3 * noise(stream * 1_000_000 + i as u64 + 7777)
    };
    Matrix::try_from_vec(rows, DIM, (0..rows * DIM).map(value).collect()).unwrap()
}

fn config() -> FitConfig {
    let hdbscan = HdbscanConfig { min_cluster_size: 15, ..HdbscanConfig::default() };
    // Few epochs: the emulator runs a few thousand blocks a second.
    let umap = UmapConfig { n_epochs: Some(25), ..UmapConfig::default() };
    FitConfig {
        reducer: Reducer::Umap(umap),
        clusterer: ClustererConfig::Hdbscan(hdbscan),
        ..FitConfig::default()
    }
}

fn texts() -> Vec<String> {
    (0..ROWS).map(|i| format!("topic{} word{}", i % 8, i % 50)).collect()
}

fn model(device: &Device) -> Model {
    let rows = Rows {
        ids: (0..ROWS).map(|i| format!("row {i}")).collect(),
        shown: texts(),
        texts: texts(),
        dates: Vec::new(),
        vectors: vectors(ROWS, 1),
        weights: Vec::new(),
    };
    let settings = Settings {
        encoder: EncoderConfig { column: Some("embedding".into()), ..EncoderConfig::default() },
        text: Some("{text}".into()),
        id: Some("id".into()),
        ..Settings::default()
    };
    fit(rows, settings, None, &config(), &Means::only(device)).unwrap()
}

/// All GPUs: the emulator's are of different kinds.
fn gpus() -> Vec<std::sync::Arc<kernels::gpu::Gpu>> {
    emulator::load();
    let Device::Cuda(gpus) = Device::open("cuda").unwrap() else { unreachable!("cuda is no processor") };
    gpus
}

#[test]
fn a_fit_and_its_labels_are_those_of_the_processor() {
    let _enough = MEMORY.read().unwrap_or_else(PoisonError::into_inner);
    let (gpus, expected) = (gpus(), model(&Device::cpu()));
    assert!(expected.topics.len() >= 4, "{} topics", expected.topics.len());
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

#[test]
fn outliers_that_abstain_change_labels_as_on_the_processor() {
    let _enough = MEMORY.read().unwrap_or_else(PoisonError::into_inner);
    let (mut model, new) = (model(&Device::cpu()), vectors(150, 2));
    // A fit of such rows leaves hardly any: half of them are made some.
    let rows = model.sample.topics.iter_mut().enumerate();
    rows.filter(|(row, _)| mix64(*row as u64).is_multiple_of(2)).for_each(|(_, topic)| *topic = -1);
    let label = |outliers, device: &Device| {
        let config = LabelConfig { outliers, top_topics: 8, ..LabelConfig::default() };
        model.assigner(config, device).unwrap().with_threshold(0.0).assign(&new).unwrap()
    };
    let [voting, abstaining] =
        [OutlierVote::Vote, OutlierVote::Abstain].map(|how| label(how, &Device::cpu()));
    let changed = voting.iter().zip(&abstaining).filter(|(a, b)| a.topic != b.topic).count();
    assert!(changed > 10, "outliers decided {changed} labels alone");
    for gpu in gpus() {
        let device = Device::Cuda(vec![gpu]);
        assert!(label(OutlierVote::Vote, &device) == voting, "{device}");
        assert!(label(OutlierVote::Abstain, &device) == abstaining, "{device}");
    }
}

#[test]
fn labels_in_many_parts_on_all_gpus_come_in_their_order() {
    let _enough = MEMORY.read().unwrap_or_else(PoisonError::into_inner);
    let (model, new, gpus) = (model(&Device::cpu()), vectors(150, 2), gpus());
    let assigner = |device: &Device| model.assigner(LabelConfig::default(), device).unwrap();
    let expected = assigner(&Device::cpu());
    for device in gpus.iter().map(|gpu| Device::Cuda(vec![gpu.clone()])).chain([Device::Cuda(gpus.clone())]) {
        let parts = assigner(&device).with_gpu_rows(17);
        assert!(parts.assign(&new).unwrap() == expected.assign(&new).unwrap(), "{device}");
        let threshold = |assigner: &Assigner| assigner.calibrate(&model.codes, |row| row % 3 == 0).unwrap();
        assert!(threshold(&parts) == threshold(&expected), "{device}: another threshold");
    }
}

#[test]
fn what_has_no_room_on_a_gpu_runs_on_the_processor_and_is_told() {
    let Some(emulator) = emulator::load() else { return };
    let _alone = MEMORY.write().unwrap_or_else(PoisonError::into_inner);
    let (expected, new) = (model(&Device::cpu()), vectors(150, 2));
    let label = |device: &Device| {
        let assigner = expected.assigner(LabelConfig::default(), device).unwrap();
        [assigner.assign(&new).unwrap(), assigner.assign(&new).unwrap()]
    };
    let labels = label(&Device::cpu());
    for gpu in gpus() {
        let device = Device::Cuda(vec![gpu]);
        // Room for nothing; for the codes of the sample; for more and more of the rest.
        for memory in [1 << 10, 20 << 10, 60 << 10, 100 << 10, 160 << 10] {
            (emulator.set_memory)(memory);
            let (found, lines) = heard(|| model(&device));
            let (labelled, of_labels) = heard(|| label(&device));
            (emulator.set_memory)(0);
            assert!(found == expected, "{device} of {memory} bytes: another model");
            assert!(labelled == labels, "{device} of {memory} bytes: other labels");
            println!("{device} of {memory} bytes: {lines:#?} {of_labels:#?}");
            let told = |stage: &str, lines: &[String]| {
                let start = format!("WARN {stage}: the GPU has no ");
                lines.iter().filter(|l| l.starts_with(&start) && l.contains(" bytes of memory left")).count()
            };
            if memory == 1 << 10 {
                let stages = ["neighbours", "layout", "clusters", "labels"];
                assert_eq!(stages.map(|stage| told(stage, &lines)), [1, 3, 2, 1], "{lines:?}");
            }
            // Once, not for every batch.
            assert!(told("labels", &of_labels) <= 1, "{of_labels:?}");
            assert!(memory > 20 << 10 || told("labels", &of_labels) == 1, "{of_labels:?}");
        }
    }
}

#[test]
fn kmeans_is_that_of_the_processor_with_and_without_room_for_it() {
    let _alone = MEMORY.write().unwrap_or_else(PoisonError::into_inner);
    let (emulator, vectors) = (emulator::load(), vectors(ROWS, 1));
    let kmeans = KMeans::try_new(KMeansConfig { n_clusters: 30, ..KMeansConfig::default() }).unwrap();
    let fit = |device: &Device| kmeans.fit(&vectors, device, &|| ControlFlow::Continue(())).unwrap();
    let expected = fit(&Device::cpu());
    for gpu in gpus() {
        let device = Device::Cuda(vec![gpu]);
        let (found, lines) = heard(|| fit(&device));
        assert!(found == expected && lines.is_empty(), "{device}: {lines:?}");
        let Some(emulator) = emulator else { continue };
        // Room for nothing; for the points.
        for memory in [1 << 10, 45 << 10] {
            (emulator.set_memory)(memory);
            let (found, lines) = heard(|| fit(&device));
            (emulator.set_memory)(0);
            let told = lines.iter().any(|line| line.starts_with("WARN clusters: the GPU has no "));
            assert!(found == expected && told, "{device} of {memory} bytes: {lines:?}");
        }
    }
}

#[test]
fn what_is_beyond_the_kernels_runs_on_the_processor_and_is_told() {
    let _enough = MEMORY.read().unwrap_or_else(PoisonError::into_inner);
    let (gpu, cpu, vectors) = (Device::Cuda(gpus()), Device::cpu(), vectors(ROWS, 1));
    let same = |stage: &str, reason: &str, of: &dyn Fn(&Device) -> Matrix<f32>| {
        let (found, lines) = heard(|| of(&gpu));
        assert!(found == of(&cpu), "{stage}: another result");
        let expected = format!("INFO {stage}: ");
        assert!(lines.iter().any(|line| line.starts_with(&expected) && line.contains(reason)), "{lines:?}");
    };
    let neighbours = |umap: UmapConfig, vectors: &Matrix<f32>, device: &Device| {
        nearest_rows(vectors, &umap, device, &|_, _| ControlFlow::Continue(())).unwrap().scores
    };
    let euclidean = UmapConfig { metric: Metric::Euclidean, ..UmapConfig::default() };
    same("neighbours", "Euclidean", &|device| neighbours(euclidean.clone(), &vectors, device));
    let many = UmapConfig { n_neighbors: 1100, ..UmapConfig::default() };
    let rows = Matrix::try_from_vec(1200, 8, vectors.as_slice()[..9600].to_vec()).unwrap();
    same("neighbours", "more than the 1024", &|device| neighbours(many.clone(), &rows, device));

    let scores = |min_samples, points: &Matrix<f32>, device: &Device| {
        let config = HdbscanConfig { min_samples: Some(min_samples), ..HdbscanConfig::default() };
        let scores = Hdbscan::try_new(config)
            .unwrap()
            .fit(points, device, &|| ControlFlow::Continue(()))
            .unwrap()
            .outlier_scores;
        Matrix::try_from_vec(scores.len(), 1, scores).unwrap()
    };
    same("clusters", "min_samples 300", &|device| scores(300, &vectors, device));
    let wide = Matrix::try_from_vec(120, 80, vectors.as_slice().to_vec()).unwrap();
    same("clusters", "80 dimensions", &|device| scores(5, &wide, device));

    let scale = SearchScale::of(&vectors).unwrap();
    let codes = scale.codes(&vectors).unwrap();
    same("labels", "300 voters", &|device| {
        let config = LabelConfig { top_k: 300, ..LabelConfig::default() };
        let topics = (0..ROWS as i32).map(|row| row % 8).collect();
        let assigner = Assigner::try_new(device, &codes, scale, topics, config, 0.0).unwrap();
        let scores = assigner.assign(&vectors).unwrap().iter().map(|label| label.score).collect();
        Matrix::try_from_vec(ROWS, 1, scores).unwrap()
    });
}

#[test]
fn a_fit_takes_the_memory_that_its_plan_says_and_hardly_less() {
    let Some(emulator) = emulator::load() else { return };
    let _alone = MEMORY.write().unwrap_or_else(PoisonError::into_inner);
    let (config, texts) = (config(), texts());
    let workload = Workload {
        rows: ROWS,
        dim: DIM,
        texts: TextSizes::measure(&texts, &texts, &texts, &config.words.vocabulary).unwrap(),
        dated: false,
        threads: 2,
        top_k: LabelConfig::default().top_k,
        screened: true,
        config: &config,
    };
    for gpu in gpus() {
        let ordinal = gpu.ordinal() as i32;
        let device = Device::Cuda(vec![gpu]);
        let before = {
            (emulator.peak_memory)(ordinal);
            (emulator.peak_memory)(ordinal)
        } as f64;
        model(&device);
        let (taken, planned) = ((emulator.peak_memory)(ordinal) as f64 - before, workload.gpu_bytes());
        println!("{device}: {taken} bytes taken, {planned} planned");
        assert!(
            planned >= taken && planned <= 1.5 * taken,
            "{device}: {taken} bytes taken, {planned} planned"
        );
    }
}
