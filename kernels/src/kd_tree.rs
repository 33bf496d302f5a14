//! A kd-tree whose leaves are full blocks of [`LANES`] points: exact nearest neighbours in any number of dimensions.
//!
//! The idea: points are reordered so that leaf `i` is block `i`, stored dimension by dimension, and queries come in
//! blocks of neighbours too. Two blocks meet in one small dense kernel (all their distances at once, in vector
//! registers), and a subtree is skipped when the gap between two boxes says so. In few dimensions nearly all is
//! skipped; in hundreds nothing is, and what remains is a blocked brute force that never stores n × n distances.
//!
//! * Layout: nodes in preorder, so the left child of `i` is `i + 1` and the right child follows the left subtree (a
//!   subtree of m blocks has 2m − 1 nodes). A node splits its blocks in half, on the widest side of its box.
//! * Distances: f32 coordinates, squares summed in f64 in the order of the dimensions by fused multiply-add: the
//!   same bits for (a, b) and (b, a) and on every instruction set.
//! * Cost: O(n log n) to build; memory 4 n d bytes for the points and 2 n d for the boxes.

use crate::simd::dispatch;
use crate::{Error, Isa, Matrix, Result};
use rayon::prelude::*;

/// Points per leaf: two AVX-512 registers of f64, four of AVX2.
pub(crate) const LANES: usize = 16;

/// Queries that share one pass over a block: 4 × 16 distances fill half of the 32 registers of AVX-512.
const GROUP: usize = 4;

/// A subtree below this many points is built by one thread.
const BUILD_ALONE: usize = 4096;

/// Points arranged for nearest-neighbour search.
#[derive(Debug, Clone)]
pub struct KdTree {
    dims: usize,
    isa: Isa,
    /// The row of each position; positions count through the blocks.
    order: Vec<u32>,
    /// Block after block, dimension by dimension, `LANES` values each; the last block is filled up with infinity.
    coords: Vec<f32>,
    /// Per node: `dims` lower bounds, then `dims` upper ones.
    boxes: Vec<f64>,
}

/// The nearest rows of each query.
#[derive(Debug, Clone, PartialEq)]
pub struct Nearest {
    /// Rows of the tree's points: queries × k, nearest first, ties by the smaller row.
    pub rows: Matrix<u32>,
    /// Their Euclidean distances.
    pub distances: Matrix<f64>,
}

impl KdTree {
    /// Arranges the rows of `points`; fails at a value that is not a finite number.
    pub fn build(points: &Matrix<f32>) -> Result<Self> {
        points.check_finite()?;
        if u32::try_from(points.rows()).is_err() {
            return Err(Error::Shape {
                what: "points",
                expected: "fewer than 2^32 rows".into(),
                found: format!("{} rows", points.rows()),
            });
        }
        let (rows, dims) = (points.rows(), points.cols());
        let blocks = rows.div_ceil(LANES);
        let mut order: Vec<u32> = (0..rows as u32).collect();
        let mut boxes = vec![0.0; (2 * blocks).saturating_sub(1) * 2 * dims];
        if blocks > 0 {
            grow(points, &mut order, &mut boxes);
        }
        let mut coords = vec![f32::INFINITY; blocks * LANES * dims];
        for (position, &row) in order.iter().enumerate() {
            let (block, lane) = (position / LANES, position % LANES);
            for (j, &value) in points.row(row as usize).iter().enumerate() {
                coords[(block * dims + j) * LANES + lane] = value;
            }
        }
        Ok(Self { dims, isa: Isa::detect(), order, coords, boxes })
    }

    /// The number of points.
    pub fn rows(&self) -> usize {
        self.order.len()
    }

    /// The number of coordinates of each point.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// Finds the `k` nearest points of each row of `queries`, exactly.
    ///
    /// Fails where `k` is more than the points there are, where the widths differ, or at a query that is not finite.
    pub fn nearest(&self, queries: &Matrix<f32>, k: usize) -> Result<Nearest> {
        self.check_count(k)?;
        if queries.cols() != self.dims {
            return Err(Error::Shape {
                what: "queries",
                expected: format!("{} columns", self.dims),
                found: format!("{} columns", queries.cols()),
            });
        }
        // Queries are arranged in a tree of their own, so that those of one block lie together.
        let asked = Self::build(queries)?;
        let mut rows = Matrix::zeros(queries.rows(), k);
        let mut distances = Matrix::zeros(queries.rows(), k);
        let found = asked.search_blocks(self, k, true, Candidates::sorted);
        for (position, candidates) in found.into_iter().flatten().enumerate() {
            let query = asked.order[position] as usize;
            for (at, (squared, row)) in candidates.into_iter().enumerate() {
                rows.row_mut(query)[at] = row;
                distances.row_mut(query)[at] = squared.sqrt();
            }
        }
        Ok(Nearest { rows, distances })
    }

