//! A trial: the first rows of the input, read, embedded in part and fitted, to see what a row costs on this machine.
//!
//! Each stage's time is then scaled by its law: a search with the points that it compares, HDBSCAN with n log n,
//! k-means with clusters and rows, a layout with rows and epochs, all else with the rows. Since a search of so few rows says nothing of a large one, the
//! kernel that does it is timed on its own, on random codes that are more than a cache holds.

use super::super::draw;
use super::super::fit::Templates;
use super::super::input::VectorSource;
use super::Context;
use crate::job::Job;
use crate::memory::{most_bytes, resident_bytes};
use crate::progress::Progress;
use crate::sources::Columns;
use crate::{Result, report};
use kernels::gpu::{Gpu, search as gpu_search};
use kernels::layout::mix64;
use kernels::topk::{self, Codes, Screened, topk_codes};
use kernels::{Device, Isa, Matrix};
use operators::assign::LabelConfig;
use operators::fit::{FitConfig, Means, Observer, fit, map_config};
use operators::grouping::GivenConfig;
use operators::model::Settings;
use operators::plan::{TextSizes, points_compared};
use operators::reducers::{Metric, Reducer, UmapConfig};
use operators::sample::{Sample, Selection};
use operators::vectors::{Counters, Vectors, encode};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Rows of a trial: enough for topics to appear, few enough for a second or two.
pub(super) const ROWS: usize = 2048;

/// Epochs of its layouts: one takes as long as another.
const EPOCHS: u32 = 50;

/// How long texts are encoded to know the encoder's speed.
const ENCODING: Duration = Duration::from_millis(700);

/// Bytes of the codes that the search is timed on.
const SEARCHED_BYTES: usize = 24 << 20;

/// A search on a GPU that is timed takes at least so long: shorter ones are mostly waiting. Rows that it begins with.
const GPU_SEARCH: Duration = Duration::from_millis(5);
const GPU_ROWS: usize = 256;

/// Times that it is timed: the fastest counts, since others only lose time to what else the machine does.
const REPEATS: usize = 4;

/// What a row costs.
#[derive(Debug)]
pub(super) struct Trial {
    /// Rows that were fitted.
    pub(super) rows: usize,
    /// How long the trial took.
    pub(super) seconds: f64,
    /// Dimensions of a vector.
    pub(super) dim: usize,
    /// The texts.
    pub(super) texts: TextSizes,
    /// Reading a row.
    pub(super) reading_seconds: f64,
    /// Embedding a row; nothing where vectors are there already.
    pub(super) embedding_seconds: Option<f64>,
    /// Loading the encoder, what it takes at most meanwhile, and what it takes when it has encoded a few texts.
    pub(super) loading_seconds: f64,
    pub(super) loading_bytes: f64,
    pub(super) encoder_bytes: f64,
    /// What the encoder holds in a GPU's memory; nothing where all runs on the processor.
    pub(super) gpu_encoder_bytes: Option<f64>,
    /// Turning a row's part of the model into bytes.
    pub(super) saving_seconds: f64,
    /// Bytes of the tables of rows, and of those of terms.
    pub(super) rows_file_bytes: f64,
    pub(super) terms_file_bytes: f64,
    /// The pairs of topics and terms in them.
    pub(super) cells: f64,
    /// Bytes of the report's page: of an empty one, and of a row.
    pub(super) page_bytes: (f64, f64),
    pub(super) picture_file_bytes: f64,
    /// Drawing the page, and the picture.
    page_seconds: f64,
    picture_seconds: f64,
    /// The stages in their order.
    stages: Vec<Timed>,
    /// Looking at one point for one query: when the map's neighbours are searched, when the layout's are where they are
    /// others, and when votes are.
    map_near_seconds: f64,
    near_seconds: f64,
    vote_seconds: f64,
    config: FitConfig,
}

/// A stage of the trial.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Timed {
    stage: &'static str,
    /// Its time before its steps are counted, and while they are.
    seconds: [f64; 2],
}

