use super::*;

/// Widths that reach every branch: no column, less than one byte of bits, exactly one, one and a rest, less than
/// a vector of 4, 8 or 16 lanes, exactly 16, one and a rest, a word of 64 and some bytes, the encoder's, and more than
/// one block holds.
const WIDTHS: [usize; 14] = [0, 1, 3, 7, 8, 9, 15, 16, 17, 33, 64, 107, 384, 16_385];
/// No row, one row (a block that is not full), and more rows than one block of 384 columns holds.
const ROWS: [usize; 3] = [0, 1, 43];

/// Numbers from -2 to 2 (xorshift), among them both zeros and the ends.
fn points(rows: usize, cols: usize) -> Matrix<f32> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        match state % 16 {
            0 => 0.0,
            1 => -0.0,
            2 => 2.0,
            3 => -2.0,
            _ => (state as f32 / u32::MAX as f32) * 4.0 - 2.0,
        }
    };
    Matrix::try_from_vec(rows, cols, (0..rows * cols).map(|_| next()).collect()).unwrap()
}

/// Ranges narrower than the points, so that some lie outside, and some of no width.
fn narrow(cols: usize) -> Ranges {
    let min = (0..cols).map(|j| -1.5 + 0.01 * (j % 7) as f32).collect::<Vec<_>>();
    let max = min.iter().enumerate().map(|(j, min)| if j % 11 == 10 { *min } else { min + 2.9 }).collect();
    Ranges::try_new(min, max).unwrap()
}

/// The formulas of the module's header, one value at a time, in the numbers they are written in.
fn reference(x: &Matrix<f32>, ranges: &Ranges, rule: Rule) -> (Vec<u8>, Vec<i8>) {
    let v = x.iter_rows().flat_map(|row| {
        row.iter().enumerate().map(|(j, x)| {
            let step = (ranges.max[j] - ranges.min[j]) / 255.0;
            (x - ranges.min[j]) / if step == 0.0 { 1.0 } else { step }
        })
    });
    v.map(|v| match rule {
        Rule::Clipped => {
            let q = v.floor().clamp(0.0, 255.0);
            (q as u8, (q - 128.0) as i8)
        }
        Rule::Legacy => {
            let wrap = |v: f32| (v.trunc() as i64).rem_euclid(256) as u8;
            (wrap(v), wrap(v - 128.0) as i8)
        }
    })
    .unzip()
}

#[test]
fn quotients_by_inverses_are_those_of_a_division() {
    let mut count = 0;
    for (i, step) in crate::random::uniform(1, 3000).iter().enumerate() {
        let step = (step.abs() + 1e-3) * 10f32.powi(i as i32 % 36 - 16);
        let values = crate::random::uniform(i as u64 + 2, 300);
        // Anywhere up to the bound, and around whole numbers of steps, where codes change.
        let anywhere = values.iter().map(|v| v * 511.0 * step);
        let around = (1..=256).flat_map(|code| {
            let bits = (code as f32 * step).to_bits();
            (0..3).map(move |off| f32::from_bits(bits + off - 1))
        });
        for v in anywhere.chain(around) {
            let (found, exact) = (quotient(v, step, step.recip()), v / step);
            assert_eq!(found.to_bits(), exact.to_bits(), "{v} / {step}: {found} {exact}");
            count += 1;
        }
    }
    assert!(count > 3_000_000, "{count}");
    for (v, code) in [(f32::MAX, 255.0), (f32::MIN, 0.0), (1e30, 255.0), (f32::MIN_POSITIVE, 0.0)] {
        for step in [1e-20, 1e-3, 1.0, 1e20] {
            let code = if v / step < 255.0 { (v / step).max(0.0).floor() } else { code };
            assert_eq!(truncate(quotient(v, step, step.recip()), 0.0, 255.0) as f32, code, "{v} / {step}");
        }
    }
}

fn each_case(mut check: impl FnMut(Isa, &Matrix<f32>)) {
    for isa in Isa::available() {
        for cols in WIDTHS {
            for rows in ROWS {
                check(isa, &points(rows, cols));
            }
        }
    }
}

