//! Attention over ragged texts.

use super::*;
use kernels::gpu::attention::{Bias, Work, attention};

/// Lengths around those at which the kernel changes its way, and at which tiles of keys end.
const LENGTHS: [usize; 12] = [1, 5, 16, 17, 31, 32, 33, 63, 64, 65, 130, 200];

struct Case {
    heads: usize,
    width: usize,
    half: Half,
    slopes: Option<Vec<f32>>,
    offsets: Option<(Vec<f32>, usize)>,
}

fn offsets_of(lengths: &[usize]) -> Vec<usize> {
    let mut at = 0;
    let ends = lengths.iter().map(|length| {
        at += length;
        at
    });
    [0].into_iter().chain(ends).collect()
}

impl Case {
    fn run(&self, gpu: &Arc<Gpu>, query_key_value: &[u16], offsets: &[usize]) -> Vec<u16> {
        let tokens = offsets[offsets.len() - 1];
        let hidden = self.heads * self.width;
        let bias = match (&self.slopes, &self.offsets) {
            (Some(slopes), _) => Bias::distance(gpu, slopes).unwrap(),
            (_, Some((table, reach))) => Bias::offsets(gpu, table, *reach).unwrap(),
            _ => Bias::None,
        };
        // More room than is needed: blocks without work must leave.
        let longest = self.offsets.as_ref().map_or(tokens, |(_, reach)| *reach);
        let mut work = Work::with_longest(gpu, tokens, offsets.len() + 3, self.heads, longest).unwrap();
        work.list(offsets).unwrap();
        let mut out = gpu.allocate(tokens * hidden).unwrap();
        let input = gpu.upload(query_key_value).unwrap();
        attention(self.half, &input, &mut out, self.width, &work, &bias).unwrap();
        out.download(tokens * hidden).unwrap()
    }

    fn expected(&self, query_key_value: &[f32], offsets: &[usize]) -> Vec<f64> {
        let hidden = self.heads * self.width;
        let at = |token: usize, part: usize, head: usize, i: usize| {
            f64::from(query_key_value[token * 3 * hidden + part * hidden + head * self.width + i])
        };
        let mut out = vec![0.0; offsets[offsets.len() - 1] * hidden];
        for text in offsets.windows(2) {
            for head in 0..self.heads {
                for query in text[0]..text[1] {
                    let scores: Vec<f64> = (text[0]..text[1])
                        .map(|key| {
                            let dot: f64 =
                                (0..self.width).map(|i| at(query, 0, head, i) * at(key, 1, head, i)).sum();
                            let mut score = dot / (self.width as f64).sqrt();
                            if let Some(slopes) = &self.slopes {
                                score -= f64::from(slopes[head]) * query.abs_diff(key) as f64;
                            }
                            if let Some((table, reach)) = &self.offsets {
                                score += f64::from(table[head * (2 * reach - 1) + key + reach - 1 - query]);
                            }
                            score
                        })
                        .collect();
                    let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for i in 0..self.width {
                        let sum: f64 =
                            weights.iter().enumerate().map(|(k, w)| w * at(text[0] + k, 2, head, i)).sum();
                        out[query * hidden + head * self.width + i] = sum / total;
                    }
                }
            }
        }
        out
    }

    fn check(&self, gpu: &Arc<Gpu>, what: &str) -> Vec<u16> {
        let offsets = offsets_of(&LENGTHS);
        let hidden = self.heads * self.width;
        let values: Vec<f32> =
            uniform(1, offsets[LENGTHS.len()] * 3 * hidden).iter().map(|v| v * 2.0).collect();
        let bits = encode(self.half, &values);
        let found = self.run(gpu, &bits, &offsets);
        let expected = self.expected(&decode(self.half, &bits), &offsets);
        // Weights are rounded to halves, and the output once more.
        assert_near(self.half, &decode(self.half, &found), &expected, 3.0, 0.5, what);
        // A text's numbers are the same when it comes alone.
        for text in offsets.windows(2).filter(|text| [1, 17, 65].contains(&(text[1] - text[0]))) {
            let alone =
                self.run(gpu, &bits[text[0] * 3 * hidden..text[1] * 3 * hidden], &[0, text[1] - text[0]]);
            assert!(alone == found[text[0] * hidden..text[1] * hidden], "{what}: {text:?} alone");
        }
        found
    }
}

#[test]
fn attention_is_its_formula_at_every_length() {
    on_each_gpu(|gpu| {
        // Three heads: less than a block takes of short texts.
        let plain = Case { heads: 3, width: 32, half: Half::Float16, slopes: None, offsets: None };
        let wide = Case { heads: 2, width: 64, half: Half::BFloat16, slopes: None, offsets: None };
        [plain.check(gpu, "32 wide"), wide.check(gpu, "64 wide, bfloat16")]
    });
}

#[test]
fn biases_by_distance_and_by_offset_are_added_to_scores() {
    on_each_gpu(|gpu| {
        let slopes = Some(vec![0.5, 0.25]);
        let by_distance = Case { heads: 2, width: 64, half: Half::Float16, slopes, offsets: None };
        let table: Vec<f32> = uniform(9, 5 * 401).iter().map(|v| v * 3.0).collect();
        let offsets = Some((table, 201));
        let by_offset = Case { heads: 5, width: 32, half: Half::BFloat16, slopes: None, offsets };
        [by_distance.check(gpu, "by distance"), by_offset.check(gpu, "by offset")]
    });
}
