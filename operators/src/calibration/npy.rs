//! Reads numpy's `.npy` files (format 1 to 3): a header in Python's syntax, then the numbers.

/// The numbers of a file, row after row.
#[derive(Debug)]
pub(super) struct NpyArray {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

/// Reads little-endian f32 or f64 numbers in C order, or says what else the file holds.
pub(super) fn parse(bytes: &[u8]) -> Result<NpyArray, String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("not a .npy file")?;
    let (header, data) = split_header(rest).ok_or("a .npy header that is cut short")?;
    let field = |name: &str| {
        let (_, after) = header.split_once(&format!("'{name}':"))?;
        Some(after.trim_start())
    };
    let missing = |name: &str| format!("a .npy header without \"{name}\"");
    if field("fortran_order").ok_or_else(|| missing("fortran_order"))?.starts_with("True") {
        return Err("an array in Fortran order, expected C order (numpy.ascontiguousarray)".into());
    }
    let shape = field("shape").and_then(shape_of).ok_or_else(|| missing("shape"))?;
    let descr = field("descr").ok_or_else(|| missing("descr"))?;
    let values: Vec<f32> = match descr.split('\'').nth(1) {
        Some("<f4") => data.as_chunks().0.iter().map(|&number| f32::from_le_bytes(number)).collect(),
        Some("<f8") => data.as_chunks().0.iter().map(|&number| f64::from_le_bytes(number) as f32).collect(),
        other => {
            return Err(format!("numbers of type {}, expected \"<f4\" or \"<f8\"", other.unwrap_or(descr)));
        }
    };
    let expected = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
    if expected != Some(values.len()) {
        return Err(format!("{} numbers, which is not the shape {shape:?}", values.len()));
    }
    Ok(NpyArray { shape, values })
}

/// Cuts what follows the magic into the header's text and the numbers.
fn split_header(rest: &[u8]) -> Option<(&str, &[u8])> {
    let (version, rest) = rest.split_at_checked(2)?;
    // The length takes 2 bytes in format 1 and 4 bytes from format 2 on.
    let (length, rest) = match version[0] {
        1 => {
            rest.split_first_chunk().map(|(&length, rest)| (usize::from(u16::from_le_bytes(length)), rest))?
        }
        _ => rest.split_first_chunk().map(|(&length, rest)| (u32::from_le_bytes(length) as usize, rest))?,
    };
    let (header, data) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

/// Reads a tuple of integers.
fn shape_of(text: &str) -> Option<Vec<usize>> {
    let (inside, _) = text.strip_prefix('(')?.split_once(')')?;
    inside.split(',').map(str::trim).filter(|side| !side.is_empty()).map(|side| side.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), data].concat()
    }

    #[test]
    fn floats_of_both_widths_are_read() {
        let header =
            |kind: &str| format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': (2, 1), }}  \n");
        let single = file(&header("<f4"), &[1.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat());
        let double = file(&header("<f8"), &[1.5f64.to_le_bytes(), (-2f64).to_le_bytes()].concat());
        for bytes in [single, double] {
            let array = parse(&bytes).unwrap();
            assert_eq!(
                (array.shape.as_slice(), array.values.as_slice()),
                ([2, 1].as_slice(), [1.5, -2.0].as_slice())
            );
        }
    }

    #[test]
    fn what_is_not_read_is_said() {
        let header = |kind: &str, order: &str| {
            format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': (3,), }}\n")
        };
        let cases = [
            (b"PK\x03\x04".to_vec(), "not a .npy file"),
            (b"\x93NUMPY\x01\x00\xff".to_vec(), "cut short"),
            (file(&header("<f4", "True"), &[0; 12]), "Fortran order"),
            (file(&header("<i8", "False"), &[0; 24]), "<i8"),
            (file(&header("<f4", "False"), &[0; 8]), "2 numbers"),
            (file("{}", &[]), "without \"fortran_order\""),
        ];
        for (bytes, expected) in cases {
            let reason = parse(&bytes).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
