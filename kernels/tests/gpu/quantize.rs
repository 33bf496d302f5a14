//! Lengths, ranges and codes: the same bits as on the processor.

use super::*;
use kernels::gpu::quantize::{Code, Coder, ranges, search_scale, unit_rows};
use kernels::quantize::{Ranges, Rule};
use kernels::search_codes::SearchScale;
use kernels::{Matrix, norm, quantize};

/// Numbers of many sizes, both zeros, and (in column 3, where there is one) one value only.
fn points(rows: usize, columns: usize) -> Matrix<f32> {
    let mut values: Vec<f32> = uniform(rows as u64, rows * columns)
        .iter()
        .enumerate()
        .map(|(i, v)| v * 10f32.powi((i % 7) as i32 - 3))
        .collect();
    for (i, v) in values.iter_mut().enumerate() {
        if i % columns == 3 {
            *v = 0.25;
        } else if i % 11 == 0 {
            *v = if i % 2 == 0 { 0.0 } else { -0.0 };
        }
    }
    Matrix::try_from_vec(rows, columns, values).unwrap()
}

const SHAPES: [(usize, usize); 6] = [(1, 1), (9, 5), (33, 64), (50, 100), (200, 384), (7, 777)];

#[test]
fn rows_are_scaled_to_the_same_bits() {
    on_each_gpu(|gpu| {
        for (rows, columns) in SHAPES {
            let mut x = points(rows, columns);
            x.row_mut(rows / 2).fill(0.0);
            let found = unit_rows(&gpu.upload(x.as_slice()).unwrap(), rows, columns).unwrap();
            let found = found.download(rows * columns).unwrap();
            assert!(found == norm::unit_rows(&x).into_vec(), "{rows} x {columns}");
        }
    });
}

#[test]
fn ranges_and_scales_are_the_same() {
    on_each_gpu(|gpu| {
        for (rows, columns) in SHAPES {
            let x = points(rows, columns);
            let (found, expected) = (ranges(gpu, &x).unwrap(), Ranges::of(&x).unwrap());
            let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(found.min()), bits(expected.min()));
            assert_eq!(bits(found.max()), bits(expected.max()));
            assert_eq!(search_scale(gpu, &x).unwrap(), SearchScale::of(&x).unwrap());
        }
        let mut x = points(40, 30);
        x.row_mut(31)[7] = f32::INFINITY;
        let error = ranges(gpu, &x).unwrap_err().to_string();
        assert_eq!(error, "row 31, column 7: inf is not a finite number");
        x.row_mut(31)[7] = f32::NAN;
        assert!(search_scale(gpu, &x).unwrap_err().to_string().starts_with("row 31, column 7: NaN"));
    });
}

#[test]
fn codes_of_every_kind_are_the_same() {
    on_each_gpu(|gpu| {
        for (rows, columns) in SHAPES {
            let x = points(rows, columns);
            // Ranges of other points: many values lie outside.
            let r = Ranges::of(&points(rows.div_ceil(3) + 1, columns)).unwrap();
            let scale = SearchScale::try_new(40.0).unwrap();
            let signed = |codes: Matrix<i8>| codes.into_vec().iter().map(|&c| c as u8).collect::<Vec<u8>>();
            let there = gpu.upload(x.as_slice()).unwrap();
            for (code, expected) in [
                (Code::Uint8(&r, Rule::Clipped), quantize::uint8(&x, &r, Rule::Clipped).unwrap().into_vec()),
                (Code::Uint8(&r, Rule::Legacy), quantize::uint8(&x, &r, Rule::Legacy).unwrap().into_vec()),
                (Code::Int8(&r, Rule::Clipped), signed(quantize::int8(&x, &r, Rule::Clipped).unwrap())),
                (Code::Int8(&r, Rule::Legacy), signed(quantize::int8(&x, &r, Rule::Legacy).unwrap())),
                (Code::Ubinary, quantize::ubinary(&x).unwrap().into_vec()),
                (Code::Binary, signed(quantize::binary(&x).unwrap())),
                (Code::Search(scale), signed(scale.codes(&x).unwrap())),
            ] {
                let found = Coder::new(gpu, code).unwrap().codes(&there, rows, columns).unwrap();
                assert!(found.download(expected.len()).unwrap() == expected, "{rows} x {columns} {code:?}");
            }
        }
    });
}
