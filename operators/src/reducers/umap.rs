//! UMAP: rows laid out so that neighbours stay neighbours, and new rows placed among them.
//!
//! Fitting is graph ([`FuzzyGraph`]), start (spectral or PCA), layout (the kernel [`kernels::layout`]). The
//! neighbours come from outside, so that one search serves every layout. (McInnes, Healy and Melville, "UMAP:
//! Uniform Manifold Approximation and Projection for Dimension Reduction", 2018; defaults as in umap-learn.)
//!
//! Everything is a function of the data and the seed: the same bits at any thread count, and each new row's place
//! depends on that row alone.

use super::{
    curve::Curve,
    fuzzy::{self, FuzzyGraph},
    pca::Pca,
    spectral::{EXTENT, noise, spectral},
};
use crate::device::on_device;
use crate::{Error, Result};
use kernels::{
    Device, Matrix,
    layout::{self, Edges, LayoutParams, MAX_DIM},
};
use rayon::prelude::*;
use std::ops::ControlFlow;
use xxhash_rust::xxh3::Xxh3;

/// How the distance of two rows is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// 1 − cosine: embeddings are trained for it.
    #[default]
    Cosine,
    /// The straight line.
    Euclidean,
}

impl Metric {
    /// What the distance of equal rows may come to, computed in f32: 1 − cosine is the difference of two numbers
    /// near 1, while equal rows have a Euclidean distance of exactly 0.
    fn rounding(self) -> f32 {
        match self {
            Self::Cosine => 1e-6,
            Self::Euclidean => 0.0,
        }
    }

    /// Scales rows so that the straight-line distance orders them as this metric does: to length 1 for the cosine,
    /// a row of zeros staying as it is.
    pub(super) fn scaled(self, rows: &Matrix<f32>) -> Matrix<f32> {
        let mut rows = rows.clone();
        if self == Self::Cosine {
            for i in 0..rows.rows() {
                let row = rows.row_mut(i);
                let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
                row.iter_mut().filter(|_| length > 0.0).for_each(|v| *v /= length);
            }
        }
        rows
    }
}

/// Where the layout starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// The graph's slowest vibrations: keeps the overall shape best.
    #[default]
    Spectral,
    /// The data's principal components: where the spectral start is too slow or the overall directions matter.
    Pca,
}

/// The settings of UMAP.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UmapConfig {
    /// How many nearest rows, itself included, make a row's neighbourhood. 15, as in umap-learn and BERTopic: small
    /// enough for small topics; 100 gives a broader view.
    pub n_neighbors: usize,
    /// Dimensions of the layout. 5, as in BERTopic: enough to cluster in, few enough for density to mean something.
    pub n_components: usize,
    /// How distances are measured. Cosine: embeddings are trained for it.
    pub metric: Metric,
    /// How close points may lie. 0, as in BERTopic, since clusters should be dense; 0.1 looks better on a map.
    pub min_dist: f32,
    /// The scale of the layout; with `min_dist` it gives the curve. 1, as in umap-learn.
    pub spread: f32,
    /// Epochs of the layout; each row is moved several times in one. By default 500 up to 10,000 rows, as in umap-learn,
    /// and 300 above, not its 200: the slots of our epochs, which give any thread count the same layout, condense a little
    /// less. Of 17,441 abstracts of arXiv in 28 categories the median distance to the 50th neighbour was .263 after 200
    /// epochs, .258 after 300 and .254 after 500, in umap-learn .248; HDBSCAN (eom, 50) found 2 topics after 200 with
    /// each of four seeds, and with each of three 33 to 39 after 300, as it found 36 in umap-learn's.
    pub n_epochs: Option<u32>,
    /// How far the first steps go. 1, as in umap-learn.
    pub learning_rate: f32,
    /// Random rows that push for each neighbour that pulls. 5, as in umap-learn: more separate better but cost time.
    pub negative_sample_rate: u32,
    /// How strongly they push. 1, as in umap-learn.
    pub repulsion_strength: f32,
    /// From fuzzy intersection (0) to union (1) of the two directions of an edge. 1, as in umap-learn: a row on the
    /// rim stays connected although nobody has it as a neighbour.
    pub set_op_mix_ratio: f32,
    /// Neighbours counted as fully connected. 1, as in umap-learn: no row is alone.
    pub local_connectivity: f32,
    /// Where the layout starts. Spectral, as in umap-learn.
    pub init: Init,
    /// The seed of all random numbers. 42: any will do, but runs should repeat.
    pub seed: u64,
}

