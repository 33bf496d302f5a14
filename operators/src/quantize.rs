//! Embeddings as an Arrow column, in the precision a user asks for.
//!
//! A [`Quantizer`] is checked once, before any row is read, and then turns each batch's embeddings into a fixed-size
//! list column. The codes are those of `kernels::quantize`: sentence-transformers' bytes.

use crate::{Error, Result};
use arrow::array::{ArrayRef, ArrowPrimitiveType, FixedSizeListArray, PrimitiveArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Int8Type, UInt8Type};
use kernels::Matrix;
use kernels::gpu::quantize::Code;
use kernels::quantize::{self, Ranges, Rule};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

/// What each number of an embedding is stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats; the default, because nothing is lost.
    #[default]
    Float32,
    /// 8-bit integers from −128 to 127, by the ranges of a calibration set.
    Int8,
    /// 8-bit integers from 0 to 255, by the ranges of a calibration set.
    Uint8,
    /// One bit per dimension, eight to an int8 (the ubinary byte − 128).
    Binary,
    /// One bit per dimension, eight to a byte.
    Ubinary,
}

impl Precision {
    /// All precisions, in the order in which help and errors list them.
    pub const ALL: [Self; 5] = [Self::Float32, Self::Int8, Self::Uint8, Self::Binary, Self::Ubinary];

    /// The name that users write.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
            Self::Binary => "binary",
            Self::Ubinary => "ubinary",
        }
    }

    /// Whether codes depend on the ranges of a calibration set.
    pub fn needs_ranges(self) -> bool {
        matches!(self, Self::Int8 | Self::Uint8)
    }

    /// How many bytes one embedding of `dim` dimensions takes.
    pub fn row_bytes(self, dim: usize) -> usize {
        match self {
            Self::Float32 => dim * size_of::<f32>(),
            Self::Int8 | Self::Uint8 => dim,
            Self::Binary | Self::Ubinary => dim.div_ceil(8),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|precision| precision.name() == name).ok_or_else(|| {
            let choices = Self::ALL.map(|precision| format!("\"{precision}\"")).join(", ");
            Error::setting("precision", format!("unknown \"{name}\", expected one of {choices}"))
        })
    }
}

/// Turns embeddings of one width into a column of one precision.
#[derive(Debug, Clone)]
pub struct Quantizer {
    precision: Precision,
    rule: Rule,
    ranges: Option<Ranges>,
    dim: usize,
    list_size: i32,
}

impl Quantizer {
    /// Prepares for embeddings of `dim` dimensions.
    ///
    /// int8 and uint8 need `ranges` of as many dimensions, which the others ignore, as they do `rule`.
    pub fn try_new(precision: Precision, rule: Rule, ranges: Option<Ranges>, dim: usize) -> Result<Self> {
        if precision.needs_ranges() {
            let Some(ranges) = &ranges else {
                let reason = format!("{precision} needs the ranges of a calibration set, and none are given");
                return Err(Error::setting("precision", reason));
            };
            if ranges.dim() != dim {
                let reason = format!("{} dimensions, expected {dim} as the embeddings have", ranges.dim());
                return Err(Error::setting("calibration ranges", reason));
            }
        }
        let numbers = match precision {
            Precision::Float32 => dim,
            _ => precision.row_bytes(dim),
        };
        let list_size = i32::try_from(numbers)
            .ok()
            .filter(|&size| size > 0)
            .ok_or_else(|| Error::setting("embeddings", format!("{dim} dimensions fit no column")))?;
        Ok(Self { precision, rule, ranges, dim, list_size })
    }

    /// The column's type: a fixed-size list of d float32, int8 or uint8, or (binary, ubinary) of ⌈d/8⌉ int8 or uint8.
    pub fn data_type(&self) -> DataType {
        DataType::FixedSizeList(self.item(), self.list_size)
    }

    /// Turns `embeddings` (n × d) into a column of n rows.
    ///
    /// A value that is NaN or infinite is an error that names its row and dimension.
    pub fn column(&self, embeddings: Matrix<f32>) -> Result<FixedSizeListArray> {
        if embeddings.rows() > 0 && embeddings.cols() != self.dim {
            let (found, expected) = (embeddings.cols(), self.dim);
            return Err(Error::Internal(format!("embeddings of {found} dimensions, expected {expected}")));
        }
        match (self.precision, &self.ranges) {
            _ if embeddings.rows() == 0 => Ok(FixedSizeListArray::new_null(self.item(), self.list_size, 0)),
            (Precision::Float32, _) => {
                embeddings.check_finite()?;
                self.lists::<Float32Type>(embeddings)
            }
            (Precision::Int8, Some(ranges)) => {
                self.lists::<Int8Type>(quantize::int8(&embeddings, ranges, self.rule)?)
            }
            (Precision::Uint8, Some(ranges)) => {
                self.lists::<UInt8Type>(quantize::uint8(&embeddings, ranges, self.rule)?)
            }
            (Precision::Binary, _) => self.lists::<Int8Type>(quantize::binary(&embeddings)?),
            (Precision::Ubinary, _) => self.lists::<UInt8Type>(quantize::ubinary(&embeddings)?),
            (Precision::Int8 | Precision::Uint8, None) => unreachable!("try_new asks for ranges"),
        }
    }

