//! The forest of a spanning tree between two of Borůvka's rounds: its components, and how edges join them.

use super::Edge;
use crate::kd_tree::KdTree;
use rayon::prelude::*;

/// The forest between two rounds.
pub(crate) struct Forest<'a> {
    /// The row of each position.
    rows: &'a [u32],
    /// The component of each position, from 0 to `components`.
    pub(crate) component: Vec<u32>,
    pub(crate) components: usize,
    edges: Vec<Found>,
}

/// What a point knows of its lightest edge to another component.
#[derive(Clone, Copy, Default)]
pub(crate) struct Known {
    /// No edge out of the component is lighter than this.
    pub(crate) at_least: f64,
    /// The other end of an edge as heavy as `at_least`, if one was found.
    pub(crate) end: Option<u32>,
}

/// An edge between two positions, its weight and the distance of its ends, both squared.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) weight: f64,
    pub(crate) distance: f64,
    pub(crate) from: u32,
    pub(crate) to: u32,
}

impl<'a> Forest<'a> {
    /// A component for each point of `tree`.
    pub(crate) fn new(tree: &'a KdTree) -> Self {
        let rows = tree.order();
        Self {
            rows,
            component: (0..rows.len() as u32).collect(),
            components: rows.len(),
            edges: Vec::with_capacity(rows.len().saturating_sub(1)),
        }
    }

    /// The weight that each component can reach for sure: that of the edges known from earlier rounds.
    pub(crate) fn bounds(&self, known: &[Known]) -> Vec<f64> {
        let mut bounds = vec![f64::INFINITY; self.components];
        for (position, known) in known.iter().enumerate() {
            if let Some(end) = known.end {
                let own = self.component[position];
                if self.component[end as usize] != own {
                    let bound = &mut bounds[own as usize];
                    *bound = bound.min(known.at_least);
                }
            }
        }
        bounds
    }

    /// Takes of the edges found in a round the lightest out of each component.
    pub(crate) fn join_lightest(&mut self, found: impl Iterator<Item = Found>) {
        let mut lightest: Vec<Option<Found>> = vec![None; self.components];
        for edge in found {
            let best = &mut lightest[self.component[edge.from as usize] as usize];
            if best.is_none_or(|b| edge.compare(&b, self.rows).is_lt()) {
                *best = Some(edge);
            }
        }
        self.join(lightest.into_iter().flatten());
    }

    /// The edges of all rounds, lightest first.
    pub(crate) fn into_edges(mut self) -> Vec<Edge> {
        self.edges.par_sort_unstable_by(|x, y| x.compare(y, self.rows));
        self.edges.iter().map(|found| found.edge(self.rows)).collect()
    }

    /// Joins components along `edges` and numbers the new ones. An edge that would close a cycle is one that both of
    /// its components took.
    fn join(&mut self, edges: impl Iterator<Item = Found>) {
        let mut parent: Vec<u32> = (0..self.components as u32).collect();
        for edge in edges {
            let a = root(&mut parent, self.component[edge.from as usize]);
            let b = root(&mut parent, self.component[edge.to as usize]);
            if a != b {
                parent[a.max(b) as usize] = a.min(b);
                self.edges.push(edge);
            }
        }
        let mut number = vec![0; self.components];
        let mut next = 0;
        for old in 0..self.components as u32 {
            let root = root(&mut parent, old);
            if root == old {
                number[old as usize] = next;
                next += 1;
            } else {
                number[old as usize] = number[root as usize];
            }
        }
        self.component.iter_mut().for_each(|c| *c = number[*c as usize]);
        self.components = next as usize;
    }
}

impl Found {
    fn edge(&self, rows: &[u32]) -> Edge {
        let (p, q) = (rows[self.from as usize], rows[self.to as usize]);
        Edge { a: p.min(q), b: p.max(q), weight: self.weight.sqrt() }
    }

    fn compare(&self, other: &Self, rows: &[u32]) -> std::cmp::Ordering {
        let by_distance = self.weight.total_cmp(&other.weight).then(self.distance.total_cmp(&other.distance));
        by_distance.then_with(|| {
            let (x, y) = (self.edge(rows), other.edge(rows));
            (x.a, x.b).cmp(&(y.a, y.b))
        })
    }
}

/// The root of a component in a forest of parents.
pub(super) fn root(parent: &mut [u32], mut of: u32) -> u32 {
    while parent[of as usize] != of {
        parent[of as usize] = parent[parent[of as usize] as usize];
        of = parent[of as usize];
    }
    of
}
