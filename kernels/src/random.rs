//! Seeded numbers for tests.

use crate::Matrix;

/// Returns `n` numbers in [-1, 1) by SplitMix64 from `seed`.
pub fn uniform(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..n)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            // The top 24 bits: every value is exact in f32.
            (z >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        })
        .collect()
}

/// Returns rows × dims numbers in [0, 1) on a grid of `steps`: many ties and equal rows where that is small, nearly
/// none where it is large.
pub fn grid(rows: usize, dims: usize, steps: u64, seed: u64) -> Matrix<f32> {
    let mut state = seed;
    let values = (0..rows * dims).map(|_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % steps) as f32 / steps as f32
    });
    Matrix::try_from_vec(rows, dims, values.collect()).unwrap()
}
