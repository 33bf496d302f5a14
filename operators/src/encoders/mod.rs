//! Encoders: from texts to vectors, by a sentence-transformers folder on this machine or by a model behind an endpoint.
//!
//! One idea: a batch is the tokens of its texts, one after another, with no padding; it is cut into packs of tokens,
//! and each pack runs through the whole network on one core. Nothing in a text's arithmetic sees another text, so
//! **a vector's bits depend on its text alone**, whatever the batch or the number of threads.
//!
//! On GPUs a pack is larger, and runs through one layer after another on one of them; the same holds there, for GPUs of
//! one kind.
//!
//! To add an architecture: a folder with what its files say, its `load` and `forward` for both devices, and one line in
//! `Files` and in each device's network.

mod bert;
mod finish;
mod folder;
mod gpu;
mod remote;
mod resolve;
mod tokens;
mod weights;

pub use folder::{EncoderOptions, Identity, WeightPrecision};
pub use resolve::{CacheFolders, cache_folders, installed, resolve};
pub use tokens::TokenBatch;

use crate::endpoint::embeddings::RemoteConfig;
use crate::similarity::Similarity;
use crate::{Error, Result};
use finish::{Finish, Pools};
use folder::Folder;
use gpu::{GpuEncoder, PackSizes};
use kernels::gpu::quantize::Code;
use kernels::{Device, Isa, Matrix};
use rayon::prelude::*;
use remote::Remote;
use std::path::Path;
use tokens::TextTokenizer;

/// Tokens of a pack: enough that weights are read from memory once for many rows, few enough that the
/// activations (1,152 values a token for queries, keys and values of MiniLM) stay in a core's second cache.
const PACK_TOKENS: usize = 256;

/// Bytes of text that are made tokens at a time: two packs of a GPU.
const RUN_BYTES: usize = 128 * 1024;

/// A network's files, of an architecture that is known.
enum Files {
    Bert(bert::Files),
}

