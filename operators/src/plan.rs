//! What a fit will hold: the memory of each stage, computed from the sizes of what it keeps.
//!
//! The one idea: nothing is measured that can be counted. Each function below is a stage of [`crate::fit`] and adds up
//! the vectors, lists and tables that stand at its fullest moment, each by its number of entries and the bytes of one;
//! a comment names each where the code that holds it does not. What depends on the texts ([`TextSizes`]) is measured on
//! some of them. A stage that is changed changes here.
//!
//! Conventions
//! - Bytes are `f64`, since many are averages. n is rows, d dimensions, k neighbours.
//! - A growing list counts as long as it is, not as its room: room beyond it is never touched, so that the system has
//!   not given it. Small lists are the exception: see [`small`] and `GROWTH`.
//! - What is freed counts no more, if it is large: the system has it back (`bound_heaps` in the program's `main`).
//!   Small blocks, such as strings, stay with the program, since others lie between them.

mod gpu;
mod texts;
mod tokens;

pub use texts::{Growth, TextSizes};
pub use tokens::Asked;

use crate::clusterers::{ClustererConfig, kmeans::KMeansConfig};
use crate::fit::{FitConfig, map_config, same_graph};
use crate::reducers::{EXACT_ROWS, Metric, NEIGHBOUR_BLOCK_ROWS, Reducer, UmapConfig};
use crate::taxonomy::tree::MOST_TOPICS;
use crate::words::VocabularyConfig;
use kernels::topk::{InvertedFile, Screened};
use serde::Serialize;

/// A fit, as far as its memory depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Workload<'a> {
    /// Rows that are fitted.
    pub rows: usize,
    /// Dimensions of a vector.
    pub dim: usize,
    /// Their texts.
    pub texts: TextSizes,
    /// Whether rows have dates.
    pub dated: bool,
    /// Threads that compute.
    pub threads: usize,
    /// Neighbours that vote when the threshold is measured.
    pub top_k: usize,
    /// Whether neighbours are screened by codes: see [`kernels::Isa::has_byte_products`].
    pub screened: bool,
    /// The settings.
    pub config: &'a FitConfig,
}

/// A stage, under the name by which [`crate::fit::Observer`] hears of it, and what it takes beside the program itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StageMemory {
    /// Its name.
    pub stage: &'static str,
    /// The most bytes it holds at once, with all that earlier stages have left.
    pub bytes: f64,
}

/// How many of `rows` points the search for neighbours compares with each of them.
///
/// All, up to [`EXACT_ROWS`]. Of more by cosine those of the cells that are searched: of 12,500 to 103,394 abstracts of
/// papers 67 to 93 cells for 15 neighbours and 108 to 149 for 100, which is 47·k^¼·(n / 100,000)^0.15. Centroids count
/// twice (a row's own cell, then those it probes) and once more for k-means, and 2,000 rows are compared with all.
pub fn points_compared(rows: f64, umap: &UmapConfig) -> f64 {
    if rows <= EXACT_ROWS as f64 || umap.metric == Metric::Euclidean {
        return rows;
    }
    let cells = InvertedFile::cells_for(rows as usize) as f64;
    let probes = 47.0 * (umap.n_neighbors as f64).powf(0.25) * (rows / 1e5).powf(0.15);
    (rows * probes / cells + 3.0 * cells + 2_000.0).min(rows)
}

/// What glibc takes for one small block of `bytes`: a header of 8, in steps of 16.
pub fn small(bytes: f64) -> f64 {
    (bytes + 16.0).max(32.0)
}

/// A string in a list: its three words and its block.
pub fn string(bytes: f64) -> f64 {
    24.0 + small(bytes)
}

/// Room over length of a small list that doubled as it grew: its length lies anywhere between half of its room and all,
/// on average of the logarithm at 1 / ln 2.
const GROWTH: f64 = 1.44;

/// Entries over slots of a hash table that doubles when seven of eight are taken: between 7/16 and 7/8, on average
/// 0.63.
const LOAD: f64 = 0.63;

/// The share of a text's bytes that zstd leaves: of titles and abstracts of papers, .39.
const PACKED: f64 = 0.4;

/// A term as a vocabulary holds it: four numbers of words.
const KEY_BYTES: f64 = 16.0;

