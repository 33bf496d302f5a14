//! From token vectors to embeddings and codes.

use super::*;
use kernels::gpu::pool::{Offsets, Pool, pool};
use kernels::gpu::quantize::{Code, Coder};
use kernels::pool::Pooling;
use kernels::quantize::{Ranges, Rule};
use kernels::search_codes::SearchScale;
use kernels::{Isa, Matrix, quantize};

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
                    let mut expected = vec![0f32; width];
                    kernels::pool::pool(
                        Isa::Portable,
                        pooling,
                        &values[first * width..text[1] * width],
                        &mut expected,
                    );
                    if normalise {
                        kernels::norm::l2_normalise(Isa::Portable, &mut expected, width);
                    }
                    expected.truncate(dimensions);
                    if normalise {
                        kernels::norm::l2_normalise(Isa::Portable, &mut expected, dimensions);
                    }
                    for (f, e) in found.iter().zip(&expected) {
                        assert!(
                            (f - e).abs() <= 4e-6 * e.abs().max(0.1),
                            "{pooling:?} {width} {text:?}: {f}, expected {e}"
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
