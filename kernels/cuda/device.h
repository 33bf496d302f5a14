// The device's instructions, one function each: all inline PTX of thema is in this file.
//
// Compiled for a GPU (by NVRTC, without CUDA's headers) these are the instructions; for the emulator, the same
// operations in C++ from emulator/device.h. Names follow the PTX manual.
#pragma once

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEVICE __device__ __forceinline__
constexpr u32 ALL_LANES = 0xffffffffu;

/// A float of 1 sign, 5 exponent and 10 mantissa bits (IEEE binary16).
struct Float16 {
    u16 bits;
};

/// A float of 1 sign, 8 exponent and 7 mantissa bits (bfloat16).
struct BFloat16 {
    u16 bits;
};

/// A float of 1 sign, 4 exponent and 3 mantissa bits, up to 448, without infinities (e4m3; Micikevicius et al. 2022).
struct Float8 {
    u8 bits;
};

#ifdef EMULATOR
#include "../emulator/device.h"
#else

#define KERNEL(name) extern "C" __global__ void name
#define REGISTER(name)
#define GRID_CONSTANT const __grid_constant__
// One declaration for all kernels: compilers warn where functions declare it twice.
extern __shared__ __align__(1024) u8 dynamic_shared[];
#define DYNAMIC_SHARED(name) u8* name = dynamic_shared
#define INFINITY __int_as_float(0x7f800000)

DEVICE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// ---- Numbers

