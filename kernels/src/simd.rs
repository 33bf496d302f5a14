//! Which vector instructions this processor has, found at run time.
//!
//! The idea that keeps every path equal: a kernel is written once, as plain loops over fixed-width lanes with
//! explicit `mul_add`, and compiled once per instruction set by [`dispatch!`]. A fused multiply-add is exact in all
//! of them and the order of additions is written in the source, so all paths return the same bits.

use std::sync::OnceLock;

/// A set of vector instructions that kernels are compiled for.
///
/// Only [`Isa::detect`] and [`Isa::available`] make sets past `Portable` (no other crate can name them), so holding one
/// is proof that this processor has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What the compiler's target guarantees (NEON on 64-bit Arm, SSE2 on x86-64, where `mul_add` is a slow call).
    Portable,
    /// x86-64 with AVX2 and FMA.
    #[non_exhaustive]
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    #[non_exhaustive]
    Avx512,
    /// The same with the 8-bit dot products of AVX-512 VNNI.
    #[non_exhaustive]
    Avx512Vnni,
}

impl Isa {
    /// The best set of this processor, looked up once.
    pub fn detect() -> Self {
        static ISA: OnceLock<Isa> = OnceLock::new();
        *ISA.get_or_init(|| Self::available().last().copied().unwrap_or(Self::Portable))
    }

    /// Every set that this processor can run, the plainest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut sets = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                sets.push(Self::Avx2);
                let avx512 = is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl");
                if avx512 {
                    sets.push(Self::Avx512);
                    if is_x86_feature_detected!("avx512vnni") {
                        sets.push(Self::Avx512Vnni);
                    }
                }
            }
        }
        sets
    }

    /// The name that logs show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable if cfg!(target_arch = "aarch64") => "neon",
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512-vnni",
        }
    }
}

/// Compiles `fn body` once per instruction set and calls the one for `$isa`.
///
/// `dispatch!(isa, body(x: &[f32], y: &mut [f32]) -> f32)` expects an `#[inline(always)] fn body` in scope; all
/// arguments are passed on by name. A body with `usize` constants as parameters is called as `body::<N, M>(...)`.
macro_rules! dispatch {
    ($isa:expr, $body:ident $(::<$($n:ident),+>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn avx2$(<$(const $n: usize),+>)?($($arg: $ty),*) $(-> $ret)? { $body$(::<$($n),+>)?($($arg),*) }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn avx512$(<$(const $n: usize),+>)?($($arg: $ty),*) $(-> $ret)? { $body$(::<$($n),+>)?($($arg),*) }
        match $isa {
            // SAFETY: `Isa` values past `Portable` come from `Isa::available`, which saw these features.
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::Avx512 | $crate::Isa::Avx512Vnni => unsafe { avx512$(::<$($n),+>)?($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::Avx2 => unsafe { avx2$(::<$($n),+>)?($($arg),*) },
            _ => $body$(::<$($n),+>)?($($arg),*),
        }
    }};
}
#[allow(unused_imports)]
pub(crate) use dispatch;
