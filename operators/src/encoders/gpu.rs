//! Encoding on GPUs: packs of tokens go to whichever has room, two at a time each, so that one is prepared and another
//! fetched while a third is computed.

use super::finish::{Finish, Pools};
use super::folder::WeightPrecision;
use super::{Files, TokenBatch, bert};
use crate::{Error, Result};
use kernels::gpu::pool::{Offsets, Pool, pool};
use kernels::gpu::quantize::{Code, Coder, is_finite};
use kernels::gpu::{Gpu, Half, Mirror};
use kernels::{Isa, Matrix};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// Tokens of a pack: some hundred tiles of 128, so that each layer keeps all multiprocessors busy, while its activations
/// (25 MB at the widest of MiniLM's) stay in an H100's second cache of 50 MB.
pub(super) const PACK_TOKENS: usize = 16_384;

/// What packs must hold.
pub(super) struct PackSizes {
    /// Tokens that are wanted; fewer where a GPU's memory is small.
    pub(super) tokens: usize,
    /// Tokens of the longest text.
    pub(super) longest: usize,
}

/// The fewest tokens a text of a pack has on average; buffers hold no more texts.
const TOKENS_A_TEXT: usize = 4;

/// Packs that are under way on each GPU.
const SLOTS: usize = 2;

/// An encoder's network on each of some GPUs.
pub(super) struct GpuEncoder {
    half: Half,
    hidden: usize,
    gpus: Vec<OnGpu>,
    /// Tokens of a pack, as many as the GPU with the least memory holds.
    pack_tokens: usize,
}

struct OnGpu {
    gpu: Arc<Gpu>,
    network: GpuNetwork,
    slots: Vec<Mutex<Slot>>,
}

/// A network in a GPU's memory.
enum GpuNetwork {
    Bert(bert::gpu::Bert),
}

/// The buffers of one pack.
struct Slot {
    workspace: bert::gpu::Workspace,
    offsets: Offsets,
    /// What each pass of pooling makes: texts × its dimensions.
    pooled: Vec<Mirror<f32>>,
    /// Codes of the texts' embeddings, of up to a byte a dimension.
    codes: Mirror<u8>,
}

impl GpuEncoder {
    /// Loads the network to each of `gpus`, for packs of `sizes`.
    ///
    /// # Errors
    /// `Model` for a network that the kernels cannot run; `DeviceMemory` where not even a pack of the longest text
    /// fits; what a GPU fails with.
    pub(super) fn load(
        gpus: &[Arc<Gpu>],
        files: &Files,
        precision: WeightPrecision,
        finish: &Finish,
        sizes: PackSizes,
    ) -> Result<Self> {
        match files {
            Files::Bert(files) => files.check_for_gpu(precision)?,
        }
        let networks: Vec<GpuNetwork> = gpus
            .iter()
            .map(|gpu| match files {
                Files::Bert(files) => Ok(GpuNetwork::Bert(bert::gpu::Bert::load(gpu, files, precision)?)),
            })
            .collect::<Result<_>>()?;
        let least = sizes.longest.next_multiple_of(128);
        let mut pack_tokens = sizes.tokens.max(least);
        let slots = loop {
            let slots = gpus.iter().zip(&networks).map(|(gpu, network)| {
                (0..SLOTS).map(|_| Slot::new(gpu, network, finish, pack_tokens).map(Mutex::new)).collect()
            });
            match slots.collect::<Result<Vec<Vec<Mutex<Slot>>>>>() {
                Err(Error::Kernel(kernels::Error::DeviceMemory { .. })) if pack_tokens > least => {
                    pack_tokens = (pack_tokens / 2).max(least);
                }
                slots => break slots?,
            }
        };
        let gpus = gpus.iter().zip(networks).zip(slots);
        Ok(Self {
            half: half(precision),
            hidden: files.hidden(),
            gpus: gpus
                .map(|((gpu, network), slots)| OnGpu { gpu: Arc::clone(gpu), network, slots })
                .collect(),
            pack_tokens,
        })
    }