    /// Returns each point's distance to its `k`-th nearest point, itself counted as the first, in row order.
    pub fn kth_distances(&self, k: usize) -> Result<Vec<f64>> {
        self.check_count(k)?;
        let mut distances = vec![0.0; self.rows()];
        let found = self.search_blocks(self, k, false, |candidates| candidates.bound.sqrt());
        for (&row, distance) in self.order.iter().zip(found.into_iter().flatten()) {
            distances[row as usize] = distance;
        }
        Ok(distances)
    }

    fn check_count(&self, k: usize) -> Result<()> {
        if (1..=self.rows()).contains(&k) {
            return Ok(());
        }
        Err(Error::Shape {
            what: "k",
            expected: format!("1 to {} neighbours", self.rows()),
            found: k.to_string(),
        })
    }

    /// Searches `tree` for the `k` nearest points of every point of this one, block by block, and keeps of each what
    /// `keep` makes of them.
    fn search_blocks<T: Send>(
        &self,
        tree: &KdTree,
        k: usize,
        with_ties: bool,
        keep: impl Fn(&mut Candidates) -> T + Sync,
    ) -> Vec<Vec<T>> {
        let new_search = || KnnSearch { candidates: Vec::new(), order: &tree.order };
        let search_block = |search: &mut KnnSearch, block: usize| {
            let lanes: Vec<usize> = (0..self.block_len(block)).collect();
            search.candidates.resize_with(lanes.len(), || Candidates::new(k, with_ties));
            search.candidates.iter_mut().for_each(Candidates::reset);
            tree.visit(&QueryTile::new(self, block, &lanes), search);
            search
                .candidates
                .iter_mut()
                .map(|candidates| {
                    candidates.shrink();
                    keep(candidates)
                })
                .collect()
        };
        (0..self.blocks()).into_par_iter().map_init(new_search, search_block).collect()
    }

    /// Visits the blocks that `visitor` wants, nearer subtrees first and the left one of two equally near: an order
    /// that follows from the points alone.
    pub(crate) fn visit(&self, query: &QueryTile, visitor: &mut impl Visitor) {
        if self.blocks() == 0 {
            return;
        }
        let safe = self.safe();
        let mut distances = [[0.0; LANES]; LANES];
        let mut stack = vec![(Node { index: 0, first: 0, blocks: self.blocks() }, 0.0)];
        while let Some((node, gap)) = stack.pop() {
            if !visitor.wants(node.index, gap) {
                continue;
            }
            let Some((left, right)) = node.children() else {
                let block =
                    &self.coords[node.first * LANES * self.dims..(node.first + 1) * LANES * self.dims];
                for (group, packed) in query.packed.chunks_exact(GROUP * self.dims.max(1)).enumerate() {
                    let rows = &mut distances[group * GROUP..(group + 1) * GROUP];
                    dispatch!(self.isa, squared_distances(packed: &[f32], block: &[f32], rows: &mut [[f64; LANES]]));
                }
                visitor.block(node.first, self.block_len(node.first), &distances);
                continue;
            };
            let to_left = safe * box_gap(&query.bounds, self.bounds(left.index), self.dims);
            let to_right = safe * box_gap(&query.bounds, self.bounds(right.index), self.dims);
            if to_left <= to_right {
                stack.extend([(right, to_right), (left, to_left)]);
            } else {
                stack.extend([(left, to_left), (right, to_right)]);
            }
        }
    }

    /// The row of each position.
    pub(crate) fn order(&self) -> &[u32] {
        &self.order
    }

