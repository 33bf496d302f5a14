//! BERT on a GPU: a pack of tokens runs through one layer after another, in halves, all multiprocessors together. Dense
//! layers may be in 8-bit floats, each with its inputs made such before it.

use super::{Files, Linear as LinearWeights, Norm};
use crate::Result;
use crate::encoders::TokenBatch;
use crate::encoders::folder::WeightPrecision;
use crate::encoders::gpu::half;
use kernels::gpu::attention::{Bias, Work, attention};
use kernels::gpu::float8::Float8Rows;
use kernels::gpu::linear::{Activation, Linear};
use kernels::gpu::norm::{LayerNorm, Tables};
use kernels::gpu::{Buffer, Gpu, Half, Indices, Recording};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A loaded BERT.
pub(in crate::encoders) struct Bert {
    half: Half,
    /// Whether dense layers are in 8-bit floats.
    float8: bool,
    hidden: usize,
    intermediate: usize,
    heads: usize,
    /// Rows of both tables.
    words: usize,
    positions: usize,
    tables: Tables,
    norm: LayerNorm,
    layers: Vec<Layer>,
    bias: Bias,
}

struct Layer {
    query_key_value: Linear,
    projection: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    output_norm: LayerNorm,
}

/// Buffers for packs of up to `tokens` tokens, and the recorded work of the sizes that have come.
pub(in crate::encoders) struct Workspace {
    /// By their number of rows. The first field: recordings go before the buffers that they name.
    recordings: BTreeMap<usize, Recording>,
    tokens: usize,
    ids: Indices,
    positions: Indices,
    work: Work,
    /// After `forward`: tokens × hidden.
    pub(in crate::encoders) hidden: Buffer<u16>,
    query_key_value: Buffer<u16>,
    context: Buffer<u16>,
    attended: Buffer<u16>,
    up: Buffer<u16>,
    /// Where dense layers are in 8-bit floats: the input of one.
    codes: Option<Float8Rows>,
}

impl Bert {
    pub(in crate::encoders) fn load(
        gpu: &Arc<Gpu>,
        files: &Files,
        precision: WeightPrecision,
    ) -> Result<Self> {
        let epsilon = files.config.layer_norm_eps;
        let (half, float8) = (half(precision), precision == WeightPrecision::Float8);
        let linear = |LinearWeights { weight, bias }, activation| {
            if float8 {
                Linear::float8(gpu, &weight, &bias, activation)
            } else {
                Linear::new(gpu, half, &weight, &bias, activation)
            }
        };
        let norm = |n: Norm| LayerNorm::new(gpu, half, &n.gamma, &n.beta, epsilon);
        let layers = files.layers().map(|layer| {
            let layer = layer?;
            Ok(Layer {
                query_key_value: linear(layer.query_key_value, Activation::None)?,
                projection: linear(layer.projection, Activation::None)?,
                attention_norm: norm(layer.attention_norm)?,
                up: linear(layer.up, Activation::Gelu)?,
                down: linear(layer.down, Activation::None)?,
                output_norm: norm(layer.output_norm)?,
            })
        });
        let embeddings = files.embeddings()?;
        Ok(Self {
            half,
            float8,
            hidden: files.hidden(),
            intermediate: files.config.intermediate_size,
            heads: files.config.num_attention_heads,
            words: files.config.vocab_size,
            positions: files.config.max_position_embeddings,
            tables: Tables::new(gpu, half, &embeddings.words, &embeddings.positions)?,
            norm: norm(embeddings.norm)?,
            layers: layers.collect::<Result<_>>()?,
            bias: Bias::None,
        })
    }

