//! Dense layers in 8-bit floats: rows of them, products, and what follows these. Only a GPU of compute capability 9.0
//! has them.

use super::linear::{gelu, silu};
use super::*;
use kernels::gpu::Indices;
use kernels::gpu::float8::{self, Float8Rows};
use kernels::gpu::linear::{Activation, Linear, Rotations};

const HALF: Half = Half::Float16;

/// Runs `test` as [`on_each_gpu`] does, where there are 8-bit floats.
fn on_each_gpu_with_float8<T: PartialEq>(test: impl Fn(&Arc<Gpu>) -> T) {
    on_each_gpu(|gpu| float8::serve(gpu).then(|| test(gpu)));
}

/// What the GPU makes of rows of halves.
fn rows_of(gpu: &Arc<Gpu>, x: &[u16], columns: usize) -> Float8Rows {
    let rows = x.len() / columns;
    // Room for more than is written, as in an encoder.
    let mut there = Float8Rows::new(gpu, rows + 3, columns + 16).unwrap();
    there.write(&gpu.upload(x).unwrap(), rows, columns).unwrap();
    there
}

/// The same by the formula: codes, and scales as bits.
fn expected_rows(x: &[f32], columns: usize) -> (Vec<u8>, Vec<u32>) {
    let largest = |row: &[f32]| row.iter().fold(0f32, |most, v| most.max(v.abs()));
    let codes = x.chunks_exact(columns).flat_map(|row| {
        let factor = if largest(row) > 0.0 { 448.0 / largest(row) } else { 0.0 };
        row.iter().map(move |v| float8::encode(v * factor))
    });
    (codes.collect(), x.chunks_exact(columns).map(|row| (largest(row) / 448.0).to_bits()).collect())
}

#[test]
fn rows_have_the_codes_and_scales_of_their_formula() {
    on_each_gpu_with_float8(|gpu| {
        // All halves there are, subnormal ones and those that are no numbers among them, in rows of numbers alike.
        let mut cases: Vec<(usize, Vec<u16>)> = vec![(512, (0..=u16::MAX).collect())];
        for columns in [8, 16, 136, 256, 264, 1040] {
            let mut x = encode(HALF, &uniform(columns as u64, 6 * columns));
            // All zeros; one number; one that is larger by far; one that is none.
            x[columns..2 * columns].fill(0);
            x[2 * columns..3 * columns].fill(0x8000);
            x[2 * columns + 3] = 1;
            x[3 * columns + columns / 2] = 0x7bff;
            x[4 * columns + columns - 1] = 0xfc00;
            x[5 * columns] = 0x7e00;
            cases.push((columns, x));
        }
        let mut all = Vec::new();
        for (columns, x) in cases {
            let (codes, scales) = rows_of(gpu, &x, columns).download(x.len() / columns).unwrap();
            let scales: Vec<u32> = scales.iter().map(|s| s.to_bits()).collect();
            let expected = expected_rows(&decode(HALF, &x), columns);
            assert!(codes == expected.0, "codes of {columns} columns");
            assert!(scales == expected.1, "scales of {columns} columns");
            all.push(codes);
        }
        all
    });
}

