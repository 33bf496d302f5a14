//! DBSCAN: clusters of points that are dense enough, and what lies near them.
//!
//! - Formula (Ester, Kriegel, Sander, Xu 1996): a point is a *core* point if at least `min_samples` points, itself
//!   among them, lie at most `eps` from it. Core points within `eps` of each other are of one cluster. Any other point
//!   that has core points within `eps` is at the *border* of the cluster, of those, whose first core point comes first:
//!   what scikit-learn's walk from the first row to the last gives it. All else is noise.
//! - Distances: squares summed in f64 over f32 coordinates ([`KdTree`]), compared with eps².
//! - Passes over the pairs within `eps`: one counts them, one joins core points, one looks for border points. No list of
//!   pairs is held: memory beside the tree is 9 bytes a point.
//! - A cluster is known by the least row of its core points. Which threads join which points first changes nothing.

use crate::kd_tree::{KdTree, LANES, QueryTile, Visitor};
use crate::{Error, Result};
use rayon::prelude::*;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};

/// Blocks of points between two questions whether to stop: some hundredths of a second of work.
const BLOCKS_AT_A_TIME: usize = 2048;

/// What DBSCAN found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dbscan {
    /// The cluster of each point, numbered in the order of their first core points; −1 for noise.
    pub labels: Vec<i32>,
    /// Whether each point is a core point.
    pub core: Vec<bool>,
}

/// Clusters the points of `tree`. `stop` is asked now and then, and may break off.
///
/// # Errors
/// `Shape` for an `eps` that is no number above 0; `Stopped`.
pub fn dbscan(
    tree: &KdTree,
    eps: f64,
    min_samples: usize,
    stop: &dyn Fn() -> ControlFlow<()>,
) -> Result<Dbscan> {
    if !(eps > 0.0 && eps.is_finite()) {
        let (expected, found) = ("a number above 0".into(), eps.to_string());
        return Err(Error::Shape { what: "eps", expected, found });
    }
    let rows = tree.rows();
    let squared = eps * eps;

    // By position, as the tree has the points; a row's answers come at the end.
    let mut counts = vec![0u32; rows];
    for_each_block(tree, &mut counts, stop, |block, counts: &mut [u32]| {
        within(tree, block, squared, |_| true, |query, _| counts[query] += 1);
    })?;
    let is_core: Vec<bool> = counts.iter().map(|count| *count as usize >= min_samples).collect();
    drop(counts);

    let clusters = Forest::new(rows);
    let order = tree.order();
    for_each_block(tree, &mut vec![(); rows], stop, |block, _| {
        let first = block * LANES;
        within(
            tree,
            block,
            squared,
            |query| is_core[first + query],
            |query, other| {
                // Each pair is seen from both sides.
                if other < first + query && is_core[other] {
                    clusters.join(order[first + query], order[other]);
                }
            },
        );
    })?;

    // The least core row of the cluster of each point; none for noise.
    let mut roots = vec![u32::MAX; rows];
    for_each_block(tree, &mut roots, stop, |block, roots: &mut [u32]| {
        let first = block * LANES;
        for (query, root) in roots.iter_mut().enumerate().filter(|(query, _)| is_core[first + query]) {
            *root = clusters.root(order[first + query]);
        }
        within(
            tree,
            block,
            squared,
            |query| !is_core[first + query],
            |query, other| {
                if is_core[other] {
                    roots[query] = roots[query].min(clusters.root(order[other]));
                }
            },
        );
    })?;

    let mut found = Dbscan { labels: vec![-1; rows], core: vec![false; rows] };
    let mut root_of = vec![u32::MAX; rows];
    for (position, &row) in order.iter().enumerate() {
        found.core[row as usize] = is_core[position];
        root_of[row as usize] = roots[position];
    }
    let mut number = vec![-1; rows];
    let mut next = 0;
    for (row, root) in root_of.iter().enumerate() {
        if *root as usize == row {
            number[row] = next;
            next += 1;
        }
    }
    for (label, root) in found.labels.iter_mut().zip(&root_of).filter(|(_, root)| **root != u32::MAX) {
        *label = number[*root as usize];
    }
    Ok(found)
}

