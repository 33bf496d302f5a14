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
    /// The same with the tiles of AMX, for 8 bits and bfloat16.
    #[non_exhaustive]
    Amx,
}

impl Isa {
    /// Whether products of bytes are several times as fast as those of floats.
    pub fn has_byte_products(self) -> bool {
        crate::codes::are_fast(self)
    }

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
                        if amx_is_ready() {
                            sets.push(Self::Amx);
                        }
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
            Self::Amx => "avx512-amx",
        }
    }
}

/// Whether the processor has tiles of 8 bits and of bfloat16, and the system lets this process use them, which it has
/// to be asked for.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx_is_ready() -> bool {
    use std::arch::x86_64::{__cpuid_count, _xgetbv};
    /// `arch_prctl`'s request for a state that is not on by default, and the number of the tiles' data.
    const REQUEST: libc::c_int = 0x1023;
    const TILE_DATA: libc::c_ulong = 18;

    #[target_feature(enable = "xsave")]
    fn enabled_states() -> u64 {
        // SAFETY: the caller saw XSAVE, and 0 is a register it has.
        unsafe { _xgetbv(0) }
    }
    let features = __cpuid_count(7, 0).edx;
    // Bits 24, 25 and 22: tiles, their products of 8-bit integers, and of bfloat16.
    const TILES: u32 = 1 << 24 | 1 << 25 | 1 << 22;
    let has_tiles = features & TILES == TILES;
    // SAFETY: a processor with AVX-512 has XSAVE, or the system would not have said so.
    if !has_tiles || !is_x86_feature_detected!("xsave") || unsafe { enabled_states() } >> 17 & 3 != 3 {
        return false;
    }
    // SAFETY: asks for leave to use registers; nothing else changes.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn amx_is_ready() -> bool {
    false
}

/// Asks for `values` to be fetched into the second cache; changes nothing else.
#[inline(always)]
pub(crate) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of_val(values)).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, and within `values` at that.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(values.as_ptr().cast::<i8>().add(line)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Asks for the line where `value` begins to be fetched into the first cache; changes nothing else.
#[inline(always)]
pub(crate) fn prefetch_near<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Brings lanes, a power of two of them, together in a fixed tree: one half with the other, until one is left. A chain
/// from lane to lane would take many times as long.
#[inline(always)]
pub(crate) fn join_lanes<T: Copy, const N: usize>(mut lanes: [T; N], join: impl Fn(T, T) -> T) -> T {
    const { assert!(N.is_power_of_two()) };
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = join(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// The smaller of two values, in one instruction; of a NaN and a number, the second.
#[inline(always)]
pub(crate) fn lesser(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The larger of two values; of a NaN and a number, the second.
#[inline(always)]
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
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
            $crate::Isa::Avx512 | $crate::Isa::Avx512Vnni | $crate::Isa::Amx => unsafe { avx512$(::<$($n),+>)?($($arg),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            $crate::Isa::Avx2 => unsafe { avx2$(::<$($n),+>)?($($arg),*) },
            _ => $body$(::<$($n),+>)?($($arg),*),
        }
    }};
}
#[allow(unused_imports)]
pub(crate) use dispatch;
