//! Element-wise functions: GELU by erf, tanh, and the exponential that softmax needs.
//!
//! - Formulas: `gelu(x) = x/2 · (1 + erf(x/√2))`; `erf` by an odd rational function on [-4, 4] (Eigen's and XLA's
//!   coefficients, W. J. Cody's form), ±1 outside; `exp` by splitting off powers of two and a polynomial of degree 6.
//! - Accuracy against f64: erf within 4e-7 absolute, exp within 2 units in the last place, gelu within 1e-6·max(1,
//!   |x|).
//! - Written once in plain `mul_add`; every instruction set returns the same bits.

use crate::{Isa, simd::dispatch};

/// Replaces each value by GELU of it.
pub fn gelu(isa: Isa, x: &mut [f32]) {
    dispatch!(isa, gelu_values(x: &mut [f32]))
}

/// The body of [`gelu`], for kernels that are dispatched themselves.
#[inline(always)]
pub(crate) fn gelu_values(x: &mut [f32]) {
    x.iter_mut().for_each(|v| *v = gelu_of(*v));
}

/// GELU of one value.
#[inline(always)]
pub(crate) fn gelu_of(x: f32) -> f32 {
    let half = 0.5 * x;
    half.mul_add(erf(x * std::f32::consts::FRAC_1_SQRT_2), half)
}

/// GELU within 1.3e-4·max(1, |x|) of it, in half the time: for what is then rounded to 8 bits.
///
/// The normal distribution's Φ(x) − ½ by an odd polynomial of degree 13 (minimax on ±3.8 by Lawson's algorithm, the
/// error weighed by |x|), held at its ends outside: no division, which takes sixteen cycles.
#[inline(always)]
pub(crate) fn rough_gelu(x: f32) -> f32 {
    let near = x.clamp(-3.8, 3.8);
    let s = near * near;
    let mut p = 2.973_169_6e-8f32;
    p = p.mul_add(s, -1.933_051e-6);
    p = p.mul_add(s, 5.419_777_5e-5);
    p = p.mul_add(s, -8.707_593_7e-4);
    p = p.mul_add(s, 9.029_92e-3);
    p = p.mul_add(s, -6.510_182e-2);
    p = p.mul_add(s, 3.982_370_5e-1);
    x * near.mul_add(p, 0.5)
}

/// Replaces each value by its hyperbolic tangent.
pub fn tanh(isa: Isa, x: &mut [f32]) {
    #[inline(always)]
    fn body(x: &mut [f32]) {
        for v in x {
            // 1 - 2/(e^{2x} + 1): exact at both ends, since exp saturates.
            *v = 1.0 - 2.0 / (exp(2.0 * *v) + 1.0);
        }
    }
    dispatch!(isa, body(x: &mut [f32]))
}

/// The error function.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let mut p = -2.726_142_3e-10f32;
    p = p.mul_add(s, 2.770_681_4e-8);
    p = p.mul_add(s, -2.101_024e-6);
    p = p.mul_add(s, -5.692_506_4e-5);
    p = p.mul_add(s, -7.349_906_3e-4);
    p = p.mul_add(s, -2.954_6e-3);
    p = p.mul_add(s, -1.609_603_3e-2);
    let mut q = -1.456_607_2e-5f32;
    q = q.mul_add(s, -2.133_740_5e-4);
    q = q.mul_add(s, -1.682_827e-3);
    q = q.mul_add(s, -7.373_329e-3);
    q = q.mul_add(s, -1.426_473_9e-2);
    x * p / q
}

/// The exponential; it saturates at 1.2e-38 below -87.3 and at 1.7e38 above 88.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.3, 88.0);
    // n = round(x / ln 2) by adding 1.5 · 2^23, whose low bits then hold n.
    let shifted = x.mul_add(std::f32::consts::LOG2_E, 12_582_912.0);
    let n = shifted - 12_582_912.0;
    // ln 2 in two parts, so that x - n ln 2 is exact to the last bit.
    let r = n.mul_add(-0.693_145_75, x);
    let r = n.mul_add(-1.428_606_8e-6, r);
    let mut p = 1.388_889e-3f32;
    p = p.mul_add(r, 8.333_334e-3);
    p = p.mul_add(r, 4.166_666_8e-2);
    p = p.mul_add(r, 1.666_666_7e-1);
    p = p.mul_add(r, 0.5);
    p = p.mul_add(r, 1.0);
    p = p.mul_add(r, 1.0);
    // 2^n by building its exponent; n lies in -126..=127 after the clamp.
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    p * scale
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf in f64 by its Taylor series, which converges for the range tested.
    fn erf64(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    fn grid(from: f32, to: f32) -> Vec<f32> {
        (0..=20_000).map(|i| from + (to - from) * i as f32 / 20_000.0).collect()
    }

    #[test]
    fn erf_and_gelu_are_within_their_bounds() {
        for x in grid(-3.9, 3.9) {
            assert!((f64::from(erf(x)) - erf64(x.into())).abs() < 4e-7, "erf({x})");
            let mut y = [x];
            gelu(Isa::Portable, &mut y);
            let expected = 0.5 * f64::from(x) * (1.0 + erf64(f64::from(x) / 2f64.sqrt()));
            assert!((f64::from(y[0]) - expected).abs() < 1e-6 * f64::from(x.abs().max(1.0)), "gelu({x})");
        }
        for x in grid(-9.0, 9.0) {
            let mut exact = [x];
            gelu(Isa::Portable, &mut exact);
            assert!((rough_gelu(x) - exact[0]).abs() < 1.3e-4 * x.abs().max(1.0), "rough gelu({x})");
        }
        let mut far = [-30.0, 30.0, 0.0];
        gelu(Isa::detect(), &mut far);
        assert!((far[1] - 30.0).abs() < 1e-5 && far[0].abs() < 1e-5 && far[2] == 0.0);
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for x in grid(-87.0, 88.0) {
            let expected = f64::from(x).exp();
            assert!((f64::from(exp(x)) - expected).abs() <= expected * 2.4e-7, "exp({x}) = {}", exp(x));
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 1.3e-38);
    }

    #[test]
    fn tanh_is_right_at_both_ends_and_between() {
        let mut x = [-50.0, -1.0, 0.0, 0.5, 50.0];
        tanh(Isa::detect(), &mut x);
        for (y, expected) in x.iter().zip([-1.0, (-1f32).tanh(), 0.0, 0.5f32.tanh(), 1.0]) {
            assert!((y - expected).abs() < 3e-7);
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        // 37: two vectors of 16 and a remainder.
        let x = &crate::random::uniform(7, 37).iter().map(|v| v * 6.0).collect::<Vec<_>>();
        let run = |isa| {
            let mut y = x.clone();
            gelu(isa, &mut y);
            tanh(isa, &mut y[..20]);
            y
        };
        for isa in Isa::available() {
            assert_eq!(run(isa), run(Isa::Portable), "{}", isa.name());
        }
    }
}
