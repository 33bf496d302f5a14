//! Attention over ragged texts on a GPU (`kernels/cuda/attention.cu`): `softmax(q k' / √width + bias) v` per text and
//! head, without padding and without storing scores.
//!
//! Shapes: queries, keys and values side by side, tokens × 3·hidden, to tokens × hidden. Sums and softmax in f32. A
//! text's numbers do not depend on where in the batch it lies. Cost: 4 · length² · hidden operations a text.

use super::{Address, Buffer, Gpu, Half, Mirror, int};
use crate::{Error, Result};
use std::sync::Arc;

/// What is added to scores.
#[derive(Debug, Default)]
pub enum Bias {
    /// Nothing.
    #[default]
    None,
    /// −slope · |i − j|, a slope per head (ALiBi, Press et al. 2022; symmetric as in encoders).
    Distance(Buffer<f32>),
    /// heads × (2·reach − 1): a number for each j − i from −(reach − 1) to reach − 1 (relative positions, Raffel et al.
    /// 2020); `reach` is at least 1, and no text may be longer: see [`Work::with_longest`].
    Offsets(Buffer<f32>, usize),
}

impl Bias {
    /// Takes one slope per head to the GPU.
    pub fn distance(gpu: &Arc<Gpu>, slopes: &[f32]) -> Result<Self> {
        Ok(Self::Distance(gpu.upload(&in_bits(slopes))?))
    }

    /// Takes heads × (2·reach − 1) numbers to the GPU.
    pub fn offsets(gpu: &Arc<Gpu>, table: &[f32], reach: usize) -> Result<Self> {
        Ok(Self::Offsets(gpu.upload(&in_bits(table))?, reach))
    }
}

/// The kernel's exponentials are powers of two.
fn in_bits(numbers: &[f32]) -> Vec<f32> {
    numbers.iter().map(|x| x * std::f32::consts::LOG2_E).collect()
}

/// The kernel's work for the texts of a batch, in items that a block does at a time.
#[derive(Debug)]
pub struct Work {
    items: Mirror<[i32; 4]>,
    count: Mirror<i32>,
    /// The most items.
    capacity: usize,
    tokens: usize,
    longest: usize,
    heads: usize,
}

impl Work {
    /// Room for the work of `heads` heads over any batch of at most `tokens` tokens in at most `texts` texts.
    pub fn new(gpu: &Arc<Gpu>, tokens: usize, texts: usize, heads: usize) -> Result<Self> {
        Self::with_longest(gpu, tokens, texts, heads, tokens)
    }

    /// The same for batches whose texts have at most `longest` tokens each, as [`Bias::Offsets`] needs.
    pub fn with_longest(
        gpu: &Arc<Gpu>,
        tokens: usize,
        texts: usize,
        heads: usize,
        longest: usize,
    ) -> Result<Self> {
        let capacity = (tokens / ROWS + texts) * heads;
        Ok(Self {
            items: gpu.mirror(capacity)?,
            count: gpu.mirror(1)?,
            capacity,
            tokens,
            longest: longest.min(tokens),
            heads,
        })
    }

    /// Lists the work of the texts between `offsets`; there must be room for it.
    pub fn list(&mut self, offsets: &[usize]) -> Result<()> {
        assert!(
            offsets.is_sorted() && offsets.last().is_none_or(|&end| end <= self.tokens),
            "texts beyond the tokens"
        );
        assert!(
            offsets.windows(2).all(|text| text[1] - text[0] <= self.longest),
            "a text longer than {}",
            self.longest
        );
        let items = work_items(offsets, self.heads);
        assert!(items.len() <= self.capacity, "{} items of work, room for {}", items.len(), self.capacity);
        self.count.write(&[int(items.len())])?;
        self.items.write(&items)
    }
}

/// Rows of queries of a block.
const ROWS: usize = 64;