impl Default for UmapConfig {
    fn default() -> Self {
        Self {
            n_neighbors: 15,
            n_components: 5,
            metric: Metric::Cosine,
            min_dist: 0.0,
            spread: 1.0,
            n_epochs: None,
            learning_rate: 1.0,
            negative_sample_rate: 5,
            repulsion_strength: 1.0,
            set_op_mix_ratio: 1.0,
            local_connectivity: 1.0,
            init: Init::Spectral,
            seed: 42,
        }
    }
}

/// A fitted UMAP.
#[derive(Debug, Clone, PartialEq)]
pub struct UmapModel {
    /// Where each fitted row lies: n × n_components.
    pub embedding: Matrix<f32>,
    /// The similarity curve that `min_dist` and `spread` gave.
    pub curve: Curve,
    /// The mean distance in the neighbours that the model was fitted on; a scale for new rows' neighbourhoods.
    pub mean_distance: f32,
    /// The settings.
    pub config: UmapConfig,
}

impl UmapConfig {
    /// Checks every setting that no data is needed for, naming the first that cannot be.
    pub fn check(&self) -> Result<()> {
        let ensure = |fits: bool, setting: &str, found: String, expected: &str| {
            if fits { Ok(()) } else { Err(Error::setting(setting, format!("{found}, expected {expected}"))) }
        };
        let Self { n_neighbors, n_components, min_dist, spread, learning_rate, .. } = *self;
        let (mix, connectivity) = (self.set_op_mix_ratio, self.local_connectivity);
        ensure(n_neighbors >= 2, "n_neighbors", n_neighbors.to_string(), "2 or more")?;
        let dimensions = format!("1 to {MAX_DIM}");
        ensure((1..=MAX_DIM).contains(&n_components), "n_components", n_components.to_string(), &dimensions)?;
        ensure(spread > 0.0 && spread.is_finite(), "spread", spread.to_string(), "a number above 0")?;
        ensure((0.0..=spread).contains(&min_dist), "min_dist", min_dist.to_string(), "0 up to spread")?;
        ensure(self.n_epochs != Some(0), "n_epochs", "0".into(), "1 or more")?;
        let positive = learning_rate > 0.0 && learning_rate.is_finite();
        ensure(positive, "learning_rate", learning_rate.to_string(), "a number above 0")?;
        let strength = self.repulsion_strength;
        ensure(
            strength >= 0.0 && strength.is_finite(),
            "repulsion_strength",
            strength.to_string(),
            "0 or more",
        )?;
        ensure((0.0..=1.0).contains(&mix), "set_op_mix_ratio", mix.to_string(), "0 to 1")?;
        let connected = connectivity >= 0.0 && connectivity.is_finite();
        ensure(connected, "local_connectivity", connectivity.to_string(), "0 or more")
    }

    /// How many neighbours, itself included, to search for each of `rows` rows: `n_neighbors`, or `rows` − 1 with a
    /// warning where there are not more, as umap-learn does. Fails for fewer than 3 rows.
    pub fn neighbours_for(&self, rows: usize) -> Result<usize> {
        if rows < 3 {
            return Err(Error::Unfit(format!("UMAP needs at least 3 rows, found {rows}")));
        }
        if rows <= self.n_neighbors {
            tracing::warn!(rows, n_neighbors = self.n_neighbors, "n_neighbors is lowered to {}", rows - 1);
        }
        Ok(self.n_neighbors.min(rows - 1))
    }

    /// Epochs of a layout of so many rows.
    pub fn epochs_for(&self, rows: usize) -> u32 {
        self.n_epochs.unwrap_or(if rows <= 10_000 { 500 } else { 300 })
    }

