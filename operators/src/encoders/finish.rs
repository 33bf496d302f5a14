//! What follows the network: pooling, dense layers, length 1, fewer dimensions.

use super::TokenBatch;
use super::folder::{Dense, Folder};
use super::tokens::TextTokenizer;
use crate::{Error, Result};
use kernels::gpu::pool::Pool;
use kernels::pool::{Pooling, pool};
use kernels::{Isa, activation, gemm, norm};

/// From the token vectors of a text to its embedding.
pub(super) struct Finish {
    hidden: usize,
    pooling: Vec<Pooling>,
    /// Tokens at the start of a text that pooling leaves out (a prompt with `include_prompt: false`).
    skipped_tokens: usize,
    dense: Vec<Dense>,
    normalise: bool,
    truncate_dim: Option<usize>,
    /// Dimensions of an embedding.
    pub(super) dim: usize,
}

impl Finish {
    pub(super) fn load(folder: &Folder, hidden: usize, tokenizer: &TextTokenizer) -> Result<Self> {
        let mut width = hidden * folder.pooling.len();
        let dense = folder.load_dense(&mut width)?;
        let dim = match folder.truncate_dim {
            Some(0) => return Err(Error::setting("truncate_dim", "0 dimensions leave nothing")),
            Some(dim) if dim > width => {
                return Err(Error::setting(
                    "truncate_dim",
                    format!("{dim} is more than the model's {width}"),
                ));
            }
            Some(dim) => dim,
            None => width,
        };
        Ok(Self {
            hidden,
            pooling: folder.pooling.clone(),
            skipped_tokens: if folder.include_prompt { 0 } else { tokenizer.prompt_tokens()? },
            dense,
            normalise: folder.normalise,
            truncate_dim: folder.truncate_dim,
            dim,
        })
    }

    /// The embeddings of a pack's texts from its token vectors (tokens × hidden).
    pub(super) fn vectors(&self, isa: Isa, pack: &TokenBatch, hidden: &[f32]) -> Vec<f32> {
        let h = self.hidden;
        let mut out = Vec::with_capacity(pack.texts() * self.dim);
        for text in pack.offsets.windows(2) {
            let first = (text[0] + self.skipped_tokens).min(text[1]);
            let tokens = &hidden[first * h..text[1] * h];
            let mut pooled = vec![0.0; h * self.pooling.len()];
            for (mode, out) in self.pooling.iter().zip(pooled.chunks_exact_mut(h)) {
                pool(isa, *mode, tokens, out);
            }
            out.extend(self.project(isa, pooled));
        }
        out
    }

    /// Projects, normalises and cuts what pooling made of a text.
    pub(super) fn project(&self, isa: Isa, mut vector: Vec<f32>) -> Vec<f32> {
        for dense in &self.dense {
            let mut projected = vec![0f32; dense.weight.n()];
            let row = gemm::Rows { data: &vector, rows: 1, stride: vector.len() };
            let stride = projected.len();
            let bias = gemm::Epilogue::Bias(&dense.bias);
            gemm::gemm(isa, row, dense.weight.view(), &mut projected, stride, bias);
            if dense.tanh {
                activation::tanh(isa, &mut projected);
            }
            vector = projected;
        }
        // As sentence-transformers: the model's own Normalize first, then the cut, which is normalised again so that
        // products stay cosines.
        if self.normalise {
            let cols = vector.len();
            norm::l2_normalise(isa, &mut vector, cols);
        }
        if self.truncate_dim.is_some() {
            vector.truncate(self.dim);
            if self.normalise {
                norm::l2_normalise(isa, &mut vector, self.dim);
            }
        }
        vector
    }

    /// What a GPU's pooling has to do: all of it in one pass, or where it cannot, one pass a mode and the rest by
    /// [`Self::project`].
    pub(super) fn pools(&self) -> Pools {
        let pool = |pooling, normalise, dimensions| Pool {
            pooling,
            skipped_tokens: self.skipped_tokens,
            normalise,
            dimensions,
        };
        match self.pooling.as_slice() {
            [one] if self.dense.is_empty() => Pools::Whole(pool(*one, self.normalise, self.dim)),
            modes => Pools::Parts(modes.iter().map(|mode| pool(*mode, false, self.hidden)).collect()),
        }
    }
}

/// Pooling on a GPU.
pub(super) enum Pools {
    /// Makes embeddings.
    Whole(Pool),
    /// Makes parts of the vectors that dense layers, or nothing but lengths, still change.
    Parts(Vec<Pool>),
}
