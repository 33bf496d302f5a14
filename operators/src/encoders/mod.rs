//! Encoders: from texts to vectors, by a sentence-transformers folder on this machine.
//!
//! One idea: a batch is the tokens of its texts, one after another, with no padding; it is cut into packs of tokens,
//! and each pack runs through the whole network on one core. Nothing in a text's arithmetic sees another text, so
//! **a vector's bits depend on its text alone**, whatever the batch or the number of threads.
//!
//! To add an architecture: one file with its `load` and `forward`, and one line in `Architecture`.

mod bert;
mod folder;
mod resolve;
mod tokens;
mod weights;

pub use folder::{EncoderOptions, Identity, WeightPrecision};
pub use resolve::{CacheFolders, cache_folders, installed, resolve};
pub use tokens::TokenBatch;

use crate::{Error, Result};
use bert::Bert;
use folder::{Dense, Folder};
use kernels::pool::{Pooling, pool};
use kernels::{Device, Isa, Matrix, activation, gemm, norm};
use rayon::prelude::*;
use std::path::Path;
use tokens::TextTokenizer;

/// Tokens of a pack: enough that weights are read from memory once for many rows, few enough that the
/// activations (1,152 values a token for queries, keys and values of MiniLM) stay in a core's second cache.
const PACK_TOKENS: usize = 256;

/// The network of an encoder.
enum Architecture {
    Bert(Bert),
}

impl Architecture {
    /// Loads the network that `config.json` names.
    fn load(isa: Isa, folder: &Folder) -> Result<Self> {
        match folder.model_type.as_str() {
            "bert" => Ok(Self::Bert(Bert::load(isa, folder)?)),
            other => Err(Error::model(
                folder.path.join("config.json"),
                format!("unknown model_type \"{other}\", expected \"bert\""),
            )),
        }
    }

    fn hidden(&self) -> usize {
        match self {
            Self::Bert(bert) => bert.hidden(),
        }
    }

    fn forward(&self, isa: Isa, tokens: &TokenBatch, workspace: &mut bert::Workspace) {
        match self {
            Self::Bert(bert) => bert.forward(isa, tokens, workspace),
        }
    }
}

/// An encoder loaded from a sentence-transformers folder.
pub struct Encoder {
    isa: Isa,
    tokenizer: TextTokenizer,
    network: Architecture,
    pooling: Vec<Pooling>,
    /// Tokens at the start of a text that pooling leaves out (a prompt with `include_prompt: false`).
    skipped_tokens: usize,
    dense: Vec<Dense>,
    normalise: bool,
    truncate_dim: Option<usize>,
    dim: usize,
    identity: Identity,
}

/// Vectors, and what it took to make them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Encoded {
    /// texts × dimensions.
    pub vectors: Matrix<f32>,
    /// Tokens that went through the network.
    pub tokens: u64,
    /// Texts that were longer than the encoder's maximal length.
    pub truncated_texts: u64,
    /// Tokens that were cut off from them.
    pub truncated_tokens: u64,
}

impl Encoder {
    /// Loads the folder at `path`.
    ///
    /// # Errors
    /// `Model`, naming the file: a part that is missing, unknown, or whose weights have another shape than
    /// `config.json` says; `Setting` for options that the model cannot fulfil.
    pub fn load(path: &Path, options: &EncoderOptions, device: Device) -> Result<Self> {
        let Device::Cpu(isa) = device;
        let folder = Folder::open(path, options)?;
        let network = Architecture::load(isa, &folder)?;
        let tokenizer = TextTokenizer::load(&folder)?;
        let mut width = network.hidden() * folder.pooling.len();
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
        let skipped_tokens = if folder.include_prompt { 0 } else { tokenizer.prompt_tokens()? };
        Ok(Self {
            isa,
            identity: folder.identity(dim)?,
            tokenizer,
            network,
            skipped_tokens,
            pooling: folder.pooling,
            dense,
            normalise: folder.normalise,
            truncate_dim: folder.truncate_dim,
            dim,
        })
    }

    /// Dimensions of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The longest text, in tokens.
    pub fn max_length(&self) -> usize {
        self.tokenizer.max_length()
    }

    /// What makes this encoder the one it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Turns texts into tokens, on all cores.
    pub fn tokenize<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<TokenBatch> {
        self.tokenizer.tokenize(texts)
    }

    /// Turns texts into vectors, on all cores.
    pub fn encode<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Encoded> {
        let tokens = self.tokenize(texts)?;
        Ok(Encoded {
            vectors: self.encode_tokens(&tokens)?,
            tokens: tokens.ids.len() as u64,
            truncated_texts: tokens.truncated_texts,
            truncated_tokens: tokens.truncated_tokens,
        })
    }

    /// Turns tokens into vectors, on all cores.
    pub fn encode_tokens(&self, batch: &TokenBatch) -> Result<Matrix<f32>> {
        let packs = batch.packs(PACK_TOKENS);
        let parts: Vec<Vec<f32>> = packs
            .par_iter()
            .map_init(bert::Workspace::default, |workspace, pack| {
                self.network.forward(self.isa, pack, workspace);
                self.finish(pack, &workspace.hidden)
            })
            .collect();
        Ok(Matrix::try_from_vec(batch.texts(), self.dim, parts.concat())?)
    }

    /// Pools, projects, normalises and cuts the token vectors of a pack.
    fn finish(&self, pack: &TokenBatch, hidden: &[f32]) -> Vec<f32> {
        let h = self.network.hidden();
        let mut out = Vec::with_capacity(pack.texts() * self.dim);
        let mut vector = Vec::new();
        for text in pack.offsets.windows(2) {
            let first = (text[0] + self.skipped_tokens).min(text[1]);
            let tokens = &hidden[first * h..text[1] * h];
            vector.clear();
            vector.resize(h * self.pooling.len(), 0.0);
            for (mode, out) in self.pooling.iter().zip(vector.chunks_exact_mut(h)) {
                pool(self.isa, *mode, tokens, out);
            }
            for dense in &self.dense {
                let mut projected = vec![0f32; dense.weight.n()];
                let row = gemm::Rows { data: &vector, rows: 1, stride: vector.len() };
                let stride = projected.len();
                gemm::gemm(
                    self.isa,
                    row,
                    dense.weight.view(),
                    &mut projected,
                    stride,
                    gemm::Epilogue::Bias(&dense.bias),
                );
                if dense.tanh {
                    activation::tanh(self.isa, &mut projected);
                }
                vector = projected;
            }
            // As sentence-transformers: the model's own Normalize first, then the cut, which is normalised again so
            // that products stay cosines.
            if self.normalise {
                let cols = vector.len();
                norm::l2_normalise(self.isa, &mut vector, cols);
            }
            if self.truncate_dim.is_some() {
                vector.truncate(self.dim);
                if self.normalise {
                    norm::l2_normalise(self.isa, &mut vector, self.dim);
                }
            }
            out.extend_from_slice(&vector);
        }
        out
    }
}