#[test]
fn eight_bit_codes_equal_the_formula_on_every_instruction_set() {
    each_case(|isa, x| {
        let ranges = narrow(x.cols());
        for rule in [Rule::Clipped, Rule::Legacy] {
            let (unsigned, signed) = reference(x, &ranges, rule);
            let place = (isa, x.rows(), x.cols(), rule);
            assert_eq!(uint8_on(isa, x, &ranges, rule).unwrap().as_slice(), unsigned, "{place:?}");
            assert_eq!(int8_on(isa, x, &ranges, rule).unwrap().as_slice(), signed, "{place:?}");
        }
    });
}

#[test]
fn values_on_the_edge_of_two_codes_are_divided_not_multiplied() {
    // Ranges from 0, and all multiples of their steps: a product with 1/s puts some into the code below.
    let max: Vec<f32> = (1..=64).map(|j| 0.013 * j as f32).collect();
    let ranges = Ranges::try_new(vec![0.0; 64], max).unwrap();
    let values = (0..256).flat_map(|k| ranges.steps().into_iter().map(move |step| step * k as f32)).collect();
    let x = Matrix::try_from_vec(256, 64, values).unwrap();
    for isa in Isa::available() {
        let codes = uint8_on(isa, &x, &ranges, Rule::Clipped).unwrap();
        assert_eq!(codes.as_slice(), reference(&x, &ranges, Rule::Clipped).0);
    }
}

#[test]
fn bits_equal_the_formula_on_every_instruction_set() {
    each_case(|isa, x| {
        let bytes: Vec<u8> = x
            .iter_rows()
            .flat_map(|row| row.chunks(8))
            .map(|bits| bits.iter().enumerate().map(|(j, &v)| u8::from(v > 0.0) << (7 - j)).sum())
            .collect();
        assert_eq!(bits_on::<u8>(isa, x, 0).unwrap().as_slice(), bytes);
        let shifted: Vec<i8> = bytes.iter().map(|&byte| (i16::from(byte) - 128) as i8).collect();
        assert_eq!(bits_on::<i8>(isa, x, HIGH_BIT).unwrap().as_slice(), shifted);
    });
}

#[test]
fn the_worked_example_of_both_rules_comes_out() {
    let calibration = Matrix::try_from_vec(2, 3, vec![1., 20., -3., 4., 5., -60.]).unwrap();
    let ranges = Ranges::of(&calibration).unwrap();
    let x = Matrix::try_from_vec(1, 3, vec![-1., 15., 1.]).unwrap();
    assert_eq!(int8(&x, &ranges, Rule::Legacy).unwrap().as_slice(), [-42, 42, -112]);
    assert_eq!(uint8(&x, &ranges, Rule::Legacy).unwrap().as_slice(), [86, 170, 16]);
    assert_eq!(int8(&x, &ranges, Rule::Clipped).unwrap().as_slice(), [-128, 42, 127]);
}

#[test]
fn ranges_are_the_extremes_of_each_column_on_every_block() {
    for cols in WIDTHS {
        let mut x = points(50, cols);
        for j in 0..cols {
            x.row_mut(j % 50)[j] = 3.0 + j as f32;
            x.row_mut((j + 1) % 50)[j] = -3.0 - j as f32;
        }
        let ranges = Ranges::of(&x).unwrap();
        assert!((0..cols).all(|j| ranges.max[j] == 3.0 + j as f32 && ranges.min[j] == -3.0 - j as f32));
    }
}

#[test]
fn a_middle_is_within_half_a_step_of_every_value_in_range() {
    let x = points(200, 33);
    let ranges = Ranges::of(&x).unwrap();
    let steps = ranges.steps();
    let near = |back: Matrix<f32>, codes_of_two_steps: bool| {
        for (row, back) in x.iter_rows().zip(back.iter_rows()) {
            for (j, (x, back)) in row.iter().zip(back).enumerate() {
                // Half a step, and the rounding of three operations on numbers of at most 4.
                let bound = steps[j] * 0.5 + 3.0 * 4.0 * f32::EPSILON;
                let bound = if codes_of_two_steps { bound + steps[j] * 0.5 } else { bound };
                assert!((x - back).abs() <= bound, "column {j}: {x} came back as {back}");
            }
        }
    };
    near(dequantize_uint8(&uint8(&x, &ranges, Rule::Clipped).unwrap(), &ranges).unwrap(), false);
    near(dequantize_uint8(&uint8(&x, &ranges, Rule::Legacy).unwrap(), &ranges).unwrap(), false);
    let codes = int8(&x, &ranges, Rule::Clipped).unwrap();
    near(dequantize_int8(&codes, &ranges, Rule::Clipped).unwrap(), false);
    // The legacy rule's code 0 covers two steps, and its top code only the maximum itself.
    let codes = int8(&x, &ranges, Rule::Legacy).unwrap();
    near(dequantize_int8(&codes, &ranges, Rule::Legacy).unwrap(), true);
}

