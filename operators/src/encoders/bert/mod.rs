//! BERT (Devlin et al. 2018): the network of MiniLM, bge, e5, gte-small and most small encoders.
//!
//! Embeddings of word, position and type, layer norm; then per layer attention, projection, residual and layer
//! norm, and two dense layers with GELU between, residual and layer norm. Post-norm, erf-GELU, no dropout.
//!
//! Here is what a folder's files say of it; [`cpu`] and [`gpu`] run it.

pub(super) mod cpu;
pub(super) mod gpu;

use super::folder::Folder;
use super::weights::Weights;
use crate::encoders::folder::WeightPrecision;
use crate::{Error, Result};
use kernels::gpu::attention::HEAD_WIDTHS;
use kernels::gpu::norm::MAX_WIDTH;
use serde::Deserialize;
use std::path::PathBuf;

/// What `config.json` says of a BERT.
#[derive(Debug, Deserialize)]
struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    vocab_size: usize,
    #[serde(default = "default_epsilon")]
    layer_norm_eps: f32,
    #[serde(default = "default_activation")]
    hidden_act: String,
    #[serde(default = "default_positions")]
    position_embedding_type: String,
}

/// The value of transformers' `BertConfig`.
fn default_epsilon() -> f32 {
    1e-12
}

/// The value of transformers' `BertConfig`.
fn default_activation() -> String {
    "gelu".into()
}

/// The value of transformers' `BertConfig`.
fn default_positions() -> String {
    "absolute".into()
}

/// A BERT's files, opened and checked; its tensors are read when they are asked for.
pub(super) struct Files {
    /// `config.json`.
    path: PathBuf,
    config: Config,
    weights: Weights,
}

/// A dense layer: y = x w' + bias.
struct Linear {
    /// outputs × inputs.
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// A layer norm.
struct Norm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

/// What comes before the layers.
struct Embeddings {
    /// vocabulary × hidden.
    words: Vec<f32>,
    /// positions × hidden; the type embedding of a lone text is added in.
    positions: Vec<f32>,
    norm: Norm,
}

struct Layer {
    /// One product for all three: their outputs side by side.
    query_key_value: Linear,
    projection: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    output_norm: Norm,
}

impl Files {
    pub(super) fn open(folder: &Folder) -> Result<Self> {
        let config: Config = folder.config()?;
        let refuse = |what: &str, found: &str, expected: &str| {
            Err(Error::model(
                folder.path.join("config.json"),
                format!("{what} is \"{found}\", expected \"{expected}\""),
            ))
        };
        if config.hidden_act != "gelu" {
            return refuse("hidden_act", &config.hidden_act, "gelu");
        }
        if config.position_embedding_type != "absolute" {
            return refuse("position_embedding_type", &config.position_embedding_type, "absolute");
        }
        if config.hidden_size == 0 || config.intermediate_size == 0 {
            return refuse("hidden_size or intermediate_size", "0", "1 or more");
        }
        let heads = config.num_attention_heads;
        if heads == 0 || !config.hidden_size.is_multiple_of(heads) {
            return refuse("num_attention_heads", &heads.to_string(), "a divisor of hidden_size");
        }
        let weights = Weights::open(&folder.path, "model.safetensors")?.with_prefix("bert.")?;
        Ok(Self { path: folder.path.join("config.json"), config, weights })
    }

    /// Fails where the kernels for GPUs cannot run this network in `precision`.
    pub(super) fn check_for_gpu(&self, precision: WeightPrecision) -> Result<()> {
        let Config { hidden_size, intermediate_size, num_attention_heads, .. } = self.config;
        let refuse = |found: String| Err(Error::model(&self.path, format!("{found}; use --device cpu")));
        let width = hidden_size / num_attention_heads;
        if !HEAD_WIDTHS.contains(&width) {
            return refuse(format!(
                "hidden_size {hidden_size} in {num_attention_heads} heads makes each {width} wide, \
                 on a GPU one is 32 or 64"
            ));
        }
        if hidden_size > MAX_WIDTH {
            return refuse(format!("hidden_size is {hidden_size}, on a GPU it is at most {MAX_WIDTH}"));
        }
        if !intermediate_size.is_multiple_of(8) {
            return refuse(format!(
                "intermediate_size is {intermediate_size}, on a GPU it is a multiple of 8"
            ));
        }
        if precision == WeightPrecision::Float8 && !intermediate_size.is_multiple_of(16) {
            let reason =
                format!("intermediate_size is {intermediate_size}, in float8 it is a multiple of 16");
            return Err(Error::model(&self.path, format!("{reason}; use float16")));
        }
        Ok(())
    }

    /// Columns of a token vector.
    pub(super) fn hidden(&self) -> usize {
        self.config.hidden_size
    }

    fn embeddings(&self) -> Result<Embeddings> {
        let (c, h) = (&self.config, self.hidden());
        let table = |name: &str, rows| self.weights.tensor(&format!("embeddings.{name}.weight"), &[rows, h]);
        let mut positions = table("position_embeddings", c.max_position_embeddings)?;
        let types = table("token_type_embeddings", c.type_vocab_size)?;
        for position in positions.chunks_exact_mut(h) {
            for (p, t) in position.iter_mut().zip(&types) {
                *p += t;
            }
        }
        let words = table("word_embeddings", c.vocab_size)?;
        Ok(Embeddings { words, positions, norm: self.norm("embeddings.LayerNorm")? })
    }

    /// The layers one after another, each read when its turn comes.
    fn layers(&self) -> impl Iterator<Item = Result<Layer>> {
        (0..self.config.num_hidden_layers).map(|i| self.layer(&format!("encoder.layer.{i}")))
    }

    fn layer(&self, name: &str) -> Result<Layer> {
        let (h, intermediate) = (self.hidden(), self.config.intermediate_size);
        let mut query_key_value = Linear { weight: Vec::new(), bias: Vec::new() };
        for part in ["query", "key", "value"] {
            let part = self.linear(&format!("{name}.attention.self.{part}"), h, h)?;
            query_key_value.weight.extend(part.weight);
            query_key_value.bias.extend(part.bias);
        }
        Ok(Layer {
            query_key_value,
            projection: self.linear(&format!("{name}.attention.output.dense"), h, h)?,
            attention_norm: self.norm(&format!("{name}.attention.output.LayerNorm"))?,
            up: self.linear(&format!("{name}.intermediate.dense"), intermediate, h)?,
            down: self.linear(&format!("{name}.output.dense"), h, intermediate)?,
            output_norm: self.norm(&format!("{name}.output.LayerNorm"))?,
        })
    }

    fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear> {
        Ok(Linear {
            weight: self.weights.tensor(&format!("{name}.weight"), &[outputs, inputs])?,
            bias: self.weights.tensor(&format!("{name}.bias"), &[outputs])?,
        })
    }

    fn norm(&self, name: &str) -> Result<Norm> {
        Ok(Norm {
            gamma: self.weights.tensor(&format!("{name}.weight"), &[self.hidden()])?,
            beta: self.weights.tensor(&format!("{name}.bias"), &[self.hidden()])?,
        })
    }
}
