//! Layouts: the same bits as on the processor.

use super::*;
use kernels::gpu::layout::{layout, place};
use kernels::layout::{self, Edges, LayoutParams, mix64};
use kernels::{Device, Matrix};
use std::cell::RefCell;
use std::ops::ControlFlow;

const PARAMS: LayoutParams = LayoutParams {
    a: 1.577,
    b: 0.895,
    repulsion_strength: 1.0,
    learning_rate: 1.0,
    negative_samples: 5,
    epochs: 6,
    seed: 1,
};

/// A graph as its own arrays.
struct Graph {
    offsets: Vec<usize>,
    targets: Vec<u32>,
    weights: Vec<f32>,
}

impl Graph {
    /// A symmetric graph of `n` vertices: about `degree` edges each, `hub` more at the first vertex, and every ninth
    /// vertex without any. Weights from 0 to 1, and some of 0.
    fn new(n: usize, degree: usize, hub: usize) -> Self {
        let mut pairs = std::collections::BTreeMap::new();
        let mut join = |a: usize, b: usize| {
            if a != b && a % 9 != 8 && b % 9 != 8 {
                let hash = mix64((a.min(b) * n + a.max(b)) as u64);
                let weight =
                    if hash.is_multiple_of(7) { 0.0 } else { (hash >> 40) as f32 / (1u32 << 24) as f32 };
                pairs.insert((a, b), weight);
                pairs.insert((b, a), weight);
            }
        };
        for i in 0..n * degree / 2 {
            join(i % n, mix64(i as u64) as usize % n);
        }
        (0..hub).for_each(|i| join(0, 1 + i % (n - 1)));
        let mut graph = Self { offsets: vec![0], targets: Vec::new(), weights: Vec::new() };
        for i in 0..n {
            for (&(_, to), &weight) in pairs.range((i, 0)..(i + 1, 0)) {
                graph.targets.push(to as u32);
                graph.weights.push(weight);
            }
            graph.offsets.push(graph.targets.len());
        }
        graph
    }

    fn edges(&self) -> Edges<'_> {
        Edges { offsets: &self.offsets, targets: &self.targets, weights: &self.weights }
    }
}

/// Positions of a start, some of which are equal.
fn start(n: usize, dim: usize) -> Matrix<f32> {
    let mut values: Vec<f32> = uniform(n as u64, n * dim).iter().map(|v| 5.0 * v).collect();
    if n > 20 {
        values.copy_within(0..dim, 3 * dim);
        values.copy_within(5 * dim..6 * dim, 12 * dim);
    }
    Matrix::try_from_vec(n, dim, values).unwrap()
}

fn bits(positions: &Matrix<f32>) -> Vec<u32> {
    positions.as_slice().iter().map(|v| v.to_bits()).collect()
}

fn assert_same_layout(gpu: &Arc<Gpu>, graph: &Graph, dim: usize, params: &LayoutParams) {
    let n = graph.offsets.len() - 1;
    let (mut found, mut expected) = (start(n, dim), start(n, dim));
    let go_on = |_, _| ControlFlow::Continue(());
    assert!(layout(gpu, graph.edges(), &mut found, params, &go_on).unwrap().is_continue());
    let cpu = Device::open("cpu").unwrap();
    let _ = layout::layout(&cpu, graph.edges(), &mut expected, params, &go_on).unwrap();
    let differ = bits(&found).iter().zip(bits(&expected)).filter(|(f, e)| **f != *e).count();
    assert_eq!(differ, 0, "{n} vertices, {dim} dimensions, {params:?}");
}

#[test]
fn layouts_of_any_width_have_the_same_bits() {
    // 600: the third chunk is not full; a hub: a list that is longer than what is looked at at once, and a vertex whose
    // events fill more than a tile.
    let graph = Graph::new(600, 12, 550);
    on_each_gpu(|gpu| {
        for dim in [1, 2, 3, 5, 7, 16, 17, 64] {
            assert_same_layout(gpu, &graph, dim, &LayoutParams { epochs: 3, ..PARAMS });
        }
    });
}

