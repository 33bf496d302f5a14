//! Times matrix products of an encoder's shapes on one thread, as a share of what the instructions could do:
//! `cargo bench -p thema-kernels --bench products`.

#![allow(clippy::print_stdout)]

use kernels::gemm::{Epilogue, Packed, Rows, gemm};
use kernels::{Isa, halves, int8};
use std::hint::black_box;
use std::time::Instant;

/// Rows, columns and steps of MiniLM's layers for a pack of 256 tokens.
const SHAPES: [(&str, usize, usize, usize); 4] = [
    ("query, key, value", 256, 1152, 384),
    ("projection", 256, 384, 384),
    ("up", 256, 1536, 384),
    ("down", 256, 384, 1536),
];

fn main() {
    for isa in Isa::available() {
        for (name, m, n, k) in SHAPES {
            let values = |count: usize| (0..count).map(|i| (i % 17) as f32 / 17.0 - 0.4).collect::<Vec<_>>();
            let (a, w, bias) = (values(m * k), values(n * k), values(n));
            let mut c = vec![0f32; m * n];
            let operations = 2.0 * (m * n * k) as f64;
            let packed = Packed::from_linear(&w, n, k);
            let rows = Rows { data: &a, rows: m, stride: k };
            let float =
                fastest(|| gemm(isa, rows, packed.view(), black_box(&mut c), n, Epilogue::Bias(&bias)));
            let weights = int8::Weights::from_linear(&w, n, k);
            let mut codes = int8::Activations::default();
            let coding = fastest(|| codes.quantize(isa, black_box(&a), k));
            let exact = fastest(|| int8::linear(isa, &codes, &weights, &bias, black_box(&mut c), false));
            println!(
                "{:<12} {name:<18} f32 {:>6.0} G/s, int8 {:>6.0} G/s, coding {:>5.0} us",
                isa.name(),
                operations / float / 1e9,
                operations / exact / 1e9,
                coding * 1e6,
            );
            if halves::serve(isa) {
                let weights = halves::Weights::from_linear(&w, n, k);
                let mut rows = halves::Activations::default();
                let splitting = fastest(|| rows.split(isa, black_box(&a), k));
                let time = fastest(|| halves::linear(isa, &rows, &weights, &bias, black_box(&mut c), false));
                println!(
                    "{:<12} {name:<18} halves {:>6.0} G/s, splitting {:>5.0} us",
                    isa.name(),
                    operations / time / 1e9,
                    splitting * 1e6,
                );
            }
        }
    }
}

/// The seconds of the fastest of many runs.
fn fastest(mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < 0.3 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}