DEVICE float to_float(Float16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
DEVICE float to_float(BFloat16 x) { return __uint_as_float((u32)x.bits << 16); }

/// Rounds two floats to halves of a register, to nearest even.
template <class T>
DEVICE u32 pack(float low, float high);
template <>
DEVICE u32 pack<Float16>(float low, float high) {
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
template <>
DEVICE u32 pack<BFloat16>(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

/// 2^x, within 2 units in the last place; -infinity gives 0.
DEVICE float exp2_approximate(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// ---- Tensor cores of a warp (sm_80)

/// d += a b: 16 × 16 by 16 × 8, in f32.
template <class T>
DEVICE void mma(float (&d)[4], const u32 (&a)[4], const u32* b);
template <>
DEVICE void mma<Float16>(float (&d)[4], const u32 (&a)[4], const u32* b) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <>
DEVICE void mma<BFloat16>(float (&d)[4], const u32 (&a)[4], const u32* b) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// d += a b: 16 × 32 by 32 × 8 signed bytes, exact in i32.
DEVICE void mma_s8(int (&d)[4], const u32 (&a)[4], const u32* b) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Loads four 8 × 8 matrices of 16 bits; lane i gives the address of row i mod 8 of matrix i / 8.
DEVICE void ldmatrix(u32* r, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
/// The same, each matrix transposed.
DEVICE void ldmatrix_transposed(u32* r, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// ---- Asynchronous copies of a thread (sm_80)

/// Copies 16 bytes to shared memory, or zeros if not `valid` (`from` must then still be an address of the device).
DEVICE void copy_async(void* to, const void* from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
}
/// Closes a group of copies.
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `PENDING` groups of this thread are under way.
template <int PENDING>
DEVICE void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#if __CUDA_ARCH__ >= 900

// ---- Barriers in shared memory, and copies of tiles that arrive at them (sm_90)

/// What cuTensorMapEncodeTiled writes; passed by value as a GRID_CONSTANT parameter.
struct __align__(64) TensorMap {
    u64 opaque[16];
};

DEVICE void mbarrier_init(u64* barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0],%1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
/// Shows the barriers just made to the unit that copies tiles.
DEVICE void mbarrier_fence_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void mbarrier_arrive(u64* barrier) {
    asm volatile("{.reg .b64 state; mbarrier.arrive.shared.b64 state,[%0];}" ::"r"(shared_address(barrier)) : "memory");
}
/// Arrives, and has the barrier wait for `bytes` of copies too.
DEVICE void mbarrier_arrive_expect(u64* barrier, u32 bytes) {
    asm volatile(
        "{.reg .b64 state; mbarrier.arrive.expect_tx.shared.b64 state,[%0],%1;}" ::"r"(shared_address(barrier)),
        "r"(bytes)
        : "memory");
}
/// Waits until the phase of that parity is over.
DEVICE void mbarrier_wait(u64* barrier, u32 parity) {
    asm volatile(
        "{.reg .pred over; WAIT%=: mbarrier.try_wait.parity.shared.b64 over,[%0],%1; @!over bra WAIT%=;}" ::"r"(
            shared_address(barrier)),
        "r"(parity)
        : "memory");
}
/// Copies the tile whose first element is at (column, row); elements outside the matrix become 0.
DEVICE void copy_tile(void* to, const TensorMap* map, int column, int row, u64* barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0],[%1,{%2,%3}],[%4];" ::"r"(
            shared_address(to)),
        "l"(map), "r"(column), "r"(row), "r"(shared_address(barrier))
        : "memory");
}

/// Rounds four floats to Float8, the first in the lowest byte: to nearest even, to ±448 beyond that; NaN stays NaN.
DEVICE u32 pack_float8(float a, float b, float c, float d) {
    u32 codes;
    asm("{.reg .b16 low,high; cvt.rn.satfinite.e4m3x2.f32 low,%2,%1; cvt.rn.satfinite.e4m3x2.f32 high,%4,%3;"
        " mov.b32 %0,{low,high};}"
        : "=r"(codes)
        : "f"(a), "f"(b), "f"(c), "f"(d));
    return codes;
}

#if __CUDA_ARCH_FEAT_SM90_ALL

// ---- Tensor cores of four warps (sm_90a)

/// Describes an operand in shared memory: rows of 128 bytes with the 128-byte swizzle, groups of 8 rows 1,024 bytes
/// apart. Adding 2 steps 32 bytes along the rows.
DEVICE u64 operand(const void* tile) {
    return (u64)((shared_address(tile) & 0x3FFFF) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING>
DEVICE void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
/// Has the compiler read sums only after the wait that stands before this: it does not know that they change there.
template <int N>
DEVICE void wgmma_settle(float (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}
/// Gives registers of this warp group back, or takes more.
template <int REGISTERS>
DEVICE void release_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS>
DEVICE void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

#define NUMBERS_8(t) "%" #t "0,%" #t "1,%" #t "2,%" #t "3,%" #t "4,%" #t "5,%" #t "6,%" #t "7"
#define NUMBERS_10(t) NUMBERS_8(t) ",%" #t "8,%" #t "9"
#define NUMBERS_90                                                                                            \
    NUMBERS_10()                                                                                              \
    "," NUMBERS_10(1) "," NUMBERS_10(2) "," NUMBERS_10(3) "," NUMBERS_10(4) "," NUMBERS_10(5) "," NUMBERS_10( \
        6) "," NUMBERS_10(7) "," NUMBERS_10(8)
#define NUMBERS_96 NUMBERS_90 ",%90,%91,%92,%93,%94,%95"
#define NUMBERS_128 NUMBERS_90 "," NUMBERS_10(9) "," NUMBERS_10(10) "," NUMBERS_10(11) "," NUMBERS_8(12)
#define INOUT_8(c, i)                                                                                                  \
    "+" c(d[i]), "+" c(d[i + 1]), "+" c(d[i + 2]), "+" c(d[i + 3]), "+" c(d[i + 4]), "+" c(d[i + 5]), "+" c(d[i + 6]), \
        "+" c(d[i + 7])
#define INOUT_32(c, i) INOUT_8(c, i), INOUT_8(c, i + 8), INOUT_8(c, i + 16), INOUT_8(c, i + 24)
#define INOUT_96(c) INOUT_32(c, 0), INOUT_32(c, 32), INOUT_32(c, 64)
#define INOUT_128(c) INOUT_96(c), INOUT_32(c, 96)

/// d += a b', in f32: 64 × 16 by the transpose of (2 · ACCUMULATORS) × 16, both described by `operand`.
template <class T, int ACCUMULATORS>
struct Wgmma;
#define WGMMA(T, accumulators, columns, type)                                                                         \
    template <>                                                                                                       \
    struct Wgmma<T, accumulators> {                                                                                   \
        static DEVICE void multiply(float (&d)[accumulators], u64 a, u64 b) {                                         \
            asm volatile("wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type                        \
                         " {" NUMBERS_##accumulators "},%" #accumulators ",%" WGMMA_NEXT_##accumulators ",1,1,1,0,0;" \
                         : INOUT_##accumulators("f")                                                                  \
                         : "l"(a), "l"(b));                                                                           \
        }                                                                                                             \
    };
#define WGMMA_NEXT_96 "97"
#define WGMMA_NEXT_128 "129"
WGMMA(Float16, 96, 192, "f16")
WGMMA(Float16, 128, 256, "f16")
WGMMA(BFloat16, 96, 192, "bf16")
WGMMA(BFloat16, 128, 256, "bf16")

/// d = a b' (+ d where ADDS): 64 × 32 Float8 by the transpose of 192 × 32. Hopper sums them with some 14 significant
/// bits, not with the 24 of d (DeepSeek-V3 report, 2024, section 3.3.2).
template <bool ADDS>
DEVICE void wgmma_float8(float (&d)[96], u64 a, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n192k32.f32.e4m3.e4m3 {" NUMBERS_96 "},%96,%97,%98,1,1;"
                 : INOUT_96("f")
                 : "l"(a), "l"(b), "n"(ADDS));
}

/// d += a b', exact in i32: 64 × 32 signed bytes by the transpose of 192 × 32.
DEVICE void wgmma_s8(int (&d)[96], u64 a, u64 b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n192k32.s32.s8.s8 {" NUMBERS_96 "},%96,%97,1;"
                 : INOUT_96("r")
                 : "l"(a), "l"(b));
}
#endif
#endif
#endif

// ---- Made from the above, the same everywhere

template <class T>
DEVICE float low_half(u32 pair) {
    return to_float(T{(u16)pair});
}
template <class T>
DEVICE float high_half(u32 pair) {
    return to_float(T{(u16)(pair >> 16)});
}

DEVICE float warp_sum(float x) {
#pragma unroll
    for (int lanes = 16; lanes; lanes >>= 1) x += __shfl_xor_sync(ALL_LANES, x, lanes);
    return x;
}
