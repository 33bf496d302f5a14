//! Core distances and the minimum spanning tree under mutual reachability, both exact.
//!
//! The mutual reachability distance of a and b is max(core(a), core(b), |a − b|), where core is the distance to the
//! `min_samples`-th other point (Campello, Moulavi, Sander 2013). The tree grows by Borůvka's rounds over a
//! [`KdTree`] (after March, Ram, Gray 2010): each round every component takes its lightest edge to another one. A
//! subtree is skipped when it lies in the component that asks, or when neither its box nor its smallest core
//! distance can beat what the component has found. What a point learnt in one round bounds it from below in the
//! next, since the points outside its component only become fewer.
//!
//! Equal weights are common here: every neighbour within a point's core distance ties. Of equally heavy edges the
//! one whose ends are nearer to each other counts as lighter, and of those the one between smaller rows. So there is one
//! lightest tree: the number of threads does not change it, nor does the order of rows where no two pairs of points
//! are equally far apart. Threads share only the components' bounds, and a bound never hides an edge of the final weight.

mod forest;

use crate::kd_tree::{KdTree, LANES, QueryTile, Visitor};
use crate::{Error, Result};
pub(crate) use forest::{Forest, Found, Known};
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// The component of a node whose points belong to several.
const MIXED: u32 = u32::MAX;

/// An edge of a spanning tree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Edge {
    /// The end with the smaller row.
    pub a: u32,
    /// The end with the larger row.
    pub b: u32,
    /// The mutual reachability distance of the ends.
    pub weight: f64,
}

/// Returns each point's distance to its `min_samples`-th nearest *other* point, in row order.
///
/// Fails where `min_samples` is 0 or not less than the number of points.
pub fn core_distances(tree: &KdTree, min_samples: usize) -> Result<Vec<f64>> {
    check_min_samples(tree, min_samples)?;
    // The point itself is the first of its neighbours.
    tree.kth_distances(min_samples + 1)
}

/// Returns the n − 1 edges of the minimum spanning tree under mutual reachability, lightest first; equally heavy ones
/// by the Euclidean distance of their ends, then by their ends. In that order the tree is the only one.
///
/// `core` holds the core distance of each row (zeros give the Euclidean tree). Fails where its length is not the
/// number of points or a value is negative or not finite.
pub fn minimum_spanning_tree(tree: &KdTree, core: &[f64]) -> Result<Vec<Edge>> {
    check_core(tree, core)?;
    let mut growth = Growth::new(tree, core);
    while growth.forest.components > 1 {
        growth.round();
    }
    Ok(growth.forest.into_edges())
}

/// Fails where points do not have that many others.
pub(crate) fn check_min_samples(tree: &KdTree, min_samples: usize) -> Result<()> {
    if (1..tree.rows()).contains(&min_samples) {
        return Ok(());
    }
    Err(Error::Shape {
        what: "min_samples",
        expected: format!("1 to {} (one less than the points)", tree.rows().saturating_sub(1)),
        found: min_samples.to_string(),
    })
}

/// Fails where core distances are not one a point, or not distances.
pub(crate) fn check_core(tree: &KdTree, core: &[f64]) -> Result<()> {
    if core.len() != tree.rows() {
        return Err(Error::Shape {
            what: "core distances",
            expected: format!("{} values", tree.rows()),
            found: format!("{} values", core.len()),
        });
    }
    if let Some(bad) = core.iter().find(|&&c| c < 0.0 || !(c * c).is_finite()) {
        let expected = "numbers from 0 whose squares are finite".into();
        return Err(Error::Shape { what: "core distances", expected, found: bad.to_string() });
    }
    Ok(())
}

/// The square of each position's core distance.
pub(crate) fn squared_core(tree: &KdTree, core: &[f64]) -> Vec<f64> {
    tree.order().iter().map(|&row| core[row as usize] * core[row as usize]).collect()
}

