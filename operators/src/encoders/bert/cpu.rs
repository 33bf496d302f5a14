//! BERT on a processor: a pack of tokens runs through the whole network on one core.

use super::{Files, Norm};
use crate::Result;
use crate::encoders::TokenBatch;
use crate::encoders::folder::WeightPrecision;
use kernels::attention::{self, attention, attention_int8};
use kernels::gemm::{Epilogue, Packed, Rows, gemm};
use kernels::{Isa, halves, int8, norm};

/// A loaded BERT.
pub(in crate::encoders) struct Bert {
    hidden: usize,
    intermediate: usize,
    heads: usize,
    /// Whether attention computes with 8-bit codes, as the layers do.
    int8: bool,
    epsilon: f32,
    embeddings: super::Embeddings,
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
pub(in crate::encoders) struct Workspace {
    /// After `forward`: tokens × hidden.
    pub(in crate::encoders) hidden: Vec<f32>,
    query_key_value: Vec<f32>,
    context: Vec<f32>,
    attended: Vec<f32>,
    up: Vec<f32>,
    inputs: Inputs,
    attention: attention::Workspace,
    attention_int8: attention::Int8Workspace,
}

impl Bert {
    pub(in crate::encoders) fn load(isa: Isa, files: &Files, precision: WeightPrecision) -> Result<Self> {
        let layers = files.layers().map(|layer| Ok(Layer::new(isa, layer?, precision)));
        Ok(Self {
            hidden: files.hidden(),
            intermediate: files.config.intermediate_size,
            heads: files.config.num_attention_heads,
            int8: precision == WeightPrecision::Int8,
            epsilon: files.config.layer_norm_eps,
            embeddings: files.embeddings()?,
            layers: layers.collect::<Result<_>>()?,
        })
    }

    /// Runs the network over a pack; the token vectors are left in `workspace.hidden`.
    pub(in crate::encoders) fn forward(&self, isa: Isa, pack: &TokenBatch, workspace: &mut Workspace) {
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
            if self.int8 {
                let buffers = &mut workspace.attention_int8;
                attention_int8(isa, query_key_value, context, h, heads, offsets, buffers);
            } else {
                attention(isa, query_key_value, context, h, heads, offsets, &mut workspace.attention);
            }
            layer.projection.apply(isa, context, inputs, attended, false);
            add_norm(isa, attended, hidden, &layer.attention_norm, self.epsilon);
            let tokens = attended.chunks(FEED_TOKENS * h);
            for (tokens, outputs) in tokens.zip(hidden.chunks_mut(FEED_TOKENS * h)) {
                let up = &mut up[..tokens.len() / h * self.intermediate];
                layer.up.apply(isa, tokens, inputs, up, true);
                layer.down.apply(isa, up, inputs, outputs, false);
            }
            add_norm(isa, hidden, attended, &layer.output_norm, self.epsilon);
        }
    }

    /// Word plus position plus type, normalised.
    fn embed(&self, isa: Isa, pack: &TokenBatch, out: &mut [f32]) {
        let h = self.hidden;
        for text in pack.offsets.windows(2) {
            for (position, token) in (text[0]..text[1]).enumerate() {
                let word = &self.embeddings.words[pack.ids[token] as usize * h..][..h];
                let place = &self.embeddings.positions[position * h..][..h];
                for ((out, w), p) in out[token * h..][..h].iter_mut().zip(word).zip(place) {
                    *out = w + p;
                }
            }
        }
        let Norm { gamma, beta } = &self.embeddings.norm;
        norm::layer_norm(isa, out, gamma, beta, self.epsilon);
    }
}

impl Layer {
    fn new(isa: Isa, layer: super::Layer, precision: WeightPrecision) -> Self {
        Self {
            query_key_value: Linear::new(isa, layer.query_key_value, precision),
            projection: Linear::new(isa, layer.projection, precision),
            attention_norm: layer.attention_norm,
            up: Linear::new(isa, layer.up, precision),
            down: Linear::new(isa, layer.down, precision),
            output_norm: layer.output_norm,
        }
    }
}

impl Linear {
    fn new(isa: Isa, super::Linear { weight, bias }: super::Linear, precision: WeightPrecision) -> Self {
        let outputs = bias.len();
        let inputs = weight.len() / outputs;
        let weight = if precision == WeightPrecision::Int8 {
            Weight::Int8(int8::Weights::from_linear(&weight, outputs, inputs))
        } else if halves::serve(isa) {
            Weight::Halves(halves::Weights::from_linear(&weight, outputs, inputs))
        } else {
            Weight::Float32(Packed::from_linear(&weight, outputs, inputs))
        };
        Self { weight, bias }
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

/// Adds `residual` to `x` and normalises it.
fn add_norm(isa: Isa, x: &mut [f32], residual: &[f32], norm: &Norm, epsilon: f32) {
    norm::add_layer_norm(isa, x, residual, &norm.gamma, &norm.beta, epsilon);
}
