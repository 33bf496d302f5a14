//! `thema similarity`: how similar some texts are to each other.

use super::Context;
use super::classify::picture;
use super::input::load_encoder;
use super::rows::{self, RowsFormat};
use crate::report::heat_map;
use crate::worker::on_worker;
use crate::{Error, Result};
use arrow::array::{ArrayRef, Float32Array, RecordBatch, StringArray};
use clap::Args;
use operators::model::EncoderConfig;
use operators::similarity::Similarity;
use operators::vectors::{Counters, encode};
use std::sync::Arc;

/// Shows how similar texts are to each other.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  thema similarity --encoder all-MiniLM-L6-v2 --texts 'a cat' 'a dog' 'stock markets fell'
  thema similarity --encoder all-MiniLM-L6-v2 --file titles.txt --picture matrix.svg --format csv")]
pub struct SimilarityArgs {
    /// The texts
    #[arg(long, value_name = "TEXT", num_args = 1.., required_unless_present = "file")]
    texts: Vec<String>,
    /// A file with a text a line
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    file: Option<String>,
    /// A sentence-transformers folder, or the name of a model in a cache
    #[arg(long, short, value_name = "DIR|NAME")]
    encoder: String,
    /// How similarity is measured: cosine, dot, euclidean or manhattan [default: as the encoder's folder says]
    #[arg(long, value_name = "MEASURE")]
    similarity: Option<Similarity>,
    /// How to show the matrix, whatever --log says
    #[arg(long, value_enum, default_value = "table")]
    format: RowsFormat,
    /// Draws it, too, as an .svg
    #[arg(long, value_name = "FILE.svg")]
    picture: Option<String>,
    /// Replaces a picture that is there
    #[arg(long)]
    overwrite: bool,
}

pub(super) async fn run(context: &Context, args: SimilarityArgs) -> Result<()> {
    let picture = args.picture.as_deref().map(|path| picture(path, args.overwrite)).transpose()?;
    let texts = match &args.file {
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|e| Error::place(file, e.to_string()))?;
            text.lines().filter(|line| !line.trim().is_empty()).map(String::from).collect()
        }
        None => args.texts.clone(),
    };
    if texts.is_empty() {
        return Err(Error::setting("--file", "has no texts, expected one a line"));
    }
    let named = EncoderConfig { name: Some(args.encoder.clone()), ..EncoderConfig::default() };
    let encoder = load_encoder(context, &named).await?;
    let (matrix, texts) = on_worker(move || {
        let vectors = encode(&encoder, &texts, &Counters::default(), || true)?;
        let measure = args.similarity.unwrap_or(encoder.similarity());
        Ok((measure.between(&vectors, &vectors)?, texts))
    })
    .await?;
    if let Some(picture) = picture {
        let values: Vec<Vec<f32>> = matrix.iter_rows().map(<[f32]>::to_vec).collect();
        picture.write(&heat_map::svg("How similar texts are to each other", &texts, &texts, &values))?;
    }
    let mut columns: Vec<(String, ArrayRef)> =
        vec![("text".into(), Arc::new(StringArray::from_iter_values(&texts)))];
    for place in 0..texts.len() {
        let column = matrix.iter_rows().map(|row| row[place]);
        columns.push(((place + 1).to_string(), Arc::new(Float32Array::from_iter_values(column))));
    }
    let table = RecordBatch::try_from_iter(columns).map_err(operators::Error::from)?;
    rows::show(&table, args.format, &[])
}
