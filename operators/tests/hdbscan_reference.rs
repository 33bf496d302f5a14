//! Our HDBSCAN against the Python library's (hdbscan 0.8.44, exact tree): labels, probabilities, outlier scores,
//! trees and predictions. The arrays and where they come from: `tests/data/README.md`.
//!
//! Mutual reachability ties by construction: every neighbour within a point's core distance is equally far. So a
//! point may join either of two clusters at the same height, and which one is chance in both implementations. Such a
//! point leaves its cluster at the very λ at which that cluster was born; [`at_a_tie`] checks that every point whose
//! label differs is one of them.

#![allow(clippy::unwrap_used)]

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{ArrowPrimitiveType, Float32Type, Float64Type, Int32Type};
use kernels::{Device, KdTree, Matrix, core_distances, minimum_spanning_tree};
use operators::clusterers::hdbscan::{
    ClusterSelectionMethod, CondensedTree, Convention, Hdbscan, HdbscanConfig, Prediction,
};
use operators::clusterers::{Clusterer, Clustering};
use operators::{Error, Kind};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/reference").join(name)
}

fn table(name: &str) -> RecordBatch {
    let file = std::fs::File::open(file(name)).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(|b| b.unwrap()).collect();
    concat_batches(&schema, &batches).unwrap()
}

fn column<T: ArrowPrimitiveType>(table: &RecordBatch, name: &str) -> Vec<T::Native> {
    table.column_by_name(name).unwrap().as_primitive::<T>().values().to_vec()
}

