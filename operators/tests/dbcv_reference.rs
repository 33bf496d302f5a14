//! DBCV beside the library hdbscan's (`tests/reference/dbcv.py`), and in 384 dimensions, where that one has no number.

// A test fails by panicking, its helpers too.
#![allow(clippy::unwrap_used)]

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type};
use half::f16;
use operators::evaluate::dbcv;
use serde_json::Value;

mod support;

#[test]
fn the_index_is_the_librarys_in_5_dimensions_and_a_number_in_384() {
    let json = |name: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(support::reference(name)).unwrap()).unwrap()
    };
    let reference = json("dbcv.json");
    let points = support::npy_f32("umap5d_5000.npy");
    let table = support::parquet("hdbscan_5000.parquet");
    let mut compared = 0;
    for (name, expected) in
        reference.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("label"))
    {
        let labels = cast(table.column_by_name(name).unwrap(), &DataType::Int32).unwrap();
        let found = dbcv(&points, labels.as_primitive::<Int32Type>().values()).unwrap();
        assert_eq!(found.points, 5000);
        let expected = expected.as_f64().unwrap();
        assert!((found.value - expected).abs() < 1e-9, "{name}: {} {expected}", found.value);
        compared += 1;
    }
    assert_eq!(compared, 5);

    let wide = support::npy("umap_1500.npy", |b| f16::from_le_bytes(b).to_f32());
    let labels: Vec<i32> = json("umap_1500.json")["labels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|label| label.as_i64().unwrap() as i32)
        .collect();
    // As the script does: small clusters are outliers.
    let size = |label: i32| labels.iter().filter(|other| **other == label).count();
    let large: Vec<i32> = labels.iter().map(|label| if size(*label) >= 10 { *label } else { -1 }).collect();
    let (found, expected) = (dbcv(&wide, &large).unwrap(), reference["umap_1500"].as_f64().unwrap());
    assert!((found.value - expected).abs() < 1e-9, "{} {expected}", found.value);
}
