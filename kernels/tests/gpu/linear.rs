//! Dense layers: products, and what follows them.

use super::*;
use kernels::gpu::Indices;
use kernels::gpu::linear::{Activation, Linear, Rotations};

/// rows, columns, inputs: less than a tile and much less than a stage; tiles that are not full in any direction; more
/// steps than the ring has stages; more tiles than multiprocessors, so that a block makes several.
const SHAPES: [(usize, usize, usize); 4] = [(3, 16, 8), (150, 208, 72), (130, 256, 392), (700, 432, 40)];

fn erf(x: f64) -> f64 {
    // The series around 0, whose terms cancel to 1e-9 at most; beyond, the complement is below 3e-9.
    if x.abs() < 4.2 {
        let mut term = x;
        let mut sum = x;
        for n in 1..120 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * 2.0 / std::f64::consts::PI.sqrt();
    }
    x.signum()
}

pub fn gelu(x: f64) -> f64 {
    x / 2.0 * (1.0 + erf(x / 2f64.sqrt()))
}

pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// x w' + bias, in f64, of numbers as the halves hold them.
fn product(x: &[f32], w: &[f32], bias: &[f32], inputs: usize) -> Vec<f64> {
    let rows = x.chunks_exact(inputs);
    rows.flat_map(|row| {
        w.chunks_exact(inputs).zip(bias).map(|(column, bias)| {
            row.iter().zip(column).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() + f64::from(*bias)
        })
    })
    .collect()
}

#[test]
fn a_dense_layer_is_its_formula_in_every_shape() {
    on_each_gpu(|gpu| {
        let mut all = Vec::new();
        for (rows, columns, inputs) in SHAPES {
            for half in [Half::Float16, Half::BFloat16] {
                let x = rounded(half, &uniform(1, rows * inputs));
                let w = rounded(half, &uniform(2, columns * inputs));
                let bias = uniform(3, columns);
                let plain = product(&x, &w, &bias, inputs);
                // Sums of `inputs` products of f32: their error is far below a rounding to halves.
                let scale = (inputs as f64).sqrt();
                let input = gpu.upload(&encode(half, &x)).unwrap();
                for activation in
                    [Activation::None, Activation::Gelu, Activation::GatedGelu, Activation::GatedSilu]
                {
                    let layer = Linear::new(gpu, half, &w, &bias, activation).unwrap();
                    let expected: Vec<f64> = match activation {
                        Activation::None => plain.clone(),
                        Activation::Gelu => plain.iter().map(|v| gelu(*v)).collect(),
                        Activation::GatedGelu | Activation::GatedSilu => plain
                            .chunks_exact(columns)
                            .flat_map(|row| {
                                let (gates, ups) = row.split_at(columns / 2);
                                let gate = if activation == Activation::GatedGelu { gelu } else { silu };
                                gates.iter().zip(ups).map(move |(g, u)| gate(*g) * u)
                            })
                            .collect(),
                    };
                    let mut out = gpu.allocate(rows * layer.outputs()).unwrap();
                    layer.apply(&input, rows, &mut out).unwrap();
                    let bits = out.download(expected.len()).unwrap();
                    let what = format!("{gpu:?} {half:?} {activation:?} {rows} x {columns} x {inputs}");
                    assert_near(half, &decode(half, &bits), &expected, 1.05, 0.01 * scale, &what);
                    all.push(bits);
                }
            }
        }
        all
    });
}

#[test]
fn a_row_depends_on_itself_alone() {
    on_each_gpu(|gpu| {
        let (inputs, columns) = (136, 192);
        let w = uniform(5, columns * inputs);
        let layer = Linear::new(gpu, Half::Float16, &w, &uniform(6, columns), Activation::Gelu).unwrap();
        let x = encode(Half::Float16, &uniform(7, 300 * inputs));
        let run = |x: &[u16]| {
            let rows = x.len() / inputs;
            let mut out = gpu.allocate(rows * columns).unwrap();
            layer.apply(&gpu.upload(x).unwrap(), rows, &mut out).unwrap();
            out.download(rows * columns).unwrap()
        };
        let together = run(&x);
        for row in [0, 1, 127, 128, 299] {
            let alone = run(&x[row * inputs..][..inputs]);
            assert!(alone == together[row * columns..][..columns], "row {row}");
        }
        together
    });
}

#[test]
fn queries_and_keys_are_turned_by_their_positions() {
    on_each_gpu(|gpu| {
        let (rows, inputs, head) = (140, 16, 32);
        let columns = 3 * 2 * head;
        let half = Half::Float16;
        let (x, w) =
            (rounded(half, &uniform(1, rows * inputs)), rounded(half, &uniform(2, columns * inputs)));
        let bias = uniform(3, columns);
        let positions: Vec<usize> = (0..rows).map(|i| i * 7 % 50).collect();
        let layer = Linear::new(gpu, half, &w, &bias, Activation::None).unwrap();
        let rotations = Rotations::new(gpu, 50, head, 10_000.0).unwrap();
        let mut out = gpu.allocate(rows * columns).unwrap();
        let (x_there, mut positions_there) =
            (gpu.upload(&encode(half, &x)).unwrap(), Indices::new(gpu, rows, 50).unwrap());
        positions_there.write(positions.iter().copied()).unwrap();
        layer.rotating(&x_there, rows, &mut out, &positions_there, &rotations).unwrap();
        let mut expected = product(&x, &w, &bias, inputs);
        for (row, position) in expected.chunks_exact_mut(columns).zip(&positions) {
            for (pair, values) in row[..columns / 3 * 2].chunks_exact_mut(2).enumerate() {
                let i = pair % (head / 2);
                let angle = *position as f64 / 10_000f64.powf(2.0 * i as f64 / head as f64);
                let (even, odd) = (values[0], values[1]);
                values[0] = even * angle.cos() - odd * angle.sin();
                values[1] = even * angle.sin() + odd * angle.cos();
            }
        }
        let bits = out.download(rows * columns).unwrap();
        assert_near(half, &decode(half, &bits), &expected, 1.01, 0.1, "rotated");
        bits
    });
}

#[test]
fn shapes_that_tensor_cores_cannot_take_are_refused() {
    on_each_gpu(|gpu| {
        let refused = |columns: usize, inputs: usize, activation| {
            let error = Linear::new(
                gpu,
                Half::Float16,
                &vec![0.0; columns * inputs],
                &vec![0.0; columns],
                activation,
            );
            error.unwrap_err().to_string()
        };
        assert!(refused(8, 12, Activation::None).contains("multiples of 8"));
        assert!(refused(12, 8, Activation::None).contains("multiples of 8"));
        assert!(refused(24, 8, Activation::GatedGelu).contains("multiples of 16"));
    });
}