    /// Builds the graph of `indices` and `distances` (n × k, each row's nearest rows, itself included, nearest
    /// first; k by [`Self::neighbours_for`]). It serves layouts of any dimension.
    pub fn graph(&self, indices: &Matrix<u32>, distances: &Matrix<f32>) -> Result<FuzzyGraph> {
        self.check()?;
        let k = self.neighbours_for(indices.rows())?;
        if indices.cols() != k {
            return Err(Error::Kernel(kernels::Error::Shape {
                what: "neighbours of each row",
                expected: format!("{k} columns"),
                found: format!("{} columns", indices.cols()),
            }));
        }
        let rounding = self.metric.rounding();
        FuzzyGraph::build(indices, distances, rounding, self.local_connectivity, self.set_op_mix_ratio)
    }

    /// Lays out `graph`; `data` (n × d) holds the rows it was made of.
    ///
    /// `progress` hears after each epoch how many of how many are done; if it breaks, the fit fails with
    /// [`Error::Stopped`]. Fails too if a setting cannot be, or a value is no finite number.
    pub fn fit(
        &self,
        device: &Device,
        graph: &FuzzyGraph,
        data: &Matrix<f32>,
        progress: &dyn Fn(u32, u32) -> ControlFlow<()>,
    ) -> Result<UmapModel> {
        self.check()?;
        if data.rows() != graph.rows() {
            return Err(Error::Kernel(kernels::Error::Shape {
                what: "rows of the data",
                expected: format!("{}, as in the graph", graph.rows()),
                found: data.rows().to_string(),
            }));
        }
        data.check_finite()?;
        let epochs = self.epochs_for(graph.rows());
        let graph = graph.pruned(epochs);
        let mut embedding = self.start(&graph, data)?;
        let curve = Curve::fit(f64::from(self.min_dist), f64::from(self.spread));
        let params = self.params(curve, self.learning_rate, epochs);
        // Positions leave a GPU at the end: where it has no memory, they are still those of the start.
        on_device("layout", device, None, |device| {
            let flow = layout::layout(device, graph.edges(), &mut embedding, &params, progress)?;
            if flow.is_break() { Err(Error::Stopped("the UMAP layout")) } else { Ok(()) }
        })?;
        Ok(UmapModel { embedding, curve, mean_distance: graph.mean_distance(), config: self.clone() })
    }

    /// The start of the layout: every column spans 0 to [`EXTENT`].
    fn start(&self, graph: &FuzzyGraph, data: &Matrix<f32>) -> Result<Matrix<f32>> {
        let mut places = match self.init {
            Init::Spectral => spectral(graph, data, self.n_components, self.metric, self.seed),
            Init::Pca => Pca::fit(data, self.n_components)?.transform(data)?,
        };
        // A little noise keeps equal rows from starting, and then staying, at the same place.
        let largest = places.as_slice().iter().fold(0f32, |m, v| m.max(v.abs()));
        let scale = if largest > 0.0 { EXTENT / largest } else { 0.0 };
        for (i, v) in places.as_mut_slice().iter_mut().enumerate() {
            *v = *v * scale + NOISE * noise(self.seed ^ NOISE_STREAM, i as u64);
        }
        for d in 0..places.cols() {
            let column = || places.iter_rows().map(|row| row[d]);
            let (low, high) =
                (column().fold(f32::INFINITY, f32::min), column().fold(f32::NEG_INFINITY, f32::max));
            let scale = if high > low { EXTENT / (high - low) } else { 0.0 };
            for i in 0..places.rows() {
                let v = &mut places.row_mut(i)[d];
                *v = (*v - low) * scale;
            }
        }
        Ok(places)
    }

    fn params(&self, curve: Curve, learning_rate: f32, epochs: u32) -> LayoutParams {
        LayoutParams {
            a: curve.a,
            b: curve.b,
            repulsion_strength: self.repulsion_strength,
            learning_rate,
            negative_samples: self.negative_sample_rate,
            epochs,
            seed: self.seed,
        }
    }
}