/// Reads the float32 matrix of an .npy file of version 1.
fn points() -> Matrix<f32> {
    let bytes = std::fs::read(file("umap5d_5000.npy")).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = std::str::from_utf8(&bytes[10..10 + header]).unwrap();
    assert!(text.contains("'<f4'") && text.contains("False") && text.contains("(5000, 5)"), "{text}");
    let values = bytes[10 + header..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    Matrix::try_from_vec(5000, 5, values.collect()).unwrap()
}

fn rows(points: &Matrix<f32>, range: impl Iterator<Item = u32>) -> Matrix<f32> {
    points.gather(&range.collect::<Vec<_>>())
}

fn config(min_cluster_size: usize, method: &str) -> HdbscanConfig {
    let cluster_selection_method =
        if method == "leaf" { ClusterSelectionMethod::Leaf } else { ClusterSelectionMethod::Eom };
    HdbscanConfig { min_cluster_size, cluster_selection_method, ..HdbscanConfig::default() }
}

fn fit(points: &Matrix<f32>, config: HdbscanConfig) -> Clustering {
    Hdbscan::try_new(config).unwrap().fit(points, &Device::cpu(), &|| ControlFlow::Continue(())).unwrap()
}

/// The adjusted Rand index, outliers being one group like the others (Hubert, Arabie 1985).
fn adjusted_rand_index(a: &[i32], b: &[i32]) -> f64 {
    let pairs =
        |counts: &mut dyn Iterator<Item = usize>| -> f64 { counts.map(|c| (c * (c - 1) / 2) as f64).sum() };
    let (mut both, mut of_a, mut of_b) = (HashMap::new(), HashMap::new(), HashMap::new());
    for (&x, &y) in a.iter().zip(b) {
        *both.entry((x, y)).or_insert(0) += 1;
        *of_a.entry(x).or_insert(0) += 1;
        *of_b.entry(y).or_insert(0) += 1;
    }
    let (both, of_a, of_b) =
        (pairs(&mut both.into_values()), pairs(&mut of_a.into_values()), pairs(&mut of_b.into_values()));
    let expected = of_a * of_b / (a.len() * (a.len() - 1) / 2) as f64;
    (both - expected) / ((of_a + of_b) / 2.0 - expected)
}

/// The label of ours that shares most points with each label of theirs; every label of ours is met once.
fn matching(theirs: &[i32], ours: &[i32]) -> HashMap<i32, i32> {
    let mut shared: HashMap<(i32, i32), usize> = HashMap::new();
    for (&t, &o) in theirs.iter().zip(ours).filter(|(t, o)| **t >= 0 && **o >= 0) {
        *shared.entry((t, o)).or_default() += 1;
    }
    let mut best: HashMap<i32, (usize, i32)> = HashMap::new();
    for ((t, o), count) in shared {
        let entry = best.entry(t).or_insert((0, -1));
        *entry = (*entry).max((count, o));
    }
    let matching: HashMap<i32, i32> = best.into_iter().map(|(t, (_, o))| (t, o)).chain([(-1, -1)]).collect();
    let mut met: Vec<i32> = matching.values().copied().collect();
    met.sort_unstable();
    assert_eq!(
        met,
        (-1..=ours.iter().copied().max().unwrap()).collect::<Vec<_>>(),
        "clusters do not pair up"
    );
    matching
}

/// Says whether a point leaves its cluster at the λ at which the cluster was born.
fn at_a_tie(tree: &CondensedTree, point: usize) -> bool {
    let row = tree.child.iter().position(|&c| c as usize == point).unwrap();
    let birth = tree.child.iter().position(|&c| c == tree.parent[row]).map(|row| tree.lambda[row]);
    Some(tree.lambda[row]) == birth
}

/// Compares labels up to their numbers: every difference is a tie, and few are. Returns ARI and differences.
fn compare(name: &str, ours: &Clustering, theirs: &[i32]) -> (f64, usize) {
    let matching = matching(theirs, &ours.labels);
    let tree = ours.tree.as_ref().unwrap();
    let differing: Vec<usize> =
        (0..theirs.len()).filter(|&i| matching[&theirs[i]] != ours.labels[i]).collect();
    let unexplained: Vec<usize> = differing.iter().copied().filter(|&i| !at_a_tie(tree, i)).collect();
    assert!(unexplained.is_empty(), "{name}: {unexplained:?} differ without a tie");
    let (untied_ours, untied_theirs): (Vec<i32>, Vec<i32>) =
        (0..theirs.len()).filter(|&i| !at_a_tie(tree, i)).map(|i| (ours.labels[i], theirs[i])).unzip();
    assert_eq!(adjusted_rand_index(&untied_ours, &untied_theirs), 1.0, "{name}: points that do not tie");
    (adjusted_rand_index(&ours.labels, theirs), differing.len())
}

#[test]
fn labels_probabilities_and_outlier_scores_are_the_librarys() {
    let (points, reference) = (points(), table("hdbscan_5000.parquet"));
    for (size, method) in [(15, "eom"), (15, "leaf"), (50, "eom"), (50, "leaf"), (100, "eom"), (100, "leaf")]
    {
        let ours = fit(&points, config(size, method));
        let name = format!("mcs{size}_{method}");
        let theirs = column::<Int32Type>(&reference, &format!("label_{name}"));
        let (ari, differing) = compare(&name, &ours, &theirs);
        // How far the library agrees with itself when only the order of rows changes: nobody can agree better.
        let reordered = column::<Int32Type>(&table("hdbscan_reordered.parquet"), &format!("label_{name}"));
        let itself = adjusted_rand_index(&reordered, &theirs);
        println!(
            "{name}: ARI {ari:.4}, {differing} of 5000 differ; the library with itself reordered {itself:.4}"
        );
        assert!(ari >= itself.min(0.997) - 0.003, "{name}: ARI {ari}, the library with itself {itself}");
        // float32 on both sides; where a label differs so may the probability.
        let matching = matching(&theirs, &ours.labels);
        let probabilities = column::<Float32Type>(&reference, &format!("prob_{name}"));
        for i in (0..5000).filter(|&i| matching[&theirs[i]] == ours.labels[i]) {
            let error = (ours.probabilities[i] - probabilities[i]).abs();
            assert!(
                error <= 2.0 * f32::EPSILON,
                "{name}, point {i}: {} {}",
                ours.probabilities[i],
                probabilities[i]
            );
        }
        let scores = column::<Float32Type>(&reference, &format!("glosh_{name}"));
        for i in (0..5000).filter(|&i| !at_a_tie(ours.tree.as_ref().unwrap(), i)) {
            let error = (ours.outlier_scores[i] - scores[i]).abs();
            assert!(
                error <= 2.0 * f32::EPSILON,
                "{name}, point {i}: {} {}",
                ours.outlier_scores[i],
                scores[i]
            );
        }
    }
}

#[test]
fn trees_weights_and_persistence_are_the_librarys() {
    let points = points();
    let summary: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(file("hdbscan_summary.json")).unwrap()).unwrap();
    let clusters = table("hdbscan_clusters.parquet");
    let (sizes_of, lambdas, child_sizes) = (
        column::<Int32Type>(&clusters, "min_cluster_size"),
        column::<Float64Type>(&clusters, "lambda_val"),
        column::<Int32Type>(&clusters, "child_size"),
    );
    for (size, method) in [(15, "eom"), (15, "leaf"), (50, "eom"), (50, "leaf"), (100, "eom"), (100, "leaf")]
    {
        let expected = &summary[format!("mcs{size}_{method}")];
        let arranged = KdTree::build(&points).unwrap();
        let edges = minimum_spanning_tree(&arranged, &core_distances(&arranged, size).unwrap()).unwrap();
        let weight: f64 = edges.iter().map(|e| e.weight).sum();
        // The sum of 4,999 values in another order.
        let bound = 5000.0 * f64::EPSILON * weight;
        assert!((weight - expected["mst_weight"].as_f64().unwrap()).abs() <= bound, "{weight} {expected}");

        let ours = fit(&points, config(size, method));
        let tree = ours.tree.as_ref().unwrap();
        assert_eq!(tree.rows() as u64, expected["condensed_rows"].as_u64().unwrap());
        let mut born: Vec<(f64, i32)> =
            tree.iter().filter(|r| r.1 > 5000).map(|(_, _, lambda, size)| (lambda, size as i32)).collect();
        let mut theirs: Vec<(f64, i32)> = (0..clusters.num_rows())
            .filter(|&i| sizes_of[i] == size as i32)
            .map(|i| (lambdas[i], child_sizes[i]))
            .collect();
        born.sort_by(|a, b| a.partial_cmp(b).unwrap());
        theirs.sort_by(|a, b| a.partial_cmp(b).unwrap());
        assert_eq!(born.len(), theirs.len());
        for ((lambda, size), (their_lambda, their_size)) in born.iter().zip(theirs) {
            assert!((lambda - their_lambda).abs() <= 1e-12 * lambda, "{lambda} {their_lambda}");
            // A point at a tie goes with either side.
            assert!((size - their_size).abs() <= 1, "{size} {their_size}");
        }

        let mut persistence = ours.persistence.clone();
        let mut expected: Vec<f64> =
            expected["persistence"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        persistence.sort_by(f64::total_cmp);
        expected.sort_by(f64::total_cmp);
        assert_eq!(persistence.len(), expected.len());
        for (ours, theirs) in persistence.iter().zip(expected) {
            // The summary has six decimals; a cluster of 15 with one point more or less moves by a fifteenth.
            assert!((ours - theirs).abs() <= 1e-6 + theirs / 15.0, "{ours} {theirs}");
        }
    }
}

#[test]
fn every_setting_chooses_what_the_library_chooses() {
    let (points, reference) = (points(), table("hdbscan_settings.parquet"));
    let settings = [
        ("epsilon", HdbscanConfig { cluster_selection_epsilon: 0.3, ..config(15, "eom") }),
        ("epsilon_leaf", HdbscanConfig { cluster_selection_epsilon: 0.25, ..config(15, "leaf") }),
        ("max_size", HdbscanConfig { max_cluster_size: Some(300), ..config(100, "eom") }),
        ("single", HdbscanConfig { allow_single_cluster: true, ..config(400, "eom") }),
        ("min_samples", HdbscanConfig { min_samples: Some(5), ..config(30, "eom") }),
    ];
    for (name, config) in settings {
        let (ari, differing) = compare(name, &fit(&points, config), &column::<Int32Type>(&reference, name));
        println!("{name}: ARI {ari:.4}, {differing} of 5000 differ");
        assert!(ari >= 0.99, "{name}: ARI {ari}");
    }
}

#[test]
fn predictions_and_memberships_from_the_librarys_tree_are_the_librarys() {
    let points = points();
    let fit_points = rows(&points, 0..1500);
    let queries = rows(&points, (4500..5000).chain(0..100));
    let reference = table("hdbscan_predicted.parquet");
    let selected: HashMap<String, Vec<u32>> =
        serde_json::from_str(&std::fs::read_to_string(file("hdbscan_selected.json")).unwrap()).unwrap();
    for name in ["20_eom", "20_leaf", "40_eom"] {
        let saved = table(&format!("hdbscan_tree_{name}.parquet"));
        let numbers =
            |c: &str| column::<Int32Type>(&saved, c).into_iter().map(|v| v as u32).collect::<Vec<_>>();
        let tree = CondensedTree {
            parent: numbers("parent"),
            child: numbers("child"),
            lambda: column::<Float64Type>(&saved, "lambda_val"),
            child_size: numbers("child_size"),
            selected: selected[name].clone(),
        };
        let prediction = Prediction::try_new(&fit_points, &tree, 10, Convention::Compat).unwrap();

        let predicted = prediction.approximate_predict(&queries).unwrap();
        assert_eq!(predicted.labels, column::<Int32Type>(&reference, &format!("label_{name}")), "{name}");
        let probabilities = column::<Float32Type>(&reference, &format!("probability_{name}"));
        for (ours, theirs) in predicted.probabilities.iter().zip(probabilities) {
            assert!((ours - theirs).abs() <= 2.0 * f32::EPSILON, "{name}: {ours} {theirs}");
        }

        let vectors = prediction.membership_vectors(&queries).unwrap();
        let own_vectors = prediction.all_points_membership_vectors(&fit_points).unwrap();
        // The library rounds a new point's λ to float32 before it goes through L / (L − λ) and an exponential.
        for (kind, vectors, count, bound) in
            [("membership", &vectors, 600, 1e-4), ("all_points", &own_vectors, 100, 2.0 * f32::EPSILON)]
        {
            let lists = reference.column_by_name(&format!("{kind}_{name}")).unwrap().as_list::<i32>();
            for i in 0..count {
                let theirs = lists.value(i).as_primitive::<Float32Type>().values().to_vec();
                assert_eq!(vectors.cols(), theirs.len());
                for (label, (ours, theirs)) in vectors.row(i).iter().zip(theirs).enumerate() {
                    let error = (ours - theirs).abs();
                    assert!(error <= bound, "{name}: {kind} of {i} in {label}: {ours} {theirs}");
                }
            }
        }
    }
}

/// The fits that predictions are tested on.
const FITS: [(usize, &str); 3] = [(50, "eom"), (50, "leaf"), (100, "eom")];

#[test]
fn the_fits_own_rows_are_predicted_as_they_were_fitted() {
    let points = points();
    for (size, method) in FITS {
        let ours = fit(&points, config(size, method));
        let tree = ours.tree.as_ref().unwrap();
        let prediction = Prediction::try_new(&points, tree, size, Convention::Consistent).unwrap();
        let predicted = prediction.approximate_predict(&points).unwrap();
        assert_eq!(predicted.labels, ours.labels);
        assert_eq!(predicted.probabilities, ours.probabilities);
    }
}

#[test]
fn a_new_points_prediction_does_not_depend_on_its_batch() {
    let points = points();
    let ours = fit(&rows(&points, 0..4500), config(50, "eom"));
    let tree = ours.tree.as_ref().unwrap();
    let prediction = Prediction::try_new(&rows(&points, 0..4500), tree, 50, Convention::Consistent).unwrap();
    let queries = rows(&points, 4500..5000);
    let together = prediction.approximate_predict(&queries).unwrap();
    let vectors = prediction.membership_vectors(&queries).unwrap();
    assert!(together.labels.iter().any(|&l| l >= 0) && together.labels.contains(&-1));
    for i in [0, 17, 499] {
        let alone = rows(&queries, i..i + 1);
        assert_eq!(prediction.approximate_predict(&alone).unwrap().labels[0], together.labels[i as usize]);
        assert_eq!(prediction.membership_vectors(&alone).unwrap().row(0), vectors.row(i as usize));
    }
    for row in vectors.iter_rows() {
        let sum: f32 = row.iter().sum();
        assert!((0.0..=1.0 + 1e-5).contains(&sum) && row.iter().all(|v| *v >= 0.0), "{row:?}");
    }
}

#[test]
fn equal_rows_make_outliers_or_one_cluster_and_never_a_panic() {
    let same = Matrix::try_from_vec(60, 3, vec![0.5; 180]).unwrap();
    for method in ["eom", "leaf"] {
        let ours = fit(&same, config(5, method));
        assert!(ours.labels.iter().all(|&l| l == -1), "{method}");
        let prediction =
            Prediction::try_new(&same, ours.tree.as_ref().unwrap(), 5, Convention::Consistent).unwrap();
        assert_eq!(prediction.approximate_predict(&same).unwrap().labels, ours.labels);
        assert_eq!(prediction.membership_vectors(&same).unwrap().cols(), 0);

        let ours = fit(&same, HdbscanConfig { allow_single_cluster: true, ..config(5, method) });
        assert!(
            ours.labels.iter().all(|&l| l == 0) && ours.probabilities.iter().all(|&p| p == 1.0),
            "{method}"
        );
        assert_eq!(ours.persistence, [1.0]);
        let prediction =
            Prediction::try_new(&same, ours.tree.as_ref().unwrap(), 5, Convention::Consistent).unwrap();
        assert_eq!(prediction.approximate_predict(&same).unwrap().labels, ours.labels);
        for vectors in [prediction.membership_vectors(&same), prediction.all_points_membership_vectors(&same)]
        {
            assert!(vectors.unwrap().as_slice().iter().all(|v| (0.0..=1.0).contains(v)));
        }
    }
}

#[test]
fn heaps_of_equal_points_are_clusters_with_finite_scores() {
    let points = points();
    // Two heaps of forty equal points each, among two thousand others.
    let repeated = (0..2000).chain(std::iter::repeat_n(3, 40)).chain(std::iter::repeat_n(1800, 40));
    let points = rows(&points, repeated);
    for method in ["eom", "leaf"] {
        let ours = fit(&points, config(15, method));
        assert_eq!(ours.labels[2000], ours.labels[3], "{method}");
        assert!(ours.labels[2000] >= 0 && ours.labels[2040] >= 0 && ours.labels[2000] != ours.labels[2040]);
        assert!(ours.labels[2000..2040].iter().all(|&l| l == ours.labels[2000]));
        let scores = ours.probabilities.iter().chain(&ours.outlier_scores);
        assert!(scores.into_iter().all(|s| (0.0..=1.0).contains(s)), "{method}");
        assert!(ours.persistence.iter().all(|p| (0.0..=1.0).contains(p)), "{method}: {:?}", ours.persistence);
        let prediction =
            Prediction::try_new(&points, ours.tree.as_ref().unwrap(), 15, Convention::Consistent).unwrap();
        let vectors = prediction.membership_vectors(&points).unwrap();
        assert!(vectors.as_slice().iter().all(|v| (0.0..=1.0 + 1e-5).contains(v)));
    }
}

#[test]
fn data_and_settings_that_cannot_be_clustered_are_named() {
    let error = Hdbscan::try_new(config(15, "eom"))
        .unwrap()
        .fit(&Matrix::zeros(14, 2), &Device::cpu(), &|| ControlFlow::Continue(()))
        .unwrap_err();
    assert!(matches!(error, Error::Unfit(_)) && error.kind() == Kind::Data);
    assert!(
        error.to_string().contains("14 rows") && error.to_string().contains("min_cluster_size 15"),
        "{error}"
    );

    let mut broken = Matrix::zeros(20, 2);
    broken.row_mut(7)[1] = f32::NAN;
    let error = Hdbscan::try_new(config(5, "eom"))
        .unwrap()
        .fit(&broken, &Device::cpu(), &|| ControlFlow::Continue(()))
        .unwrap_err();
    assert!(error.to_string().contains("row 7, column 1"), "{error}");

    let settings = [
        ("min_cluster_size", config(1, "eom")),
        ("min_samples", HdbscanConfig { min_samples: Some(0), ..HdbscanConfig::default() }),
        (
            "cluster_selection_epsilon",
            HdbscanConfig { cluster_selection_epsilon: -1.0, ..HdbscanConfig::default() },
        ),
        (
            "cluster_selection_epsilon",
            HdbscanConfig { cluster_selection_epsilon: f64::NAN, ..HdbscanConfig::default() },
        ),
        ("max_cluster_size", HdbscanConfig { max_cluster_size: Some(9), ..HdbscanConfig::default() }),
    ];
    for (name, config) in settings {
        let error = Hdbscan::try_new(config).unwrap_err();
        assert!(matches!(&error, Error::Setting { setting, .. } if setting == name), "{error}");
    }
}

#[test]
fn a_tree_of_another_fit_is_refused() {
    let points = points();
    let mut tree = fit(&rows(&points, 0..1000), config(15, "eom")).tree.unwrap();
    assert!(Prediction::try_new(&rows(&points, 0..999), &tree, 15, Convention::Consistent).is_err());
    assert!(Prediction::try_new(&rows(&points, 0..1000), &tree, 1000, Convention::Consistent).is_err());
    tree.selected.push(9999);
    assert!(Prediction::try_new(&rows(&points, 0..1000), &tree, 15, Convention::Consistent).is_err());
    tree.selected.pop();
    tree.parent.swap(0, 500);
    let last = tree.rows() - 1;
    tree.child[last] = tree.child[last - 1];
    assert!(Prediction::try_new(&rows(&points, 0..1000), &tree, 15, Convention::Consistent).is_err());
}

#[test]
fn settings_read_from_text_and_a_wrong_key_is_named() {
    let read: HdbscanConfig =
        serde_json::from_str(r#"{"min_cluster_size": 100, "cluster_selection_method": "leaf"}"#).unwrap();
    assert_eq!(read, config(100, "leaf"));
    let error = serde_json::from_str::<HdbscanConfig>(r#"{"min_cluster": 100}"#).unwrap_err().to_string();
    assert!(error.contains("min_cluster`") && error.contains("min_cluster_size"), "{error}");
}
