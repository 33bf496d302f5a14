// The built-in names and functions of CUDA C++ that the kernels use, for the emulator.
#pragma once
#include "runtime.h"

#define threadIdx (emulator::current->thread)
#define blockIdx (emulator::running->index)
#define blockDim (emulator::running->block)
#define gridDim (emulator::running->grid)

struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline int2 make_int2(int x, int y) { return {x, y}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// ---- Barriers and warps

inline void __syncthreads() { emulator::barrier_wait(0, emulator::running->threads, "__syncthreads"); }
inline int __syncthreads_or(int predicate) {
    static thread_local int any;
    if (predicate) any = 1;
    __syncthreads();
    int found = any;
    __syncthreads();
    any = 0;
    __syncthreads();
    return found;
}
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    int nothing = 0;
    emulator::warp_operation(mask, nothing, "__syncwarp", [](int**, unsigned) {});
}

namespace emulator {

template <class T>
struct Shuffle {
    T value, result;
    int source;
};

/// What a lane reads from a lane outside the mask is not defined: NaN here.
template <class T>
inline T shuffle(unsigned mask, T value, int source, const char* where) {
    Shuffle<T> mine{value, value, source};
    warp_operation(mask, mine, where, [](Shuffle<T>** lanes, unsigned mask) {
        for (int lane = 0; lane < 32; lane++) {
            if (!(mask >> lane & 1)) continue;
            int source = lanes[lane]->source;
            if (mask >> source & 1) {
                lanes[lane]->result = lanes[source]->value;
            } else {
                memset(&lanes[lane]->result, 0xFF, sizeof(T));
            }
        }
    });
    return mine.result;
}

/// Folds the lanes' values in the order of lanes.
template <class Fold>
inline unsigned reduce(unsigned mask, unsigned value, const char* where, Fold fold) {
    struct Part {
        unsigned value, result;
        Fold fold;
    } mine{value, 0, fold};
    warp_operation(mask, mine, where, [](Part** lanes, unsigned mask) {
        int first = __builtin_ctz(mask);
        unsigned result = lanes[first]->value;
        for (int lane = first + 1; lane < 32; lane++) {
            if (mask >> lane & 1) result = lanes[lane]->fold(result, lanes[lane]->value);
        }
        for (int lane = 0; lane < 32; lane++) {
            if (mask >> lane & 1) lanes[lane]->result = result;
        }
    });
    return mine.result;
}

}  // namespace emulator

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    int lane = emulator::current->lane;
    return emulator::shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), "__shfl_sync");
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    int lane = emulator::current->lane, other = lane ^ bits;
    int source = (other & ~(width - 1)) > (lane & ~(width - 1)) ? lane : other;
    return emulator::shuffle(mask, value, source, "__shfl_xor_sync");
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, int delta, int width = 32) {
    int lane = emulator::current->lane;
    return emulator::shuffle(mask, value, (lane & (width - 1)) < delta ? lane : lane - delta, "__shfl_up_sync");
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, int delta, int width = 32) {
    int lane = emulator::current->lane;
    int source = (lane & (width - 1)) + delta >= width ? lane : lane + delta;
    return emulator::shuffle(mask, value, source, "__shfl_down_sync");
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    unsigned mine = predicate ? 1u << emulator::current->lane : 0;
    return emulator::reduce(mask, mine, "__ballot_sync", [](unsigned a, unsigned b) { return a | b; });
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
inline unsigned __reduce_add_sync(unsigned mask, unsigned value) {
    return emulator::reduce(mask, value, "__reduce_add_sync", [](unsigned a, unsigned b) { return a + b; });
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
    return emulator::reduce(mask, value, "__reduce_max_sync", [](unsigned a, unsigned b) { return std::max(a, b); });
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value) {
    return emulator::reduce(mask, value, "__reduce_min_sync", [](unsigned a, unsigned b) { return std::min(a, b); });
}

// ---- Atomic operations: blocks run on several threads of the system

namespace emulator {
template <class T, class F>
inline T update(T* at, F next) {
    T old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(at, &old, next(old), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
}  // namespace emulator
template <class T>
inline T atomicAdd(T* at, T value) {
    static_assert(std::is_integral_v<T>, "sums of floats depend on their order: no kernel adds them atomically");
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
template <class T>
inline T atomicMax(T* at, T value) {
    return emulator::update(at, [value](T old) { return std::max(old, value); });
}
template <class T>
inline T atomicMin(T* at, T value) {
    return emulator::update(at, [value](T old) { return std::min(old, value); });
}
template <class T>
inline T atomicCAS(T* at, T expected, T value) {
    __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}

// ---- Arithmetic

using std::max;
using std::min;
// Functions of the standard library for which CUDA C++ needs no namespace.
using std::isfinite;
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline float __int_as_float(int bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline int __float_as_int(float x) {
    int bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float __uint_as_float(unsigned bits) { return __int_as_float((int)bits); }
inline unsigned __float_as_uint(float x) { return (unsigned)__float_as_int(x); }
inline long long __double_as_longlong(double x) {
    long long bits;
    memcpy(&bits, &x, 8);
    return bits;
}
inline double __longlong_as_double(long long bits) {
    double x;
    memcpy(&x, &bits, 8);
    return x;
}
inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline unsigned __brev(unsigned x) {
    unsigned reversed = 0;
    for (int i = 0; i < 32; i++) reversed |= (x >> i & 1) << (31 - i);
    return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
template <class T>
inline T __ldg(const T* p) {
    return *p;
}
template <class T>
inline T __ldcg(const T* p) {
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}