#[test]
fn layouts_of_any_graph_have_the_same_bits() {
    // All edges of 300 vertices: each list is long, and eight slots.
    let graphs = [(1, 0, 0), (2, 2, 0), (40, 0, 0), (255, 3, 0), (256, 3, 0), (257, 40, 0), (300, 900, 0)];
    let graphs = graphs.map(|(n, degree, hub)| Graph::new(n, degree, hub));
    let empty = Graph { offsets: vec![0], targets: Vec::new(), weights: Vec::new() };
    on_each_gpu(|gpu| {
        for graph in graphs.iter().chain([&empty]) {
            assert_same_layout(gpu, graph, 2, &PARAMS);
        }
    });
}

#[test]
fn layouts_with_any_parameters_have_the_same_bits() {
    let graph = Graph::new(280, 9, 0);
    on_each_gpu(|gpu| {
        // 17 and 40 pushes: more than a batch's rows. No epochs: nothing moves.
        for negative_samples in [0, 1, 16, 17, 40] {
            assert_same_layout(gpu, &graph, 5, &LayoutParams { negative_samples, epochs: 4, ..PARAMS });
        }
        for params in [
            LayoutParams { epochs: 0, ..PARAMS },
            LayoutParams { epochs: 20, seed: 9, ..PARAMS },
            LayoutParams { a: 0.3, b: 1.4, repulsion_strength: 3.0, learning_rate: 0.4, seed: 77, ..PARAMS },
        ] {
            assert_same_layout(gpu, &graph, 3, &params);
        }
    });
}

#[test]
fn progress_is_told_and_can_break_a_layout_off() {
    let graph = Graph::new(100, 9, 0);
    on_each_gpu(|gpu| {
        let heard = RefCell::new(Vec::new());
        let stop = |done, all| {
            heard.borrow_mut().push((done, all));
            if done == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let (mut found, mut expected) = (start(100, 2), start(100, 2));
        assert!(layout(gpu, graph.edges(), &mut found, &PARAMS, &stop).unwrap().is_break());
        assert_eq!(heard.take(), [(1, 6), (2, 6), (3, 6)]);
        let cpu = Device::open("cpu").unwrap();
        assert!(layout::layout(&cpu, graph.edges(), &mut expected, &PARAMS, &stop).unwrap().is_break());
        assert!(bits(&found) == bits(&expected));
        let mut positions = start(99, 2);
        let error = layout(gpu, graph.edges(), &mut positions, &PARAMS, &stop).unwrap_err().to_string();
        assert!(error.contains("layout graph"), "{error}");
    });
}

#[test]
fn new_points_are_placed_to_the_same_bits() {
    // 150 new points over 70 fixed ones: a block that is not full, points without an edge.
    let count = 150;
    let mut graph = Graph { offsets: vec![0], targets: Vec::new(), weights: Vec::new() };
    for i in 0..count {
        for edge in 0..i % 6 {
            let hash = mix64((i * 8 + edge) as u64);
            graph.targets.push((hash % 70) as u32);
            graph.weights.push(if edge == 0 { 1.0 } else { (hash >> 40) as f32 / (1u32 << 24) as f32 });
        }
        graph.offsets.push(graph.targets.len());
    }
    let keys: Vec<u64> = (0..count as u64).map(|i| i * i + 3).collect();
    let none = Graph { offsets: vec![0], targets: Vec::new(), weights: Vec::new() };
    let cpu = Device::open("cpu").unwrap();
    on_each_gpu(|gpu| {
        for dim in [1, 2, 3, 5, 16, 64] {
            let fixed = start(70, dim);
            let params = LayoutParams { epochs: 9, ..PARAMS };
            let (mut found, mut expected) = (start(count, dim), start(count, dim));
            place(gpu, &fixed, graph.edges(), &keys, &mut found, &params).unwrap();
            layout::place(&cpu, &fixed, graph.edges(), &keys, &mut expected, &params).unwrap();
            assert!(bits(&found) == bits(&expected), "{dim} dimensions");
            place(gpu, &fixed, none.edges(), &[], &mut start(0, dim), &params).unwrap();
            assert!(place(gpu, &fixed, graph.edges(), &keys[1..], &mut found, &params).is_err());
        }
    });
}
