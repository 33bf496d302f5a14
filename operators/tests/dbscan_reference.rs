//! DBSCAN beside scikit-learn's, on 5,000 points in 5 dimensions.

// A test fails by panicking, its helpers too.
#![allow(clippy::unwrap_used)]

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type};
use kernels::{Device, KdTree, Matrix, dbscan};
use operators::clusterers::Clusterer;
use operators::clusterers::dbscan::{Dbscan, DbscanConfig};
use operators::{Error, Kind};
use std::ops::ControlFlow;

mod support;

fn go() -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn points() -> Matrix<f32> {
    support::npy("umap5d_5000.npy", f32::from_le_bytes)
}

#[test]
fn labels_and_core_points_are_scikit_learns() {
    let tree = KdTree::build(&points()).unwrap();
    for (eps, min_samples) in [(0.08, 50), (0.1, 10), (0.3, 10)] {
        let reference = support::parquet(&format!("dbscan_eps{eps}_ms{min_samples}.parquet"));
        let labels = cast(reference.column_by_name("label").unwrap(), &DataType::Int32).unwrap();
        let core = cast(reference.column_by_name("core").unwrap(), &DataType::Boolean).unwrap();
        let found = dbscan(&tree, eps, min_samples, &go).unwrap();
        assert_eq!(found.labels, labels.as_primitive::<Int32Type>().values().to_vec(), "{eps} {min_samples}");
        assert_eq!(found.core, core.as_boolean().iter().map(Option::unwrap).collect::<Vec<_>>());
        assert!(found.labels.contains(&-1) && found.labels.contains(&0));
    }
}

#[test]
fn the_clusterer_numbers_clusters_by_size_and_members_belong_to_theirs() {
    let clusterer = Dbscan::try_new(DbscanConfig { eps: 0.3, min_samples: 10 }).unwrap();
    let found = clusterer.fit(&points(), &Device::cpu(), &go).unwrap();
    let sizes: Vec<usize> = (0..found.clusters() as i32)
        .map(|cluster| found.labels.iter().filter(|label| **label == cluster).count())
        .collect();
    assert!(sizes.len() > 5 && sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
    for (label, probability) in found.labels.iter().zip(&found.probabilities) {
        assert_eq!(*probability, f32::from(u8::from(*label >= 0)));
    }
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    for (broken, name) in [
        (DbscanConfig { eps: 0.0, ..DbscanConfig::default() }, "eps"),
        (DbscanConfig { eps: f64::NAN, ..DbscanConfig::default() }, "eps"),
        (DbscanConfig { min_samples: 0, ..DbscanConfig::default() }, "min_samples"),
    ] {
        let error = Dbscan::try_new(broken).unwrap_err();
        assert!(matches!(&error, Error::Setting { setting, .. } if setting == name), "{error}");
    }
    let few =
        Dbscan::try_new(DbscanConfig::default()).unwrap().fit(&Matrix::zeros(7, 2), &Device::cpu(), &go);
    let error = few.unwrap_err();
    assert!(error.kind() == Kind::Data && error.to_string().contains("7 rows"), "{error}");
    let seven = Dbscan::try_new(DbscanConfig { min_samples: 3, ..DbscanConfig::default() }).unwrap();
    assert_eq!(seven.fit(&Matrix::zeros(7, 2), &Device::cpu(), &go).unwrap().labels, [0; 7]);
}