/// Calls `visit` with each block of points and its part of `values` (one a position), on all threads.
fn for_each_block<T: Send>(
    tree: &KdTree,
    values: &mut [T],
    stop: &dyn Fn() -> ControlFlow<()>,
    visit: impl Fn(usize, &mut [T]) + Sync,
) -> Result<()> {
    debug_assert_eq!(values.len(), tree.rows());
    for (part, values) in values.chunks_mut(BLOCKS_AT_A_TIME * LANES).enumerate() {
        if stop().is_break() {
            return Err(Error::Stopped("dbscan"));
        }
        values
            .par_chunks_mut(LANES)
            .enumerate()
            .for_each(|(block, values)| visit(part * BLOCKS_AT_A_TIME + block, values));
    }
    Ok(())
}

/// Calls `found` with each wanted lane of a block and the position of each point within the radius, itself too.
fn within(
    tree: &KdTree,
    block: usize,
    squared_radius: f64,
    wanted: impl Fn(usize) -> bool,
    found: impl FnMut(usize, usize),
) {
    let lanes: Vec<usize> = (0..tree.block_len(block)).filter(|lane| wanted(*lane)).collect();
    if !lanes.is_empty() {
        let tile = QueryTile::new(tree, block, &lanes);
        tree.visit(&tile, &mut Within { lanes: &lanes, squared_radius, found });
    }
}

/// A search for all points within a radius.
struct Within<'a, F> {
    lanes: &'a [usize],
    squared_radius: f64,
    found: F,
}

impl<F: FnMut(usize, usize)> Visitor for Within<'_, F> {
    fn wants(&mut self, _node: usize, gap: f64) -> bool {
        gap <= self.squared_radius
    }

    fn block(&mut self, block: usize, len: usize, distances: &[[f64; LANES]; LANES]) {
        for (&lane, squared) in self.lanes.iter().zip(distances) {
            for (other, _) in squared[..len].iter().enumerate().filter(|(_, d)| **d <= self.squared_radius) {
                (self.found)(lane, block * LANES + other);
            }
        }
    }
}

/// Disjoint sets of rows, each known by its least, joined by many threads at once.
///
/// A parent is never larger than its child, so that paths end; a join that meets another one begins again.
struct Forest {
    parents: Vec<AtomicU32>,
}

impl Forest {
    fn new(rows: usize) -> Self {
        // A tree has fewer than 2^32 rows.
        Self { parents: (0..rows as u32).map(AtomicU32::new).collect() }
    }

    fn root(&self, mut row: u32) -> u32 {
        loop {
            let parent = self.parents[row as usize].load(Ordering::Relaxed);
            if parent == row {
                return row;
            }
            let above = self.parents[parent as usize].load(Ordering::Relaxed);
            // Paths are halved; what another thread has put there meanwhile is as good.
            self.parents[row as usize].fetch_min(above, Ordering::Relaxed);
            row = above;
        }
    }