/// The search for the next edges. Points are known by their position in the tree, weights by their squares.
struct Growth<'a> {
    tree: &'a KdTree,
    core: Vec<f64>,
    /// The smallest core distance of each node, and the smallest row.
    node_core: Vec<f64>,
    node_row: Vec<u32>,
    forest: Forest<'a>,
    known: Vec<Known>,
}

impl<'a> Growth<'a> {
    fn new(tree: &'a KdTree, core: &[f64]) -> Self {
        let core = squared_core(tree, core);
        let node_core = tree.summarise(
            |block| {
                core[block * LANES..][..tree.block_len(block)].iter().copied().fold(f64::INFINITY, f64::min)
            },
            f64::min,
        );
        let rows = tree.order();
        let node_row = tree.summarise(
            |block| rows[block * LANES..][..tree.block_len(block)].iter().copied().fold(u32::MAX, u32::min),
            u32::min,
        );
        let known = vec![Known::default(); core.len()];
        Self { tree, node_core, node_row, forest: Forest::new(tree), known, core }
    }

    /// Adds the lightest edge out of each component.
    fn round(&mut self) {
        let bounds = self.forest.bounds(&self.known);
        let bounds: Vec<AtomicU64> = bounds.into_iter().map(|b| AtomicU64::new(b.to_bits())).collect();
        let component = &self.forest.component;
        let node_component = self.tree.summarise(
            |block| {
                let own = &component[block * LANES..][..self.tree.block_len(block)];
                if own.iter().all(|&c| c == own[0]) { own[0] } else { MIXED }
            },
            |left, right| if left == right { left } else { MIXED },
        );

        let mut known = std::mem::take(&mut self.known);
        let found: Vec<Vec<Found>> = known
            .par_chunks_mut(LANES)
            .enumerate()
            .map(|(block, known)| self.search(block, known, &bounds, &node_component))
            .collect();
        self.known = known;
        self.forest.join_lightest(found.into_iter().flatten());
    }

    /// Searches for the lightest outgoing edges of the points of a block that may still hold their component's.
    fn search(
        &self,
        block: usize,
        known: &mut [Known],
        bounds: &[AtomicU64],
        node_component: &[u32],
    ) -> Vec<Found> {
        let first = block * LANES;
        let may_matter = |lane: &usize| {
            let (component, core) = (self.forest.component[first + lane], self.core[first + lane]);
            known[*lane].at_least.max(core) <= load(&bounds[component as usize])
        };
        let lanes: Vec<usize> = (0..known.len()).filter(may_matter).collect();
        if lanes.is_empty() {
            return Vec::new();
        }
        let queries: Vec<Query> = lanes
            .iter()
            .map(|lane| Query {
                component: self.forest.component[first + lane],
                core: self.core[first + lane],
                best: f64::INFINITY,
                distance: f64::INFINITY,
                row: u32::MAX,
                end: None,
                limit: f64::INFINITY,
            })
            .collect();
        let shared = queries[0].component;
        let shared = if queries.iter().all(|q| q.component == shared) { shared } else { MIXED };
        let mut search = OutgoingSearch {
            growth: self,
            bounds,
            node_component,
            queries,
            shared,
            reach: 0.0,
            tie_reach: 0.0,
        };
        search.tighten();
        self.tree.visit(&QueryTile::new(self.tree, block, &lanes), &mut search);

        let mut found = Vec::new();
        for (&lane, query) in lanes.iter().zip(&search.queries) {
            let bound = load(&bounds[query.component as usize]);
            let end = query.end.filter(|_| query.best <= bound);
            known[lane] = Known { at_least: known[lane].at_least.max(query.best.min(bound)), end };
            if let Some(to) = end {
                let from = (first + lane) as u32;
                found.push(Found { weight: query.best, distance: query.distance, from, to });
            }
        }
        found
    }
}

/// One point's search for its lightest edge out of its component.
struct Query {
    component: u32,
    core: f64,
    /// The weight of the best edge so far, the distance of its ends, and its other end's row and position.
    best: f64,
    distance: f64,
    row: u32,
    end: Option<u32>,
    /// Only edges lighter than this can be better: the best, or just above what its component has reached elsewhere.
    limit: f64,
}