    /// The codes to make, for a device that makes them by itself; nothing for float32.
    pub fn code(&self) -> Option<Code<'_>> {
        match (self.precision, &self.ranges) {
            (Precision::Int8, Some(ranges)) => Some(Code::Int8(ranges, self.rule)),
            (Precision::Uint8, Some(ranges)) => Some(Code::Uint8(ranges, self.rule)),
            (Precision::Binary, _) => Some(Code::Binary),
            (Precision::Ubinary, _) => Some(Code::Ubinary),
            _ => None,
        }
    }

    /// Turns codes that were made so (n × bytes) into a column of n rows.
    pub fn column_of_codes(&self, codes: Matrix<u8>) -> Result<FixedSizeListArray> {
        if codes.rows() == 0 {
            return Ok(FixedSizeListArray::new_null(self.item(), self.list_size, 0));
        }
        match self.precision {
            Precision::Int8 | Precision::Binary => {
                let signed = codes.into_vec().into_iter().map(|code| code as i8).collect();
                self.lists_of::<Int8Type>(signed)
            }
            _ => self.lists_of::<UInt8Type>(codes.into_vec()),
        }
    }

    /// The list's items: never null.
    fn item(&self) -> FieldRef {
        let number = match self.precision {
            Precision::Float32 => DataType::Float32,
            Precision::Int8 | Precision::Binary => DataType::Int8,
            Precision::Uint8 | Precision::Ubinary => DataType::UInt8,
        };
        Arc::new(Field::new_list_field(number, false))
    }

    /// Wraps numbers as lists, without a copy.
    fn lists<T: ArrowPrimitiveType>(&self, numbers: Matrix<T::Native>) -> Result<FixedSizeListArray> {
        self.lists_of::<T>(numbers.into_vec())
    }

    fn lists_of<T: ArrowPrimitiveType>(&self, numbers: Vec<T::Native>) -> Result<FixedSizeListArray> {
        let values: ArrayRef = Arc::new(PrimitiveArray::<T>::new(numbers.into(), None));
        Ok(FixedSizeListArray::try_new(self.item(), self.list_size, values, None)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};

    fn points() -> Matrix<f32> {
        Matrix::try_from_vec(2, 9, (0..18).map(|i| i as f32 - 9.0).collect()).unwrap()
    }

    #[test]
    fn every_precision_makes_the_column_it_announces() {
        let ranges = Ranges::of(&points()).unwrap();
        for precision in Precision::ALL {
            let quantizer = Quantizer::try_new(precision, Rule::Clipped, Some(ranges.clone()), 9).unwrap();
            let column = quantizer.column(points()).unwrap();
            assert_eq!(column.data_type(), &quantizer.data_type());
            assert_eq!((column.len(), column.null_count()), (2, 0));
            assert_eq!(
                column.values().to_data().buffers()[0].len(),
                2 * precision.row_bytes(9),
                "{precision}"
            );
            let empty = quantizer.column(Matrix::zeros(0, 0)).unwrap();
            assert_eq!((empty.len(), empty.data_type()), (0, &quantizer.data_type()));
        }
    }

    #[test]
    fn signed_and_unsigned_codes_differ_by_128() {
        let ranges = Ranges::of(&points()).unwrap();
        let codes = |precision| {
            let quantizer = Quantizer::try_new(precision, Rule::Clipped, Some(ranges.clone()), 9).unwrap();
            quantizer.column(points()).unwrap().values().clone()
        };
        for (signed, unsigned) in
            [(Precision::Int8, Precision::Uint8), (Precision::Binary, Precision::Ubinary)]
        {
            let (signed, unsigned) = (codes(signed), codes(unsigned));
            let signed = signed.as_primitive::<Int8Type>().values();
            let unsigned = unsigned.as_primitive::<UInt8Type>().values();
            assert!(signed.iter().zip(unsigned).all(|(&s, &u)| i16::from(s) + 128 == i16::from(u)));
        }
    }

    #[test]
    fn eight_bits_without_ranges_are_refused_before_any_row() {
        let error = Quantizer::try_new(Precision::Int8, Rule::Clipped, None, 9).unwrap_err().to_string();
        assert_eq!(error, "precision: int8 needs the ranges of a calibration set, and none are given");
        let narrow = Ranges::try_new(vec![0.; 3], vec![1.; 3]).unwrap();
        let error =
            Quantizer::try_new(Precision::Uint8, Rule::Clipped, Some(narrow), 9).unwrap_err().to_string();
        assert_eq!(error, "calibration ranges: 3 dimensions, expected 9 as the embeddings have");
    }

    #[test]
    fn an_unknown_precision_is_answered_with_the_choices() {
        let error = "int4".parse::<Precision>().unwrap_err().to_string();
        assert!(error.contains("\"int4\"") && error.contains("\"ubinary\""), "{error}");
        for precision in Precision::ALL {
            assert_eq!(precision.name().parse::<Precision>().unwrap(), precision);
            assert_eq!(serde_json::to_string(&precision).unwrap(), format!("\"{precision}\""));
        }
    }

    #[test]
    fn a_value_that_is_no_number_is_refused_in_every_precision() {
        let mut x = points();
        x.row_mut(1)[8] = f32::NAN;
        let ranges = Ranges::of(&points()).unwrap();
        for precision in Precision::ALL {
            let quantizer = Quantizer::try_new(precision, Rule::Clipped, Some(ranges.clone()), 9).unwrap();
            let error = quantizer.column(x.clone()).unwrap_err().to_string();
            assert_eq!(error, "row 1, column 8: NaN is not a finite number", "{precision}");
        }
    }
}