/// A layer and what goes in, as the numbers that the codes stand for.
struct Case {
    x: Vec<u16>,
    inputs: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Case {
    /// Rows and columns are of different sizes, up to a thousandfold.
    fn new(seed: u64, rows: usize, columns: usize, inputs: usize) -> Self {
        let sized = |seed, rows: usize| -> Vec<f32> {
            let size = |row: usize| 10f32.powi((row % 7) as i32 / 2 - 3);
            uniform(seed, rows * inputs).iter().enumerate().map(|(i, v)| v * size(i / inputs)).collect()
        };
        Self {
            x: encode(HALF, &sized(seed, rows)),
            inputs,
            weight: sized(seed + 1, columns),
            bias: uniform(seed + 2, columns),
        }
    }

    /// Sums of products plus bias in f64, and how far a GPU's may be from them.
    fn sums(&self) -> Vec<(f64, f64)> {
        let x = numbers(&decode(HALF, &self.x), self.inputs);
        let weight = numbers(&self.weight, self.inputs);
        // Sums in f32; on hardware, of 128 products each in four steps, each rounded down to 14 bits: what is known of
        // it, which no measurement of ours has confirmed yet.
        let emulated = emulator::load().is_some();
        let unit = if emulated { self.inputs as f64 * 2f64.powi(-24) } else { 4.0 * 2f64.powi(-13) }
            + 2f64.powi(-22);
        let sum = |row: &[f64], column: &[f64], bias: f32| {
            let products = row.iter().zip(column).map(|(a, b)| a * b);
            let (sum, sizes) = products.fold((0.0, 0.0), |(sum, sizes), p| (sum + p, sizes + p.abs()));
            (sum + f64::from(bias), unit * sizes + 2f64.powi(-23) * f64::from(bias.abs()))
        };
        let columns: Vec<&[f64]> = weight.chunks_exact(self.inputs).collect();
        x.chunks_exact(self.inputs)
            .flat_map(|row| columns.iter().zip(&self.bias).map(move |(column, bias)| sum(row, column, *bias)))
            .collect()
    }

    /// What a layer makes of the sums: each number, and how far a GPU's may be from it before it is rounded.
    fn expected(&self, activation: Activation) -> Vec<(f64, f64)> {
        let sums = self.sums();
        // The approximations of erf and of e^x; no slope of either curve is above 1.13.
        let curve = |f: fn(f64) -> f64| move |(v, off): (f64, f64)| (f(v), 1.13 * off + 2e-6 * v.abs());
        let gated = |f: fn(f64) -> f64| -> Vec<(f64, f64)> {
            sums.chunks_exact(self.bias.len())
                .flat_map(|row| {
                    let (gates, ups) = row.split_at(row.len() / 2);
                    gates.iter().zip(ups).map(move |(gate, (up, up_off))| {
                        let (gate, gate_off) = curve(f)(*gate);
                        (gate * up, gate_off * (up.abs() + up_off) + gate.abs() * up_off)
                    })
                })
                .collect()
        };
        match activation {
            Activation::None => sums,
            Activation::Gelu => sums.into_iter().map(curve(gelu)).collect(),
            Activation::GatedGelu => gated(gelu),
            Activation::GatedSilu => gated(silu),
        }
    }

    fn layer(&self, gpu: &Arc<Gpu>, activation: Activation) -> Linear {
        Linear::float8(gpu, &self.weight, &self.bias, activation).unwrap()
    }

    fn rows(&self) -> usize {
        self.x.len() / self.inputs
    }
}

/// What codes and scales make of rows of numbers.
fn numbers(values: &[f32], columns: usize) -> Vec<f64> {
    values
        .chunks_exact(columns)
        .flat_map(|row| {
            let most = row.iter().fold(0f32, |most, v| most.max(v.abs()));
            let code = move |v: &f32| float8::decode(float8::encode(v * (448.0 / most)));
            row.iter().map(move |v| f64::from(code(v)) * f64::from(most / 448.0))
        })
        .collect()
}

/// Fails at the first half that is further from its number than that may be off, and half a step between halves.
fn assert_rounded(found: &[u16], expected: &[(f64, f64)], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, (e, off))) in decode(HALF, found).iter().zip(expected).enumerate() {
        let bound = off + (e.abs() + off) * precision(HALF) + 2f64.powi(-25);
        assert!((f64::from(*f) - e).abs() <= bound, "{what}: {f} at {i}, expected {e} within {bound}");
    }
}

/// Less than a tile and much less than a stage; tiles that are not full in any direction; more steps than the ring has
/// stages; more tiles than multiprocessors, so that a block makes several; then any.
fn shapes() -> Vec<(usize, usize, usize)> {
    let mut shapes = vec![(3, 16, 16), (150, 208, 144), (130, 256, 784), (700, 432, 48)];
    for dice in uniform(11, 4 * 3).chunks_exact(3) {
        let any = |dice: f32, most: f32| ((dice + 1.0) / 2.0 * most) as usize + 1;
        shapes.push((any(dice[0], 290.0), 16 * any(dice[1], 24.0), 16 * any(dice[2], 40.0)));
    }
    shapes
}

#[test]
fn a_float8_layer_is_the_formula_of_its_codes_in_every_shape() {
    let activations = [Activation::None, Activation::Gelu, Activation::GatedGelu, Activation::GatedSilu];
    let cases: Vec<_> = shapes()
        .into_iter()
        .zip(0..)
        .flat_map(|((rows, columns, inputs), seed)| {
            // Each shape without an activation, and with one of those that there are.
            [activations[0], activations[1 + seed as usize % 3]].map(|activation| {
                let case = Case::new(10 * seed, rows, columns, inputs);
                let expected = case.expected(activation);
                (case, activation, expected)
            })
        })
        .collect();
    on_each_gpu_with_float8(|gpu| {
        let mut all = Vec::new();
        for (case, activation, expected) in &cases {
            let (layer, x) = (case.layer(gpu, *activation), rows_of(gpu, &case.x, case.inputs));
            let mut out = gpu.allocate(expected.len()).unwrap();
            layer.apply(&x, case.rows(), &mut out).unwrap();
            let bits = out.download(expected.len()).unwrap();
            let what = format!("{activation:?} {} x {} x {}", case.rows(), case.bias.len(), case.inputs);
            assert_rounded(&bits, expected, &what);
            all.push(bits);
        }
        all
    });
}

