//! Every kernel of the GPU against a plain reference, under every schedule of the emulator, or on a real GPU.
//!
//! The emulator (`kernels/emulator`) takes the driver's place: what runs here is the host code as it is shipped, cudarc
//! and all, and the CUDA sources compiled for this processor. `THEMA_TEST_GPU=real` runs the same tests on the machine's
//! own GPU, and fails where there is none. `THEMA_TEST_SCHEDULES=1` runs each test once, where a tool makes that slow.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "../support/emulator.rs"]
mod emulator;

mod attention;
mod bounds;
mod device;
mod float8;
mod kmeans;
mod layout;
mod linear;
mod norm;
mod pool;
mod quantize;
mod record;
mod search;
mod spanning_tree;

use half::{bf16, f16};
use kernels::gpu::{Gpu, Half};
use std::sync::{Arc, PoisonError, RwLock};

/// Tests of little memory are alone: it is the emulator's, and so everyone's.
fn memory() -> &'static RwLock<()> {
    static MEMORY: RwLock<()> = RwLock::new(());
    &MEMORY
}

/// Runs `test` on each GPU that there is, on emulated ones (of both kinds) under each schedule; what it returns must
/// be the same on a GPU under all of them.
fn on_each_gpu<T: PartialEq>(test: impl Fn(&Arc<Gpu>) -> T) {
    let _enough = memory().read().unwrap_or_else(PoisonError::into_inner);
    let emulator = emulator::load();
    for ordinal in 0..Gpu::count().unwrap() {
        let gpu = Gpu::open(ordinal).unwrap();
        let mut first = None;
        for schedule in 0..schedules(emulator.is_some()) {
            if let Some(emulator) = emulator {
                (emulator.set_schedule)(schedule);
            }
            let result = test(&gpu);
            match &first {
                None => first = Some(result),
                Some(first) => assert!(*first == result, "{gpu:?}: another result under schedule {schedule}"),
            }
        }
    }
}

/// How often each test is run.
fn schedules(emulated: bool) -> std::ffi::c_int {
    let all = if emulated { emulator::SCHEDULES } else { 2 };
    std::env::var("THEMA_TEST_SCHEDULES").map_or(all, |set| set.parse().unwrap()).min(all)
}

/// `len` numbers from −1 to 1.
fn uniform(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// The bits of `values` as halves.
fn encode(half: Half, values: &[f32]) -> Vec<u16> {
    match half {
        Half::Float16 => values.iter().map(|&v| f16::from_f32(v).to_bits()).collect(),
        Half::BFloat16 => values.iter().map(|&v| bf16::from_f32(v).to_bits()).collect(),
    }
}

/// The numbers that halves stand for.
fn decode(half: Half, bits: &[u16]) -> Vec<f32> {
    match half {
        Half::Float16 => bits.iter().map(|&b| f16::from_bits(b).to_f32()).collect(),
        Half::BFloat16 => bits.iter().map(|&b| bf16::from_bits(b).to_f32()).collect(),
    }
}

/// What rounding to halves makes of `values`.
fn rounded(half: Half, values: &[f32]) -> Vec<f32> {
    decode(half, &encode(half, values))
}

/// Half a unit in the last place of a number near 1, in `half`.
fn precision(half: Half) -> f64 {
    match half {
        Half::Float16 => 2f64.powi(-11),
        Half::BFloat16 => 2f64.powi(-8),
    }
}

/// Fails at the first number that is further from what is expected than `steps` roundings of its size, or of `scale`
/// where it is smaller.
fn assert_near(half: Half, found: &[f32], expected: &[f64], steps: f64, scale: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let bound = steps * precision(half) * e.abs().max(scale);
        assert!((f64::from(*f) - e).abs() <= bound, "{what}: {f} at {i}, expected {e} within {bound}");
    }
}