    /// The number of blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.order.len().div_ceil(LANES)
    }

    /// The number of points in a block.
    pub(crate) fn block_len(&self, block: usize) -> usize {
        LANES.min(self.order.len() - block * LANES)
    }

    /// The coordinates, block after block and dimension by dimension, as the tree stores them.
    pub(crate) fn coordinates(&self) -> &[f32] {
        &self.coords
    }

    /// Cuts the tree into its largest subtrees of at most `blocks` blocks, from left to right.
    pub(crate) fn tiles(&self, blocks: usize) -> Vec<Tile<'_>> {
        let mut tiles = Vec::new();
        let mut stack = Vec::new();
        if self.blocks() > 0 {
            stack.push(Node { index: 0, first: 0, blocks: self.blocks() });
        }
        while let Some(node) = stack.pop() {
            match node.children() {
                Some((left, right)) if node.blocks > blocks => stack.extend([right, left]),
                _ => tiles.push(Tile {
                    first: node.first,
                    blocks: node.blocks,
                    bounds: self.bounds(node.index),
                }),
            }
        }
        tiles
    }

    /// What rounding leaves for sure of the gap between two boxes: rounding may put it above the distance of a point in
    /// one of them by this share and no more.
    pub(crate) fn safe(&self) -> f64 {
        1.0 - (2 * self.dims + 8) as f64 * f64::EPSILON
    }

    /// Gives each node the value that `of_leaf` makes of its block or `join` of its children, in node order.
    pub(crate) fn summarise<T: Copy>(
        &self,
        of_leaf: impl Fn(usize) -> T,
        join: impl Fn(T, T) -> T,
    ) -> Vec<T> {
        fn fill<T: Copy>(
            node: Node,
            of_leaf: &impl Fn(usize) -> T,
            join: &impl Fn(T, T) -> T,
            out: &mut [Option<T>],
        ) -> T {
            let value = match node.children() {
                None => of_leaf(node.first),
                Some((left, right)) => join(fill(left, of_leaf, join, out), fill(right, of_leaf, join, out)),
            };
            out[node.index] = Some(value);
            value
        }
        let mut values = vec![None; (2 * self.blocks()).saturating_sub(1)];
        if self.blocks() > 0 {
            fill(Node { index: 0, first: 0, blocks: self.blocks() }, &of_leaf, &join, &mut values);
        }
        values.into_iter().flatten().collect()
    }

    fn bounds(&self, node: usize) -> &[f64] {
        &self.boxes[node * 2 * self.dims..(node + 1) * 2 * self.dims]
    }
}

/// What a search does with the tree.
pub(crate) trait Visitor {
    /// Says whether anything within a node, at a squared distance of at least `gap`, can still matter.
    fn wants(&mut self, node: usize, gap: f64) -> bool;

    /// Takes the squared distances of a block: a row per query, of which the first `len` values count.
    fn block(&mut self, block: usize, len: usize, distances: &[[f64; LANES]; LANES]);
}

/// Up to [`LANES`] queries from one block, and the box around them.
pub(crate) struct QueryTile {
    /// Group after group, dimension by dimension, `GROUP` values each.
    packed: Vec<f32>,
    bounds: Vec<f64>,
}

impl QueryTile {
    /// Takes the points at `lanes` of a block of `tree`.
    pub(crate) fn new(tree: &KdTree, block: usize, lanes: &[usize]) -> Self {
        let dims = tree.dims;
        let block = &tree.coords[block * LANES * dims..(block + 1) * LANES * dims];
        let mut packed = vec![f32::INFINITY; lanes.len().div_ceil(GROUP) * GROUP * dims];
        let mut bounds = vec![f64::INFINITY; dims];
        bounds.resize(2 * dims, f64::NEG_INFINITY);
        for (query, &lane) in lanes.iter().enumerate() {
            for j in 0..dims {
                let value = block[j * LANES + lane];
                packed[((query / GROUP) * dims + j) * GROUP + query % GROUP] = value;
                bounds[j] = bounds[j].min(f64::from(value));
                bounds[dims + j] = bounds[dims + j].max(f64::from(value));
            }
        }
        Self { packed, bounds }
    }
}

/// A subtree.
pub(crate) struct Tile<'a> {
    /// Its first block, and how many it has.
    pub(crate) first: usize,
    pub(crate) blocks: usize,
    /// The lower bounds of its box, then the upper ones.
    pub(crate) bounds: &'a [f64],
}

/// A node and the blocks below it.
#[derive(Clone, Copy)]
struct Node {
    index: usize,
    first: usize,
    blocks: usize,
}

impl Node {
    fn children(self) -> Option<(Self, Self)> {
        if self.blocks == 1 {
            return None;
        }
        let half = self.blocks.div_ceil(2);
        let left = Self { index: self.index + 1, first: self.first, blocks: half };
        let right =
            Self { index: self.index + 2 * half, first: self.first + half, blocks: self.blocks - half };
        Some((left, right))
    }
}

