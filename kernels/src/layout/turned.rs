//! Rows of eight turned into lanes and back, by AVX-512's shuffles.
//!
//! Sixteen rows of eight floats are sixteen loads and 21 to 24 shuffles; as gathers, five or more dimensions cost two
//! to three times as much. Data only moves here: no bit of it changes.

use super::lanes::{LANES, Vectors};
use std::arch::x86_64::*;

/// Reads the rows `rows` of `points`: of each its first `D` of 8 values.
///
/// # Safety
/// All rows must be of `points`, and the processor must have AVX-512 F and DQ.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) unsafe fn gather<const D: usize>(points: *const [f32; 8], rows: &[u32; LANES]) -> Vectors<D> {
    // SAFETY: the caller's rows, of eight values each.
    let row = |l: usize| unsafe { _mm256_loadu_ps(points.add(rows[l] as usize).cast()) };
    // Rows 0 to 3 above 4 to 7, then 8 to 11 above 12 to 15: in the end the quarters come out in order.
    let pairs: [__m512; 8] = std::array::from_fn(|i| {
        let first = i / 4 * 8 + i % 4;
        _mm512_insertf32x8::<1>(_mm512_castps256_ps512(row(first)), row(first + 4))
    });
    // A quarter of `fours[c]` has column c, or c + 4, of four rows.
    let fours = |half: &[__m512]| {
        let low = [_mm512_unpacklo_ps(half[0], half[1]), _mm512_unpacklo_ps(half[2], half[3])];
        let high = [_mm512_unpackhi_ps(half[0], half[1]), _mm512_unpackhi_ps(half[2], half[3])];
        [
            join_low(low[0], low[1]),
            join_high(low[0], low[1]),
            join_low(high[0], high[1]),
            join_high(high[0], high[1]),
        ]
    };
    let (first, second) = (fours(&pairs[..4]), fours(&pairs[4..]));
    let mut out = [[0f32; LANES]; D];
    for (d, out) in out.iter_mut().enumerate() {
        let column = match d / 4 {
            0 => _mm512_shuffle_f32x4::<0x88>(first[d % 4], second[d % 4]),
            _ => _mm512_shuffle_f32x4::<0xdd>(first[d % 4], second[d % 4]),
        };
        // SAFETY: sixteen floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), column) };
    }
    out
}

/// Turns lanes back: the first `D` of 8 values of each row, the others 0.
///
/// # Safety
/// The processor must have AVX-512 F and DQ.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) unsafe fn spread<const D: usize>(lanes: &Vectors<D>) -> [[f32; 8]; LANES] {
    let column = |d: usize| match lanes.get(d) {
        // SAFETY: sixteen floats.
        Some(column) => unsafe { _mm512_loadu_ps(column.as_ptr()) },
        None => _mm512_setzero_ps(),
    };
    // Quarter q of `rows[i]` has four values of row 4q + i.
    let rows = |d: usize| {
        let low =
            [_mm512_unpacklo_ps(column(d), column(d + 1)), _mm512_unpacklo_ps(column(d + 2), column(d + 3))];
        let high =
            [_mm512_unpackhi_ps(column(d), column(d + 1)), _mm512_unpackhi_ps(column(d + 2), column(d + 3))];
        [
            join_low(low[0], low[1]),
            join_high(low[0], low[1]),
            join_low(high[0], high[1]),
            join_high(high[0], high[1]),
        ]
    };
    let (first, second) = (rows(0), rows(4));
    // Two rows, four apart: the halves of quarters 0 and 1, or of 2 and 3.
    let early = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    let late = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    let mut out = [[0f32; 8]; LANES];
    for i in 0..4 {
        let (a, b) = (_mm512_castps_pd(first[i]), _mm512_castps_pd(second[i]));
        for (start, order) in [(0, early), (8, late)] {
            let two = _mm512_castpd_ps(_mm512_permutex2var_pd(a, order, b));
            // SAFETY: eight floats each.
            unsafe {
                _mm256_storeu_ps(out[start + i].as_mut_ptr(), _mm512_castps512_ps256(two));
                _mm256_storeu_ps(out[start + i + 4].as_mut_ptr(), _mm512_extractf32x8_ps::<1>(two));
            }
        }
    }
    out
}

/// The lower pairs of each quarter of both.
#[inline]
#[target_feature(enable = "avx512f")]
fn join_low(a: __m512, b: __m512) -> __m512 {
    _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
}

/// The upper pairs of each quarter of both.
#[inline]
#[target_feature(enable = "avx512f")]
fn join_high(a: __m512, b: __m512) -> __m512 {
    _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn rows_come_out_as_lanes_and_go_back() {
        if Isa::detect() < Isa::Avx512 {
            return;
        }
        let points: Vec<[f32; 8]> =
            (0..40).map(|i| std::array::from_fn(|d| if d < 5 { (10 * i + d) as f32 } else { 0.0 })).collect();
        let rows: [u32; LANES] = std::array::from_fn(|l| (l as u32 * 7 + 3) % 40);
        // SAFETY: the rows are there, and so is AVX-512.
        let (lanes, back) = unsafe {
            let lanes = gather::<5>(points.as_ptr(), &rows);
            (lanes, spread(&lanes))
        };
        for (l, &row) in rows.iter().enumerate() {
            assert!((0..5).all(|d| lanes[d][l] == points[row as usize][d]), "lane {l}");
            assert_eq!(back[l], points[row as usize]);
        }
    }
}