impl Query {
    /// Says whether the best edge may be the component's, so that equally heavy ones matter.
    fn may_tie(&self) -> bool {
        self.best <= self.limit
    }

    /// Says whether an edge as heavy as the best one, with ends that far apart, to that row, is to be preferred.
    fn prefers(&self, distance: f64, row: u32) -> bool {
        distance < self.distance || distance == self.distance && row < self.row
    }
}

/// The searches of the points of a block.
struct OutgoingSearch<'a> {
    growth: &'a Growth<'a>,
    bounds: &'a [AtomicU64],
    node_component: &'a [u32],
    queries: Vec<Query>,
    /// The component of all queries, or `MIXED`.
    shared: u32,
    /// The largest limit of a query that can still find a lighter edge.
    reach: f64,
    /// The largest distance of the ends of an edge that an equally heavy one could replace.
    tie_reach: f64,
}

impl OutgoingSearch<'_> {
    /// Takes over what other threads have found for the components.
    fn tighten(&mut self) {
        (self.reach, self.tie_reach) = (0.0, 0.0);
        for query in &mut self.queries {
            query.limit = query.best.min(load(&self.bounds[query.component as usize]).next_up());
            if query.core < query.limit {
                self.reach = self.reach.max(query.limit);
            }
            if query.may_tie() {
                self.tie_reach = self.tie_reach.max(query.distance);
            }
        }
    }
}

impl Visitor for OutgoingSearch<'_> {
    fn wants(&mut self, node: usize, gap: f64) -> bool {
        if self.shared != MIXED && self.node_component[node] == self.shared {
            return false;
        }
        let lightest = gap.max(self.growth.node_core[node]);
        lightest < self.reach
            || gap <= self.tie_reach
                && self
                    .queries
                    .iter()
                    .any(|q| q.may_tie() && lightest <= q.best && q.prefers(gap, self.growth.node_row[node]))
    }

    fn block(&mut self, block: usize, len: usize, distances: &[[f64; LANES]; LANES]) {
        let first = block * LANES;
        let core = &self.growth.core[first..first + len];
        let component = &self.growth.forest.component[first..first + len];
        let rows = &self.growth.tree.order()[first..first + len];
        for (query, distances) in self.queries.iter_mut().zip(distances) {
            for lane in 0..len {
                let weight = distances[lane].max(core[lane]).max(query.core);
                let lighter = weight < query.limit
                    || weight == query.best && query.prefers(distances[lane], rows[lane]);
                if lighter && component[lane] != query.component {
                    query.limit = query.limit.min(weight);
                    query.best = weight;
                    query.distance = distances[lane];
                    query.row = rows[lane];
                    query.end = Some((first + lane) as u32);
                }
            }
            if query.best < f64::INFINITY {
                // Squared weights are never negative, so their bits order as they do.
                self.bounds[query.component as usize].fetch_min(query.best.to_bits(), Ordering::Relaxed);
            }
        }
        self.tighten();
    }
}