/// The nearest points seen so far by one query.
struct Candidates {
    k: usize,
    with_ties: bool,
    /// The k-th smallest squared distance seen, infinity before there are k.
    bound: f64,
    /// Only squared distances below this can matter: the bound, or the next number where its ties count too.
    limit: f64,
    found: Vec<(f64, u32)>,
}

impl Candidates {
    fn new(k: usize, with_ties: bool) -> Self {
        let found = Vec::with_capacity(2 * k + 2 * LANES);
        Self { k, with_ties, bound: f64::INFINITY, limit: f64::INFINITY, found }
    }

    /// Forgets one query for the next.
    fn reset(&mut self) {
        self.found.clear();
        (self.bound, self.limit) = (f64::INFINITY, f64::INFINITY);
    }

    /// Keeps the k best.
    fn shrink(&mut self) {
        if self.found.len() < self.k {
            return;
        }
        let (_, kth, _) = self.found.select_nth_unstable_by(self.k - 1, nearer);
        self.bound = kth.0;
        self.limit = if self.with_ties { self.bound.next_up() } else { self.bound };
        self.found.truncate(self.k);
    }

    fn sorted(&mut self) -> Vec<(f64, u32)> {
        self.found.sort_unstable_by(nearer);
        self.found.clone()
    }
}

fn nearer(a: &(f64, u32), b: &(f64, u32)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}

/// The k nearest points of each query of a tile.
struct KnnSearch<'a> {
    candidates: Vec<Candidates>,
    order: &'a [u32],
}

impl Visitor for KnnSearch<'_> {
    fn wants(&mut self, _node: usize, gap: f64) -> bool {
        self.candidates.iter().any(|c| gap < c.limit)
    }

    fn block(&mut self, block: usize, len: usize, distances: &[[f64; LANES]; LANES]) {
        let rows = &self.order[block * LANES..block * LANES + len];
        for (query, squared) in self.candidates.iter_mut().zip(distances) {
            // Most lanes fail: one mask of all comparisons is cheaper than a branch for each.
            let mut near =
                (0..LANES).fold(0u32, |mask, lane| mask | u32::from(squared[lane] < query.limit) << lane);
            near &= (1 << len) - 1;
            while near != 0 {
                let lane = near.trailing_zeros() as usize;
                query.found.push((squared[lane], rows[lane]));
                near &= near - 1;
            }
            // Twice k amortises the selection; the first time it comes as soon as it can give a bound.
            if query.found.len() >= 2 * query.k
                || (query.bound == f64::INFINITY && query.found.len() >= query.k)
            {
                query.shrink();
            }
        }
    }
}

/// Orders `rows` into blocks and writes the boxes of their nodes.
fn grow(points: &Matrix<f32>, rows: &mut [u32], boxes: &mut [f64]) {
    let dims = points.cols();
    let (bounds, below) = boxes.split_at_mut(2 * dims);
    let (lower, upper) = bounds.split_at_mut(dims);
    lower.fill(f64::INFINITY);
    upper.fill(f64::NEG_INFINITY);
    for &row in rows.iter() {
        for (j, &value) in points.row(row as usize).iter().enumerate() {
            lower[j] = lower[j].min(f64::from(value));
            upper[j] = upper[j].max(f64::from(value));
        }
    }
    let blocks = rows.len().div_ceil(LANES);
    if blocks == 1 {
        rows.sort_unstable();
        return;
    }
    let half = blocks.div_ceil(2);
    let width = |j: usize| upper[j] - lower[j];
    // Of equally wide sides the first.
    let widest = (0..dims).reduce(|best, j| if width(j) > width(best) { j } else { best });
    if let Some(j) = widest {
        let key = |row: u32| points.row(row as usize)[j];
        rows.select_nth_unstable_by(half * LANES, |&a, &b| key(a).total_cmp(&key(b)).then(a.cmp(&b)));
    }
    let alone = rows.len() < BUILD_ALONE;
    let (left, right) = rows.split_at_mut(half * LANES);
    let (left_boxes, right_boxes) = below.split_at_mut((2 * half - 1) * 2 * dims);
    if alone {
        grow(points, left, left_boxes);
        grow(points, right, right_boxes);
    } else {
        rayon::join(|| grow(points, left, left_boxes), || grow(points, right, right_boxes));
    }
}