/// Reads the first rows of the input.
pub(super) async fn draw(
    context: &Context,
    job: &Job,
    vectors: &VectorSource,
    columns: Columns,
) -> Result<Drawn> {
    let started = Instant::now();
    let mut first = job.clone();
    first.fit.sample = Selection::Range { start: 0, end: ROWS as u64 };
    let mut source = vectors.open(&first, columns, first.id.as_deref()).await?;
    let sample = draw::draw(context, &first, source.as_mut(), None).await?;
    // Rows come in whole batches.
    let read = sample.seen.max(1) as f64;
    Ok(Drawn { sample, seconds: started.elapsed().as_secs_f64() / read })
}

/// Rows that were read, and how long one took.
pub(super) struct Drawn {
    pub(super) sample: Sample,
    seconds: f64,
}

/// Vectors that are ready, and what it took.
pub(super) struct Loaded {
    pub(super) vectors: Vectors,
    /// What the process held before.
    before: u64,
    /// The most that it held until they were ready. What was read before them counts too: a little too much.
    most: u64,
    /// What they hold in a GPU's memory.
    gpu_bytes: f64,
    seconds: f64,
}

impl Loaded {
    /// Loads the encoder, if there is one.
    pub(super) async fn load(vectors: VectorSource, context: &Context) -> Result<Self> {
        let free = || -> Result<f64> {
            Ok(match context.device.gpu() {
                Some(gpu) => gpu.memory().map_err(operators::Error::from)?.0 as f64,
                None => 0.0,
            })
        };
        let (started, before, free_before) = (Instant::now(), resident_bytes(), free()?);
        let vectors = vectors.load(context).await?;
        let gpu_bytes = (free_before - free()?).max(0.0);
        Ok(Self { vectors, before, most: most_bytes(), gpu_bytes, seconds: started.elapsed().as_secs_f64() })
    }
}

impl Trial {
    /// Fits `drawn` as `job` says, but for few epochs.
    pub(super) fn run(
        job: &Job,
        label: LabelConfig,
        drawn: Drawn,
        templates: &Templates,
        loaded: Loaded,
        device: &Device,
        progress: &Progress,
    ) -> Result<Self> {
        let started = Instant::now();
        let counters = Arc::new(Counters::default());
        let reading_seconds = drawn.seconds;
        let Loaded { vectors, before, most, gpu_bytes, seconds: loading_seconds } = loaded;
        let (mut rows, mut embedding_seconds) = (None, None);
        let (mut loading_bytes, mut encoder_bytes) = (0.0, 0.0);
        if let Vectors::Encoded { encoder, .. } = &vectors {
            let mut made = templates.texts(&drawn.sample.rows, &drawn.sample.row_numbers, &counters)?;
            progress.begin("trial embedding", "", Some(0));
            let (encoded, seconds) = encode_some(encoder, &made.texts, &counters, progress)?;
            embedding_seconds = Some(seconds);
            encoder_bytes = resident_bytes().saturating_sub(before) as f64;
            loading_bytes = (most.saturating_sub(before) as f64).max(encoder_bytes);
            made.vectors = spread(&encoded, made.texts.len())?;
            rows = Some(made);
        }
        let rows = match rows {
            Some(rows) => rows,
            None => templates.rows(drawn.sample, &vectors, &counters, progress)?,
        };
        drop(vectors);
        let (m, dim) = (rows.texts.len(), rows.vectors.cols());
        let texts = TextSizes::measure(&rows.texts, &rows.shown, &rows.ids, &job.fit.words.vocabulary)?;
        let codes = CodeSearch::of(dim, device)?;
        let near = |umap: &UmapConfig| match umap.metric {
            Metric::Cosine if device.gpu().is_some() || Isa::detect().has_byte_products() => {
                codes.seconds(Screened::candidates(umap.n_neighbors))
            }
            Metric::Cosine | Metric::Euclidean => float_search_seconds(dim, umap.n_neighbors),
        };
        let map = map_config(&job.fit);
        let map_near_seconds = near(&map)?;
        let near_seconds = match &job.fit.reducer {
            Reducer::Umap(umap) if (umap.n_neighbors, umap.metric) != (map.n_neighbors, map.metric) => {
                near(umap)?
            }
            Reducer::Umap(_) | Reducer::None => map_near_seconds,
        };
        let vote_seconds = codes.seconds(label.top_k + 1)?;
        drop(codes);

        let settings = Settings {
            encoder: job.encoder.clone(),
            text: job.text.clone(),
            show: job.show.clone(),
            id: job.id.clone(),
            date: job.date.clone(),
            label,
            ..Settings::default()
        };
        let clock = Clock { progress, begun: Mutex::default() };
        let model = fit(
            rows,
            settings,
            None,
            &short(&job.fit, m),
            &Means { observer: &clock, ..Means::only(device) },
        )?;
        let stages = clock.stages();

        let drawing = Instant::now();
        let drawn = report::of_model(&model, job, &counters, Duration::ZERO)?;
        let mut page = Vec::new();
        report::write_html(&drawn, &mut page)?;
        let page_seconds = drawing.elapsed().as_secs_f64();
        let drawing = Instant::now();
        let mut picture = Vec::new();
        report::write_png(&drawn, &mut picture)?;
        let picture_seconds = drawing.elapsed().as_secs_f64();
        let saving = Instant::now();
        let parts = operators::bundle::encode(&model)?;
        let saving_seconds = saving.elapsed().as_secs_f64() / m as f64;
        tracing::debug!(?stages, page_seconds, picture_seconds, saving_seconds, "trial");
        let size = |names: &[&str]| -> f64 {
            parts.iter().filter(|(name, _)| names.contains(name)).map(|(_, bytes)| bytes.len() as f64).sum()
        };
        // Of a row the page holds the place, topic, part, score and day in base64, and the title in quotes.
        let day = if job.date.is_some() { 4.0 } else { 0.0 };
        let title =
            report::json_bytes(&model.sample.texts).map_err(report::ReportError::from)? as f64 / m as f64;
        let a_row = (2.0 + 2.0 + 2.0 + 1.0 + 1.0 + day) * 4.0 / 3.0 + title;
        Ok(Self {
            rows: m,
            seconds: started.elapsed().as_secs_f64(),
            dim,
            texts,
            reading_seconds,
            embedding_seconds,
            loading_seconds,
            loading_bytes,
            encoder_bytes,
            gpu_encoder_bytes: device.gpu().map(|_| gpu_bytes),
            saving_seconds,
            rows_file_bytes: size(&["sample.parquet", "texts.parquet", "tree.parquet"]),
            terms_file_bytes: size(&["terms.parquet"]),
            cells: model.terms.iter().count() as f64,
            page_bytes: ((page.len() as f64 - a_row * m as f64).max(0.0), a_row),
            picture_file_bytes: picture.len() as f64,
            page_seconds,
            picture_seconds,
            stages,
            map_near_seconds,
            near_seconds,
            vote_seconds,
            config: job.fit.clone(),
        })
    }

