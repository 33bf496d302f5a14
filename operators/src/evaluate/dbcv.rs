//! DBCV: how well density separates clusters, −1 to 1.
//!
//! In a cluster of m points in D dimensions, a point's core distance is (Σ_y d(x,y)^−D / (m − 1))^(−1/D) over the other
//! points; two points' mutual reachability is the largest of their core distances and their distance. Of each cluster's
//! minimum spanning tree by it, the inner part (points of more than one edge, and edges between such) gives the
//! sparseness: its longest edge. A cluster's separation is the least mutual reachability from its inner points to those
//! of another. Validity is (separation − sparseness) / max of both; DBCV is its mean over all points, 0 for outliers.
//!
//! Paper: Moulavi, Jaskowiak, Campello, Zimek, Sander, "Density-based clustering validation", 2014. Equal to the library
//! hdbscan's `validity_index`, which leaves out points at distance 0, too; but powers are taken of ratios to the nearest
//! point, so that nothing ends in zero or infinity: in hundreds of dimensions that library says NaN.

use kernels::Matrix;
use rayon::prelude::*;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

/// Terms of a sum over all pairs that are computed at most, about a second of work; of more points a part is judged.
const MOST_TERMS: f64 = 4e9;

/// DBCV, and what it was measured on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dbcv {
    /// The index, −1 to 1.
    pub value: f64,
    /// How many points were compared: all, or as many as can be.
    pub points: usize,
}

/// Judges the clusters of `labels` (−1 for outliers) among `points`; nothing where there are fewer than two clusters of
/// two different points or more.
///
/// Of more points than √(4·10⁹ / dimensions) (28,000 in 5), so many are taken, by a hash of their number.
pub fn dbcv(points: &Matrix<f32>, labels: &[i32]) -> Option<Dbcv> {
    let most = (MOST_TERMS / points.cols().max(1) as f64).sqrt() as usize;
    let taken = some_of(labels.len(), most);
    let mut members: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for &row in taken.iter().filter(|row| labels[**row] >= 0) {
        members.entry(labels[row]).or_default().push(row);
    }
    let clusters: Vec<Cluster> = members.values().filter_map(|rows| Cluster::of(points, rows)).collect();
    if clusters.len() < 2 {
        return None;
    }
    let separations: Vec<f64> = clusters
        .par_iter()
        .enumerate()
        .map(|(at, cluster)| {
            let others = clusters.iter().enumerate().filter(|(other, _)| *other != at);
            others.map(|(_, other)| cluster.separation(other)).fold(f64::INFINITY, f64::min)
        })
        .collect();
    let weighed = clusters.iter().zip(separations).map(|(cluster, separation)| {
        let larger = separation.max(cluster.sparseness);
        // Clusters of equal points that lie upon each other are not separated at all.
        let validity = if larger > 0.0 { (separation - cluster.sparseness) / larger } else { 0.0 };
        cluster.points as f64 / taken.len() as f64 * validity
    });
    Some(Dbcv { value: weighed.sum(), points: taken.len() })
}

/// Up to `most` of `count` places, rising: those of the smallest hashes.
fn some_of(count: usize, most: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    if count > most {
        places.select_nth_unstable_by_key(most, |place| (xxh3_64(&(*place as u64).to_le_bytes()), *place));
        places.truncate(most);
        places.sort_unstable();
    }
    places
}

/// A cluster as far as it is compared with others.
struct Cluster {
    points: usize,
    sparseness: f64,
    /// The inner points: coordinates dimension by dimension, and core distances.
    inner: Columns,
    core: Vec<f64>,
}

/// Points, dimension by dimension.
struct Columns {
    count: usize,
    values: Vec<Vec<f64>>,
}

impl Columns {
    fn of(points: &Matrix<f32>, rows: &[usize]) -> Self {
        let column = |j: usize| rows.iter().map(|row| f64::from(points.row(*row)[j])).collect();
        Self { count: rows.len(), values: (0..points.cols()).map(column).collect() }
    }

    fn pick(&self, places: &[usize]) -> Self {
        let column = |values: &Vec<f64>| places.iter().map(|place| values[*place]).collect();
        Self { count: places.len(), values: self.values.iter().map(column).collect() }
    }

    /// Writes the squared distances of point `place` of `of` to all points.
    fn squared_distances(&self, of: &Self, place: usize, squared: &mut Vec<f64>) {
        squared.clear();
        squared.resize(self.count, 0.0);
        for (values, own) in self.values.iter().zip(&of.values) {
            let own = own[place];
            for (sum, value) in squared.iter_mut().zip(values) {
                *sum += (value - own) * (value - own);
            }
        }
    }
}

impl Cluster {
    fn of(points: &Matrix<f32>, rows: &[usize]) -> Option<Self> {
        let columns = Columns::of(points, rows);
        let core: Vec<f64> = (0..columns.count)
            .into_par_iter()
            .map_init(Vec::new, |squared, place| core_distance(&columns, place, points.cols(), squared))
            .collect();
        if core.iter().all(|distance| *distance == 0.0) {
            return None;
        }
        let edges = spanning_tree(&columns, &core);
        let mut degrees = vec![0u32; columns.count];
        for (a, b, _) in &edges {
            degrees[*a] += 1;
            degrees[*b] += 1;
        }
        let is_inner = |place: usize| degrees[place] > 1;
        let longest = |edges: &mut dyn Iterator<Item = &(usize, usize, f64)>| {
            edges.map(|(_, _, length)| *length).reduce(f64::max)
        };
        // Where no edge is inner, the longest of all counts, as in the authors' own code; likewise with points.
        let sparseness = longest(&mut edges.iter().filter(|(a, b, _)| is_inner(*a) && is_inner(*b)))
            .or_else(|| longest(&mut edges.iter()))?;
        let mut inner: Vec<usize> = (0..columns.count).filter(|place| is_inner(*place)).collect();
        if inner.is_empty() {
            inner = (0..columns.count).collect();
        }
        let core = inner.iter().map(|place| core[*place]).collect();
        Some(Self { points: rows.len(), sparseness, inner: columns.pick(&inner), core })
    }