/// The squared distance between two boxes, 0 where they touch.
fn box_gap(a: &[f64], b: &[f64], dims: usize) -> f64 {
    let (a_lower, a_upper) = a.split_at(dims);
    let (b_lower, b_upper) = b.split_at(dims);
    let mut sum = 0.0;
    for j in 0..dims {
        let gap = (b_lower[j] - a_upper[j]).max(a_lower[j] - b_upper[j]).max(0.0);
        sum += gap * gap;
    }
    sum
}

/// Writes the squared distances of a packed group of queries (dims × GROUP) to a block (dims × LANES).
#[inline(always)]
fn squared_distances(packed: &[f32], block: &[f32], rows: &mut [[f64; LANES]]) {
    // Lengths known to the compiler keep the sums in registers.
    let (queries, points) = (packed.as_chunks::<GROUP>().0, block.as_chunks::<LANES>().0);
    let mut sums = [[0.0f64; LANES]; GROUP];
    for (query, point) in queries.iter().zip(points) {
        for i in 0..GROUP {
            for lane in 0..LANES {
                let difference = f64::from(query[i]) - f64::from(point[lane]);
                sums[i][lane] = difference.mul_add(difference, sums[i][lane]);
            }
        }
    }
    rows.copy_from_slice(&sums);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::grid as points;

    /// All distances in plain loops, with the kernel's own order of additions: equality, not a tolerance.
    fn plain_nearest(points: &Matrix<f32>, query: &[f32], k: usize) -> Vec<(f64, u32)> {
        let squared = |row: &[f32]| {
            row.iter().zip(query).fold(0.0f64, |sum, (p, q)| {
                let difference = f64::from(*q) - f64::from(*p);
                difference.mul_add(difference, sum)
            })
        };
        let mut all: Vec<(f64, u32)> = points.iter_rows().map(squared).zip(0..).collect();
        all.sort_by(nearer);
        all.truncate(k);
        all
    }

    #[test]
    fn the_nearest_equal_those_of_sorting_all_with_ties_to_the_smaller_row() {
        // 15 to 33: around the edges of blocks; steps 2 and 1: many and only duplicates; steps 9:
        // a grid, where other places are equally far; 40: nothing can be skipped.
        let cases =
            [(1, 3, 9), (15, 2, 1 << 30), (16, 2, 2), (17, 1, 1 << 30), (33, 5, 1), (500, 5, 1 << 30)];
        for (rows, dims, steps) in
            cases.into_iter().chain([(500, 3, 2), (500, 2, 9), (500, 40, 1 << 30), (20, 0, 1)])
        {
            let (points, queries) = (points(rows, dims, steps, 1), points(45, dims, steps, 2));
            let tree = KdTree::build(&points).unwrap();
            for k in [1, 7, 30, rows].map(|k: usize| k.min(rows)) {
                let nearest = tree.nearest(&queries, k).unwrap();
                for (i, query) in queries.iter_rows().enumerate() {
                    let (distances, found): (Vec<f64>, Vec<u32>) =
                        plain_nearest(&points, query, k).into_iter().map(|(s, row)| (s.sqrt(), row)).unzip();
                    assert_eq!(nearest.rows.row(i), found, "{rows} x {dims}, k {k}");
                    assert_eq!(nearest.distances.row(i), distances, "{rows} x {dims}, k {k}");
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_returns_the_same_bits() {
        let points = points(200, 7, 1 << 30, 5);
        let mut tree = KdTree::build(&points).unwrap();
        let best = tree.nearest(&points, 9).unwrap();
        for isa in Isa::available() {
            tree.isa = isa;
            assert_eq!(tree.nearest(&points, 9).unwrap(), best, "{}", isa.name());
        }
    }

    #[test]
    fn wrong_widths_counts_and_values_are_refused() {
        let tree = KdTree::build(&Matrix::zeros(5, 2)).unwrap();
        assert!(tree.nearest(&Matrix::zeros(1, 3), 1).is_err());
        assert!(tree.nearest(&Matrix::zeros(1, 2), 0).is_err());
        assert!(tree.nearest(&Matrix::zeros(1, 2), 6).is_err());
        let broken = Matrix::try_from_vec(1, 2, vec![0.0, f32::NAN]).unwrap();
        assert!(matches!(KdTree::build(&broken), Err(Error::NotFinite { row: 0, column: 1, .. })));
        assert!(matches!(tree.nearest(&broken, 1), Err(Error::NotFinite { .. })));
    }
}