    /// Encodes runs of texts, in order: all embeddings, one after another. The next run is asked for while GPUs work.
    pub(super) fn encode(
        &self,
        runs: impl Iterator<Item = Result<TokenBatch>>,
        finish: &Finish,
    ) -> Result<Vec<f32>> {
        self.on_each_pack(runs, |gpu, slot, pack| self.vectors(gpu, slot, pack, finish))
    }

    /// The same as codes of what `settings` make, which are all that leaves the GPUs.
    pub(super) fn encode_codes(
        &self,
        runs: impl Iterator<Item = Result<TokenBatch>>,
        settings: &Pool,
        code: Code<'_>,
    ) -> Result<Vec<u8>> {
        let coders: Vec<(usize, Coder)> = self
            .gpus
            .iter()
            .map(|on| Ok((on.gpu.ordinal(), Coder::new(&on.gpu, code)?)))
            .collect::<kernels::Result<_>>()?;
        let codes = |on: &OnGpu, slot: &mut Slot, pack: &TokenBatch| {
            let Some((_, coder)) = coders.iter().find(|(ordinal, _)| *ordinal == on.gpu.ordinal()) else {
                return Err(Error::Internal("a GPU without a coder".into()));
            };
            self.forward(on, slot, pack)?;
            let Slot { workspace, offsets, codes, pooled } = slot;
            let (texts, out) = (pack.texts(), Some((coder, codes.there_mut())));
            let vectors = Some(pooled[0].there_mut());
            pool(self.half, settings, &workspace.hidden, self.hidden, offsets, vectors, out)?;
            // Vectors stay on the GPU, but where one is no number: what would be its codes says nothing of it.
            if !is_finite(pooled[0].there(), texts, settings.dimensions)? {
                let vectors = pooled[0].read(texts * settings.dimensions)?.to_vec();
                Matrix::try_from_vec(texts, settings.dimensions, vectors)?.check_finite()?;
            }
            Ok(codes.read(texts * coder.row_bytes(settings.dimensions))?.to_vec())
        };
        self.on_each_pack(runs, codes)
    }

    /// Cuts runs of texts into packs, has `encode` done with each on a GPU that has room, and returns all it makes in
    /// order.
    fn on_each_pack<T: Copy + Send>(
        &self,
        runs: impl Iterator<Item = Result<TokenBatch>>,
        encode: impl Fn(&OnGpu, &mut Slot, &TokenBatch) -> Result<Vec<T>> + Sync,
    ) -> Result<Vec<T>> {
        let workers = self.gpus.len() * SLOTS;
        let (to_workers, packs) = mpsc::sync_channel::<(usize, TokenBatch)>(workers);
        let (to_us, vectors) = mpsc::channel::<(usize, Result<Vec<T>>)>();
        // The workers' alone: if they all end, no pack waits for one.
        let packs = Arc::new(Mutex::new(packs));
        std::thread::scope(|scope| {
            for gpu in &self.gpus {
                for slot in &gpu.slots {
                    let (packs, to_us, encode) = (Arc::clone(&packs), to_us.clone(), &encode);
                    scope.spawn(move || {
                        loop {
                            let next = lock(&packs).recv();
                            let Ok((number, pack)) = next else { break };
                            let done = encode(gpu, &mut lock(slot), &pack);
                            if to_us.send((number, done)).is_err() {
                                break;
                            }
                        }
                    });
                }
            }
            drop((packs, to_us));
            // Of each pack the number of its first text, and what was made of it.
            let mut parts: Vec<(usize, Vec<T>)> = Vec::new();
            let place = |parts: &mut Vec<(usize, Vec<T>)>, (number, part): (usize, Result<Vec<T>>)| {
                let (first, place) = &mut parts[number];
                *place = part.map_err(|error| within(*first, error))?;
                Ok::<(), Error>(())
            };
            let mut texts = 0;
            for run in runs {
                for pack in run?.packs(self.pack_tokens, self.pack_tokens / TOKENS_A_TEXT) {
                    parts.push((texts, Vec::new()));
                    texts += pack.texts();
                    if to_workers.send((parts.len() - 1, pack)).is_err() {
                        return Err(Error::Internal("a thread that feeds a GPU has ended".into()));
                    }
                }
                vectors.try_iter().try_for_each(|done| place(&mut parts, done))?;
            }
            drop(to_workers);
            vectors.iter().try_for_each(|done| place(&mut parts, done))?;
            Ok(parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().concat())
        })
    }

