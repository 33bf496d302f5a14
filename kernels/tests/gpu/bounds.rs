//! What would reach beyond the memory that it is given is refused on the host.

use super::*;
use kernels::gpu::Indices;
use kernels::gpu::attention::{Bias, Work, attention};
use kernels::gpu::linear::{Activation, Linear, Rotations};
use kernels::gpu::norm::{LayerNorm, Tables};
use kernels::gpu::pool::{Offsets, Pool, pool};
use kernels::gpu::quantize::{Code, Coder, is_finite};
use kernels::pool::Pooling;
use kernels::quantize::{Ranges, Rule};
use std::panic::{AssertUnwindSafe, catch_unwind};

const HALF: Half = Half::Float16;

/// Asserts that `call` fails or panics, and does not when its buffers are large enough.
fn refused<T>(what: &str, call: impl FnOnce() -> kernels::Result<T>) {
    let ended = catch_unwind(AssertUnwindSafe(|| call().is_err()));
    assert!(ended.unwrap_or(true), "{what}: accepted");
}

#[test]
fn attention_stays_within_its_buffers_and_its_bias() {
    on_each_gpu(|gpu| {
        let halves = |len| gpu.zeros::<u16>(len).unwrap();
        let (heads, width, tokens) = (2, 32, 20);
        let hidden = heads * width;
        let work = || Work::new(gpu, tokens, 2, heads).unwrap();
        let short = |longest| Work::with_longest(gpu, tokens, 4, heads, longest).unwrap();
        let run = |values: usize, outputs: usize, work: &Work, bias: &Bias| {
            attention(HALF, &halves(values), &mut halves(outputs), width, work, bias)
        };
        let (all, out) = (tokens * 3 * hidden, tokens * hidden);
        run(all, out, &work(), &Bias::None).unwrap();
        refused("values", || run(all - 1, out, &work(), &Bias::None));
        refused("outputs", || run(all, out - 1, &work(), &Bias::None));
        refused("slopes", || run(all, out, &work(), &Bias::distance(gpu, &[1.0]).unwrap()));
        let table = |reach: usize, heads: usize| {
            Bias::offsets(gpu, &vec![0.0; heads * (2 * reach - 1)], reach).unwrap()
        };
        run(all, out, &short(5), &table(5, heads)).unwrap();
        refused("a table for shorter texts", || run(all, out, &work(), &table(5, heads)));
        refused("a table for fewer heads", || run(all, out, &short(5), &table(5, 1)));
        let none = Bias::Offsets(gpu.zeros(100).unwrap(), 0);
        refused("a table that reaches nowhere", || run(all, out, &short(0), &none));
        work().list(&[0, 9, 20]).unwrap();
        refused("tokens beyond the room", || work().list(&[0, 9, 21]));
        refused("texts longer than said", || short(10).list(&[0, 9, 20]));
        refused("offsets out of order", || work().list(&[0, 19, 9]));
    });
}

#[test]
fn pooling_stays_within_its_tokens() {
    on_each_gpu(|gpu| {
        let (width, tokens) = (64, 10);
        let offsets = || Offsets::new(gpu, tokens, 3).unwrap();
        let settings =
            Pool { pooling: Pooling::Mean, skipped_tokens: 0, normalise: false, dimensions: width };
        let run = |values: usize, vectors: usize, coder: Option<&Coder>| {
            let tokens = gpu.zeros(values).unwrap();
            let (mut vectors, mut codes) = (gpu.zeros(vectors).unwrap(), gpu.zeros(3 * width).unwrap());
            let codes = coder.map(|coder| (coder, &mut codes));
            pool(HALF, &settings, &tokens, width, &offsets(), Some(&mut vectors), codes)
        };
        let coder = |dimensions: usize| {
            let ranges = Ranges::try_new(vec![0.0; dimensions], vec![1.0; dimensions]).unwrap();
            Coder::new(gpu, Code::Uint8(&ranges, Rule::Clipped)).unwrap()
        };
        run(tokens * width, 3 * width, Some(&coder(width))).unwrap();
        refused("tokens", || run(tokens * width - 1, 3 * width, None));
        refused("vectors", || run(tokens * width, 3 * width - 1, None));
        refused("ranges", || run(tokens * width, 3 * width, Some(&coder(width - 1))));
        offsets().write(&[0, 4, 4, 10]).unwrap();
        refused("offsets beyond the tokens", || offsets().write(&[0, 4, 11]));
        refused("offsets out of order", || offsets().write(&[0, 5, 4]));
        refused("too many texts", || offsets().write(&[0, 1, 2, 3, 4]));

        let x = gpu.zeros(10).unwrap();
        coder(5).codes(&x, 2, 5).unwrap();
        refused("ranges of fewer dimensions", || coder(4).codes(&x, 2, 5));
        refused("numbers that are not there", || is_finite(&x, 2, 6));
    });
}

#[test]
fn rows_of_tables_are_checked_before_they_reach_the_gpu() {
    on_each_gpu(|gpu| {
        let (width, tokens) = (8, 4);
        let norm = LayerNorm::new(gpu, HALF, &[1.0; 8], &[0.0; 8], 1e-12).unwrap();
        let tables = Tables::new(gpu, HALF, &[0.0; 5 * 8], &[0.0; 3 * 8]).unwrap();
        let indices = |bound| Indices::new(gpu, tokens, bound).unwrap();
        let embed = |words: usize, positions: usize| {
            let mut out = gpu.zeros(tokens * width).unwrap();
            norm.embed(&tables, &indices(words), &indices(positions), tokens, &mut out)
        };
        embed(5, 3).unwrap();
        refused("words", || embed(6, 3));
        refused("positions", || embed(5, 4));
        indices(5).write([4, 0, 3, 1].into_iter()).unwrap();
        let error = indices(5).write([4, 5].into_iter()).unwrap_err().to_string();
        assert!(error.contains("rows below 5, found 5"), "{error}");
        refused("more than there is room for", || indices(5).write([0; 5].into_iter()));

        let layer = Linear::new(gpu, HALF, &[0.0; 48 * 8], &[0.0; 48], Activation::None).unwrap();
        let rotations = Rotations::new(gpu, 7, 16, 1e4).unwrap();
        let rotate = |bound: usize| {
            let (x, mut out) = (gpu.zeros(tokens * 8).unwrap(), gpu.zeros(tokens * 48).unwrap());
            layer.rotating(&x, tokens, &mut out, &indices(bound), &rotations)
        };
        rotate(7).unwrap();
        refused("positions without an angle", || rotate(8));
        refused("heads of odd width", || Rotations::new(gpu, 7, 15, 1e4));
    });
}

#[test]
fn memory_is_as_long_as_it_says() {
    on_each_gpu(|gpu| {
        refused("more bytes than there are numbers", || gpu.allocate::<u64>(usize::MAX / 4));
        // The host's place of a mirror stays as it is, whatever buffer comes into it.
        let mut mirror = gpu.mirror::<u8>(10).unwrap();
        *mirror.there_mut() = gpu.zeros(1 << 20).unwrap();
        refused("a longer read", || mirror.read(11).map(drop));
        refused("a longer write", || mirror.write(&[0; 11]));
    });
}