impl UmapModel {
    /// Places new rows among the fitted ones: `indices` and `distances` (m × k) are each new row's nearest fitted
    /// rows, nearest first. Returns m × n_components.
    ///
    /// Fitted points stay where they are, and each new row's place depends on its own neighbours alone: it is the
    /// same, bit for bit, in whatever batch the row comes. Two things that umap-learn takes from the batch are
    /// therefore fixed: an edge of weight 1 (not of the batch's largest) pulls in each epoch, and there are 100
    /// epochs (not 30 above 10,000 rows), or a third of `n_epochs`.
    pub fn transform(
        &self,
        device: &Device,
        indices: &Matrix<u32>,
        distances: &Matrix<f32>,
    ) -> Result<Matrix<f32>> {
        fuzzy::check_neighbours(indices, distances, self.embedding.rows())?;
        let (m, k, dim) = (indices.rows(), indices.cols(), self.embedding.cols());
        if m == 0 {
            return Ok(Matrix::zeros(0, dim));
        }
        if k < 2 {
            return Err(Error::Unfit(format!(
                "placing new rows takes at least 2 fitted neighbours each, found {k}"
            )));
        }
        let epochs = self.config.n_epochs.map_or(TRANSFORM_EPOCHS, |epochs| (epochs / 3).max(1));
        let connectivity = (self.config.local_connectivity - 1.0).max(0.0);
        let mut weights = vec![0f32; m * k];
        let mut places = Matrix::zeros(m, dim);
        weights.par_chunks_mut(k).zip(places.as_mut_slice().par_chunks_mut(dim)).enumerate().for_each(
            |(i, (weights, place))| {
                fuzzy::memberships(distances.row(i), connectivity, self.mean_distance, weights);
                self.start_new(indices.row(i), weights, place);
                let least = 1.0 / epochs as f32;
                weights.iter_mut().filter(|w| **w < least).for_each(|w| *w = 0.0);
            },
        );
        let keys: Vec<u64> = (0..m).into_par_iter().map(|i| key(indices.row(i), distances.row(i))).collect();
        let offsets: Vec<usize> = (0..=m).map(|i| i * k).collect();
        let edges = Edges { offsets: &offsets, targets: indices.as_slice(), weights: &weights };
        let params = self.config.params(self.curve, self.config.learning_rate / 4.0, epochs);
        on_device("placing new rows", device, None, |device| {
            Ok(layout::place(device, &self.embedding, edges, &keys, &mut places, &params)?)
        })?;
        Ok(places)
    }

    /// Starts a new row at the weighted mean of its neighbours, or where the first one of weight 1 lies.
    fn start_new(&self, neighbours: &[u32], weights: &[f32], place: &mut [f32]) {
        let total: f32 = weights.iter().sum();
        for (&j, &weight) in neighbours.iter().zip(weights) {
            let other = self.embedding.row(j as usize);
            if weight == 1.0 {
                place.copy_from_slice(other);
                return;
            }
            place.iter_mut().zip(other).for_each(|(p, o)| *p += weight / total * o);
        }
    }
}

/// Epochs that place a new row: umap-learn's number for batches up to 10,000 rows.
const TRANSFORM_EPOCHS: u32 = 100;

/// The spread of the noise on the start, uniform within ±: the standard deviation is umap-learn's 1e-4.
const NOISE: f32 = 1.732e-4;

/// Keeps the noise's random stream apart from the layout's.
const NOISE_STREAM: u64 = 0x6e6f_6973_6521;

