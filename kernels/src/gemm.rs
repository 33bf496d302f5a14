//! Matrix product with a packed right side: C = A · B, f32.
//!
//! One idea: each value of C is one chain of fused multiply-adds over k, from 0 upwards, whatever the tile, the
//! instruction set or the number of rows. So C's bits depend on one row of A and one column of B alone: this is why
//! a text's vector does not depend on its batch.
//!
//! - Formula: `c[i][j] = Σ_p a[i][p] · b[p][j]`, then the [`Epilogue`].
//! - Layout: A row-major with any row stride; B in panels of 32 columns, each `k × 32`, zero-padded ([`Packed`]).
//! - Accumulation: f32, one chain, fused.
//! - Tiles: 12 × 32 (AVX-512: 24 of 32 registers accumulate), 6 × 16 (AVX2: 12 of 16), 4 × 16 elsewhere.
//! - Cost: 2·m·n·k operations; panels outermost, so that a panel stays in the first caches while A streams from L2.
//! - All paths return the same bits as [`reference`].
//!
//! One call runs on one thread: callers split work by rows, which changes no bits.

use crate::{Isa, activation};

/// Columns of a panel.
pub(crate) const PANEL: usize = 32;

/// The right side of a product, packed once: panels of 32 columns, each `k` rows of 32 values.
#[derive(Debug, Clone, Default)]
pub struct Packed {
    k: usize,
    n: usize,
    panels: Vec<f32>,
}

impl Packed {
    /// Packs `weight`, stored as PyTorch stores a linear layer: `n` outputs × `k` inputs, row-major.
    pub fn from_linear(weight: &[f32], n: usize, k: usize) -> Self {
        let mut packed = Self::default();
        packed.repack(n, k, |p, j| weight[j * k + p]);
        packed
    }

    /// Packs `k × n` values given by `at(row, column)`, reusing this buffer.
    #[inline(always)]
    pub fn repack(&mut self, n: usize, k: usize, at: impl Fn(usize, usize) -> f32) {
        (self.k, self.n) = (k, n);
        self.panels.clear();
        self.panels.resize(n.div_ceil(PANEL) * k * PANEL, 0.0);
        for (panel, values) in self.panels.chunks_exact_mut(k.max(1) * PANEL).enumerate() {
            let first = panel * PANEL;
            let width = PANEL.min(n - first);
            for (p, row) in values.chunks_exact_mut(PANEL).enumerate() {
                for (j, value) in row[..width].iter_mut().enumerate() {
                    *value = at(p, first + j);
                }
            }
        }
    }

    /// Rows of B (the length of the sums).
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns of B.
    pub fn n(&self) -> usize {
        self.n
    }

    /// All of it, to multiply by.
    pub fn view(&self) -> Panels<'_> {
        self.columns(0, self.n)
    }

    /// The `n` columns from `first` on, which must be a multiple of 32.
    pub(crate) fn columns(&self, first: usize, n: usize) -> Panels<'_> {
        let panels =
            &self.panels[first / PANEL * self.k * PANEL..(first + n).div_ceil(PANEL) * self.k * PANEL];
        Panels { k: self.k, n, panels }
    }
}

/// Some columns of a packed right side.
#[derive(Debug, Clone, Copy)]
pub struct Panels<'a> {
    k: usize,
    n: usize,
    panels: &'a [f32],
}

impl<'a> Panels<'a> {
    /// Panel `i`: `k × 32` values.
    fn panel(&self, i: usize) -> &'a [f32] {
        &self.panels[i * self.k * PANEL..(i + 1) * self.k * PANEL]
    }
}

/// What happens to a value of C before it is stored.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// Nothing.
    None,
    /// Times a number.
    Scale(f32),
    /// Plus the bias of its column.
    Bias(&'a [f32]),
    /// Plus the bias of its column, then GELU by erf.
    BiasGelu(&'a [f32]),
}

/// Rows of A, or of C: `rows` of them, `stride` values apart.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The values; row `i` starts at `i * stride`.
    pub data: &'a [f32],
    /// How many rows.
    pub rows: usize,
    /// Values from one row's start to the next one's.
    pub stride: usize,
}

/// Computes C = A · B and stores it into `c`, whose rows lie `c_stride` values apart.
///
/// # Panics
/// If `a` is shorter than its rows of `b.k()` values, `c` than its rows of `b.n()`, or a bias than `b.n()`.
pub fn gemm(isa: Isa, a: Rows<'_>, b: Panels<'_>, c: &mut [f32], c_stride: usize, epilogue: Epilogue<'_>) {
    if a.rows == 0 || b.n == 0 {
        return;
    }
    assert!(a.data.len() >= (a.rows - 1) * a.stride + b.k, "a holds its rows");
    assert!(c.len() >= (a.rows - 1) * c_stride + b.n && c_stride >= b.n, "c holds its rows");
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Vnni => run::<12, 32>(a, b, c, c_stride, epilogue, isa, x86::tile_avx512_12),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => run::<6, 16>(a, b, c, c_stride, epilogue, isa, x86::tile_avx2_6),
        _ => run::<4, 16>(a, b, c, c_stride, epilogue, isa, tile_portable),
    }
}

