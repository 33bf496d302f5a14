//! Nearest rows: the same rows and the same bits as on the processor.

use super::*;
use kernels::gpu::search::{CosineSearch, Points, topk_bits, topk_codes, topk_halves};
use kernels::gpu::vote::{VoteParams, Voters};
use kernels::search_codes::SearchScale;
use kernels::topk::{BitCodes, Codes, Screened};
use kernels::{Matrix, norm, topk};

fn codes(seed: u64, rows: usize, cols: usize) -> Matrix<i8> {
    let values = uniform(seed, rows * cols).iter().map(|v| (v * 127.0) as i8).collect();
    Matrix::try_from_vec(rows, cols, values).unwrap()
}

/// Points in the order of their products with the first query: each beats all before it, so that every list is filled
/// and emptied as often as can be.
fn rising(queries: &Matrix<i8>, points: &Matrix<i8>) -> Matrix<i8> {
    let product = |i: &u32| -> i32 {
        queries.row(0).iter().zip(points.row(*i as usize)).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
    };
    let mut order: Vec<u32> = (0..points.rows() as u32).collect();
    order.sort_by_key(product);
    points.gather(&order)
}

#[test]
fn products_of_codes_find_the_same_rows_in_every_shape() {
    on_each_gpu(|gpu| {
        // queries, points, columns, k: one tile and many; lists in shared memory and not; every point a neighbour; tiles
        // enough for each block to go round its ring of stages; queries of one tile of columns and of four, that stay in
        // shared memory, and of five, that cannot.
        for (q, n, d, k) in [
            (1, 1, 1, 1),
            (3, 700, 64, 10),
            (140, 530, 40, 32),
            (130, 450, 70, 33),
            (2, 300, 16, 300),
            (300, 1500, 200, 10),
            (70, 420, 400, 12),
            (70, 420, 600, 5),
        ] {
            let (queries, points) = (codes(1, q, d), codes(2, n, d));
            for points in [points.clone(), rising(&queries, &points)] {
                let found = topk_codes(&queries, &Points::codes(gpu, &points).unwrap(), k).unwrap();
                assert!(
                    found == topk::topk_codes(&queries, &Codes::pack(&points), k).unwrap(),
                    "{q} {n} {d} {k}"
                );
            }
        }
    });
}

#[test]
fn equal_products_go_to_the_smaller_row() {
    on_each_gpu(|gpu| {
        // Few different rows, each many times.
        let points = codes(3, 5, 32).gather(&(0..900).map(|i| i * 7 % 5).collect::<Vec<u32>>());
        let queries = codes(4, 9, 32);
        let found = topk_codes(&queries, &Points::codes(gpu, &points).unwrap(), 40).unwrap();
        assert!(found == topk::topk_codes(&queries, &Codes::pack(&points), 40).unwrap());
    });
}

#[test]
fn bits_and_halves_find_the_nearest() {
    on_each_gpu(|gpu| {
        let bits = |seed, rows| {
            let bytes = uniform(seed, rows * 6).iter().map(|v| ((v + 1.0) * 127.9) as u8).collect();
            Matrix::try_from_vec(rows, 6, bytes).unwrap()
        };
        let (queries, points) = (bits(1, 20), bits(2, 600));
        let found = topk_bits(&queries, &Points::bits(gpu, &points).unwrap(), 12).unwrap();
        assert!(found == topk::topk_bits(&queries, &BitCodes::pack(&points), 12).unwrap());

        // Small integers: products of halves are exact, and many are equal.
        let whole = |seed, rows| {
            let values = uniform(seed, rows * 24).iter().map(|v| (v * 3.0).round()).collect();
            Matrix::try_from_vec(rows, 24, values).unwrap()
        };
        let (queries, points) = (whole(1, 20), whole(2, 500));
        let found = topk_halves(&queries, &Points::halves(gpu, &points).unwrap(), 12).unwrap();
        assert!(found == topk::topk(&queries, &points, 12, topk::Metric::Dot).unwrap());
    });
}

#[test]
fn points_that_do_not_fit_pass_through_in_parts() {
    let Some(emulator) = emulator::load() else { return };
    let _alone = memory().write().unwrap();
    let (queries, points) = (codes(1, 5, 64), codes(2, 4000, 64));
    for ordinal in 0..2 {
        let gpu = Gpu::open(ordinal).unwrap();
        // 256 KB of points.
        (emulator.set_memory)(150_000);
        let found = topk_codes(&queries, &Points::codes(&gpu, &points).unwrap(), 50).unwrap();
        (emulator.set_memory)(0);
        assert!(found == topk::topk_codes(&queries, &Codes::pack(&points), 50).unwrap());
    }
}

