//! Seeded numbers for tests.

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