/// A tile kernel: `MR` rows of A (`stride` apart) times `NR` columns of a panel, into `out`.
type Tile<const MR: usize, const NR: usize> = fn(a: Rows<'_>, panel: &[f32], out: &mut [[f32; NR]; MR]);

/// Walks the tiles of C: panels outermost, then rows.
fn run<const MR: usize, const NR: usize>(
    a: Rows<'_>,
    b: Panels<'_>,
    c: &mut [f32],
    c_stride: usize,
    epilogue: Epilogue<'_>,
    isa: Isa,
    tile: Tile<MR, NR>,
) {
    let mut out = [[0f32; NR]; MR];
    for panel in 0..b.n.div_ceil(PANEL) {
        let values = b.panel(panel);
        for part in (0..PANEL).step_by(NR) {
            let column = panel * PANEL + part;
            if column >= b.n {
                break;
            }
            let width = NR.min(b.n - column);
            for row in (0..a.rows).step_by(MR) {
                let rows = MR.min(a.rows - row);
                let block = Rows { data: &a.data[row * a.stride..], rows, stride: a.stride };
                tile(block, &values[part.min(values.len())..], &mut out);
                for (i, values) in out[..rows].iter_mut().enumerate() {
                    finish(isa, &mut values[..width], column, epilogue);
                    let at = (row + i) * c_stride + column;
                    c[at..at + width].copy_from_slice(&values[..width]);
                }
            }
        }
    }
}

/// Applies the epilogue to values of one row of C that start at `column`.
#[inline]
fn finish(isa: Isa, values: &mut [f32], column: usize, epilogue: Epilogue<'_>) {
    match epilogue {
        Epilogue::None => {}
        Epilogue::Scale(scale) => values.iter_mut().for_each(|v| *v *= scale),
        Epilogue::Bias(bias) | Epilogue::BiasGelu(bias) => {
            let bias = &bias[column..column + values.len()];
            for (value, bias) in values.iter_mut().zip(bias) {
                *value += bias;
            }
            if matches!(epilogue, Epilogue::BiasGelu(_)) {
                activation::gelu(isa, values);
            }
        }
    }
}

/// The plain tile. Rows past `a.rows` are left as they were.
fn tile_portable(a: Rows<'_>, panel: &[f32], out: &mut [[f32; 16]; 4]) {
    let k = panel.len().div_ceil(PANEL);
    for (i, sums) in out[..a.rows].iter_mut().enumerate() {
        *sums = [0.0; 16];
        let row = &a.data[i * a.stride..i * a.stride + k];
        for (x, b) in row.iter().zip(panel.chunks(PANEL)) {
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = x.mul_add(*b, *sum);
            }
        }
    }
}