/// Names a new row by its content: which fitted rows it is near to, and how near.
fn key(indices: &[u32], distances: &[f32]) -> u64 {
    let mut hash = Xxh3::new();
    for (index, distance) in indices.iter().zip(distances) {
        hash.update(&index.to_le_bytes());
        hash.update(&distance.to_bits().to_le_bytes());
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three groups of rows in 8 dimensions, far from each other.
    fn groups(n: usize) -> Matrix<f32> {
        let mut data = Matrix::zeros(n, 8);
        for i in 0..n {
            let row = data.row_mut(i);
            for (d, v) in row.iter_mut().enumerate() {
                *v = 0.3 * noise(5, (i * 8 + d) as u64);
            }
            row[i % 3] += 3.0;
        }
        data
    }

    /// The k nearest rows of `points` for each of `queries`, by brute force.
    fn nearest(queries: &Matrix<f32>, points: &Matrix<f32>, k: usize) -> (Matrix<u32>, Matrix<f32>) {
        let (mut indices, mut distances) =
            (Matrix::zeros(queries.rows(), k), Matrix::zeros(queries.rows(), k));
        for (i, x) in queries.iter_rows().enumerate() {
            let mut all: Vec<(f32, u32)> =
                points.iter_rows().enumerate().map(|(j, y)| (distance(x, y), j as u32)).collect();
            all.sort_by(|a, b| a.partial_cmp(b).unwrap());
            for (c, &(d, j)) in all[..k].iter().enumerate() {
                indices.row_mut(i)[c] = j;
                distances.row_mut(i)[c] = d;
            }
        }
        (indices, distances)
    }

    fn distance(x: &[f32], y: &[f32]) -> f32 {
        x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum::<f32>().sqrt()
    }

    fn config() -> UmapConfig {
        UmapConfig {
            metric: Metric::Euclidean,
            n_neighbors: 10,
            n_epochs: Some(150),
            ..UmapConfig::default()
        }
    }

    fn cpu() -> Device {
        Device::cpu()
    }

    fn fit(config: &UmapConfig, data: &Matrix<f32>) -> Result<UmapModel> {
        let k = config.neighbours_for(data.rows())?;
        let (indices, distances) = nearest(data, data, k);
        config.fit(&cpu(), &config.graph(&indices, &distances)?, data, &|_, _| ControlFlow::Continue(()))
    }

    fn on_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
    }

    #[test]
    fn the_bits_are_the_same_for_any_number_of_threads() {
        let data = groups(700);
        for init in [Init::Spectral, Init::Pca] {
            let config = UmapConfig { init, ..config() };
            let (indices, distances) = nearest(&data.gather(&[3, 1, 4]), &data, 10);
            let run = || {
                let model = fit(&config, &data).unwrap();
                let placed = model.transform(&cpu(), &indices, &distances).unwrap();
                (model.embedding, placed)
            };
            let one = on_threads(1, run);
            assert!(one == on_threads(2, run) && one == on_threads(8, run), "{init:?}");
        }
    }

    #[test]
    fn another_seed_gives_another_layout() {
        let data = groups(60);
        let other = UmapConfig { seed: 43, ..config() };
        assert_ne!(fit(&config(), &data).unwrap().embedding, fit(&other, &data).unwrap().embedding);
    }

    #[test]
    fn groups_far_apart_stay_apart() {
        let data = groups(240);
        // In the data the three groups are three pieces of the neighbour graph.
        let model = fit(&config(), &data).unwrap();
        for i in 0..240 {
            let mut near: Vec<(f32, usize)> =
                (0..240).map(|j| (distance(model.embedding.row(i), model.embedding.row(j)), j)).collect();
            near.sort_by(|a, b| a.partial_cmp(b).unwrap());
            assert!(near[..10].iter().all(|e| e.1 % 3 == i % 3), "row {i}: {:?}", &near[..10]);
        }
    }

    #[test]
    fn a_fitted_row_is_placed_near_itself() {
        let data = groups(300);
        let model = fit(&config(), &data).unwrap();
        let (indices, distances) = nearest(&data, &data, 10);
        let placed = model.transform(&cpu(), &indices, &distances).unwrap();
        let mut apart: Vec<f32> = (0..300).map(|i| distance(placed.row(i), model.embedding.row(i))).collect();
        apart.sort_by(f32::total_cmp);
        let mut typical: Vec<f32> =
            (0..300).map(|i| distance(model.embedding.row(i), model.embedding.row((i + 3) % 300))).collect();
        typical.sort_by(f32::total_cmp);
        // Against the distance of two rows of the same group.
        assert!(apart[150] < 0.3 * typical[150], "median {} of {}", apart[150], typical[150]);
    }

    #[test]
    fn a_new_row_is_placed_the_same_in_any_batch() {
        let data = groups(300);
        let model = fit(&config(), &data).unwrap();
        let new = groups(400).gather(&(300..400).collect::<Vec<_>>());
        let (indices, distances) = nearest(&new, &data, 10);
        let all = model.transform(&cpu(), &indices, &distances).unwrap();
        for rows in [vec![7u32], vec![99, 7, 40], (0..100).rev().collect()] {
            let some = model.transform(&cpu(), &indices.gather(&rows), &distances.gather(&rows)).unwrap();
            assert_eq!(some, all.gather(&rows));
        }
        assert_eq!(model.transform(&cpu(), &indices.gather(&[]), &distances.gather(&[])).unwrap().rows(), 0);
    }

    #[test]
    fn odd_data_is_laid_out_in_finite_numbers() {
        let equal = Matrix::try_from_vec(40, 8, vec![1.0; 320]).unwrap();
        let mut pairs = groups(40);
        for i in 0..20 {
            let row = pairs.row(i).to_vec();
            pairs.row_mut(i + 20).copy_from_slice(&row);
        }
        for (name, data) in
            [("three rows", groups(3)), ("seven", groups(7)), ("equal", equal), ("pairs", pairs)]
        {
            for n_components in [1, 2, 5, 12] {
                let model = fit(&UmapConfig { n_components, ..config() }, &data).unwrap();
                assert_eq!((model.embedding.rows(), model.embedding.cols()), (data.rows(), n_components));
                assert!(model.embedding.check_finite().is_ok(), "{name} in {n_components} dimensions");
            }
        }
    }

    #[test]
    fn a_stray_piece_does_not_squeeze_the_rest() {
        // 200 rows of one group, and 4 far away that know only each other.
        let mut data = groups(600).gather(&(0..600).step_by(3).collect::<Vec<_>>());
        let mut stray = Matrix::zeros(4, 8);
        (0..4).for_each(|i| {
            stray.row_mut(i).copy_from_slice(&[-9.0, 0.01 * i as f32, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
        });
        data.append(&stray).unwrap();
        let config = UmapConfig { n_neighbors: 4, ..config() };
        let (indices, distances) = nearest(&data, &data, 4);
        let graph = config.graph(&indices, &distances).unwrap();
        let start = config.start(&graph, &data).unwrap();
        let spread = |rows: std::ops::Range<usize>| {
            let column = || rows.clone().map(|i| start.row(i)[0]);
            column().fold(f32::NEG_INFINITY, f32::max) - column().fold(f32::INFINITY, f32::min)
        };
        assert!(spread(0..200) > 0.9 * EXTENT && spread(200..204) < 0.1 * EXTENT);
    }

    #[test]
    fn what_cannot_be_fitted_is_refused_by_name() {
        let error = fit(&config(), &groups(2)).unwrap_err();
        assert!(matches!(&error, Error::Unfit(text) if text.contains("at least 3 rows, found 2")), "{error}");
        for (config, name) in [
            (UmapConfig { n_neighbors: 1, ..config() }, "n_neighbors: 1, expected 2 or more"),
            (UmapConfig { n_components: 65, ..config() }, "n_components: 65, expected 1 to 64"),
            (UmapConfig { min_dist: 2.0, ..config() }, "min_dist: 2, expected 0 up to spread"),
            (UmapConfig { spread: f32::NAN, ..config() }, "spread: NaN"),
            (UmapConfig { n_epochs: Some(0), ..config() }, "n_epochs: 0"),
        ] {
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        let data = groups(50);
        let (indices, distances) = nearest(&data, &data, 10);
        let graph = config().graph(&indices, &distances).unwrap();
        let mut broken = data.clone();
        broken.row_mut(4)[2] = f32::NAN;
        let error =
            config().fit(&cpu(), &graph, &broken, &|_, _| ControlFlow::Continue(())).unwrap_err().to_string();
        assert!(error.contains("row 4, column 2"), "{error}");
    }

    #[test]
    fn a_fit_stops_when_its_progress_says_so() {
        let data = groups(50);
        let (indices, distances) = nearest(&data, &data, 10);
        let graph = config().graph(&indices, &distances).unwrap();
        let heard = std::cell::RefCell::new(Vec::new());
        let stop = |done, total| {
            heard.borrow_mut().push((done, total));
            if done == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let error = config().fit(&cpu(), &graph, &data, &stop).unwrap_err();
        assert!(matches!(error, Error::Stopped(_)));
        assert_eq!(*heard.borrow(), [(1, 150), (2, 150), (3, 150)]);
    }
}