    /// Whether neighbours and votes are searched on a GPU, which compares all rows.
    fn on_gpu(&self) -> bool {
        self.gpu_encoder_bytes.is_some()
    }

    /// The stages of a fit of `n` rows, and how long each takes.
    pub(super) fn seconds_of_stages(&self, n: f64) -> Vec<(&'static str, f64)> {
        let map = map_config(&self.config);
        let own = match &self.config.reducer {
            Reducer::Umap(umap) => umap.clone(),
            Reducer::None => map.clone(),
        };
        let mut near = [(&map, self.map_near_seconds), (&own, self.near_seconds)].into_iter();
        let each = self.stages.iter().map(|timed| {
            let searching = match timed.stage {
                // The map's come first.
                "neighbours" => {
                    let (umap, near_seconds) = near.next().unwrap_or((&own, self.near_seconds));
                    let compared = if self.on_gpu() { n } else { points_compared(n, umap) };
                    near_seconds * n * (compared - self.rows as f64).max(0.0)
                }
                _ => 0.0,
            };
            (timed.stage, self.seconds_of(timed, n, searching))
        });
        each.collect()
    }

    /// How long one stage takes, `searching` seconds more than its law says where it is a search for neighbours.
    fn seconds_of(&self, timed: &Timed, n: f64, searching: f64) -> f64 {
        let m = self.rows as f64;
        let [start, steps] = timed.seconds;
        let linear = (start + steps) * n / m;
        let layout = |umap: &UmapConfig| {
            let epochs = f64::from(umap.epochs_for(n as usize));
            (start + steps * epochs / f64::from(EPOCHS)) * n / m
        };
        match (timed.stage, &self.config.reducer) {
            ("neighbours", _) => linear + searching,
            ("threshold", _) => linear + self.vote_seconds * n * (n - m).max(0.0),
            ("map layout", _) => layout(&map_config(&self.config)),
            ("layout", Reducer::Umap(umap)) => layout(umap),
            ("clusters", _) => linear * self.config.clusterer.cost_ratio(n, self.rows),
            _ => linear,
        }
    }