    /// Asks for the network's work over a pack.
    fn forward(&self, on: &OnGpu, slot: &mut Slot, pack: &TokenBatch) -> Result<()> {
        match &on.network {
            GpuNetwork::Bert(bert) => bert.forward(&on.gpu, pack, &mut slot.workspace)?,
        }
        Ok(slot.offsets.write(&pack.offsets)?)
    }

    fn vectors(&self, on: &OnGpu, slot: &mut Slot, pack: &TokenBatch, finish: &Finish) -> Result<Vec<f32>> {
        self.forward(on, slot, pack)?;
        let Slot { workspace, offsets, pooled, .. } = slot;
        let run = |settings, out: &mut Mirror<f32>| {
            pool(self.half, settings, &workspace.hidden, self.hidden, offsets, Some(out.there_mut()), None)
        };
        match finish.pools() {
            Pools::Whole(settings) => {
                run(&settings, &mut pooled[0])?;
                Ok(pooled[0].read(pack.texts() * finish.dim)?.to_vec())
            }
            Pools::Parts(settings) => {
                for (settings, out) in settings.iter().zip(&mut *pooled) {
                    run(settings, out)?;
                }
                let parts: Vec<Vec<f32>> = pooled
                    .iter_mut()
                    .map(|part| Ok(part.read(pack.texts() * self.hidden)?.to_vec()))
                    .collect::<kernels::Result<_>>()?;
                let isa = Isa::detect();
                let of = |text: usize| {
                    let whole = parts.iter().flat_map(|part| &part[text * self.hidden..][..self.hidden]);
                    finish.project(isa, whole.copied().collect())
                };
                Ok((0..pack.texts()).flat_map(of).collect())
            }
        }
    }
}

impl Slot {
    fn new(gpu: &Arc<Gpu>, network: &GpuNetwork, finish: &Finish, tokens: usize) -> Result<Self> {
        let texts = tokens / TOKENS_A_TEXT;
        let GpuNetwork::Bert(bert) = network;
        let dimensions = match finish.pools() {
            Pools::Whole(pool) => vec![pool.dimensions],
            Pools::Parts(pools) => pools.iter().map(|pool| pool.dimensions).collect(),
        };
        Ok(Self {
            workspace: bert.workspace(gpu, tokens, texts)?,
            offsets: Offsets::new(gpu, tokens, texts)?,
            pooled: dimensions.iter().map(|d| gpu.mirror(texts * d)).collect::<kernels::Result<_>>()?,
            codes: gpu.mirror(texts * finish.dim)?,
        })
    }
}

/// The error of a pack, where its first text is row `first` of all.
fn within(first: usize, error: Error) -> Error {
    match error {
        Error::Kernel(kernels::Error::NotFinite { row, column, value }) => {
            Error::Kernel(kernels::Error::NotFinite { row: first + row, column, value })
        }
        error => error,
    }
}

/// In which halves all is computed but what a precision says otherwise of.
pub(super) fn half(precision: WeightPrecision) -> Half {
    match precision {
        WeightPrecision::Bfloat16 => Half::BFloat16,
        _ => Half::Float16,
    }
}

/// A poisoned lock's contents are whole: a pack overwrites all it needs.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
