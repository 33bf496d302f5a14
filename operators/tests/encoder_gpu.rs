//! The whole encoder on GPUs, emulated ones or real, against the processor.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "../../kernels/tests/support/emulator.rs"]
mod emulator;

use kernels::gpu::float8;
use kernels::quantize::{Ranges, Rule};
use kernels::{Device, Matrix};
use operators::encoders::{Encoder, EncoderOptions, WeightPrecision, resolve};
use operators::quantize::{Precision, Quantizer};
use std::sync::RwLock;

/// Texts of 2 to 43 tokens: few, since the emulator makes some hundred million products a second.
const TEXTS: [&str; 5] = [
    "",
    "word",
    "We study transformers for machine translation of low-resource languages.",
    "Graph neural networks pass messages along edges; their depth is limited by oversmoothing, which residual \
     connections and normalisation only delay, as we show by experiments on five citation graphs.",
    "Ein Satz auf Deutsch, 1234.",
];

/// Tests of little memory are alone; it is the emulator's, and so everyone's.
static MEMORY: RwLock<()> = RwLock::new(());

fn encoder(device: &Device, weights: Option<WeightPrecision>) -> Encoder {
    let folder =
        resolve("sentence-transformers/all-MiniLM-L6-v2").expect("scripts/fetch-encoder.sh fetches it");
    Encoder::load(&folder, &EncoderOptions { weights, ..EncoderOptions::default() }, device).unwrap()
}

/// The GPUs one by one: the emulator's are of different kinds.
fn gpus() -> Vec<Device> {
    emulator::load();
    let Device::Cuda(all) = Device::open("cuda").unwrap() else { unreachable!("cuda is no processor") };
    all.into_iter().map(|gpu| Device::Cuda(vec![gpu])).collect()
}

/// Whether a device, of GPUs, computes in these numbers: not all have 8-bit floats.
fn serves(device: &Device, weights: Option<WeightPrecision>) -> bool {
    let Device::Cuda(gpus) = device else { unreachable!("these are GPUs") };
    weights != Some(WeightPrecision::Float8) || gpus.iter().all(|gpu| float8::serve(gpu))
}

/// The least cosine of a row with its like (all have length 1), and the largest difference of two numbers.
fn agreement(a: &Matrix<f32>, b: &Matrix<f32>) -> (f64, f32) {
    let cosine =
        |(x, y): (&[f32], &[f32])| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let least = a.iter_rows().zip(b.iter_rows()).map(cosine).fold(1.0, f64::min);
    let pairs = a.as_slice().iter().zip(b.as_slice());
    (least, pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max))
}

/// The least cosine to the processor's vectors, and the largest difference of a number.
///
/// A layer rounds twelve times: queries and the like, weights of attention, context, projection, two norms, two dense
/// layers, and the weights of four products; each time by up to u = 2⁻ᵇⁱᵗˢ, u / √3 on average, to either side. Norms keep
/// all at one size, so that six layers take a vector √(12 · 6 / 3) u far. Half as much again is let through. (Measured: 0.3 of
/// that in either format of halves.) One of its 384 numbers is further than five times its share only once in a million.
/// In 8-bit floats of 4 bits twice the distance that was measured is let through: most of it is the model's own.
fn bounds(weights: Option<WeightPrecision>) -> (f64, f32) {
    let bits = match weights {
        Some(WeightPrecision::Float8) => return (0.99, 3e-2),
        Some(WeightPrecision::Bfloat16) => 8,
        _ => 11,
    };
    let far = 1.5 * (12.0 * 6.0 / 3.0f64).sqrt() * 2f64.powi(-bits);
    (1.0 - far * far / 2.0, (5.0 * far / 384f64.sqrt()) as f32)
}

#[test]
fn vectors_are_those_of_the_processor_but_for_rounding() {
    let _enough = MEMORY.read().unwrap();
    let expected = encoder(&Device::cpu(), None).encode(&TEXTS).unwrap();
    for device in gpus() {
        for weights in [None, Some(WeightPrecision::Bfloat16), Some(WeightPrecision::Float8)] {
            if !serves(&device, weights) {
                continue;
            }
            let (least_cosine, largest) = bounds(weights);
            let found = encoder(&device, weights).encode(&TEXTS).unwrap();
            assert_eq!(found.tokens, expected.tokens);
            let (cosine, difference) = agreement(&found.vectors, &expected.vectors);
            println!(
                "{device} {weights:?}: least cosine {cosine:.7} of {least_cosine:.7}, \
                 largest difference {difference:.2e} of {largest:.2e}"
            );
            assert!(
                cosine >= least_cosine && difference <= largest,
                "{device} {weights:?}: {cosine}, {difference}"
            );
        }
    }
}

