//! How similar two vectors are, as the model that made them wants it.
//!
//! sentence-transformers writes it into a model's `config_sentence_transformers.json` as `similarity_fn_name`; names and
//! signs are that library's: larger is more similar, so distances count negative.

use crate::{Error, Result};
use kernels::norm::{dot, squared_distance, unit_rows};
use kernels::{Isa, Matrix};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// A measure of similarity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Similarity {
    /// The cosine, −1 to 1: what a model means that says nothing.
    #[default]
    Cosine,
    /// The dot product.
    Dot,
    /// Less the Euclidean distance.
    Euclidean,
    /// Less the sum of the differences.
    Manhattan,
}

impl Similarity {
    /// The measure's name in job files and models.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::Euclidean => "euclidean",
            Self::Manhattan => "manhattan",
        }
    }

    /// How similar each row of `a` is to each of `b`: rows of `a` × rows of `b`.
    ///
    /// Fails where their widths differ.
    pub fn between(self, a: &Matrix<f32>, b: &Matrix<f32>) -> Result<Matrix<f32>> {
        if a.cols() != b.cols() {
            let reason = format!("{} and {} dimensions cannot be compared", a.cols(), b.cols());
            return Err(Error::setting("encoder", reason));
        }
        let isa = Isa::detect();
        let units = (self == Self::Cosine).then(|| (unit_rows(a), unit_rows(b)));
        let (a, b) = units.as_ref().map_or((a, b), |(a, b)| (a, b));
        let of = |x: &[f32], y: &[f32]| match self {
            Self::Cosine | Self::Dot => dot(isa, x, y),
            Self::Euclidean => -squared_distance(isa, x, y).sqrt(),
            Self::Manhattan => -x.iter().zip(y).map(|(x, y)| (x - y).abs()).sum::<f32>(),
        };
        let values: Vec<f32> = (0..a.rows())
            .into_par_iter()
            .flat_map_iter(|row| b.iter_rows().map(move |other| of(a.row(row), other)))
            .collect();
        Ok(Matrix::try_from_vec(a.rows(), b.rows(), values)?)
    }
}

impl std::str::FromStr for Similarity {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let all = [Self::Cosine, Self::Dot, Self::Euclidean, Self::Manhattan];
        all.into_iter().find(|similarity| similarity.name() == name).ok_or_else(|| {
            let names = all.map(Self::name).join(", ");
            format!("unknown similarity \"{name}\", expected one of {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_measure_is_what_its_name_says() {
        let a = Matrix::try_from_vec(1, 2, vec![3.0, 4.0]).unwrap();
        let b = Matrix::try_from_vec(2, 2, vec![6.0, 8.0, 0.0, 0.0]).unwrap();
        let of =
            |name: &str| name.parse::<Similarity>().unwrap().between(&a, &b).unwrap().as_slice().to_vec();
        assert_eq!(of("cosine"), [1.0, 0.0]);
        assert_eq!(of("dot"), [50.0, 0.0]);
        assert_eq!(of("euclidean"), [-5.0, -5.0]);
        assert_eq!(of("manhattan"), [-7.0, -7.0]);
        assert!("hamming".parse::<Similarity>().is_err());
        assert!(Similarity::Dot.between(&a, &Matrix::zeros(1, 3)).is_err());
    }
}