#[test]
fn a_dimension_of_one_value_comes_back_exactly() {
    let x = Matrix::try_from_vec(2, 1, vec![0.3, 0.3]).unwrap();
    let ranges = Ranges::of(&x).unwrap();
    let codes = uint8(&x, &ranges, Rule::Clipped).unwrap();
    assert_eq!(dequantize_uint8(&codes, &ranges).unwrap(), x);
}

#[test]
fn a_value_that_is_no_number_is_refused_by_its_place() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = points(90, 384);
        x.row_mut(77)[383] = bad;
        x.row_mut(60)[5] = bad;
        let ranges = narrow(384);
        let refused = [
            uint8(&x, &ranges, Rule::Clipped).err(),
            int8(&x, &ranges, Rule::Legacy).err(),
            ubinary(&x).err(),
            binary(&x).err(),
            Ranges::of(&x).err(),
        ];
        for error in refused {
            assert!(matches!(error, Some(Error::NotFinite { row: 60, column: 5, .. })), "{error:?}");
        }
    }
    // The rest of a row that does not fill a byte of bits is looked at too.
    let x = Matrix::try_from_vec(1, 9, [[0.0; 8].as_slice(), &[f32::NAN]].concat()).unwrap();
    assert!(matches!(ubinary(&x), Err(Error::NotFinite { row: 0, column: 8, .. })));
}

#[test]
fn ranges_that_are_none_are_refused() {
    assert!(matches!(Ranges::try_new(vec![0., 2.], vec![1., 1.]), Err(Error::Range { column: 1, .. })));
    assert!(matches!(Ranges::try_new(vec![f32::NAN], vec![1.]), Err(Error::Range { column: 0, .. })));
    assert!(matches!(Ranges::try_new(vec![f32::MIN], vec![f32::MAX]), Err(Error::Range { column: 0, .. })));
    assert!(matches!(Ranges::try_new(vec![0.], vec![]), Err(Error::Shape { .. })));
    assert!(matches!(Ranges::of(&Matrix::zeros(0, 3)), Err(Error::Shape { .. })));
    assert!(matches!(uint8(&points(1, 3), &narrow(4), Rule::Clipped), Err(Error::Shape { .. })));
}

/// Prints times of 100,000 × 384 values: `cargo test --release -p thema-kernels quantize -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a test"]
fn speed() {
    let x = points(100_000, 384);
    let ranges = Ranges::of(&x).unwrap();
    let time = |name: &str, run: &dyn Fn() -> usize| {
        let mut times: Vec<_> = (0..7)
            .map(|_| {
                let start = std::time::Instant::now();
                assert!(std::hint::black_box(run()) > 0);
                start.elapsed()
            })
            .collect();
        times.sort();
        println!("{name}: median {:?}, least {:?}", times[3], times[0]);
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for isa in Isa::available() {
        println!("{}", isa.name());
        pool.install(|| {
            time("int8", &|| int8_on(isa, &x, &ranges, Rule::Clipped).unwrap().rows());
            time("uint8", &|| uint8_on(isa, &x, &ranges, Rule::Clipped).unwrap().rows());
            time("int8 legacy", &|| int8_on(isa, &x, &ranges, Rule::Legacy).unwrap().rows());
            time("binary", &|| bits_on::<i8>(isa, &x, HIGH_BIT).unwrap().rows());
            time("ubinary", &|| bits_on::<u8>(isa, &x, 0).unwrap().rows());
        });
    }
    pool.install(|| {
        time("ranges", &|| Ranges::of(&x).unwrap().dim());
        time("copy", &|| x.clone().rows());
    });
}