#[test]
fn a_vector_has_the_same_bits_in_any_batch_and_on_a_gpu_with_little_memory() {
    let _alone = MEMORY.write().unwrap();
    let emulator = emulator::load();
    let each = gpus().into_iter().flat_map(|gpu| [(gpu.clone(), None), (gpu, Some(WeightPrecision::Float8))]);
    for (device, weights) in each.filter(|(device, weights)| serves(device, *weights)) {
        let encoder_with_room = encoder(&device, weights);
        let all = encoder_with_room.encode(&TEXTS).unwrap().vectors;
        let reversed: Vec<&str> = TEXTS.iter().rev().copied().collect();
        let again = encoder_with_room.encode(&reversed).unwrap().vectors;
        for (i, row) in all.iter_rows().enumerate() {
            assert_eq!(again.row(TEXTS.len() - 1 - i), row, "{device}: text {i} in reverse");
        }
        assert_eq!(
            encoder_with_room.encode(&TEXTS[3..4]).unwrap().vectors.as_slice(),
            all.row(3),
            "{device}: alone"
        );
        drop(encoder_with_room);
        if let Some(emulator) = emulator {
            // Weights of 45 MB leave room for packs of some thousand tokens, not of 16,384.
            (emulator.set_memory)(100 << 20);
            let narrow = encoder(&device, weights).encode(&TEXTS[3..4]).unwrap().vectors;
            assert_eq!(narrow.as_slice(), all.row(3), "{device}: little memory");
            (emulator.set_memory)(30 << 20);
            let folder = resolve("sentence-transformers/all-MiniLM-L6-v2").unwrap();
            let error =
                Encoder::load(&folder, &EncoderOptions::default(), &device).err().unwrap().to_string();
            assert!(error.contains("bytes of memory"), "{error}");
            (emulator.set_memory)(0);
        }
    }
}

#[test]
fn codes_that_leave_a_gpu_are_those_of_the_vectors() {
    let _enough = MEMORY.read().unwrap();
    for device in gpus() {
        let encoder = encoder(&device, None);
        let vectors = encoder.encode(&TEXTS).unwrap().vectors;
        let ranges = Ranges::of(&vectors.gather(&[1, 3])).unwrap();
        for precision in [Precision::Int8, Precision::Uint8, Precision::Binary, Precision::Ubinary] {
            let quantizer = Quantizer::try_new(precision, Rule::Clipped, Some(ranges.clone()), 384).unwrap();
            assert!(encoder.makes_codes());
            let (codes, counted) = encoder.encode_codes(&TEXTS, quantizer.code().unwrap()).unwrap();
            assert_eq!(counted.tokens, encoder.tokenize(&TEXTS).unwrap().ids.len() as u64);
            let expected = quantizer.column(vectors.clone()).unwrap();
            assert_eq!(quantizer.column_of_codes(codes).unwrap(), expected, "{device} {precision}");
        }
    }
}

#[test]
fn a_precision_that_a_device_does_not_have_is_refused() {
    let folder = resolve("sentence-transformers/all-MiniLM-L6-v2").unwrap();
    let refused = |weights, device: &Device| {
        let options = EncoderOptions { weights: Some(weights), ..EncoderOptions::default() };
        Encoder::load(&folder, &options, device).err().unwrap().to_string()
    };
    let error = refused(WeightPrecision::Bfloat16, &Device::cpu());
    assert!(error.contains("a processor computes in float32 or int8"), "{error}");
    let error = refused(WeightPrecision::Int8, &gpus()[0]);
    assert!(error.contains("a GPU computes in float16, bfloat16 or float8"), "{error}");
    let error = refused(WeightPrecision::Float8, &Device::cpu());
    assert!(error.contains("a processor computes in float32 or int8"), "{error}");
    let devices = gpus().into_iter().chain([Device::open("cuda").unwrap()]);
    let float8 = WeightPrecision::Float8;
    for device in devices.filter(|device| !serves(device, Some(float8))) {
        let error = refused(float8, &device);
        assert!(error.contains("weights") && error.contains("float8 is not for"), "{error}");
        assert!(error.contains("compute capability 9.0") && error.contains("use float16"), "{error}");
    }
}
