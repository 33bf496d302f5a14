//! From token vectors to embeddings and codes.

use super::*;
use kernels::gpu::pool::{Offsets, Pool, pool};
use kernels::gpu::quantize::{Code, Coder};
use kernels::pool::Pooling;
use kernels::quantize::{Ranges, Rule};
use kernels::search_codes::SearchScale;
use kernels::{Isa, Matrix, quantize};

/// The vector of a text's `tokens` as the processor makes it, and how far from it each number may be.
///
/// Both sum up to n tokens in f32, each in an order of its own: of n − 1 sums and a division each is off by up to
/// u = 2⁻²⁴ of what was summed so far, so of Σ|x|, on either side. Lengths are sums of such numbers, and so are off by
/// as much as all of them together (in proportion); their own sums, roots and divisions, twice where vectors are cut,
/// are each off by u once more: at most 8 u. First orders are doubled for all higher ones.
fn expected(
    pooling: Pooling,
    tokens: &[f32],
    width: usize,
    normalise: bool,
    dimensions: usize,
) -> (Vec<f32>, Vec<f64>) {
    let pooled = |tokens: &[f32]| {
        let mut vector = vec![0f32; width];
        kernels::pool::pool(Isa::Portable, pooling, tokens, &mut vector);
        vector
    };
    let length = |x: &[f32]| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let mut vector = pooled(tokens);
    let sizes = pooled(&tokens.iter().map(|v| v.abs()).collect::<Vec<f32>>());
    let steps = tokens.len() as f64 / width as f64;
    let (mut scale, mut of_lengths) = (1.0, 0.0);
    if normalise {
        for cut in [width, dimensions] {
            let whole = length(&vector[..cut]);
            if whole == 0.0 {
                break;
            }
            of_lengths += steps * length(&sizes[..cut]) * scale / whole + 8.0;
            scale /= whole;
            vector.truncate(cut);
            kernels::norm::l2_normalise(Isa::Portable, &mut vector, cut);
        }
    }
    let bound = |(size, v): (&f32, &f32)| {
        2.0 * 2f64.powi(-24) * (steps * f64::from(*size) * scale + of_lengths * f64::from(v.abs()))
    };
    let bounds = sizes.iter().zip(&vector).map(bound).collect();
    (vector, bounds)
}

#[test]
fn texts_are_pooled_as_on_the_processor_and_their_codes_are_those_of_their_vectors() {
    on_each_gpu(|gpu| {
        let mut all = Vec::new();
        let offsets = [0usize, 1, 8, 8, 40, 41, 110];
        for (pooling, half, width, dimensions, skipped) in [
            (Pooling::Mean, Half::Float16, 384, 384, 0),
            (Pooling::Mean, Half::BFloat16, 72, 50, 2),
            (Pooling::Cls, Half::Float16, 1024, 1024, 0),
            (Pooling::Max, Half::Float16, 128, 100, 0),
            (Pooling::MeanSqrtLen, Half::Float16, 64, 64, 1),
            (Pooling::WeightedMean, Half::BFloat16, 768, 768, 0),
            (Pooling::LastToken, Half::Float16, 2048, 2048, 0),
        ] {
            let bits = encode(half, &uniform(1, 110 * width));
            let values = decode(half, &bits);
            let texts = offsets.len() - 1;
            let mut there = Offsets::new(gpu, 110, texts + 5).unwrap();
            there.write(&offsets).unwrap();
            let tokens = gpu.upload(&bits).unwrap();
            for normalise in [false, true] {
                let settings = Pool { pooling, skipped_tokens: skipped, normalise, dimensions };
                let mut vectors = gpu.allocate((texts + 5) * dimensions).unwrap();
                pool(half, &settings, &tokens, width, &there, Some(&mut vectors), None).unwrap();
                let vectors = vectors.download(texts * dimensions).unwrap();
                for (text, found) in offsets.windows(2).zip(vectors.chunks_exact(dimensions)) {
                    let first = (text[0] + skipped).min(text[1]);
                    let tokens = &values[first * width..text[1] * width];
                    let (mut expected, bounds) = expected(pooling, tokens, width, normalise, dimensions);
                    expected.truncate(dimensions);
                    for ((f, e), bound) in found.iter().zip(&expected).zip(bounds) {
                        assert!(
                            f64::from(f - e).abs() <= bound,
                            "{pooling:?} {width} {text:?}: {f}, expected {e} within {bound}"
                        );
                    }
                }
                all.push(vectors.iter().map(|v| v.to_bits()).collect::<Vec<u32>>());

                // The codes that leave the device without their vectors are those of these vectors.
                let matrix = Matrix::try_from_vec(texts, dimensions, vectors).unwrap();
                let ranges =
                    Ranges::of(&Matrix::try_from_vec(2, dimensions, uniform(7, 2 * dimensions)).unwrap())
                        .unwrap();
                let scale = SearchScale::try_new(300.0).unwrap();
                let bytes =
                    |codes: Matrix<i8>| codes.into_vec().iter().map(|&c| c as u8).collect::<Vec<u8>>();
                for (code, expected) in [
                    (
                        Code::Int8(&ranges, Rule::Clipped),
                        bytes(quantize::int8(&matrix, &ranges, Rule::Clipped).unwrap()),
                    ),
                    (Code::Ubinary, quantize::ubinary(&matrix).unwrap().into_vec()),
                    (Code::Search(scale), bytes(scale.codes(&matrix).unwrap())),
                ] {
                    let coder = Coder::new(gpu, code).unwrap();
                    let mut out = gpu.allocate((texts + 5) * coder.row_bytes(dimensions)).unwrap();
                    pool(half, &settings, &tokens, width, &there, None, Some((&coder, &mut out))).unwrap();
                    assert!(out.download(expected.len()).unwrap() == expected, "{pooling:?} {code:?}");
                }
            }
        }
        all
    });
}