/// The definition, which every path equals bit for bit.
#[cfg(test)]
pub(crate) fn reference(a: Rows<'_>, b: Panels<'_>) -> Vec<f32> {
    let mut c = vec![0f32; a.rows * b.n];
    for i in 0..a.rows {
        for j in 0..b.n {
            let panel = b.panel(j / PANEL);
            c[i * b.n + j] = (0..b.k)
                .fold(0f32, |sum, p| a.data[i * a.stride + p].mul_add(panel[p * PANEL + j % PANEL], sum));
        }
    }
    c
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{PANEL, Rows};
    use std::arch::x86_64::*;

    /// 12 × 32 by AVX-512. Fewer rows take the smallest of the kernels 2, 4, 8, 11, 12 that holds them.
    pub fn tile_avx512_12(a: Rows<'_>, panel: &[f32], out: &mut [[f32; 32]; 12]) {
        let k = panel.len() / PANEL;
        assert!(a.rows >= 1 && a.rows <= 12 && a.data.len() >= (a.rows - 1) * a.stride + k);
        // SAFETY: chosen by `Isa`, which saw AVX-512; the assertion bounds A, `panel` holds k · 32 values. Kernels of
        // more rows than `a.rows` read row `a.rows - 1` again instead of what is not there.
        unsafe {
            match a.rows {
                12 => avx512::<12>(a, panel.as_ptr(), k, out),
                9..12 => avx512::<11>(a, panel.as_ptr(), k, out),
                5..9 => avx512::<8>(a, panel.as_ptr(), k, out),
                3..5 => avx512::<4>(a, panel.as_ptr(), k, out),
                _ => avx512::<2>(a, panel.as_ptr(), k, out),
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn avx512<const MR: usize>(a: Rows<'_>, panel: *const f32, k: usize, out: &mut [[f32; 32]; 12]) {
        let mut sums = [[_mm512_setzero_ps(); 2]; MR];
        let rows: [*const f32; MR] =
            std::array::from_fn(|i| a.data.as_ptr().wrapping_add(i.min(a.rows - 1) * a.stride));
        for p in 0..k {
            // SAFETY: p < k, and the panel holds k · 32 values; each row pointer has k values behind it.
            unsafe {
                let b0 = _mm512_loadu_ps(panel.add(p * PANEL));
                let b1 = _mm512_loadu_ps(panel.add(p * PANEL + 16));
                for i in 0..MR {
                    let x = _mm512_set1_ps(*rows[i].add(p));
                    sums[i][0] = _mm512_fmadd_ps(x, b0, sums[i][0]);
                    sums[i][1] = _mm512_fmadd_ps(x, b1, sums[i][1]);
                }
            }
        }
        for (sums, out) in sums.iter().zip(out) {
            // SAFETY: `out` holds 32 values.
            unsafe {
                _mm512_storeu_ps(out.as_mut_ptr(), sums[0]);
                _mm512_storeu_ps(out.as_mut_ptr().add(16), sums[1]);
            }
        }
    }

    /// 6 × 16 by AVX2 and FMA.
    pub fn tile_avx2_6(a: Rows<'_>, panel: &[f32], out: &mut [[f32; 16]; 6]) {
        let k = panel.len().div_ceil(PANEL);
        assert!(a.rows >= 1 && a.rows <= 6 && a.data.len() >= (a.rows - 1) * a.stride + k);
        assert!(k == 0 || panel.len() >= (k - 1) * PANEL + 16);
        // SAFETY: chosen by `Isa`, which saw AVX2 and FMA; the assertions bound both operands.
        unsafe {
            match a.rows {
                5..=6 => avx2::<6>(a, panel.as_ptr(), k, out),
                3..5 => avx2::<4>(a, panel.as_ptr(), k, out),
                _ => avx2::<2>(a, panel.as_ptr(), k, out),
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<const MR: usize>(a: Rows<'_>, panel: *const f32, k: usize, out: &mut [[f32; 16]; 6]) {
        let mut sums = [[_mm256_setzero_ps(); 2]; MR];
        let rows: [*const f32; MR] =
            std::array::from_fn(|i| a.data.as_ptr().wrapping_add(i.min(a.rows - 1) * a.stride));
        for p in 0..k {
            // SAFETY: p < k, and the panel holds 16 values from p · 32 on; each row pointer has k values behind it.
            unsafe {
                let b0 = _mm256_loadu_ps(panel.add(p * PANEL));
                let b1 = _mm256_loadu_ps(panel.add(p * PANEL + 8));
                for i in 0..MR {
                    let x = _mm256_set1_ps(*rows[i].add(p));
                    sums[i][0] = _mm256_fmadd_ps(x, b0, sums[i][0]);
                    sums[i][1] = _mm256_fmadd_ps(x, b1, sums[i][1]);
                }
            }
        }
        for (sums, out) in sums.iter().zip(out) {
            // SAFETY: `out` holds 16 values.
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), sums[0]);
                _mm256_storeu_ps(out.as_mut_ptr().add(8), sums[1]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    /// One row, one short of a tile, a whole tile, one more; columns around half a panel, a panel and two; the
    /// sums' lengths of a head, of nothing and of a hidden layer.
    const SHAPES: [(usize, usize, usize); 8] = [
        (1, 1, 1),
        (3, 15, 32),
        (5, 17, 7),
        (6, 32, 33),
        (11, 33, 384),
        (12, 64, 0),
        (13, 31, 5),
        (25, 65, 48),
    ];

    #[test]
    fn every_instruction_set_gives_the_bits_of_the_definition() {
        for (m, n, k) in SHAPES {
            let stride = k + 3;
            let a = uniform(1, m * stride);
            let b = Packed::from_linear(&uniform(2, n * k), n, k);
            let a = Rows { data: &a, rows: m, stride };
            let expected = reference(a, b.view());
            for isa in Isa::available() {
                let mut c = vec![f32::NAN; m * n];
                gemm(isa, a, b.view(), &mut c, n, Epilogue::None);
                assert_eq!(c, expected, "{m} x {n} x {k} on {}", isa.name());
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others() {
        let (m, n, k) = (29, 70, 100);
        let a = uniform(3, m * k);
        let b = Packed::from_linear(&uniform(4, n * k), n, k);
        let mut all = vec![0f32; m * n];
        let isa = Isa::detect();
        let bias = uniform(5, n);
        gemm(isa, Rows { data: &a, rows: m, stride: k }, b.view(), &mut all, n, Epilogue::BiasGelu(&bias));
        for i in 0..m {
            let mut one = vec![0f32; n];
            let row = Rows { data: &a[i * k..], rows: 1, stride: k };
            gemm(isa, row, b.view(), &mut one, n, Epilogue::BiasGelu(&bias));
            assert_eq!(one, all[i * n..(i + 1) * n]);
        }
    }

    #[test]
    fn scale_and_bias_are_applied_per_column() {
        let b = Packed::from_linear(&[1.0, 2.0, 3.0], 3, 1);
        let a = Rows { data: &[2.0], rows: 1, stride: 1 };
        let mut c = [0f32; 3];
        gemm(Isa::detect(), a, b.view(), &mut c, 3, Epilogue::Bias(&[10.0, 20.0, 30.0]));
        assert_eq!(c, [12.0, 24.0, 36.0]);
        gemm(Isa::detect(), a, b.view(), &mut c, 3, Epilogue::Scale(0.5));
        assert_eq!(c, [1.0, 2.0, 3.0]);
    }
}
