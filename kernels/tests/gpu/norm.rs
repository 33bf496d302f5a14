//! Layer norm of embeddings and of residuals.

use super::*;
use kernels::gpu::Indices;
use kernels::gpu::norm::{LayerNorm, Tables};

fn normalised(row: &[f64], gamma: &[f32], beta: &[f32]) -> Vec<f64> {
    let n = row.len() as f64;
    let mean = row.iter().sum::<f64>() / n;
    let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + 1e-12).sqrt();
    row.iter()
        .zip(gamma)
        .zip(beta)
        .map(|((v, g), b)| (v - mean) * scale * f64::from(*g) + f64::from(*b))
        .collect()
}

#[test]
fn rows_of_every_width_are_normalised() {
    on_each_gpu(|gpu| {
        let mut all = Vec::new();
        // One to four chunks of a lane, full and not.
        for (width, half) in [8, 248, 384, 512, 768, 1000, 1024]
            .into_iter()
            .zip([Half::Float16, Half::BFloat16].into_iter().cycle())
        {
            let rows = 7;
            let (gamma, beta) = (uniform(3, width), uniform(4, width));
            let norm = LayerNorm::new(gpu, half, &gamma, &beta, 1e-12).unwrap();
            let a = rounded(half, &uniform(1, rows * width));
            let b = rounded(half, &uniform(2, rows * width));
            let expected: Vec<f64> = a
                .chunks_exact(width)
                .zip(b.chunks_exact(width))
                .flat_map(|(a, b)| {
                    let sum: Vec<f64> = a.iter().zip(b).map(|(a, b)| f64::from(*a) + f64::from(*b)).collect();
                    normalised(&sum, &gamma, &beta)
                })
                .collect();
            let mut x = gpu.upload(&encode(half, &a)).unwrap();
            norm.add(&mut x, &gpu.upload(&encode(half, &b)).unwrap(), rows).unwrap();
            let added = x.download(rows * width).unwrap();
            assert_near(half, &decode(half, &added), &expected, 1.01, 0.1, &format!("{width}"));

            // The same sums as words at positions: row i is word 6 - i at position i.
            let words: Vec<f32> = a.chunks_exact(width).rev().flatten().copied().collect();
            let tables = Tables::new(gpu, half, &words, &b).unwrap();
            let (mut ids, mut positions) =
                (Indices::new(gpu, rows, rows).unwrap(), Indices::new(gpu, rows, rows).unwrap());
            ids.write((0..rows).rev()).unwrap();
            positions.write(0..rows).unwrap();
            let mut out = gpu.allocate(rows * width).unwrap();
            norm.embed(&tables, &ids, &positions, rows, &mut out).unwrap();
            assert!(out.download(rows * width).unwrap() == added, "{width}: the same sums, another way");
            all.push(added);
        }
        all
    });
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    on_each_gpu(|gpu| {
        for width in [12, 1032] {
            let error =
                LayerNorm::new(gpu, Half::Float16, &vec![1.0; width], &vec![0.0; width], 1e-12).unwrap_err();
            assert!(error.to_string().contains("multiples of 8"), "{error}");
        }
    });
}
