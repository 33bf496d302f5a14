//! The similarity curve of the layout: 1 / (1 + a·d^2b), fitted to what `min_dist` and `spread` ask for.
//!
//! Wanted is 1 below `min_dist` and exp(−(d − min_dist) / spread) beyond; a and b are the least-squares fit on 300
//! points of [0, 3·spread], as umap-learn takes them, found by Levenberg and Marquardt's method in f64.

/// The similarity of two laid-out points at distance d: 1 / (1 + a·d^2b).
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// How narrow it is.
    pub a: f32,
    /// How steep it is.
    pub b: f32,
}

impl Curve {
    /// Fits the curve; `spread` must be above 0 and `min_dist` in 0..=3·spread.
    pub fn fit(min_dist: f64, spread: f64) -> Self {
        let samples: Vec<(f64, f64)> = (0..POINTS)
            .map(|i| {
                let x = 3.0 * spread * i as f64 / (POINTS - 1) as f64;
                (x, if x < min_dist { 1.0 } else { (-(x - min_dist) / spread).exp() })
            })
            .collect();
        let (mut a, mut b) = (1.0, 1.0);
        let mut error = Normal::at(&samples, a, b).error;
        let mut damping = 1e-3;
        // Each round either lowers the error or raises the damping; some ten rounds suffice.
        for _ in 0..200 {
            let n = Normal::at(&samples, a, b);
            let (aa, bb) = (n.aa * (1.0 + damping), n.bb * (1.0 + damping));
            let determinant = aa * bb - n.ab * n.ab;
            let (da, db) = ((n.a * bb - n.b * n.ab) / determinant, (n.b * aa - n.a * n.ab) / determinant);
            let tried = Normal::at(&samples, a + da, b + db).error;
            // A step to a ≤ 0 or b ≤ 0 would leave the family of curves; NaN fails the comparison too.
            if a + da > 0.0 && b + db > 0.0 && tried <= error {
                (a, b, error) = (a + da, b + db, tried);
                damping /= 10.0;
                if da.abs() <= 1e-12 * a && db.abs() <= 1e-12 * b {
                    break;
                }
            } else {
                damping *= 10.0;
            }
        }
        Self { a: a as f32, b: b as f32 }
    }
}

/// Points of the grid that the curve is fitted on: umap-learn's number, since the fit depends on it.
const POINTS: usize = 300;

/// The normal equations of the residuals at one (a, b): JᵀJ, Jᵀr and the summed squares.
struct Normal {
    aa: f64,
    ab: f64,
    bb: f64,
    a: f64,
    b: f64,
    error: f64,
}

impl Normal {
    fn at(samples: &[(f64, f64)], a: f64, b: f64) -> Self {
        let mut sum = Self { aa: 0.0, ab: 0.0, bb: 0.0, a: 0.0, b: 0.0, error: 0.0 };
        for &(x, y) in samples {
            let power = x.powf(2.0 * b);
            let value = 1.0 / (1.0 + a * power);
            let residual = y - value;
            let by_a = -power * value * value;
            // At x = 0 the curve is 1 whatever b is.
            let by_b = if x > 0.0 { -2.0 * a * power * x.ln() * value * value } else { 0.0 };
            sum.aa += by_a * by_a;
            sum.ab += by_a * by_b;
            sum.bb += by_b * by_b;
            sum.a += by_a * residual;
            sum.b += by_b * residual;
            sum.error += residual * residual;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fit_is_that_of_scipys_least_squares() {
        // scipy 1.16 curve_fit on the same grid.
        for (min_dist, a, b) in
            [(0.1, 1.576943, 0.895061), (0.0, 1.932809, 0.790495), (0.001, 1.929074, 0.791504)]
        {
            let curve = Curve::fit(min_dist, 1.0);
            assert!((curve.a - a).abs() < 2e-6 && (curve.b - b).abs() < 2e-6, "{min_dist}: {curve:?}");
        }
    }

    #[test]
    fn a_wider_spread_scales_the_curve() {
        // In units of the spread the wanted curve is the same: b stays, a shrinks by spread^2b.
        let (one, three) = (Curve::fit(0.1, 1.0), Curve::fit(0.3, 3.0));
        assert!((one.b - three.b).abs() < 1e-4);
        assert!((three.a * 3f32.powf(2.0 * three.b) - one.a).abs() < 1e-3);
    }
}
