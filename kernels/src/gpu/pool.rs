//! From token vectors to embeddings and their codes on a GPU (`kernels/cuda/pool.cu`), in one pass.

use super::quantize::{Coder, Params as CodeParams};
use super::{Address, Buffer, Gpu, Half, Mirror, int};
use crate::pool::Pooling;
use crate::{Error, Result};
use std::sync::Arc;

/// How token vectors become embeddings.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    /// How a text's token vectors become one.
    pub pooling: Pooling,
    /// Tokens at the start of a text that are left out.
    pub skipped_tokens: usize,
    /// Whether vectors are scaled to length 1, before and after they are cut.
    pub normalise: bool,
    /// Dimensions that are kept.
    pub dimensions: usize,
}

/// `PoolParams` of pool.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Params {
    tokens: Address,
    offsets: Address,
    texts: Address,
    width: i32,
    pooling: i32,
    skipped: i32,
    normalise: i32,
    dimensions: i32,
    padding: i32,
    vectors: Address,
    codes: CodeParams,
}

/// Threads of a block, a text each.
const THREADS: usize = 256;

/// The widest token vector: eight columns a thread.
pub const MAX_WIDTH: usize = 8 * THREADS;

/// Where texts begin and end, in a GPU's memory.
#[derive(Debug)]
pub struct Offsets {
    offsets: Mirror<i32>,
    texts: Mirror<i32>,
    /// The most tokens, and the most texts.
    tokens: usize,
    capacity: usize,
}

impl Offsets {
    /// Room for up to `texts` texts of up to `tokens` tokens in all.
    pub fn new(gpu: &Arc<Gpu>, tokens: usize, texts: usize) -> Result<Self> {
        Ok(Self { offsets: gpu.mirror(texts + 1)?, texts: gpu.mirror(1)?, tokens, capacity: texts })
    }

    /// Takes where texts begin and end in the tokens; there must be room for them.
    pub fn write(&mut self, offsets: &[usize]) -> Result<()> {
        assert!(
            offsets.len() <= self.capacity + 1,
            "{} offsets, room for {} texts",
            offsets.len(),
            self.capacity
        );
        assert!(
            offsets.is_sorted() && offsets.last().is_none_or(|&end| end <= self.tokens),
            "texts beyond the tokens"
        );
        let offsets: Vec<i32> = offsets.iter().copied().map(int).collect();
        self.texts.write(&[int(offsets.len().saturating_sub(1))])?;
        self.offsets.write(&offsets)
    }
}

/// Pools the token vectors (tokens × `width`) of each text into `vectors` (texts × dimensions), `codes`, or both; all
/// three have room for as many tokens and texts as `offsets` has.
///
/// # Errors
/// `Shape` for vectors wider than [`MAX_WIDTH`] or no multiple of 8, and for codes by the ranges of other dimensions.
pub fn pool(
    half: Half,
    pool: &Pool,
    tokens: &Buffer<u16>,
    width: usize,
    offsets: &Offsets,
    vectors: Option<&mut Buffer<f32>>,
    codes: Option<(&Coder, &mut Buffer<u8>)>,
) -> Result<()> {
    if !width.is_multiple_of(8) || width > MAX_WIDTH || width == 0 {
        return Err(Error::Shape {
            what: "token vectors on a GPU",
            expected: format!("up to {MAX_WIDTH} numbers, in multiples of 8"),
            found: width.to_string(),
        });
    }
    let texts = offsets.capacity;
    assert!(tokens.len() >= offsets.tokens * width);
    assert!(pool.dimensions <= width && vectors.as_ref().is_none_or(|v| v.len() >= texts * pool.dimensions));
    assert!(codes.as_ref().is_none_or(|(c, out)| out.len() >= texts * c.row_bytes(pool.dimensions)));
    let params = Params {
        tokens: tokens.address(),
        offsets: offsets.offsets.there().address(),
        texts: offsets.texts.there().address(),
        width: int(width),
        pooling: pool.pooling as i32,
        skipped: int(pool.skipped_tokens),
        normalise: i32::from(pool.normalise),
        dimensions: int(pool.dimensions),
        padding: 0,
        vectors: vectors.map_or(Address(0), |v| v.address()),
        codes: match codes {
            Some((coder, out)) => coder.params(out, pool.dimensions, coder.row_bytes(pool.dimensions))?,
            None => CodeParams::none(),
        },
    };
    let groups = THREADS / (width / 8);
    let launch = tokens
        .gpu()
        .launch(half.pick("pool_f16", "pool_bf16"))
        .grid(texts, 1)
        .block(THREADS as u32)
        .shared((groups + 1) * width * size_of::<f32>())
        .arg(params);
    // SAFETY: outputs have room for all texts, and `tokens` for all that offsets may name (asserted above, and of each
    // offset in `Offsets::write`).
    unsafe { launch.start() }
}
