//! BERT (Devlin et al. 2018): the network of MiniLM, bge, e5, gte-small and most small encoders.
//!
//! Embeddings of word, position and type, layer norm; then per layer attention, projection, residual and layer
//! norm, and two dense layers with GELU between, residual and layer norm. Post-norm, erf-GELU, no dropout.

use super::TokenBatch;
use super::folder::{Folder, WeightPrecision};
use super::weights::Weights;
use crate::{Error, Result};
use kernels::attention::{self, attention, attention_int8};
use kernels::gemm::{Epilogue, Packed, Rows, gemm};
use kernels::{Isa, halves, int8, norm};
use serde::Deserialize;

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

/// A loaded BERT.
pub(super) struct Bert {
    hidden: usize,
    intermediate: usize,
    heads: usize,
    precision: WeightPrecision,
    epsilon: f32,
    /// vocabulary × hidden.
    words: Vec<f32>,
    /// positions × hidden; the type embedding of a lone text is added in.
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
}

struct Layer {
    query_key_value: Linear,
    projection: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    output_norm: Norm,
}

struct Linear {
    weight: Weight,
    bias: Vec<f32>,
}

enum Weight {
    Float32(Packed),
    /// The same numbers, where the processor multiplies halves of floats faster than floats.
    Halves(halves::Weights),
    Int8(int8::Weights),
}

struct Norm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
}

/// Tokens that go through the two dense layers at a time: what lies between these, the widest of all activations, then
/// stays in the second cache.
const FEED_TOKENS: usize = 128;

/// A layer's inputs in the form that its weights are multiplied in.
#[derive(Default)]
struct Inputs {
    halves: halves::Activations,
    codes: int8::Activations,
}

/// Buffers of one thread, reused from pack to pack.
#[derive(Default)]
pub(super) struct Workspace {
    /// After `forward`: tokens × hidden.
    pub(super) hidden: Vec<f32>,
    query_key_value: Vec<f32>,
    context: Vec<f32>,
    attended: Vec<f32>,
    up: Vec<f32>,
    inputs: Inputs,
    attention: attention::Workspace,
    attention_int8: attention::Int8Workspace,
}

