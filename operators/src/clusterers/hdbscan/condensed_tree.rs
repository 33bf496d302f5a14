//! The condensed tree: which clusters split when, and at which density each point leaves.
//!
//! Numbers below the number of points are points, that number itself is the root (all points), larger numbers are
//! clusters, parents before children. λ is 1 / distance. Rows run breadth first, like those of the Python library.

use kernels::Edge;

/// The hierarchy of clusters as four columns, a row for each point and each cluster but the root.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CondensedTree {
    /// The cluster that is left.
    pub parent: Vec<u32>,
    /// The point or cluster that leaves it.
    pub child: Vec<u32>,
    /// The density at which it leaves, ∞ where that happens at distance 0.
    pub lambda: Vec<f64>,
    /// How many points it has.
    pub child_size: Vec<u32>,
    /// The cluster that each label stands for, by label.
    pub selected: Vec<u32>,
}

/// What is asked of the clusters of a tree again and again, indexed by cluster number less the root's.
pub(super) struct Clusters {
    /// The root's number, which is the number of points.
    pub root: u32,
    /// The parent of each cluster; the root's is itself.
    pub parent: Vec<u32>,
    /// The λ at which each cluster leaves its parent, 0 for the root.
    pub birth: Vec<f64>,
    /// The number of points at birth.
    pub size: Vec<u32>,
    /// The clusters that each cluster splits into.
    pub children: Vec<Vec<u32>>,
    /// The largest λ of the rows whose parent the cluster is.
    pub death: Vec<f64>,
    /// The same among finite λ, 0 where there is none.
    pub finite_death: Vec<f64>,
}

impl CondensedTree {
    /// Condenses the hierarchy of the edges of a spanning tree, which come lightest first.
    pub fn from_spanning_tree(edges: &[Edge], min_cluster_size: usize) -> Self {
        let linkage = Linkage::new(edges);
        let points = edges.len() + 1;
        let mut tree = Self::default();
        if edges.is_empty() {
            return tree;
        }
        let root = 2 * points - 2;
        let mut cluster_of = vec![0u32; root + 1];
        cluster_of[root] = points as u32;
        let mut next = points as u32 + 1;
        let mut level = vec![root as u32];
        let mut below = Vec::new();
        while !level.is_empty() {
            for &node in &level {
                let cluster = cluster_of[node as usize];
                let (left, right, distance) = linkage.split(node);
                let lambda = 1.0 / distance;
                if distance == 0.0 {
                    // Equal points are one place, however many they are.
                    linkage.points_below(node, |point| tree.push(cluster, point, f64::INFINITY, 1));
                    continue;
                }
                let is_cluster = |child| linkage.size(child) as usize >= min_cluster_size;
                let splits = is_cluster(left) && is_cluster(right);
                for child in [left, right] {
                    if splits {
                        tree.push(cluster, next, lambda, linkage.size(child));
                        cluster_of[child as usize] = next;
                        next += 1;
                        below.push(child);
                    } else if is_cluster(child) {
                        cluster_of[child as usize] = cluster;
                        below.push(child);
                    } else {
                        linkage.points_below(child, |point| tree.push(cluster, point, lambda, 1));
                    }
                }
            }
            level.clear();
            std::mem::swap(&mut level, &mut below);
        }
        tree
    }

    /// The number of points.
    pub fn points(&self) -> usize {
        self.parent.iter().min().map_or(0, |&root| root as usize)
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.parent.len()
    }

    /// The rows as (parent, child, λ, child size).
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32, f64, u32)> + '_ {
        (0..self.rows()).map(|i| (self.parent[i], self.child[i], self.lambda[i], self.child_size[i]))
    }

    fn push(&mut self, parent: u32, child: u32, lambda: f64, child_size: u32) {
        self.parent.push(parent);
        self.child.push(child);
        self.lambda.push(lambda);
        self.child_size.push(child_size);
    }
}

