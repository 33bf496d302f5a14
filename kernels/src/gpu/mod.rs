//! Kernels on an NVIDIA GPU: memory, launches, and one file per kernel.
//!
//! The kernels are CUDA C++ (`kernels/cuda`), compiled ahead by `scripts/kernels.sh build` and embedded: a machine needs
//! its driver and nothing else, and building needs neither. [`Gpu::open`] picks what the device understands.
//!
//! Everything of a GPU runs in the order it was asked for, on one stream; launches return before the work is done.
//! What copies values here or there waits for it (a [`Mirror`] for its own copies only), and there a kernel's fault shows.
//!
//! Without the feature `cuda` the same code compiles against `absent.rs`, where there never is a GPU.

#[cfg(feature = "cuda")]
mod driver;
#[cfg(not(feature = "cuda"))]
#[path = "absent.rs"]
mod driver;

pub mod attention;
pub mod float8;
mod indices;
pub(crate) mod kmeans;
pub mod layout;
pub mod linear;
pub mod norm;
pub mod pool;
pub mod quantize;
pub mod search;
pub mod spanning_tree;
pub mod vote;

pub use driver::{Buffer, Gpu, Mirror, Recording};
pub use indices::Indices;

use bytemuck::Pod;
use half::{bf16, f16};

/// In which halves of a float a network computes; sums are in f32 either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// 11 significant bits, up to 65,504.
    Float16,
    /// 8 significant bits, up to 3e38.
    BFloat16,
}

impl Half {
    /// The bits of `values` in this format, rounded to nearest even.
    fn encode(self, values: &[f32]) -> Vec<u16> {
        match self {
            Self::Float16 => values.iter().map(|&v| f16::from_f32(v).to_bits()).collect(),
            Self::BFloat16 => values.iter().map(|&v| bf16::from_f32(v).to_bits()).collect(),
        }
    }

    /// The kernel of two that computes in this format.
    fn pick(self, float16: &'static str, bfloat16: &'static str) -> &'static str {
        match self {
            Self::Float16 => float16,
            Self::BFloat16 => bfloat16,
        }
    }
}

/// An address of device memory as a field of a kernel's parameters; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
struct Address(u64);

/// Converts a size for a kernel, which counts in i32.
fn int(size: usize) -> i32 {
    i32::try_from(size).unwrap_or_else(|_| panic!("{size} does not fit a kernel's parameter"))
}

/// What a kernel takes as a parameter: plain numbers, and structures of them in C's layout.
trait Parameter: Pod {}
impl<T: Pod> Parameter for T {}

#[cfg(test)]
mod tests {
    use super::linear::{Activation, ROTATE};
    use super::quantize::Kind;
    use crate::pool::Pooling;

    /// The names and numbers of `enum NAME : int` in a CUDA source.
    fn numbers(source: &str, name: &str) -> Vec<(String, i32)> {
        let (_, after) = source.split_once(&format!("enum {name} : int {{")).expect("the enum is there");
        let (body, _) = after.split_once("};").expect("and ends");
        let code = body.lines().map(|line| line.split("//").next().unwrap_or_default());
        let all = code.collect::<Vec<_>>().join(" ");
        let entries = all.split(',').filter_map(|entry| entry.split_once('='));
        entries.map(|(name, number)| (name.trim().into(), number.trim().parse().expect("a number"))).collect()
    }

    /// The number that `constexpr` gives to `name` in a CUDA source.
    fn constant(source: &str, name: &str) -> usize {
        let lines = source.lines().filter_map(|line| line.trim().strip_prefix("constexpr u32 "));
        let mut entries = lines.flat_map(|line| line.trim_end_matches(';').split(", "));
        let found = entries.find_map(|entry| entry.strip_prefix(name)?.strip_prefix(" = ")).expect(name);
        found.split(" + ").map(|part| part.parse().unwrap_or_else(|_| constant(source, part))).sum()
    }

    #[test]
    fn what_kernels_and_their_launches_count_on_is_the_same() {
        use super::kmeans::{COLUMNS, PITCH};
        let kmeans = include_str!("../../cuda/kmeans.cu");
        for (name, here) in [("BLOCK", crate::kmeans::BLOCK), ("PITCH", PITCH), ("COLUMNS", COLUMNS)] {
            assert_eq!(constant(kmeans, name), here, "{name}");
        }
    }

    fn named(all: &[(&str, i32)]) -> Vec<(String, i32)> {
        all.iter().map(|&(name, number)| (name.to_owned(), number)).collect()
    }

    #[test]
    fn what_kernels_choose_by_number_has_the_same_numbers_here_and_there() {
        let codes = [
            ("NO_CODE", Kind::NoCode),
            ("UINT8", Kind::Uint8),
            ("INT8", Kind::Int8),
            ("UINT8_LEGACY", Kind::Uint8Legacy),
            ("INT8_LEGACY", Kind::Int8Legacy),
            ("UBINARY", Kind::Ubinary),
            ("BINARY", Kind::Binary),
            ("SEARCH", Kind::Search),
        ];
        let codes = codes.map(|(name, kind)| (name, kind as i32));
        assert_eq!(numbers(include_str!("../../cuda/codes.h"), "Code"), named(&codes));
        let activations = [
            ("NONE", Activation::None as i32),
            ("GELU", Activation::Gelu as i32),
            ("GATED_GELU", Activation::GatedGelu as i32),
            ("GATED_SILU", Activation::GatedSilu as i32),
            ("ROTATE", ROTATE),
        ];
        assert_eq!(numbers(include_str!("../../cuda/linear.h"), "Activation"), named(&activations));
        let poolings = [
            ("CLS", Pooling::Cls),
            ("MEAN", Pooling::Mean),
            ("MAX", Pooling::Max),
            ("MEAN_SQRT_LEN", Pooling::MeanSqrtLen),
            ("WEIGHTED_MEAN", Pooling::WeightedMean),
            ("LAST_TOKEN", Pooling::LastToken),
        ];
        let poolings = poolings.map(|(name, pooling)| (name, pooling as i32));
        assert_eq!(numbers(include_str!("../../cuda/pool.cu"), "Pooling"), named(&poolings));
    }
}