    /// The least mutual reachability between the inner points of both.
    fn separation(&self, other: &Self) -> f64 {
        let mut squared = Vec::new();
        let mut least = f64::INFINITY;
        for (place, core) in self.core.iter().enumerate() {
            other.inner.squared_distances(&self.inner, place, &mut squared);
            for (squared, of_other) in squared.iter().zip(&other.core) {
                least = least.min(squared.sqrt().max(*core).max(*of_other));
            }
        }
        least
    }
}

/// The core distance of a point; 0 where all points lie upon it.
fn core_distance(columns: &Columns, place: usize, dims: usize, squared: &mut Vec<f64>) -> f64 {
    columns.squared_distances(columns, place, squared);
    squared.retain(|d| *d > 0.0);
    let nearest = squared.iter().copied().fold(f64::INFINITY, f64::min);
    if !nearest.is_finite() {
        return 0.0;
    }
    // Each term is at most 1, the nearest point's is 1.
    let power = dims as f64 / 2.0;
    let sum: f64 = squared.iter().map(|d| (nearest / d).powf(power)).sum();
    let mean = sum / (columns.count - 1) as f64;
    nearest.sqrt() * mean.powf(-1.0 / dims as f64)
}

/// Distances that differ by less than this and this part of them are equal, as numpy's `isclose` has it.
const CLOSE: (f64, f64) = (1e-8, 1e-5);

/// Prim's minimum spanning tree by mutual reachability: (point, point, length), from point 0.
///
/// Core distances make many edges equally long, and which of them is taken decides which points are inner. As in the
/// library, a point is joined to the first of those in the tree that are as near as the nearest.
fn spanning_tree(columns: &Columns, core: &[f64]) -> Vec<(usize, usize, f64)> {
    let count = columns.count;
    let mut nearest = vec![f64::INFINITY; count];
    let mut is_in = vec![false; count];
    let mut squared = Vec::new();
    let mut edges: Vec<(usize, usize, f64)> = Vec::with_capacity(count.saturating_sub(1));
    let (mut last, mut length) = (0, 0.0);
    for joined in 0..count {
        columns.squared_distances(columns, last, &mut squared);
        let reach = |place: usize| squared[place].sqrt().max(core[last]).max(core[place]);
        if joined > 0 {
            let is_near = |place: usize| (reach(place) - length).abs() <= CLOSE.0 + CLOSE.1 * length;
            let beside = (0..count).find(|place| is_in[*place] && is_near(*place)).unwrap_or(0);
            edges.push((beside, last, length));
        }
        is_in[last] = true;
        let mut best = None;
        for place in (0..count).filter(|place| !is_in[*place]) {
            nearest[place] = nearest[place].min(reach(place));
            if best.is_none_or(|(least, _)| nearest[place] < least) {
                best = Some((nearest[place], place));
            }
        }
        let Some((least, place)) = best else { break };
        (length, last) = (least, place);
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: &[f32]) -> Matrix<f32> {
        Matrix::try_from_vec(values.len(), 1, values.to_vec()).unwrap()
    }

    #[test]
    fn clusters_far_apart_are_near_1_and_those_that_mix_are_below_0() {
        let points = line(&[0.0, 0.1, 0.2, 0.3, 100.0, 100.1, 100.2, 100.3]);
        let apart = dbcv(&points, &[0, 0, 0, 0, 1, 1, 1, 1]).unwrap().value;
        assert!(apart > 0.99, "{apart}");
        let mixed = dbcv(&points, &[0, 1, 0, 1, 0, 1, 0, 1]).unwrap().value;
        assert!(mixed < -0.9, "{mixed}");
        let half = dbcv(&points, &[0, 0, 0, 0, 1, 1, 1, -1]).unwrap();
        assert!((half.value - 7.0 / 8.0).abs() < 0.01 && half.points == 8, "{half:?}");
    }

    #[test]
    fn what_has_no_two_clusters_has_no_index() {
        let points = line(&[0.0, 1.0, 2.0, 3.0]);
        for labels in [[-1; 4], [0; 4], [0, 1, 2, 3], [0, 0, 0, 1]] {
            assert_eq!(dbcv(&points, &labels), None, "{labels:?}");
        }
        assert_eq!(dbcv(&line(&[]), &[]), None);
        assert_eq!(dbcv(&line(&[1.0; 6]), &[0, 0, 0, 1, 1, 1]), None, "equal points have no density");
    }

    #[test]
    fn a_part_of_many_places_is_the_same_in_every_run() {
        let some = some_of(1000, 300);
        assert!(some.len() == 300 && some.is_sorted() && some == some_of(1000, 300));
        assert!(some.iter().filter(|place| **place < 500).count().abs_diff(150) < 40);
        assert_eq!(some_of(5, 5), [0, 1, 2, 3, 4]);
    }
}