    /// How long the report of `n` rows takes.
    pub(super) fn report_seconds(&self, n: f64) -> f64 {
        self.picture_seconds + self.page_seconds * n / self.rows as f64
    }
}

/// The settings of a trial on `rows` rows: few epochs, and clusters that so few rows can have.
fn short(config: &FitConfig, rows: usize) -> FitConfig {
    let mut short = config.clone();
    let with_epochs = |umap: UmapConfig| UmapConfig { n_epochs: Some(EPOCHS), ..umap };
    short.map = Some(with_epochs(map_config(config)));
    if let Reducer::Umap(umap) = &config.reducer {
        short.reducer = Reducer::Umap(with_epochs(umap.clone()));
    }
    short.clusterer = config.clusterer.for_trial(rows);
    // Words are refined by the encoder, whose time is that of some hundred short texts a topic.
    short.words.then.clear();
    short.given = GivenConfig::default();
    short
}

/// Encodes the first texts for a while; returns their vectors, and the time of one.
fn encode_some(
    encoder: &operators::encoders::Encoder,
    texts: &[String],
    counters: &Counters,
    progress: &Progress,
) -> Result<(Matrix<f32>, f64)> {
    // A few for each thread: packs of one text leave threads idle.
    let at_a_time = 4 * rayon::current_num_threads();
    let mut vectors = Matrix::zeros(0, encoder.dim());
    let started = Instant::now();
    for texts in texts.chunks(at_a_time) {
        vectors
            .append(&encode(encoder, texts, counters, || !progress.is_cancelled())?)
            .map_err(operators::Error::from)?;
        if started.elapsed() > ENCODING {
            break;
        }
    }
    let seconds = started.elapsed().as_secs_f64() / vectors.rows().max(1) as f64;
    Ok((vectors, seconds))
}

/// Makes `rows` vectors of a few: each with noise of half its length, as near texts differ.
fn spread(vectors: &Matrix<f32>, rows: usize) -> Result<Matrix<f32>> {
    let dim = vectors.cols();
    // Uniform within ±a has the standard deviation a / √3: over all dimensions half of a unit vector's length.
    let most = 0.5 * 3f32.sqrt() / (dim.max(1) as f32).sqrt();
    let noise = |i: usize| ((mix64(i as u64) >> 40) as f32 * 2f32.powi(-23) - 1.0) * most;
    let values = (0..rows * dim).map(|i| {
        let (row, column) = (i / dim, i % dim);
        vectors.row(row % vectors.rows())[column] + if row < vectors.rows() { 0.0 } else { noise(i) }
    });
    Ok(Matrix::try_from_vec(rows, dim, values.collect()).map_err(operators::Error::from)?)
}

/// A search by codes to be timed.
enum CodeSearch {
    /// On the processor: random points and queries, made once.
    Cpu { points: Codes, asked: Matrix<i8> },
    /// On a GPU, of so many dimensions.
    Gpu(Arc<Gpu>, usize),
}

impl CodeSearch {
    fn of(dim: usize, device: &Device) -> Result<Self> {
        Ok(match device.gpu() {
            Some(gpu) => Self::Gpu(Arc::clone(gpu), dim),
            None => Self::Cpu {
                points: Codes::pack(&random_codes(searched_rows(dim), dim, 1)?),
                asked: random_codes(queries(), dim, 2)?,
            },
        })
    }

    /// Times the search for the `k` nearest: seconds a query and point.
    fn seconds(&self, k: usize) -> Result<f64> {
        match self {
            Self::Cpu { points, asked } => {
                let k = k.min(points.rows());
                fastest(asked.rows() * points.rows(), || topk_codes(asked, points, k).map(drop))
            }
            Self::Gpu(gpu, dim) => gpu_search_seconds(gpu, *dim, k),
        }
    }
}