impl Files {
    /// Opens the files of the network that `config.json` names.
    fn open(folder: &Folder) -> Result<Self> {
        match folder.model_type.as_str() {
            "bert" => Ok(Self::Bert(bert::Files::open(folder)?)),
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
}

/// The network of an encoder, where it runs.
enum Network {
    Cpu(Isa, CpuNetwork),
    Gpu(GpuEncoder),
}

/// A network on a processor.
enum CpuNetwork {
    Bert(bert::cpu::Bert),
}

impl CpuNetwork {
    fn load(isa: Isa, files: &Files, precision: WeightPrecision) -> Result<Self> {
        match files {
            Files::Bert(files) => Ok(Self::Bert(bert::cpu::Bert::load(isa, files, precision)?)),
        }
    }

    fn forward(&self, isa: Isa, tokens: &TokenBatch, workspace: &mut bert::cpu::Workspace) {
        match self {
            Self::Bert(bert) => bert.forward(isa, tokens, workspace),
        }
    }
}

/// An encoder: a sentence-transformers folder that was loaded, or a model behind an endpoint.
pub struct Encoder {
    place: Place,
    identity: Identity,
    similarity: Similarity,
}

/// Where an encoder computes.
enum Place {
    Here(Box<Local>),
    Remote(Box<Remote>),
}

/// An encoder on this machine.
struct Local {
    tokenizer: TextTokenizer,
    network: Network,
    finish: Finish,
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
    pub fn load(path: &Path, options: &EncoderOptions, device: &Device) -> Result<Self> {
        Self::load_for_packs(gpu::PACK_TOKENS, path, options, device)
    }

    /// The same with another number of tokens that a GPU is given at a time, where a text may be as long; no vector
    /// depends on it.
    pub fn load_for_packs(
        gpu_pack_tokens: usize,
        path: &Path,
        options: &EncoderOptions,
        device: &Device,
    ) -> Result<Self> {
        let folder = Folder::open(path, options, device)?;
        let files = Files::open(&folder)?;
        let tokenizer = TextTokenizer::load(&folder)?;
        let finish = Finish::load(&folder, files.hidden(), &tokenizer)?;
        let network = match device {
            Device::Cpu(isa) => Network::Cpu(*isa, CpuNetwork::load(*isa, &files, folder.weight_precision)?),
            Device::Cuda(gpus) => {
                let sizes = PackSizes { tokens: gpu_pack_tokens, longest: tokenizer.max_length() };
                Network::Gpu(GpuEncoder::load(gpus, &files, folder.weight_precision, &finish, sizes)?)
            }
        };
        let similarity = folder.similarity;
        let identity = folder.identity(finish.dim)?;
        Ok(Self { place: Place::Here(Box::new(Local { tokenizer, network, finish })), identity, similarity })
    }

    /// Opens a model behind an endpoint, from a thread of an async runtime that may block; its vectors are compared by
    /// their cosines.
    ///
    /// # Errors
    /// `Setting` for a key or a URL that cannot be used; `Endpoint` where it gives no vector.
    pub fn remote(config: &RemoteConfig) -> Result<Self> {
        let (remote, identity) = Remote::open(config)?;
        Ok(Self { place: Place::Remote(Box::new(remote)), identity, similarity: Similarity::Cosine })
    }

    /// The encoder on this machine; `Internal` where there is none.
    fn local(&self) -> Result<&Local> {
        match &self.place {
            Place::Here(local) => Ok(local),
            Place::Remote(_) => Err(Error::Internal("tokens asked of a remote encoder".into())),
        }
    }

    /// How its vectors are compared.
    pub fn similarity(&self) -> Similarity {
        self.similarity
    }

    /// Dimensions of a vector.
    pub fn dim(&self) -> usize {
        self.identity.dim
    }

    /// Bytes of text to encode at a time, so that progress moves and Ctrl-C is heard within seconds: on a processor some
    /// 30,000 tokens, enough that every core has packs of them, of titles as of articles; on GPUs a million; of an
    /// endpoint, some requests.
    pub(crate) fn run_bytes(&self) -> usize {
        match &self.place {
            Place::Here(local) if matches!(local.network, Network::Cpu(..)) => RUN_BYTES,
            Place::Here(_) => 32 * RUN_BYTES,
            Place::Remote(_) => 8 * RUN_BYTES,
        }
    }

    /// The longest text, in tokens; 0 where a remote model does not say it.
    pub fn max_length(&self) -> usize {
        self.identity.max_length
    }

    /// What makes this encoder the one it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Turns texts into tokens, on all cores.
    ///
    /// # Errors
    /// `Model` where the tokenizer fails on a text; `Internal` for a remote encoder.
    pub fn tokenize<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<TokenBatch> {
        self.local()?.tokenizer.tokenize(texts)
    }

    /// Turns texts into vectors, on all cores or GPUs, or by the endpoint.
    ///
    /// # Errors
    /// `Model` where the tokenizer fails on a text; what a GPU or the endpoint fails with.
    pub fn encode<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Encoded> {
        self.encode_while(texts, &|| true)
    }

    /// The same, unless `go_on` says no while an endpoint is waited for.
    pub(crate) fn encode_while<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Encoded> {
        let local = match &self.place {
            Place::Here(local) => local,
            Place::Remote(remote) => return remote.encode(texts, go_on),
        };
        let Network::Gpu(network) = &local.network else {
            let tokens = self.tokenize(texts)?;
            let mut encoded = Encoded { vectors: self.encode_tokens(&tokens)?, ..Encoded::default() };
            encoded.count(&tokens);
            return Ok(encoded);
        };
        let mut encoded = Encoded::default();
        let vectors = network.encode(self.token_runs(texts, &mut encoded), &local.finish)?;
        encoded.vectors = Matrix::try_from_vec(texts.len(), local.finish.dim, vectors)?;
        Ok(encoded)
    }

    /// Says whether [`Self::encode_codes`] can be: on GPUs, where nothing but pooling follows the network.
    pub fn makes_codes(&self) -> bool {
        let Place::Here(local) = &self.place else { return false };
        matches!((&local.network, local.finish.pools()), (Network::Gpu(_), Pools::Whole(_)))
    }

    /// Turns texts into codes of their vectors, on GPUs, which nothing else leaves: texts × bytes, beside an [`Encoded`]
    /// without vectors.
    ///
    /// # Errors
    /// As [`Self::encode`]; `Internal` where this encoder does not make codes.
    pub fn encode_codes<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        code: Code<'_>,
    ) -> Result<(Matrix<u8>, Encoded)> {
        let local = self.local()?;
        let (Network::Gpu(network), Pools::Whole(pool)) = (&local.network, local.finish.pools()) else {
            return Err(Error::Internal("codes asked of an encoder that makes none".into()));
        };
        let mut encoded = Encoded::default();
        let codes = network.encode_codes(self.token_runs(texts, &mut encoded), &pool, code)?;
        let bytes = codes.len() / texts.len().max(1);
        Ok((Matrix::try_from_vec(texts.len(), bytes, codes)?, encoded))
    }

    /// Makes texts tokens, run by run, each when it is asked for: while GPUs work on those before. Counts them.
    fn token_runs<'a, T: AsRef<str> + Sync>(
        &'a self,
        texts: &'a [T],
        encoded: &'a mut Encoded,
    ) -> impl Iterator<Item = Result<TokenBatch>> + 'a {
        runs(texts, RUN_BYTES).map(|texts| {
            let tokens = self.tokenize(texts)?;
            encoded.count(&tokens);
            Ok(tokens)
        })
    }

    /// Turns tokens into vectors, on all cores or GPUs.
    ///
    /// # Errors
    /// What a GPU fails with.
    pub fn encode_tokens(&self, batch: &TokenBatch) -> Result<Matrix<f32>> {
        let Local { network, finish, .. } = self.local()?;
        let vectors = match network {
            Network::Cpu(isa, network) => {
                let packs = batch.packs(PACK_TOKENS, usize::MAX);
                let parts: Vec<Vec<f32>> = packs
                    .par_iter()
                    .map_init(bert::cpu::Workspace::default, |workspace, pack| {
                        network.forward(*isa, pack, workspace);
                        finish.vectors(*isa, pack, &workspace.hidden)
                    })
                    .collect();
                parts.concat()
            }
            Network::Gpu(network) => network.encode(std::iter::once(Ok(batch.clone())), finish)?,
        };
        Ok(Matrix::try_from_vec(batch.texts(), finish.dim, vectors)?)
    }
}

impl Encoded {
    fn count(&mut self, tokens: &TokenBatch) {
        self.tokens += tokens.ids.len() as u64;
        self.truncated_texts += tokens.truncated_texts;
        self.truncated_tokens += tokens.truncated_tokens;
    }
}

/// Cuts texts into runs of about `bytes` bytes, at least one text each.
pub(crate) fn runs<T: AsRef<str>>(texts: &[T], bytes: usize) -> impl Iterator<Item = &[T]> {
    let mut rest = texts;
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fits = rest.iter().take_while(|text| {
            sum += text.as_ref().len();
            sum <= bytes
        });
        let (run, later) = rest.split_at(fits.count().max(1).min(rest.len()));
        rest = later;
        (!run.is_empty()).then_some(run)
    })
}