#[test]
fn cosines_are_exact_also_where_codes_cannot_tell_points_apart() {
    on_each_gpu(|gpu| {
        let cols = 48;
        let points = Matrix::try_from_vec(400, cols, uniform(1, 400 * cols)).unwrap();
        let near = points.row(7).to_vec();
        // 300 points so near each other that their codes are equal.
        let mut close = points.clone();
        for i in 100..400 {
            let noise = uniform(i as u64, cols);
            for ((v, near), noise) in close.row_mut(i).iter_mut().zip(&near).zip(&noise) {
                *v = near + noise * 1e-4;
            }
        }
        let mut all = Vec::new();
        for points in [points, close] {
            let queries = points.gather(&[0, 7, 150, 399]);
            let found = CosineSearch::try_new(gpu, &points).unwrap().topk(&queries, 15).unwrap();
            assert!(found == Screened::try_new(&points).unwrap().topk(&queries, 15).unwrap());
            all.push(found);
        }
        all.len()
    });
}

#[test]
fn votes_are_counted_as_their_formula_says() {
    on_each_gpu(|gpu| {
        let (n, d) = (300, 20);
        let sample = norm::unit_rows(&Matrix::try_from_vec(n, d, uniform(1, n * d)).unwrap());
        let scale = SearchScale::of(&sample).unwrap();
        let codes = scale.codes(&sample).unwrap();
        let topics: Vec<i32> = (0..n as i32).map(|i| i * 13 % 5 - 1).collect();
        let voters = Voters::new(gpu, &codes, scale, &topics).unwrap();
        let rows = Matrix::try_from_vec(40, d, uniform(2, 40 * d)).unwrap();
        let near = topk::topk_codes(&scale.codes(&norm::unit_rows(&rows)).unwrap(), &Codes::pack(&codes), 9)
            .unwrap();
        let mut all = Vec::new();
        for outliers_abstain in [false, true] {
            let params = VoteParams { k: 9, listed: 3, threshold: 0.12, outliers_abstain };
            let votes = voters.label(rows.as_slice(), &params).unwrap();
            for row in 0..40 {
                let cast: Vec<(i32, i32)> = near
                    .indices
                    .row(row)
                    .iter()
                    .zip(near.scores.row(row))
                    .map(|(i, dot)| (topics[*i as usize], *dot))
                    .filter(|(topic, _)| *topic >= 0 || !outliers_abstain)
                    .collect();
                let mut ranked: Vec<(usize, usize, i32, f32)> = (-1..4)
                    .filter_map(|topic| {
                        let dots: Vec<i64> =
                            cast.iter().filter(|c| c.0 == topic).map(|c| i64::from(c.1)).collect();
                        let first = cast.iter().position(|c| c.0 == topic)?;
                        let mean = scale.similarity(dots.iter().sum::<i64>() as f64 / dots.len() as f64);
                        let score = (dots.len() as f64 / cast.len() as f64 * mean).clamp(0.0, 1.0) as f32;
                        Some((cast.len() - dots.len(), first, topic, score))
                    })
                    .collect();
                ranked.sort_by_key(|r| (r.0, r.1));
                let (_, _, topic, score) = ranked[0];
                assert_eq!(votes.scores[row], score);
                assert_eq!(votes.topics[row], if score < 0.12 { -1 } else { topic });
                let mut listed: Vec<(i32, f32)> =
                    ranked.iter().filter(|r| r.2 >= 0).take(3).map(|r| (r.2, r.3)).collect();
                listed.resize(3, (-1, 0.0));
                let found: Vec<(i32, f32)> = votes
                    .listed_topics
                    .row(row)
                    .iter()
                    .copied()
                    .zip(votes.listed_scores.row(row).iter().copied())
                    .collect();
                assert_eq!(found, listed, "row {row}");
            }
            all.push(votes);
        }
        // A row of the sample does not vote for itself: its nearest neighbour is another.
        let params = VoteParams { k: 1, listed: 0, threshold: 0.0, outliers_abstain: false };
        let part = codes.gather(&(100..150).collect::<Vec<u32>>());
        let others = voters.label_codes(&part, Some(100), &params).unwrap();
        let near = topk::topk_codes(&part, &Codes::pack(&codes), 2).unwrap();
        for row in 0..50 {
            let other = near.indices.row(row).iter().find(|&&i| i as usize != 100 + row).unwrap();
            let topic = topics[*other as usize];
            assert!(others.topics[row] == topic, "{row}");
        }
        all
    });
}