    fn join(&self, a: u32, b: u32) {
        let (mut a, mut b) = (a, b);
        loop {
            (a, b) = (self.root(a), self.root(b));
            if a == b {
                return;
            }
            let (least, other) = (a.min(b), a.max(b));
            let parent = &self.parents[other as usize];
            if parent.compare_exchange(other, least, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Matrix;
    use crate::random::uniform;

    fn go() -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn find(points: &Matrix<f32>, eps: f64, min_samples: usize) -> Dbscan {
        dbscan(&KdTree::build(points).unwrap(), eps, min_samples, &go).unwrap()
    }

    /// The walk as published: from the first row to the last, each unvisited core point gathers all it reaches.
    fn walk(points: &Matrix<f32>, eps: f64, min_samples: usize) -> Dbscan {
        let near = |a: usize, b: usize| {
            let pairs = points.row(a).iter().zip(points.row(b));
            let squared = pairs.fold(0.0, |sum: f64, (x, y)| {
                let difference = f64::from(*x) - f64::from(*y);
                difference.mul_add(difference, sum)
            });
            squared <= eps * eps
        };
        let rows = points.rows();
        let neighbours: Vec<Vec<usize>> =
            (0..rows).map(|a| (0..rows).filter(|b| near(a, *b)).collect()).collect();
        let core: Vec<bool> = neighbours.iter().map(|found| found.len() >= min_samples).collect();
        let (mut labels, mut next) = (vec![-1; rows], 0);
        for row in 0..rows {
            if labels[row] >= 0 || !core[row] {
                continue;
            }
            let mut stack = vec![row];
            while let Some(at) = stack.pop() {
                if labels[at] < 0 {
                    labels[at] = next;
                    if core[at] {
                        stack.extend(neighbours[at].iter().filter(|other| labels[**other] < 0));
                    }
                }
            }
            next += 1;
        }
        Dbscan { labels, core }
    }

    #[test]
    fn clusters_are_those_of_the_published_walk() {
        // One block and a point, many blocks; one dimension to eight; all noise to one cluster.
        for (rows, dims) in [(1, 1), (17, 2), (300, 1), (700, 2), (1000, 5), (400, 8)] {
            let points = uniform(rows as u64, rows * dims).iter().map(|x| x * 4.0).collect();
            let points = Matrix::try_from_vec(rows, dims, points).unwrap();
            for eps in [0.01, 0.1, 0.3, 1.0, 5.0] {
                for min_samples in [1, 2, 5, 12] {
                    let found = find(&points, eps, min_samples);
                    assert_eq!(found, walk(&points, eps, min_samples), "{rows} {dims} {eps} {min_samples}");
                }
            }
        }
    }

    #[test]
    fn a_point_at_the_border_of_two_clusters_goes_to_the_one_whose_first_core_point_comes_first() {
        // Of three points around 2 and three around 0, one each sees the last, which lies between them.
        let line = [2.0, 2.1, 2.2, 0.2, 0.1, 0.0, 1.1];
        let points = Matrix::try_from_vec(line.len(), 1, line.to_vec()).unwrap();
        let found = find(&points, 0.9001, 4);
        assert_eq!(found.labels, [0, 0, 0, 1, 1, 1, 0]);
        assert_eq!(found.core, [true, false, false, true, false, false, false]);
        assert_eq!(found, walk(&points, 0.9001, 4));
        assert_eq!(find(&points, 0.9001, 5).labels, [-1; 7]);
    }

    #[test]
    fn equal_points_are_one_cluster_and_no_points_none() {
        let found = find(&Matrix::zeros(100, 3), 0.1, 100);
        assert_eq!(found.labels, [0; 100]);
        assert_eq!(find(&Matrix::zeros(0, 3), 0.1, 1), Dbscan { labels: vec![], core: vec![] });
    }

    #[test]
    fn the_same_clusters_come_of_any_number_of_threads() {
        let points = Matrix::try_from_vec(30_000, 2, uniform(9, 60_000)).unwrap();
        let all = find(&points, 0.02, 16);
        for threads in [1, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| find(&points, 0.02, 16)), all, "{threads}");
        }
        assert!(all.labels.contains(&-1) && all.labels.contains(&1), "clusters and noise");
    }

    #[test]
    fn a_radius_that_is_none_is_refused_and_a_stop_is_heard() {
        let tree = KdTree::build(&Matrix::zeros(10, 2)).unwrap();
        for eps in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(dbscan(&tree, eps, 2, &go), Err(Error::Shape { what: "eps", .. })));
        }
        let stopped = dbscan(&tree, 1.0, 2, &|| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(Error::Stopped("dbscan"))));
    }
}