impl Clusters {
    /// Collects what the rows say of each cluster.
    pub fn new(tree: &CondensedTree) -> Self {
        let root = tree.points() as u32;
        let count = 1 + tree.child.iter().filter(|&&child| child > root).count();
        let mut clusters = Self {
            root,
            parent: vec![root; count],
            birth: vec![0.0; count],
            size: vec![root; count],
            children: vec![Vec::new(); count],
            death: vec![0.0; count],
            finite_death: vec![0.0; count],
        };
        for (parent, child, lambda, size) in tree.iter() {
            let at = (parent - root) as usize;
            clusters.death[at] = clusters.death[at].max(lambda);
            if lambda.is_finite() {
                clusters.finite_death[at] = clusters.finite_death[at].max(lambda);
            }
            if child > root {
                clusters.children[at].push(child);
                let at = (child - root) as usize;
                clusters.parent[at] = parent;
                clusters.birth[at] = lambda;
                clusters.size[at] = size;
            }
        }
        clusters
    }

    /// The number of clusters, with the root.
    pub fn len(&self) -> usize {
        self.parent.len()
    }

    /// The place of a cluster in the columns.
    pub fn at(&self, cluster: u32) -> usize {
        (cluster - self.root) as usize
    }

    /// Visits a cluster and all clusters below it.
    pub fn with_below(&self, cluster: u32, mut visit: impl FnMut(u32)) {
        let mut open = vec![cluster];
        while let Some(cluster) = open.pop() {
            visit(cluster);
            open.extend(&self.children[self.at(cluster)]);
        }
    }
}

/// The single linkage hierarchy: node n + i joins the two nodes that edge i connects.
struct Linkage {
    points: u32,
    /// Left and right node, distance and number of points of each join.
    joins: Vec<(u32, u32, f64, u32)>,
}

impl Linkage {
    fn new(edges: &[Edge]) -> Self {
        let points = edges.len() + 1;
        let mut linkage = Self { points: points as u32, joins: Vec::with_capacity(edges.len()) };
        // Each node's way to the topmost node so far.
        let mut above: Vec<u32> = (0..2 * points as u32).collect();
        for (i, edge) in edges.iter().enumerate() {
            let (left, right) = (top(&mut above, edge.a), top(&mut above, edge.b));
            let node = (points + i) as u32;
            above[left as usize] = node;
            above[right as usize] = node;
            let size = linkage.size(left) + linkage.size(right);
            linkage.joins.push((left, right, edge.weight, size));
        }
        linkage
    }

    fn size(&self, node: u32) -> u32 {
        if node < self.points { 1 } else { self.joins[(node - self.points) as usize].3 }
    }

    fn split(&self, node: u32) -> (u32, u32, f64) {
        let (left, right, distance, _) = self.joins[(node - self.points) as usize];
        (left, right, distance)
    }

    fn points_below(&self, node: u32, mut visit: impl FnMut(u32)) {
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            if node < self.points {
                visit(node);
            } else {
                let (left, right, _) = self.split(node);
                open.extend([right, left]);
            }
        }
    }
}

fn top(above: &mut [u32], mut node: u32) -> u32 {
    while above[node as usize] != node {
        above[node as usize] = above[above[node as usize] as usize];
        node = above[node as usize];
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(a: u32, b: u32, weight: f64) -> Edge {
        Edge { a, b, weight }
    }

    #[test]
    fn two_groups_split_once_and_a_lone_point_falls_out() {
        // 0-1-2 and 3-4-5 are groups; 6 hangs on to the second from afar.
        let edges = [
            edge(0, 1, 0.1),
            edge(3, 4, 0.1),
            edge(1, 2, 0.2),
            edge(4, 5, 0.2),
            edge(5, 6, 0.5),
            edge(2, 3, 1.0),
        ];
        let tree = CondensedTree::from_spanning_tree(&edges, 3);
        let rows: Vec<_> = tree.iter().collect();
        assert_eq!(rows[..2], [(7, 8, 1.0, 3), (7, 9, 1.0, 4)]);
        assert!(rows.contains(&(9, 6, 2.0, 1)));
        assert_eq!(rows.iter().filter(|r| r.0 == 8 && r.2 == 5.0).count(), 3);
        assert_eq!(tree.points(), 7);
        assert_eq!(tree.rows(), 9);
    }

    #[test]
    fn equal_points_are_never_split() {
        let edges: Vec<Edge> = (1..8).map(|i| edge(0, i, 0.0)).collect();
        let tree = CondensedTree::from_spanning_tree(&edges, 2);
        assert!(
            tree.iter().all(|(parent, child, lambda, _)| parent == 8 && child < 8 && lambda == f64::INFINITY)
        );
        assert_eq!(tree.rows(), 8);
    }
}