/// The same on a GPU, of ever more points and queries until it takes long enough to be told from the way there.
fn gpu_search_seconds(gpu: &Arc<Gpu>, dim: usize, k: usize) -> Result<f64> {
    let mut rows = GPU_ROWS;
    loop {
        let (points, asked) = (random_codes(rows, dim, 1)?, random_codes(rows, dim, 2)?);
        let points = gpu_search::Points::codes(gpu, &points).map_err(operators::Error::from)?;
        let pairs = rows * rows;
        let each = fastest(pairs, || {
            gpu_search::topk_codes(&asked, &points, k.min(rows).min(gpu_search::MAX_K)).map(drop)
        })?;
        if each * pairs as f64 >= GPU_SEARCH.as_secs_f64() || rows * dim >= SEARCHED_BYTES {
            return Ok(each);
        }
        rows *= 2;
    }
}

fn random_codes(rows: usize, dim: usize, seed: usize) -> Result<Matrix<i8>> {
    let values = (0..rows * dim).map(|i| random_byte(i, seed)).collect();
    Ok(Matrix::try_from_vec(rows, dim, values).map_err(operators::Error::from)?)
}

/// The same by floats.
fn float_search_seconds(dim: usize, k: usize) -> Result<f64> {
    let floats = |rows: usize, seed: usize| {
        let values = (0..rows * dim).map(|i| f32::from(random_byte(i, seed))).collect();
        Matrix::try_from_vec(rows, dim, values).map_err(operators::Error::from)
    };
    let (points, asked) = (floats(searched_rows(dim) / 4, 1)?, floats(queries(), 2)?);
    let k = k.min(points.rows());
    fastest(asked.rows() * points.rows(), || topk::topk(&asked, &points, k, topk::Metric::Dot).map(drop))
}

/// Points of a timed search: more than the second cache holds, in few bytes for any dimensions.
fn searched_rows(dim: usize) -> usize {
    (SEARCHED_BYTES / dim.max(1)).clamp(4096, 1 << 16)
}

/// Enough queries to keep every thread busy that has a processor.
fn queries() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    96 * 2 * rayon::current_num_threads().min(processors)
}

fn random_byte(i: usize, seed: usize) -> i8 {
    (mix64((i ^ (seed << 40)) as u64) >> 56) as i8
}

/// The seconds of one of `parts` of a search, at its fastest.
fn fastest(parts: usize, search: impl Fn() -> kernels::Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..REPEATS {
        let started = Instant::now();
        search().map_err(operators::Error::from)?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(best / parts as f64)
}

/// Notes when stages begin.
struct Clock<'a> {
    progress: &'a Progress,
    begun: Mutex<Vec<(&'static str, u64, Instant)>>,
}

impl Clock<'_> {
    /// The stages as they came; one that begins again right behind itself goes on with its steps counted.
    fn stages(self) -> Vec<Timed> {
        let mut begun = self.begun.into_inner().unwrap_or_else(PoisonError::into_inner);
        begun.push(("end", 0, Instant::now()));
        let mut stages: Vec<Timed> = Vec::new();
        for pair in begun.windows(2) {
            let (stage, total, at) = pair[0];
            if stages.last().is_none_or(|last| last.stage != stage) {
                stages.push(Timed { stage, seconds: [0.0; 2] });
            }
            if let Some(last) = stages.last_mut() {
                last.seconds[usize::from(total > 0)] += (pair[1].2 - at).as_secs_f64();
            }
        }
        stages
    }
}

impl Observer for Clock<'_> {
    fn begin(&self, stage: &'static str, total: u64) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).push((stage, total, Instant::now()));
    }

    fn advance(&self, _: u64) -> ControlFlow<()> {
        if self.progress.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_comes_again_later_is_another_one() {
        let progress = Progress::new(true);
        let told = [("neighbours", 9), ("map layout", 0), ("map layout", 50), ("neighbours", 9), ("end", 0)];
        let start = Instant::now();
        // Each takes a second longer than the one before.
        let begun =
            told.iter().zip([0, 1, 3, 6, 10]).map(|((s, n), at)| (*s, *n, start + Duration::from_secs(at)));
        let stages = Clock { progress: &progress, begun: Mutex::new(begun.collect()) }.stages();
        let taken: Vec<(&str, [f64; 2])> = stages.iter().map(|timed| (timed.stage, timed.seconds)).collect();
        let expected = [("neighbours", [0.0, 1.0]), ("map layout", [2.0, 3.0]), ("neighbours", [0.0, 4.0])];
        assert_eq!(taken[..3], expected, "seconds before and while steps are counted");
    }
}