/// First token, tokens, first query, first head of each block, longest texts first so that no block starts late.
fn work_items(offsets: &[usize], heads: usize) -> Vec<[i32; 4]> {
    let mut texts: Vec<(usize, usize)> = offsets.windows(2).map(|w| (w[0], w[1] - w[0])).collect();
    texts.sort_by_key(|&(_, length)| std::cmp::Reverse(length));
    let mut items = Vec::new();
    for (first, length) in texts {
        let heads_at_once = if length <= 16 {
            4
        } else if length <= 32 {
            2
        } else {
            1
        };
        for query in (0..length).step_by(ROWS) {
            for head in (0..heads).step_by(heads_at_once) {
                items.push([first, length, query, head].map(int));
            }
        }
    }
    items
}

/// `AttentionParams` of attention.cu.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Params {
    query_key_value: Address,
    work: Address,
    work_items: Address,
    slopes: Address,
    offsets: Address,
    reach: i32,
    padding: i32,
    out: Address,
    heads: i32,
    scale: f32,
}

/// How wide a head may be.
pub const HEAD_WIDTHS: [usize; 2] = [32, 64];

/// Attention of heads of `width` columns over the texts that `work` lists, from `query_key_value` to `out`, which have
/// room for as many tokens as `work` has.
///
/// # Errors
/// `Shape` unless `width` is one of [`HEAD_WIDTHS`].
pub fn attention(
    half: Half,
    query_key_value: &Buffer<u16>,
    out: &mut Buffer<u16>,
    width: usize,
    work: &Work,
    bias: &Bias,
) -> Result<()> {
    // And the blocks that a multiprocessor holds at a time, by their registers.
    let (kernel, blocks) = match width {
        32 => (half.pick("attention_32_f16", "attention_32_bf16"), 3),
        64 => (half.pick("attention_64_f16", "attention_64_bf16"), 2),
        _ => {
            return Err(Error::Shape {
                what: "a head of attention on a GPU",
                expected: "32 or 64 columns".into(),
                found: width.to_string(),
            });
        }
    };
    let (tokens, heads) = (work.tokens, work.heads);
    assert!(query_key_value.len() >= tokens * 3 * heads * width && out.len() >= tokens * heads * width);
    let (slopes, offsets, reach) = match bias {
        Bias::None => (Address(0), Address(0), 0),
        Bias::Distance(slopes) => {
            assert!(slopes.len() >= heads, "{} slopes for {heads} heads", slopes.len());
            (slopes.address(), Address(0), 0)
        }
        Bias::Offsets(table, reach) => {
            assert!(
                *reach > 0 && work.longest <= *reach && table.len() >= heads * (2 * reach - 1),
                "texts beyond the table's reach"
            );
            (Address(0), table.address(), *reach)
        }
    };
    let params = Params {
        query_key_value: query_key_value.address(),
        work: work.items.there().address(),
        work_items: work.count.there().address(),
        slopes,
        offsets,
        reach: int(reach),
        padding: 0,
        out: out.address(),
        heads: int(heads),
        scale: std::f32::consts::LOG2_E / (width as f32).sqrt(),
    };
    let gpu = query_key_value.gpu();
    let launch = gpu
        .launch(kernel)
        .grid(work.capacity.min(blocks * gpu.multiprocessors() as usize), 1)
        .block(128)
        .shared(5 * ROWS * width * 2)
        .arg(params);
    // SAFETY: the list names tokens below `work.tokens`, texts up to `work.longest` and heads below `work.heads`
    // (asserted in `Work::list`), for which the buffers and the bias have room (asserted above).
    unsafe { launch.start() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_take_heads_together_and_long_ones_blocks_of_queries() {
        let items = work_items(&[0, 10, 40, 170], 6);
        assert_eq!(items.iter().filter(|item| item[0] == 40).count(), 3 * 6, "130 tokens");
        let short: Vec<i32> = items.iter().filter(|item| item[0] == 0).map(|item| item[3]).collect();
        assert_eq!(short, [0, 4], "10 tokens: four heads, then two");
        assert_eq!(items.iter().filter(|item| item[0] == 10).count(), 3, "30 tokens: two heads at a time");
        assert_eq!(items[0], [40, 130, 0, 0], "the longest first");
    }
}