impl Bert {
    pub(super) fn load(isa: Isa, folder: &Folder) -> Result<Self> {
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
        let h = config.hidden_size;
        if h == 0 || config.intermediate_size == 0 {
            return refuse("hidden_size or intermediate_size", "0", "1 or more");
        }
        if config.num_attention_heads == 0 || !h.is_multiple_of(config.num_attention_heads) {
            return refuse(
                "num_attention_heads",
                &config.num_attention_heads.to_string(),
                "a divisor of hidden_size",
            );
        }
        let w = Weights::open(&folder.path, "model.safetensors")?.with_prefix("bert.")?;
        let mut positions =
            w.tensor("embeddings.position_embeddings.weight", &[config.max_position_embeddings, h])?;
        let types = w.tensor("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, h])?;
        for position in positions.chunks_exact_mut(h) {
            for (p, t) in position.iter_mut().zip(&types) {
                *p += t;
            }
        }
        let layers = (0..config.num_hidden_layers)
            .map(|i| {
                let name = format!("encoder.layer.{i}");
                Layer::load(isa, &w, &name, h, config.intermediate_size, folder.weight_precision)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            hidden: h,
            intermediate: config.intermediate_size,
            heads: config.num_attention_heads,
            precision: folder.weight_precision,
            epsilon: config.layer_norm_eps,
            words: w.tensor("embeddings.word_embeddings.weight", &[config.vocab_size, h])?,
            positions,
            norm: Norm::load(&w, "embeddings.LayerNorm", h)?,
            layers,
        })
    }

    pub(super) fn hidden(&self) -> usize {
        self.hidden
    }

    /// Runs the network over a pack; the token vectors are left in `workspace.hidden`.
    pub(super) fn forward(&self, isa: Isa, pack: &TokenBatch, workspace: &mut Workspace) {
        let (h, tokens) = (self.hidden, pack.ids.len());
        let Workspace { hidden, query_key_value, context, attended, up, inputs, .. } = workspace;
        hidden.resize(tokens * h, 0.0);
        query_key_value.resize(tokens * 3 * h, 0.0);
        context.resize(tokens * h, 0.0);
        attended.resize(tokens * h, 0.0);
        up.resize(tokens.min(FEED_TOKENS) * self.intermediate, 0.0);

        self.embed(isa, pack, hidden);
        for layer in &self.layers {
            layer.query_key_value.apply(isa, hidden, inputs, query_key_value, false);
            let (heads, offsets) = (self.heads, &pack.offsets);
            match self.precision {
                WeightPrecision::Float32 => {
                    attention(isa, query_key_value, context, h, heads, offsets, &mut workspace.attention);
                }
                WeightPrecision::Int8 => {
                    let buffers = &mut workspace.attention_int8;
                    attention_int8(isa, query_key_value, context, h, heads, offsets, buffers);
                }
            }
            layer.projection.apply(isa, context, inputs, attended, false);
            layer.attention_norm.add(isa, attended, hidden, self.epsilon);
            let tokens = attended.chunks(FEED_TOKENS * h);
            for (tokens, outputs) in tokens.zip(hidden.chunks_mut(FEED_TOKENS * h)) {
                let up = &mut up[..tokens.len() / h * self.intermediate];
                layer.up.apply(isa, tokens, inputs, up, true);
                layer.down.apply(isa, up, inputs, outputs, false);
            }
            layer.output_norm.add(isa, hidden, attended, self.epsilon);
        }
    }

    /// Word plus position plus type, normalised.
    fn embed(&self, isa: Isa, pack: &TokenBatch, out: &mut [f32]) {
        let h = self.hidden;
        for text in pack.offsets.windows(2) {
            for (position, token) in (text[0]..text[1]).enumerate() {
                let word = &self.words[pack.ids[token] as usize * h..][..h];
                let place = &self.positions[position * h..][..h];
                for ((out, w), p) in out[token * h..][..h].iter_mut().zip(word).zip(place) {
                    *out = w + p;
                }
            }
        }
        norm::layer_norm(isa, out, &self.norm.gamma, &self.norm.beta, self.epsilon);
    }
}

impl Layer {
    fn load(
        isa: Isa,
        w: &Weights,
        name: &str,
        h: usize,
        intermediate: usize,
        precision: WeightPrecision,
    ) -> Result<Self> {
        // One product for query, key and value: their outputs side by side.
        let (mut weight, mut bias) = (Vec::with_capacity(3 * h * h), Vec::with_capacity(3 * h));
        for part in ["query", "key", "value"] {
            weight.extend(w.tensor(&format!("{name}.attention.self.{part}.weight"), &[h, h])?);
            bias.extend(w.tensor(&format!("{name}.attention.self.{part}.bias"), &[h])?);
        }
        Ok(Self {
            query_key_value: Linear::new(isa, &weight, bias, 3 * h, h, precision),
            projection: Linear::load(isa, w, &format!("{name}.attention.output.dense"), h, h, precision)?,
            attention_norm: Norm::load(w, &format!("{name}.attention.output.LayerNorm"), h)?,
            up: Linear::load(isa, w, &format!("{name}.intermediate.dense"), intermediate, h, precision)?,
            down: Linear::load(isa, w, &format!("{name}.output.dense"), h, intermediate, precision)?,
            output_norm: Norm::load(w, &format!("{name}.output.LayerNorm"), h)?,
        })
    }
}

impl Linear {
    fn new(
        isa: Isa,
        weight: &[f32],
        bias: Vec<f32>,
        outputs: usize,
        inputs: usize,
        precision: WeightPrecision,
    ) -> Self {
        let weight = match precision {
            WeightPrecision::Float32 if halves::serve(isa) => {
                Weight::Halves(halves::Weights::from_linear(weight, outputs, inputs))
            }
            WeightPrecision::Float32 => Weight::Float32(Packed::from_linear(weight, outputs, inputs)),
            WeightPrecision::Int8 => Weight::Int8(int8::Weights::from_linear(weight, outputs, inputs)),
        };
        Self { weight, bias }
    }

    fn load(
        isa: Isa,
        w: &Weights,
        name: &str,
        outputs: usize,
        inputs: usize,
        precision: WeightPrecision,
    ) -> Result<Self> {
        let weight = w.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok(Self::new(
            isa,
            &weight,
            w.tensor(&format!("{name}.bias"), &[outputs])?,
            outputs,
            inputs,
            precision,
        ))
    }

    /// The layer's outputs; `inputs` is room for its inputs in another form.
    fn apply(&self, isa: Isa, x: &[f32], inputs: &mut Inputs, out: &mut [f32], gelu: bool) {
        match &self.weight {
            Weight::Float32(weight) => {
                let (k, n) = (weight.k(), weight.n());
                let epilogue = if gelu { Epilogue::BiasGelu(&self.bias) } else { Epilogue::Bias(&self.bias) };
                gemm(isa, Rows { data: x, rows: x.len() / k, stride: k }, weight.view(), out, n, epilogue);
            }
            Weight::Halves(weight) => {
                inputs.halves.split(isa, x, weight.k());
                halves::linear(isa, &inputs.halves, weight, &self.bias, out, gelu);
            }
            Weight::Int8(weight) => {
                inputs.codes.quantize(isa, x, weight.k());
                int8::linear(isa, &inputs.codes, weight, &self.bias, out, gelu);
            }
        }
    }
}

impl Norm {
    fn load(w: &Weights, name: &str, h: usize) -> Result<Self> {
        Ok(Self {
            gamma: w.tensor(&format!("{name}.weight"), &[h])?,
            beta: w.tensor(&format!("{name}.bias"), &[h])?,
        })
    }

    fn add(&self, isa: Isa, x: &mut [f32], residual: &[f32], epsilon: f32) {
        norm::add_layer_norm(isa, x, residual, &self.gamma, &self.beta, epsilon);
    }
}
