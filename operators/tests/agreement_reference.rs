//! Agreement scores against scikit-learn's, for labelings of many shapes (`tests/reference/agreement.py`).

use operators::evaluate::agreement;
use serde_json::{Value, json};
use std::fs::File;

#[test]
fn scores_equal_the_reference_for_every_labeling() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/reference/agreement.json");
    let cases: Value = serde_json::from_reader(File::open(path).unwrap()).unwrap();
    let cases = cases.as_object().unwrap();
    assert!(cases.len() >= 14);
    let labels = |case: &Value| -> Vec<i64> {
        case.as_array().unwrap().iter().map(|label| label.as_i64().unwrap()).collect()
    };
    for (name, case) in cases {
        let found = json!(agreement(&labels(&case["truth"]), &labels(&case["found"])).unwrap());
        for (score, value) in found.as_object().unwrap() {
            let (value, expected) = (value.as_f64().unwrap(), case[score].as_f64().unwrap());
            // scikit-learn's log-gamma differences round at about 1e-12 for these sizes.
            assert!(
                (value - expected).abs() < 1e-11,
                "{name}: {score} is {value}, scikit-learn has {expected}"
            );
        }
    }
}