impl Workload<'_> {
    /// The stages of the fit in their order.
    pub fn stages(&self) -> Vec<StageMemory> {
        let rows = self.rows_bytes();
        let n = self.rows as f64;
        let map = map_config(self.config);
        let mut stages = Vec::new();
        let mut add = |stage, bytes| stages.push(StageMemory { stage, bytes });

        if self.config.duplicates.collapse {
            add("duplicates", rows + self.comparing());
        }
        add("neighbours", rows + self.search(&map).max(self.graph_building(&map)));
        add("map layout", rows + self.graph(&map) + self.layout(&map));
        let mut held = rows + 8.0 * n;
        // Where rows lie under other seeds.
        let others = self.config.stability_seeds as f64 * self.positions_bytes();
        if let Reducer::Umap(umap) = &self.config.reducer {
            let mut graphs = self.graph(&map);
            if !same_graph(umap, &map) {
                add("neighbours", held + graphs + self.search(umap).max(self.graph_building(umap)));
                graphs += self.graph(umap);
            }
            add("layout", held + graphs + self.layout(umap) + others);
        }
        held += self.positions_bytes();
        add("clusters", held + self.clustering() + others);
        held += self.clusters_bytes();
        add("words", held + self.words());
        held += self.terms_bytes() + self.packed_texts_bytes() + self.chunk_words_bytes();
        add("quality", held + self.judging());
        add("threshold", held + self.threshold());
        stages
    }

    /// The model that the fit returns, and the small blocks of what is gone.
    pub fn model_bytes(&self) -> f64 {
        let (n, d) = (self.rows as f64, self.dim as f64);
        let kept =
            self.sample_bytes() + self.clusters_bytes() + self.terms_bytes() + self.packed_texts_bytes();
        n * d + kept + self.gone_bytes()
    }

    /// The texts as the model keeps them: see [`crate::texts`].
    pub fn packed_texts_bytes(&self) -> f64 {
        PACKED * self.rows as f64 * self.texts.text_bytes
    }

    /// The small blocks that texts and words have left: strings of later stages may lie in them.
    pub fn gone_bytes(&self) -> f64 {
        self.rows as f64 * string(self.texts.text_bytes) + self.chunk_words_bytes()
    }

    /// Names, texts, dates and vectors of all rows.
    pub fn rows_bytes(&self) -> f64 {
        self.vectors_bytes() + self.texts_bytes()
    }

    /// The vectors of all rows.
    pub fn vectors_bytes(&self) -> f64 {
        4.0 * self.rows as f64 * self.dim as f64
    }

    /// Names, texts and dates of all rows.
    pub fn texts_bytes(&self) -> f64 {
        let date = if self.dated { 8.0 } else { 0.0 };
        let TextSizes { text_bytes, shown_bytes, id_bytes, .. } = self.texts;
        self.rows as f64 * (string(text_bytes) + string(shown_bytes) + string(id_bytes) + date)
    }

    /// What the model keeps of the rows: names, shown texts, dates, and places on the map and in the layout.
    pub fn sample_bytes(&self) -> f64 {
        let n = self.rows as f64;
        self.texts_bytes() - n * string(self.texts.text_bytes) + 8.0 * n + self.positions_bytes()
    }

    /// Topics to expect.
    pub fn topics(&self) -> f64 {
        self.config.clusterer.expected_clusters(self.rows)
    }

    /// Terms that are kept.
    pub fn terms(&self) -> f64 {
        let VocabularyConfig { max_terms, .. } = self.config.words.vocabulary;
        let most = max_terms.map_or(f64::INFINITY, |most| most as f64);
        self.texts.terms.distinct(self.rows as f64).min(most)
    }

    /// (topic, term) pairs that occur.
    ///
    /// By Zipf's law the r-th of D terms occurs c / r times a text, c = occurrences a text / ln D. A topic of m texts
    /// then has all of the first m c terms, and m c / r of each later one. Texts of a topic repeat each other, which
    /// halves that: 2,000 to 100,000 abstracts of papers have a quarter to a half of it.
    pub fn cells(&self) -> f64 {
        let (topics, terms) = (self.topics(), self.terms().max(1.0));
        let different = self.texts.terms.distinct(self.rows as f64).max(3.0);
        let often = self.rows as f64 / topics * self.texts.occurrences / different.ln();
        let often = often.clamp(1.0, terms);
        (0.5 * topics * often * (1.0 + (terms / often).ln())).min(topics * terms)
    }

    /// Near duplicates: of each row and band a hash, and if it stands for itself an entry of a table.
    fn comparing(&self) -> f64 {
        let bands = self.config.duplicates.bands() as f64;
        bands * self.rows as f64 * (4.0 + (8.0 + 1.0) / LOAD)
    }

    /// The search for neighbours: see [`kernels::topk::Screened`] and [`InvertedFile`].
    fn search(&self, umap: &UmapConfig) -> f64 {
        let (n, d, k) = (self.rows as f64, self.dim as f64, self.neighbours(umap));
        let queries = n.min(NEIGHBOUR_BLOCK_ROWS as f64);
        let found = 8.0 * k * n + 4.0 * n;
        let packed = 4.0 * n * d;
        let block = |candidates: f64| queries * (8.0 * d + d + 8.0 * candidates + 8.0 * k);
        match umap.metric {
            Metric::Euclidean => found + packed + 4.0 * n + block(k + 8.0),
            Metric::Cosine => {
                let (unit, codes) = (4.0 * n * d, n * d);
                if self.rows > EXACT_ROWS {
                    // Codes while they are sorted into cells, whose last panels are half empty on average.
                    let columns = n + 16.0 * InvertedFile::cells_for(self.rows) as f64;
                    let cells = columns * (self.dim.next_multiple_of(64) as f64 + 12.0);
                    unit + cells
                        + codes.max(4.0 * n + found + block(InvertedFile::candidates(k as usize) as f64))
                } else if self.screened {
                    unit + self.packed_codes()
                        + codes.max(found + block(Screened::candidates(k as usize) as f64))
                } else {
                    unit + packed + found + block(k)
                }
            }
        }
    }

    /// Codes as they are searched: whole panels of 32 rows and lines of 64 columns, and two sums a row.
    fn packed_codes(&self) -> f64 {
        let (rows, cols) = (self.rows.next_multiple_of(32), self.dim.next_multiple_of(64));
        rows as f64 * cols as f64 + 8.0 * self.rows as f64
    }

    /// From neighbours to the fuzzy graph: see [`crate::reducers::FuzzyGraph::build`].
    fn graph_building(&self, umap: &UmapConfig) -> f64 {
        let (n, k) = (self.rows as f64, self.neighbours(umap));
        let (found, weights) = (8.0 * n * k, 4.0 * n * k);
        let (forward, backward) = (8.0 * n * k + 8.0 * n, 8.0 * n * k + 16.0 * n);
        // A list a row, with room for both directions of each edge.
        let joined = n * (24.0 + small(8.0 * 2.0 * (k - 1.0)));
        found + weights + forward + backward + joined + self.graph(umap)
    }

    /// The fuzzy graph: a target and a weight an edge.
    fn graph(&self, umap: &UmapConfig) -> f64 {
        8.0 * self.edges(umap) + 8.0 * self.rows as f64
    }

    /// Edges of the fuzzy graph, both directions: between k − 1 a row (all neighbours mutual) and twice that.
    fn edges(&self, umap: &UmapConfig) -> f64 {
        1.5 * (self.neighbours(umap) - 1.0) * self.rows as f64
    }

    fn neighbours(&self, umap: &UmapConfig) -> f64 {
        umap.n_neighbors.min(self.rows.saturating_sub(1)).max(1) as f64
    }

    /// A layout beside its graph: the graph without weak edges, then the spectral start, then the schedule of epochs.
    fn layout(&self, umap: &UmapConfig) -> f64 {
        let (n, dims, edges) = (self.rows as f64, umap.n_components, self.edges(umap));
        let places = 4.0 * n * dims as f64;
        // Four blocks of f32 at a Ritz step, the normalised graph, and a list of rows.
        let width = (dims + 1 + 3).next_multiple_of(4) as f64;
        let spectral = 4.0 * 4.0 * n * width + 8.0 * edges + (8.0 + 8.0 + 4.0 + 4.0) * n + places;
        // Each edge stands twice: first in small lists of three numbers, then in order, in 9 bytes; points twice,
        // padded. The plans of the epochs to come are smaller than the lists, which are gone by then, for the weights
        // that there are.
        let padded = match dims {
            0..=2 => 2,
            dims => dims.next_power_of_two(),
        };
        let schedule = (24.0 * GROWTH + 18.0) * edges + 8.0 * n * padded as f64;
        self.graph(umap) + places + spectral.max(schedule)
    }

    /// Where rows are clustered.
    fn positions_bytes(&self) -> f64 {
        match &self.config.reducer {
            Reducer::Umap(umap) => 4.0 * self.rows as f64 * umap.n_components as f64,
            Reducer::None => 0.0,
        }
    }

    /// Dimensions of the points that are clustered.
    fn clustered_dims(&self) -> usize {
        match &self.config.reducer {
            Reducer::Umap(umap) => umap.n_components,
            Reducer::None => self.dim,
        }
    }

    fn clustering(&self) -> f64 {
        match &self.config.clusterer {
            ClustererConfig::Hdbscan(_) | ClustererConfig::HdbscanCrate(_) => self.density_clustering(),
            ClustererConfig::Dbscan(_) => self.dbscan(),
            ClustererConfig::Kmeans(config) => self.kmeans(config),
        }
    }

    /// DBSCAN: see [`kernels::KdTree`], [`kernels::dbscan`]; of each point whether it is core, its set, its cluster by
    /// position and by row, and that cluster's number.
    fn dbscan(&self) -> f64 {
        self.kd_tree() + (1.0 + 4.0 + 4.0 + 1.0 + 4.0 + 4.0 + 4.0) * self.rows as f64
    }

    /// k-means: see [`kernels::kmeans`].
    fn kmeans(&self, config: &KMeansConfig) -> f64 {
        let (n, k, d) = (self.rows as f64, config.n_clusters as f64, self.clustered_dims() as f64);
        // While seeds are chosen: squared lengths, distances to the nearest seed, and those with each candidate.
        let seeding = (4.0 + 4.0 + 4.0 * (2.0 + k.ln().floor())) * n;
        // Squared lengths; labels twice, with pairs of them while they are found; members in order; distances where
        // clusters lost all points; and what sums of 256 members take.
        let iterating = (4.0 + 8.0 + 8.0 + 4.0 + 20.0) * n + 8.0 * d * (n / 256.0 + 2.0 * k);
        // Centroids thrice, once of them packed.
        seeding.max(iterating) + 3.0 * 4.0 * k.max(32.0) * d
    }

    /// HDBSCAN: see [`kernels::KdTree`], [`kernels::minimum_spanning_tree`], [`crate::clusterers::hdbscan`].
    fn density_clustering(&self) -> f64 {
        let n = self.rows as f64;
        // With core distances twice.
        let tree = self.kd_tree() + 16.0 * n;
        // Of a point its component, what it knows, its edge; in the first round, a found edge and a lightest one each.
        let growth = (4.0 + 24.0 + 24.0) * n + (24.0 * GROWTH + 32.0 + 8.0 + 8.0) * n;
        // The tree's edges, then joins, ways up, clusters of nodes, and the condensed tree.
        let condensing = (16.0 + 24.0 + 8.0 + 8.0) * n + self.clusters_bytes();
        tree + growth.max(condensing)
    }

    /// Coordinates, boxes of two nodes a block of 16, the order of rows.
    fn kd_tree(&self) -> f64 {
        (4.0 + 2.0) * self.rows as f64 * self.clustered_dims() as f64 + 4.0 * self.rows as f64
    }

    /// Labels, probabilities, outlier scores, and the condensed tree's four columns.
    fn clusters_bytes(&self) -> f64 {
        (12.0 + 20.0) * self.rows as f64
    }

    /// Words and names: see [`crate::words`].
    fn words(&self) -> f64 {
        let TextSizes { words, terms, .. } = self.texts;
        let n = self.rows as f64;
        let table = |entries: f64, bytes: f64| entries / LOAD * (bytes + 1.0);
        let different = words.distinct(n);
        let word = small(10.0);
        // Reading: of each chunk its numbers and its own words; then all words, sorted and numbered.
        let chunks = self.chunks();
        let own = chunks * table(words.distinct(n / chunks), 32.0) + self.chunk_words_bytes();
        let all = table(different, 16.0) + table(different, 24.0) + different * (24.0 + word);
        let reading = 4.0 * n * self.texts.tokens + own + all;
        // Counting: a sixteenth of all terms a thread, with three counts each; then the table of those kept.
        let threads = self.threads.min(16) as f64;
        let tally = threads * table(terms.distinct(n) / 16.0, KEY_BYTES + 24.0);
        let kept = self.terms() * KEY_BYTES + table(self.terms(), KEY_BYTES + 4.0);
        let counting = threads * table(self.cells() / 16.0, 16.0) + 2.0 * 16.0 * self.cells();
        // Choosing: weights of all cells, and the table of terms again.
        let choosing = self.terms_bytes() + 16.0 * self.cells() + kept;
        let tokens = self.tokens_bytes();
        let arranging = self.terms_bytes() + self.arranging();
        let counted = tally.max(kept + counting).max(choosing).max(arranging);
        reading.max(tokens + counted)
    }

    /// The taxonomy: a similarity and half a distance a pair of topics.
    fn arranging(&self) -> f64 {
        let topics = self.topics();
        if topics > MOST_TOPICS as f64 { 0.0 } else { (8.0 + 4.0) * topics * topics }
    }

    /// Chunks of texts whose words are found apart: see [`crate::words::Tokens::read`].
    fn chunks(&self) -> f64 {
        let most = 64.0_f64.max(4.0 * self.threads as f64);
        (self.rows as f64 / 2048.0).ceil().clamp(1.0, most)
    }

    /// The words that each chunk finds, before they are one list.
    fn chunk_words_bytes(&self) -> f64 {
        self.chunks() * self.texts.words.distinct(self.rows as f64 / self.chunks()) * small(10.0)
    }

    /// The numbers of all words, and the words.
    fn tokens_bytes(&self) -> f64 {
        let n = self.rows as f64;
        4.0 * n * self.texts.tokens + 8.0 * n + self.texts.words.distinct(n) * string(10.0)
    }

    /// The counts of terms in topics, and the terms.
    fn terms_bytes(&self) -> f64 {
        16.0 * self.cells() + self.terms() * string(16.0)
    }

    /// The table of the counts as it is saved: the topic, the term and the count of each, and where the term ends.
    pub fn terms_table_bytes(&self) -> f64 {
        self.cells() * (4.0 + 16.0 + 8.0 + 4.0)
    }

    /// The clusters' points as columns of f64, and a number a place: see [`crate::evaluate::dbcv`].
    fn judging(&self) -> f64 {
        8.0 * self.rows as f64 * (self.clustered_dims() as f64 + 3.0)
    }

    /// Codes while they are made of the vectors, then searched: each row's votes and topics.
    fn threshold(&self) -> f64 {
        let (n, d) = (self.rows as f64, self.dim as f64);
        let codes = n * d;
        let near = 8.0 * n * (self.top_k + 1).min(self.rows) as f64;
        let scored = n * (32.0 + small(24.0));
        // The vectors are held until their codes are made; they are among the rows.
        codes + (self.packed_codes() + near + scored - self.vectors_bytes()).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clusterers::hdbscan::HdbscanConfig;

    pub(super) const TEXTS: TextSizes = TextSizes {
        rows: 1000,
        text_bytes: 1000.0,
        shown_bytes: 80.0,
        id_bytes: 10.0,
        tokens: 100.0,
        occurrences: 150.0,
        words: Growth { texts: 1000.0, distinct: 10_000.0, exponent: 0.5 },
        terms: Growth { texts: 1000.0, distinct: 60_000.0, exponent: 0.8 },
    };

    pub(super) fn workload(config: &FitConfig, rows: usize) -> Workload<'_> {
        Workload { rows, dim: 384, texts: TEXTS, dated: false, threads: 2, top_k: 10, screened: true, config }
    }

    fn of(stages: &[StageMemory], name: &str) -> f64 {
        stages.iter().filter(|stage| stage.stage == name).map(|stage| stage.bytes).fold(0.0, f64::max)
    }

    #[test]
    fn stages_are_those_that_a_fit_tells_in_its_order() {
        use crate::fit::{Means, Observer, Rows, fit};
        use crate::model::Settings;
        use std::{ops::ControlFlow, sync::Mutex};

        #[derive(Default)]
        struct Heard(Mutex<Vec<&'static str>>);
        impl Observer for Heard {
            fn begin(&self, stage: &'static str, _: u64) {
                let mut heard = self.0.lock().unwrap();
                if heard.last() != Some(&stage) {
                    heard.push(stage);
                }
            }
            fn advance(&self, _: u64) -> ControlFlow<()> {
                ControlFlow::Continue(())
            }
        }

        let values = (0..60 * 4).map(|i| ((i * 7919) % 101) as f32 - 50.0).collect();
        let texts: Vec<String> = (0..60).map(|i| format!("word{} common", i % 7)).collect();
        let same = FitConfig::default();
        let wider = UmapConfig { n_components: 2, n_neighbors: 20, ..UmapConfig::default() };
        let other = FitConfig { map: Some(wider), ..FitConfig::default() };
        let none = FitConfig { reducer: Reducer::None, ..FitConfig::default() };
        for config in [same, other, none] {
            let rows = Rows {
                ids: (0..60).map(|i| i.to_string()).collect(),
                texts: texts.clone(),
                shown: texts.clone(),
                dates: Vec::new(),
                vectors: kernels::Matrix::try_from_vec(60, 4, Clone::clone(&values)).unwrap(),
                weights: Vec::new(),
            };
            let settings = Settings { id: None, ..Settings::default() };
            let heard = Heard::default();
            let cpu = kernels::Device::cpu();
            fit(rows, settings, None, &config, &Means { observer: &heard, ..Means::only(&cpu) }).unwrap();
            let planned: Vec<_> = workload(&config, 60).stages().iter().map(|stage| stage.stage).collect();
            assert_eq!(planned, *heard.0.lock().unwrap());
        }
    }

    #[test]
    fn ten_times_the_rows_take_ten_times_the_memory_where_nothing_is_bounded() {
        let config = FitConfig::default();
        let (few, many) = (workload(&config, 100_000).stages(), workload(&config, 1_000_000).stages());
        for name in ["map layout", "layout", "clusters"] {
            let ratio = of(&many, name) / of(&few, name);
            assert!((ratio - 10.0).abs() < 0.01, "{name}: {ratio}");
        }
        // Words grow more slowly than texts, and a block of queries not at all.
        assert!(of(&many, "words") < 10.0 * of(&few, "words"));
        assert!(of(&many, "neighbours") < 10.0 * of(&few, "neighbours"));
    }

    #[test]
    fn a_search_holds_the_rows_and_a_float_and_two_bytes_a_value_at_least() {
        let config = FitConfig::default();
        let check = |workload: Workload<'_>, bytes: f64, room: f64| {
            let search = of(&workload.stages(), "neighbours") - workload.rows_bytes();
            let least = workload.rows as f64 * 384.0 * bytes;
            assert!(search >= least && search < room * least, "{search} for {least}");
        };
        // Cells round the codes up, a little; of fewer rows a block of queries is more.
        check(workload(&config, 1_000_000), 6.0, 1.15);
        check(workload(&config, EXACT_ROWS), 6.0, 1.3);
        // Without codes two floats a value.
        check(Workload { screened: false, ..workload(&config, EXACT_ROWS) }, 8.0, 1.3);
    }

    #[test]
    fn a_search_among_many_compares_few_of_them_with_each() {
        let cosine = UmapConfig::default();
        let wide = UmapConfig { n_neighbors: 100, ..cosine.clone() };
        let euclidean = UmapConfig { metric: Metric::Euclidean, ..cosine.clone() };
        assert_eq!(points_compared(5e4, &cosine), 5e4);
        assert_eq!(points_compared(1e6, &euclidean), 1e6);
        // 93 and 149 of 948 cells were measured.
        for (umap, probes) in [(&cosine, 93.0), (&wide, 149.0)] {
            let expected = 1e5 * probes / 948.0 + 3.0 * 948.0 + 2_000.0;
            assert!((points_compared(1e5, umap) / expected - 1.0).abs() < 0.03);
        }
    }

    #[test]
    fn wider_neighbourhoods_take_more_in_the_graph_and_the_layout() {
        let narrow = FitConfig::default();
        let umap = UmapConfig { n_neighbors: 100, ..UmapConfig::default() };
        let wide = FitConfig { reducer: Reducer::Umap(umap), ..FitConfig::default() };
        let (narrow, wide) = (workload(&narrow, 100_000), workload(&wide, 100_000));
        // 127.5 more edges a row: 16 bytes in two graphs, 24 in the lists of events and 18 in their order.
        let more = of(&wide.stages(), "layout") - of(&narrow.stages(), "layout");
        let least = 100_000.0 * 127.5 * (16.0 + 42.0);
        assert!(more >= least && more < 1.4 * least, "{more} for {least}");
    }

    #[test]
    fn pairs_of_topics_and_terms_are_no_more_than_there_can_be() {
        let clusterer = |size| {
            ClustererConfig::Hdbscan(HdbscanConfig { min_cluster_size: size, ..HdbscanConfig::default() })
        };
        for (rows, size) in [(100, 2), (2000, 10), (100_000, 50), (1_000_000, 1000)] {
            let config = FitConfig { clusterer: clusterer(size), ..FitConfig::default() };
            let workload = workload(&config, rows);
            assert!(workload.cells() <= workload.topics() * workload.terms() + 1e-6);
            assert!(workload.cells() >= workload.topics(), "{rows}: {}", workload.cells());
        }
    }
}