#[test]
fn queries_and_keys_in_float8_are_turned_by_their_positions() {
    let (rows, head) = (140, 32);
    let case = Case::new(1, rows, 3 * 2 * head, 32);
    let columns = case.bias.len();
    let positions: Vec<usize> = (0..rows).map(|i| i * 7 % 50).collect();
    let mut expected = case.sums();
    for (row, position) in expected.chunks_exact_mut(columns).zip(&positions) {
        for (pair, values) in row[..columns / 3 * 2].chunks_exact_mut(2).enumerate() {
            let i = pair % (head / 2);
            let (sine, cosine) = (*position as f64 / 10_000f64.powf(2.0 * i as f64 / head as f64)).sin_cos();
            let ((even, even_off), (odd, odd_off)) = (values[0], values[1]);
            let off = even_off + odd_off + 2f64.powi(-22) * (even.abs() + odd.abs());
            values[0] = (even * cosine - odd * sine, off);
            values[1] = (even * sine + odd * cosine, off);
        }
    }
    on_each_gpu_with_float8(|gpu| {
        let (layer, x) = (case.layer(gpu, Activation::None), rows_of(gpu, &case.x, case.inputs));
        let rotations = Rotations::new(gpu, 50, head, 10_000.0).unwrap();
        let mut out = gpu.allocate(rows * columns).unwrap();
        let mut positions_there = Indices::new(gpu, rows, 50).unwrap();
        positions_there.write(positions.iter().copied()).unwrap();
        layer.rotating(&x, rows, &mut out, &positions_there, &rotations).unwrap();
        let bits = out.download(rows * columns).unwrap();
        assert_rounded(&bits, &expected, "rotated");
        bits
    });
}

#[test]
fn a_float8_row_depends_on_itself_alone() {
    let case = Case::new(5, 300, 208, 272);
    let columns = case.bias.len();
    on_each_gpu_with_float8(|gpu| {
        let layer = case.layer(gpu, Activation::Gelu);
        let run = |x: &[u16]| {
            let rows = x.len() / case.inputs;
            let mut out = gpu.allocate(rows * columns).unwrap();
            layer.apply(&rows_of(gpu, x, case.inputs), rows, &mut out).unwrap();
            out.download(rows * columns).unwrap()
        };
        let together = run(&case.x);
        for row in [0, 1, 127, 128, 299] {
            let alone = run(&case.x[row * case.inputs..][..case.inputs]);
            assert!(alone == together[row * columns..][..columns], "row {row}");
        }
        together
    });
}

#[test]
fn numbers_that_are_none_stay_in_their_row_and_zeros_give_the_bias() {
    on_each_gpu_with_float8(|gpu| {
        let case = Case::new(8, 3, 16, 16);
        let mut x = case.x.clone();
        x[..16].fill(0);
        x[16] = 0x7c00;
        let mut out = gpu.allocate(3 * 16).unwrap();
        case.layer(gpu, Activation::None).apply(&rows_of(gpu, &x, 16), 3, &mut out).unwrap();
        let found = decode(HALF, &out.download(3 * 16).unwrap());
        assert_eq!(found[..16], rounded(HALF, &case.bias));
        assert!(found[16..32].iter().all(|v| v.is_nan()) && found[32..].iter().all(|v| v.is_finite()));
    });
}

#[test]
fn what_has_no_float8_is_refused() {
    on_each_gpu(|gpu| {
        let refused = |columns: usize, inputs: usize, activation| {
            let (weight, bias) = (vec![0.0; columns * inputs], vec![0.0; columns]);
            Linear::float8(gpu, &weight, &bias, activation).unwrap_err().to_string()
        };
        let shape = refused(16, 24, Activation::None);
        assert!(shape.contains("inputs in multiples of 16"), "{shape}");
        assert!(refused(24, 16, Activation::GatedGelu).contains("outputs in multiples of 16"));
        if !float8::serve(gpu) {
            let error = refused(16, 16, Activation::None);
            assert!(error.contains("compute capability 9.0; use float16"), "{error}");
            assert!(Float8Rows::new(gpu, 1, 16).unwrap_err().to_string() == error);
        }
    });
}