fn load(bound: &AtomicU64) -> f64 {
    f64::from_bits(bound.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::forest::root;
    use super::*;
    use crate::Matrix;
    use crate::random::grid as points;

    fn distance(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum::<f64>().sqrt()
    }

    fn plain_core(points: &Matrix<f32>, min_samples: usize) -> Vec<f64> {
        let kth = |p| {
            let mut all: Vec<f64> = points.iter_rows().map(|q| distance(p, q)).collect();
            all.sort_by(f64::total_cmp);
            all[min_samples]
        };
        points.iter_rows().map(kth).collect()
    }

    /// Prim's algorithm over all pairs: the weights of the tree, lightest first.
    fn plain_weights(points: &Matrix<f32>, core: &[f64]) -> Vec<f64> {
        let mut best = vec![f64::INFINITY; points.rows()];
        let mut left: Vec<usize> = (1..points.rows()).collect();
        let (mut at, mut weights) = (0, Vec::new());
        while !left.is_empty() {
            for &i in &left {
                let reach = distance(points.row(at), points.row(i)).max(core[at]).max(core[i]);
                best[i] = best[i].min(reach);
            }
            let next = (0..left.len()).min_by(|&x, &y| best[left[x]].total_cmp(&best[left[y]])).unwrap();
            at = left.swap_remove(next);
            weights.push(best[at]);
        }
        weights.sort_by(f64::total_cmp);
        weights
    }

    fn in_pool<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
    }

    // 1: no edge; 16 and 17: one block, and one point in a second; 300: several levels; 40 dimensions: nothing can
    // be skipped; steps 3: almost only ties and duplicates.
    const CASES: [(usize, usize, u64); 9] = [
        (2, 2, 1 << 30),
        (16, 2, 1 << 30),
        (17, 3, 1 << 30),
        (300, 1, 1 << 30),
        (300, 5, 1 << 30),
        (300, 40, 1 << 30),
        (300, 2, 3),
        (700, 5, 3),
        (257, 3, 1),
    ];

    #[test]
    fn core_distances_equal_those_of_sorting_all_pairs() {
        for (rows, dims, steps) in CASES {
            for min_samples in [1, 5, 40].map(|m: usize| m.min(rows - 1)) {
                let points = points(rows, dims, steps, 7);
                let core = core_distances(&KdTree::build(&points).unwrap(), min_samples).unwrap();
                for (ours, plain) in core.iter().zip(plain_core(&points, min_samples)) {
                    // One rounding per dimension and for the root, on either side.
                    let bound = (dims + 2) as f64 * f64::EPSILON * plain;
                    assert!((ours - plain).abs() <= bound, "{rows} x {dims}: {ours} {plain}");
                }
            }
        }
    }

    #[test]
    fn the_tree_spans_all_points_and_is_as_light_as_prims() {
        for (rows, dims, steps) in CASES {
            for min_samples in [1, 5, 40].map(|m: usize| m.min(rows - 1)) {
                let points = points(rows, dims, steps, 11);
                let tree = KdTree::build(&points).unwrap();
                let core = core_distances(&tree, min_samples).unwrap();
                let edges = minimum_spanning_tree(&tree, &core).unwrap();
                let plain = plain_weights(&points, &core);
                assert_eq!(edges.len(), rows - 1);
                let mut parent: Vec<u32> = (0..rows as u32).collect();
                for (edge, weight) in edges.iter().zip(plain) {
                    let bound = (dims + 2) as f64 * f64::EPSILON * weight;
                    assert!(
                        (edge.weight - weight).abs() <= bound,
                        "{rows} x {dims}, steps {steps}: {edge:?} {weight}"
                    );
                    let (a, b) = (edge.a as usize, edge.b as usize);
                    let reach = distance(points.row(a), points.row(b)).max(core[a]).max(core[b]);
                    assert!((edge.weight - reach).abs() <= bound, "{edge:?} is not its own distance {reach}");
                    let (a, b) = (root(&mut parent, edge.a), root(&mut parent, edge.b));
                    assert_ne!(a, b, "{edge:?} closes a cycle");
                    parent[a as usize] = b;
                }
            }
        }
    }

    #[test]
    fn of_edges_that_tie_the_ones_between_the_smallest_rows_make_the_tree() {
        for (rows, dims, steps) in [(400, 2, 12), (500, 3, 3), (300, 1, 1000), (270, 5, 1), (20, 0, 1)] {
            let points = points(rows, dims, steps, 5);
            let tree = KdTree::build(&points).unwrap();
            for min_samples in [1, 6] {
                let core = core_distances(&tree, min_samples).unwrap();
                // Kruskal's algorithm over all pairs.
                let mut pairs = Vec::new();
                for b in 0..rows {
                    for a in 0..b {
                        let distance = points.row(a).iter().zip(points.row(b)).fold(0.0, |sum, (x, y)| {
                            let difference = f64::from(*x) - f64::from(*y);
                            difference.mul_add(difference, sum)
                        });
                        let weight = distance.max(core[a] * core[a]).max(core[b] * core[b]);
                        pairs.push((weight.to_bits(), distance.to_bits(), a as u32, b as u32));
                    }
                }
                pairs.sort_unstable();
                let mut parent: Vec<u32> = (0..rows as u32).collect();
                let mut expected = Vec::new();
                for (weight, _, a, b) in pairs {
                    let (from, to) = (root(&mut parent, a), root(&mut parent, b));
                    if from != to {
                        parent[from as usize] = to;
                        expected.push(Edge { a, b, weight: f64::from_bits(weight).sqrt() });
                    }
                }
                assert_eq!(minimum_spanning_tree(&tree, &core).unwrap(), expected, "{rows} x {dims}");
            }
        }
    }

    #[test]
    fn any_number_of_threads_finds_the_same_edges() {
        for (dims, steps) in [(5, 1 << 30), (5, 4), (2, 40)] {
            let tree = KdTree::build(&points(3000, dims, steps, 3)).unwrap();
            let core = core_distances(&tree, 10).unwrap();
            let one = in_pool(1, || minimum_spanning_tree(&tree, &core).unwrap());
            for threads in [2, 7, 7, 7] {
                assert_eq!(in_pool(threads, || minimum_spanning_tree(&tree, &core).unwrap()), one);
            }
        }
    }

    #[test]
    fn the_order_of_rows_does_not_change_the_tree() {
        for (dims, min_samples) in [(2, 10), (5, 30), (3, 1)] {
            let points = points(2000, dims, 1 << 30, 23);
            let edges_of = |points: &Matrix<f32>| {
                let tree = KdTree::build(points).unwrap();
                minimum_spanning_tree(&tree, &core_distances(&tree, min_samples).unwrap()).unwrap()
            };
            // 1,999 is prime to 2,000, so each row comes once.
            let moved: Vec<u32> = (0..2000).map(|i| i * 1999 % 2000).collect();
            let moved_back = |e: &Edge| {
                let (a, b) = (moved[e.a as usize], moved[e.b as usize]);
                Edge { a: a.min(b), b: a.max(b), weight: e.weight }
            };
            let of_moved: Vec<Edge> = edges_of(&points.gather(&moved)).iter().map(moved_back).collect();
            assert_eq!(of_moved, edges_of(&points));
        }
    }

    #[test]
    fn fifty_thousand_equal_points_take_no_quadratic_time() {
        let tree = KdTree::build(&Matrix::zeros(50_000, 5)).unwrap();
        let core = core_distances(&tree, 50).unwrap();
        let edges = minimum_spanning_tree(&tree, &core).unwrap();
        assert_eq!(edges.len(), 49_999);
        assert!(edges.iter().all(|e| e.weight == 0.0));
    }

    #[test]
    fn more_neighbours_than_other_points_are_refused() {
        let tree = KdTree::build(&Matrix::zeros(5, 2)).unwrap();
        assert!(core_distances(&tree, 4).is_ok());
        let error = core_distances(&tree, 5).unwrap_err().to_string();
        assert!(error.contains("min_samples") && error.contains("1 to 4"), "{error}");
        assert!(core_distances(&tree, 0).is_err());
    }

    #[test]
    fn core_distances_that_are_none_are_refused() {
        let tree = KdTree::build(&Matrix::zeros(3, 2)).unwrap();
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(minimum_spanning_tree(&tree, &[0.0, bad, 0.0]).is_err());
        }
        assert!(minimum_spanning_tree(&tree, &[0.0; 2]).is_err());
    }

    #[test]
    fn one_point_and_none_have_a_tree_without_edges() {
        for rows in [0, 1] {
            let tree = KdTree::build(&Matrix::zeros(rows, 3)).unwrap();
            assert!(minimum_spanning_tree(&tree, &vec![0.0; rows]).unwrap().is_empty());
        }
    }
}
