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
//! - Cost: 2·m·n·k operations; parts of a panel outermost, so that they stay in the first cache while A streams from
//!   L2.
//! - All paths return the same bits as [`reference`].
//!
//! One call runs on one thread: callers split work by rows, which changes no bits.

use crate::simd::{dispatch, prefetch};
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
        Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx => {
            run::<12, 32>(a, b, c, c_stride, epilogue, isa, x86::tile_avx512)
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => run::<6, 16>(a, b, c, c_stride, epilogue, isa, x86::tile_avx2),
        _ => run::<4, 16>(a, b, c, c_stride, epilogue, isa, tile_portable),
    }
}

/// A tile kernel: writes the product of up to `MR` rows of A (from their first value on) and `NR` columns of a part of
/// a panel to `c`, or adds it to what is there if `add` says so.
type Tile = fn(a: Rows<'_>, panel: &[f32], c: &mut [f32], c_stride: usize, add: bool);

/// Steps of k at a time: a part of a panel is 24 KiB and stays in the first cache while all rows of A pass by.
const DEPTH: usize = 192;

/// Walks the tiles of C: panels outermost, then parts of k, then rows. Between two parts C holds the sums so far, so
/// that each value is one chain all the same.
fn run<const MR: usize, const NR: usize>(
    a: Rows<'_>,
    b: Panels<'_>,
    c: &mut [f32],
    c_stride: usize,
    epilogue: Epilogue<'_>,
    isa: Isa,
    tile: Tile,
) {
    for panel in 0..b.n.div_ceil(PANEL) {
        let values = b.panel(panel);
        for part in (0..PANEL).step_by(NR) {
            let column = panel * PANEL + part;
            if column >= b.n {
                break;
            }
            let columns = column..b.n.min(column + NR);
            let bias = match epilogue {
                Epilogue::Bias(bias) | Epilogue::BiasGelu(bias) => padded(&bias[columns.clone()]),
                Epilogue::None | Epilogue::Scale(_) => [0.0; NR],
            };
            // A product of no steps is zero, and has its epilogue too.
            for start in (0..b.k.max(1)).step_by(DEPTH) {
                let end = b.k.min(start + DEPTH);
                let values = &values[(start * PANEL + part).min(values.len())..end * PANEL];
                // The part that comes next, of which each tile's turn fetches a piece: weights come from far away.
                let passed = panel * b.k * PANEL + end * PANEL;
                let next = &b.panels[passed..b.panels.len().min(passed + DEPTH * PANEL)];
                let mut pieces = next.chunks(next.len().div_ceil(a.rows.div_ceil(MR)).max(1));
                for row in (0..a.rows).step_by(MR) {
                    pieces.next().into_iter().for_each(prefetch);
                    let rows = MR.min(a.rows - row);
                    let block = Rows { data: &a.data[row * a.stride + start..], rows, stride: a.stride };
                    let c = &mut c[row * c_stride + column..];
                    let (add, last) = (start > 0, end == b.k);
                    if columns.len() == NR {
                        tile(block, values, c, c_stride, add);
                        if last {
                            finish::<NR>(isa, c, rows, c_stride, &bias, epilogue);
                        }
                        continue;
                    }
                    // A tile that is wider than what is left of C.
                    let mut wide = [[0f32; NR]; MR];
                    for (i, wide) in wide[..rows].iter_mut().enumerate() {
                        wide[..columns.len()].copy_from_slice(&c[i * c_stride..][..columns.len()]);
                    }
                    tile(block, values, wide.as_flattened_mut(), NR, add);
                    if last {
                        finish::<NR>(isa, wide.as_flattened_mut(), rows, NR, &bias, epilogue);
                    }
                    for (i, wide) in wide[..rows].iter().enumerate() {
                        c[i * c_stride..][..columns.len()].copy_from_slice(&wide[..columns.len()]);
                    }
                }
            }
        }
    }
}

/// The values, and zeros where a tile is wider.
fn padded<const N: usize>(values: &[f32]) -> [f32; N] {
    let mut padded = [0.0; N];
    padded[..values.len()].copy_from_slice(values);
    padded
}

/// Applies the epilogue to the rows of a tile.
fn finish<const NR: usize>(
    isa: Isa,
    c: &mut [f32],
    rows: usize,
    c_stride: usize,
    bias: &[f32; NR],
    epilogue: Epilogue<'_>,
) {
    #[inline(always)]
    fn body<const NR: usize>(
        c: &mut [f32],
        rows: usize,
        c_stride: usize,
        bias: &[f32; NR],
        scale: f32,
        gelu: bool,
    ) {
        for row in 0..rows {
            let (values, _) = c[row * c_stride..].as_chunks_mut::<NR>();
            let values = &mut values[0];
            for (value, bias) in values.iter_mut().zip(bias) {
                *value = *value * scale + bias;
            }
            if gelu {
                activation::gelu_values(values);
            }
        }
    }
    let (scale, gelu) = match epilogue {
        Epilogue::None => return,
        Epilogue::Scale(scale) => (scale, false),
        Epilogue::Bias(_) => (1.0, false),
        Epilogue::BiasGelu(_) => (1.0, true),
    };
    dispatch!(
        isa,
        body::<NR>(c: &mut [f32], rows: usize, c_stride: usize, bias: &[f32; NR], scale: f32, gelu: bool)
    )
}

/// The plain tile. Rows past `a.rows` are left as they were.
fn tile_portable(a: Rows<'_>, panel: &[f32], c: &mut [f32], c_stride: usize, add: bool) {
    let k = panel.len().div_ceil(PANEL);
    for i in 0..a.rows {
        let sums = &mut c[i * c_stride..][..16];
        if !add {
            sums.fill(0.0);
        }
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

    /// 12 × 32 by AVX-512. Fewer rows take a smaller kernel.
    pub fn tile_avx512(a: Rows<'_>, panel: &[f32], c: &mut [f32], c_stride: usize, add: bool) {
        let k = panel.len() / PANEL;
        assert!(a.rows >= 1 && a.rows <= 12 && a.data.len() >= (a.rows - 1) * a.stride + k);
        assert!(c.len() >= (a.rows - 1) * c_stride + 32);
        let mut first = 0;
        while first < a.rows {
            let rows = a.rows - first;
            let block = a.data.as_ptr().wrapping_add(first * a.stride);
            let at = c.as_mut_ptr().wrapping_add(first * c_stride);
            // SAFETY: chosen by `Isa`, which saw AVX-512; the assertions bound A and C by `a.rows`, of which no kernel
            // takes more than are left; `panel` holds k · 32 values.
            first += unsafe {
                match rows {
                    12 => avx512::<12>(block, a.stride, panel.as_ptr(), k, at, c_stride, add),
                    8.. => avx512::<8>(block, a.stride, panel.as_ptr(), k, at, c_stride, add),
                    4.. => avx512::<4>(block, a.stride, panel.as_ptr(), k, at, c_stride, add),
                    2.. => avx512::<2>(block, a.stride, panel.as_ptr(), k, at, c_stride, add),
                    _ => avx512::<1>(block, a.stride, panel.as_ptr(), k, at, c_stride, add),
                }
            };
        }
    }

    /// Returns how many rows it took.
    #[target_feature(enable = "avx512f")]
    unsafe fn avx512<const MR: usize>(
        a: *const f32,
        stride: usize,
        panel: *const f32,
        k: usize,
        c: *mut f32,
        c_stride: usize,
        add: bool,
    ) -> usize {
        let mut sums = [[_mm512_setzero_ps(); 2]; MR];
        if add {
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: each row of C has 32 values.
                unsafe {
                    sums[0] = _mm512_loadu_ps(c.add(i * c_stride));
                    sums[1] = _mm512_loadu_ps(c.add(i * c_stride + 16));
                }
            }
        }
        for p in 0..k {
            // SAFETY: p < k, and the panel holds k · 32 values; each row of A has k values.
            unsafe {
                let b0 = _mm512_loadu_ps(panel.add(p * PANEL));
                let b1 = _mm512_loadu_ps(panel.add(p * PANEL + 16));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(i * stride + p));
                    sums[0] = _mm512_fmadd_ps(x, b0, sums[0]);
                    sums[1] = _mm512_fmadd_ps(x, b1, sums[1]);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            // SAFETY: as above.
            unsafe {
                _mm512_storeu_ps(c.add(i * c_stride), sums[0]);
                _mm512_storeu_ps(c.add(i * c_stride + 16), sums[1]);
            }
        }
        MR
    }

    /// 6 × 16 by AVX2 and FMA. Fewer rows take a smaller kernel.
    pub fn tile_avx2(a: Rows<'_>, panel: &[f32], c: &mut [f32], c_stride: usize, add: bool) {
        let k = panel.len().div_ceil(PANEL);
        assert!(a.rows >= 1 && a.rows <= 6 && a.data.len() >= (a.rows - 1) * a.stride + k);
        assert!(k == 0 || panel.len() >= (k - 1) * PANEL + 16);
        assert!(c.len() >= (a.rows - 1) * c_stride + 16);
        let mut first = 0;
        while first < a.rows {
            let rows = a.rows - first;
            let block = a.data.as_ptr().wrapping_add(first * a.stride);
            let at = c.as_mut_ptr().wrapping_add(first * c_stride);
            // SAFETY: chosen by `Isa`, which saw AVX2 and FMA; the assertions bound all operands.
            first += unsafe {
                match rows {
                    6 => avx2::<6>(block, a.stride, panel.as_ptr(), k, at, c_stride, add),
                    4.. => avx2::<4>(block, a.stride, panel.as_ptr(), k, at, c_stride, add),
                    2.. => avx2::<2>(block, a.stride, panel.as_ptr(), k, at, c_stride, add),
                    _ => avx2::<1>(block, a.stride, panel.as_ptr(), k, at, c_stride, add),
                }
            };
        }
    }

    /// Returns how many rows it took.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<const MR: usize>(
        a: *const f32,
        stride: usize,
        panel: *const f32,
        k: usize,
        c: *mut f32,
        c_stride: usize,
        add: bool,
    ) -> usize {
        let mut sums = [[_mm256_setzero_ps(); 2]; MR];
        if add {
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: each row of C has 16 values.
                unsafe {
                    sums[0] = _mm256_loadu_ps(c.add(i * c_stride));
                    sums[1] = _mm256_loadu_ps(c.add(i * c_stride + 8));
                }
            }
        }
        for p in 0..k {
            // SAFETY: p < k, and the panel holds 16 values from p · 32 on; each row of A has k values.
            unsafe {
                let b0 = _mm256_loadu_ps(panel.add(p * PANEL));
                let b1 = _mm256_loadu_ps(panel.add(p * PANEL + 8));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let x = _mm256_set1_ps(*a.add(i * stride + p));
                    sums[0] = _mm256_fmadd_ps(x, b0, sums[0]);
                    sums[1] = _mm256_fmadd_ps(x, b1, sums[1]);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            // SAFETY: as above.
            unsafe {
                _mm256_storeu_ps(c.add(i * c_stride), sums[0]);
                _mm256_storeu_ps(c.add(i * c_stride + 8), sums[1]);
            }
        }
        MR
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