    /// Makes room for packs of up to `tokens` tokens in up to `texts` texts.
    pub(in crate::encoders) fn workspace(
        &self,
        gpu: &Arc<Gpu>,
        tokens: usize,
        texts: usize,
    ) -> Result<Workspace> {
        let halves = |columns: usize| gpu.zeros(tokens * columns);
        Ok(Workspace {
            tokens,
            // Zeros: rows beyond a pack's end are computed too where a recording has more rows, and must be tokens.
            ids: Indices::new(gpu, tokens, self.words)?,
            positions: Indices::new(gpu, tokens, self.positions)?,
            work: Work::new(gpu, tokens, texts, self.heads)?,
            hidden: halves(self.hidden)?,
            query_key_value: halves(3 * self.hidden)?,
            context: halves(self.hidden)?,
            attended: halves(self.hidden)?,
            up: halves(self.intermediate)?,
            codes: self
                .float8
                .then(|| Float8Rows::new(gpu, tokens, self.hidden.max(self.intermediate)))
                .transpose()?,
            recordings: BTreeMap::new(),
        })
    }

    /// Asks for the network's work over a pack; the token vectors will be in `workspace.hidden`.
    pub(in crate::encoders) fn forward(
        &self,
        gpu: &Arc<Gpu>,
        pack: &TokenBatch,
        workspace: &mut Workspace,
    ) -> Result<()> {
        workspace.ids.write(pack.ids.iter().map(|&id| id as usize))?;
        workspace.positions.write(pack.offsets.windows(2).flat_map(|text| 0..text[1] - text[0]))?;
        workspace.work.list(&pack.offsets)?;
        let rows = recorded_rows(pack.ids.len(), workspace.tokens);
        let mut recordings = std::mem::take(&mut workspace.recordings);
        let done = match recordings.get_mut(&rows) {
            Some(recording) => recording.replay(),
            // The first time it is done as it is asked for, which also loads the kernels; then it is recorded.
            None => self.layers(rows, workspace).and_then(|()| {
                // SAFETY: it names buffers of this workspace and weights of this network, which is the only one to come
                // with it; it is replayed above alone, where both are borrowed.
                let recording = unsafe { gpu.record(|| self.layers(rows, workspace)) }?;
                recordings.insert(rows, recording);
                Ok(())
            }),
        };
        workspace.recordings = recordings;
        Ok(done?)
    }

    /// The network over the first `rows` rows of the workspace.
    fn layers(&self, rows: usize, workspace: &mut Workspace) -> kernels::Result<()> {
        let Workspace { ids, positions, work, hidden, query_key_value, context, attended, up, codes, .. } =
            workspace;
        let mut dense = |layer: &Linear, x: &Buffer<u16>, out: &mut Buffer<u16>| match codes {
            Some(codes) => {
                codes.write(x, rows, layer.inputs())?;
                layer.apply(&*codes, rows, out)
            }
            None => layer.apply(x, rows, out),
        };
        self.norm.embed(&self.tables, ids, positions, rows, hidden)?;
        for layer in &self.layers {
            dense(&layer.query_key_value, hidden, query_key_value)?;
            let width = self.hidden / self.heads;
            attention(self.half, query_key_value, context, width, work, &self.bias)?;
            dense(&layer.projection, context, attended)?;
            layer.attention_norm.add(attended, hidden, rows)?;
            dense(&layer.up, attended, up)?;
            dense(&layer.down, up, hidden)?;
            layer.output_norm.add(hidden, attended, rows)?;
        }
        Ok(())
    }
}

/// The rows of the recording that a pack of `tokens` tokens takes: powers of two and the middles between them from 128,
/// at most `most`. So there are few recordings, and a full pack wastes nothing.
fn recorded_rows(tokens: usize, most: usize) -> usize {
    let power = tokens.next_power_of_two().max(128);
    let rows = if tokens <= power / 4 * 3 && power > 128 { power / 4 * 3 } else { power };
    rows.min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_have_room_for_their_packs_and_little_more() {
        for tokens in 1..5000 {
            let rows = recorded_rows(tokens, 5000);
            assert!(rows >= tokens && (rows <= 128 || rows * 2 < tokens * 3), "{tokens}: {rows}");
        }
        assert_eq!(recorded_rows(4999, 5000), 5000);
    }
}
