//! `thema classify`: rows into given topics.

use super::given::read_topics;
use super::input::{EncoderArgs, InputArgs, VectorSource, check_apart};
use super::output::{Output, OutputArgs};
use super::{Context, count};
use crate::job::Job;
use crate::positions::Event;
use crate::report::heat_map;
use crate::sources::{BadUnits, Columns, Source};
use crate::worker::on_worker;
use crate::{Error, Result, engine};
use arrow::array::AsArray;
use arrow::datatypes::Float32Type;
use clap::Args;
use operators::Operator;
use operators::classify::{Classify, GivenTopic, GivenTopics};
use operators::similarity::Similarity;
use operators::text::Template;
use operators::vectors::{Counters, Vectors, encode};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Puts each row into the given topic that it is most similar to.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema classify --input papers.parquet --text '{title}' --encoder all-MiniLM-L6-v2 \\
      --topics 'machine translation, speech recognition, question answering' --out classified.parquet
  thema classify --input papers.parquet --text '{title}: {abstract}' --encoder all-MiniLM-L6-v2 \\
      --topics topics.yaml --threshold 0.3 --matrix --picture matrix.svg --out classified.parquet

A file of topics is a list in YAML (or JSON):
  - name: machine translation
    description: translating text or speech from one language to another by machine
    threshold: 0.35
or text with a topic a line. Texts are compared with descriptions, or names where there is none.")]
pub struct ClassifyArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    encoder: EncoderArgs,
    /// The topics: a file, or names with commas between them
    #[arg(long, value_name = "FILE|LIST")]
    topics: String,
    /// The least similarity of a topic's texts, where a topic has none of its own [default: any]
    #[arg(long, value_name = "SIMILARITY", allow_negative_numbers = true)]
    threshold: Option<f32>,
    /// How similarity is measured: cosine, dot, euclidean or manhattan [default: as the encoder's folder says]
    #[arg(long, value_name = "MEASURE")]
    similarity: Option<Similarity>,
    /// Writes each row's similarity to each topic, as a list in the topics' order
    #[arg(long)]
    matrix: bool,
    /// Draws the similarities of the first rows to all topics, as an .svg
    #[arg(long, value_name = "FILE.svg")]
    picture: Option<String>,
    /// Rows of the picture
    #[arg(long, value_name = "N", default_value_t = 50)]
    picture_rows: usize,
    #[command(flatten)]
    output: OutputArgs,
}

impl ClassifyArgs {
    fn job(&self) -> Result<Job> {
        let mut job = self.input.job()?;
        self.encoder.fill(&mut job);
        self.output.fill(&mut job)?;
        Ok(job)
    }
}

pub(super) async fn run(context: &Context, args: ClassifyArgs) -> Result<()> {
    let job = args.job()?;
    let topics = read_topics(&args.topics)?;
    let sink_config = job.sink()?;
    sink_config.check(args.output.overwrite).await?;
    let picture = args.picture.as_deref().map(|path| picture(path, args.output.overwrite)).transpose()?;
    if job.encoder.column.is_some() {
        let reason =
            "topics are embedded by the encoder that made the rows' vectors: name it instead of a column";
        return Err(Error::setting("encoder.column", reason));
    }
    let vectors = VectorSource::try_new(&job.encoder, job.text.as_deref(), None)?;
    let columns = Columns::all_with(vectors.columns().into_iter().chain(job.id.clone()));
    let mut source = vectors.open(&job, columns, job.id.as_deref()).await?;
    check_apart(source.as_ref(), sink_config.path()?)?;
    let vectors = vectors.load(context).await?;
    let given = Arc::new(embedded(topics, &vectors, args.similarity, args.threshold).await?);

    if let Some(picture) = picture {
        picture.write(&drawn(&job, given.as_ref(), &vectors, args.picture_rows).await?)?;
    }
    let counters = Arc::new(Counters::default());
    let classify =
        Classify::new(vectors, Arc::clone(&given), args.matrix, job.prefix.clone(), Arc::clone(&counters));
    let schema = classify.schema(&source.schema())?;
    let mut sink = sink_config.open(&schema, args.output.overwrite).await?;
    let started = Instant::now();
    context.progress.begin("classifying", "rows", source.rows_hint());
    let judge = |skipped: &BadUnits| args.input.judge_all(&counters, skipped);
    let operators: Vec<Box<dyn Operator>> = vec![Box::new(classify)];
    let summary =
        engine::run(source.as_mut(), operators, sink.as_mut(), &context.progress, &counters, judge).await?;
    let (seconds, out) = (started.elapsed().as_secs_f64(), sink_config.path()?);
    let none = counters.outliers();
    context.tell(
        &format!(
            "{} in {}, {} in none, in {seconds:.1} s -> {out}\n",
            count(summary.rows_in, "row"),
            count(given.topics().len() as u64, "topic"),
            count(none, "row"),
        ),
        &json!({
            "rows": summary.rows_in, "topics": given.topics().len(), "rows_in_none": none, "seconds": seconds,
            "out": out,
        }),
    )
}

/// Embeds the topics as the rows are.
async fn embedded(
    topics: Vec<GivenTopic>,
    vectors: &Vectors,
    similarity: Option<Similarity>,
    threshold: Option<f32>,
) -> Result<GivenTopics> {
    let Vectors::Encoded { encoder, .. } = vectors else {
        return Err(Error::Internal("a column has no encoder".into()));
    };
    let encoder = Arc::clone(encoder);
    on_worker(move || {
        let texts: Vec<&str> = topics.iter().map(GivenTopic::text).collect();
        let made = encode(&encoder, &texts, &Counters::default(), || true)?;
        Ok(GivenTopics::try_new(topics, made, similarity.unwrap_or(encoder.similarity()), threshold)?)
    })
    .await
}

/// Draws the similarities of the source's first rows.
async fn drawn(job: &Job, given: &GivenTopics, vectors: &Vectors, rows: usize) -> Result<String> {
    let text = Template::parse(job.text.as_deref().unwrap_or_default())?;
    let columns = Columns::only(text.columns().into_iter().map(str::to_string));
    let mut source: Box<dyn Source> = job.source()?.open(&columns).await?;
    let (mut names, mut values) = (Vec::new(), Vec::new());
    while names.len() < rows
        && let Event::Batch(batch) = source.next().await?
    {
        let rows = batch.rows.slice(0, batch.rows.num_rows().min(rows - names.len()));
        let texts = text.bind(&rows.schema())?.render(&rows)?.texts;
        names.extend(texts.iter().map(|text| text.unwrap_or_default().to_string()));
        let mut classify =
            Classify::new(vectors.clone(), Arc::new(given.clone()), true, String::new(), Arc::default());
        let found = on_worker(move || Ok(classify.process(rows)?)).await?;
        let lists = found.column_by_name("similarities").map(|column| column.as_fixed_size_list());
        let lists = lists.ok_or_else(|| Error::Internal("no similarities".into()))?;
        let width = given.topics().len();
        let all = lists.values().as_primitive::<Float32Type>().values();
        values.extend(all.chunks(width).map(<[f32]>::to_vec));
    }
    let topics: Vec<String> = given.topics().iter().map(|topic| topic.name.clone()).collect();
    Ok(heat_map::svg("How similar texts are to topics", &names, &topics, &values))
}

/// Opens the file of a picture; fails for a name that is none of one.
pub(super) fn picture(path: &str, overwrite: bool) -> Result<Output> {
    if Path::new(path).extension().is_none_or(|extension| extension != "svg") {
        return Err(Error::place(path, "is no picture, expected a name that ends in .svg"));
    }
    Output::open(Path::new(path), overwrite)
}
