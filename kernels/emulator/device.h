// The functions of cuda/device.h for the emulator. Layouts of fragments, swizzles and descriptors follow the PTX
// manual.
#pragma once
#include <immintrin.h>

#include "intrinsics.h"

#define KERNEL(name) void name
#define REGISTER(name) static emulator::Registration registration_of_##name(#name, emulator::Caller<&name>::kernel());
#define GRID_CONSTANT const
#define DYNAMIC_SHARED(name) u8* name = emulator::running->shared

// ---- Numbers

inline float to_float(Float16 x) { return _cvtsh_ss(x.bits); }
inline float to_float(BFloat16 x) { return __uint_as_float((u32)x.bits << 16); }
template <class T>
inline u32 pack(float low, float high);
template <>
inline u32 pack<Float16>(float low, float high) {
    return (u32)_cvtss_sh(low, 0) | (u32)_cvtss_sh(high, 0) << 16;
}
template <>
inline u32 pack<BFloat16>(float low, float high) {
    auto round = [](float x) {
        u32 bits = __float_as_uint(x);
        return x != x ? 0x7fffu : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    };
    return round(low) | round(high) << 16;
}
inline float exp2_approximate(float x) { return exp2f(x); }

inline float to_float(Float8 x) {
    int exponent = x.bits >> 3 & 15, mantissa = x.bits & 7;
    float size = exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);
    if ((x.bits & 0x7f) == 0x7f) size = NAN;
    return x.bits & 0x80 ? -size : size;
}
inline u32 pack_float8(float a, float b, float c, float d) {
    auto round = [](float x) -> u32 {
        if (x != x) return 0x7f;
        u32 bits = __float_as_uint(fabsf(x));
        // Below 2^-6 numbers are 2^-9 apart, above they have three bits after the first.
        u32 code = fabsf(x) < 0x1p-6f ? (u32)nearbyintf(fabsf(x) * 512.f)
                                      : ((bits + 0x7ffff + (bits >> 20 & 1)) >> 20) - (120 << 3);
        return min(code, 0x7eu) | (__float_as_uint(x) >> 24 & 0x80);
    };
    return round(a) | round(b) << 8 | round(c) << 16 | round(d) << 24;
}

// ---- Tensor cores of a warp

namespace emulator {

inline void check_shared(const void* at, size_t bytes, size_t alignment, const char* where) {
    const u8* p = (const u8*)at;
    if (p < running->shared || p + bytes > running->shared + running->shared_bytes) {
        fail(std::string(where) + ": an address outside shared memory");
    }
    if ((uintptr_t)at % alignment) fail(std::string(where) + ": a misaligned address of shared memory");
}

template <class Sum>
struct Fragments {
    Sum* d;
    const u32* a;
    const u32* b;
};

// A: rows lane/4 (+8), columns lane%4*2 (+1, +8). B: columns lane/4. D: rows lane/4 (+8), columns lane%4*2 (+1).
template <class T>
inline void multiply(Fragments<float>** lanes, unsigned) {
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        int row = lane / 4, column = lane % 4 * 2;
        for (int half = 0; half < 2; half++) {
            for (int r = 0; r < 4; r++) {
                u16 bits = (u16)(lanes[lane]->a[r] >> 16 * half);
                a[row + (r & 1) * 8][column + half + (r >> 1) * 8] = to_float(T{bits});
            }
            for (int r = 0; r < 2; r++) {
                b[column + half + r * 8][row] = to_float(T{(u16)(lanes[lane]->b[r] >> 16 * half)});
            }
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        for (int c = 0; c < 4; c++) {
            int row = lane / 4 + (c >> 1) * 8, column = lane % 4 * 2 + (c & 1);
            float sum = 0;
            for (int k = 0; k < 16; k++) sum += a[row][k] * b[k][column];
            lanes[lane]->d[c] += sum;
        }
    }
}

inline void multiply_s8(Fragments<int>** lanes, unsigned) {
    int a[16][32], b[32][8];
    for (int lane = 0; lane < 32; lane++) {
        int row = lane / 4, column = lane % 4 * 4;
        for (int byte = 0; byte < 4; byte++) {
            for (int r = 0; r < 4; r++) {
                a[row + (r & 1) * 8][column + byte + (r >> 1) * 16] = (i8)(lanes[lane]->a[r] >> 8 * byte);
            }
            for (int r = 0; r < 2; r++) b[column + byte + r * 16][row] = (i8)(lanes[lane]->b[r] >> 8 * byte);
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        for (int c = 0; c < 4; c++) {
            int row = lane / 4 + (c >> 1) * 8, column = lane % 4 * 2 + (c & 1), sum = 0;
            for (int k = 0; k < 32; k++) sum += a[row][k] * b[k][column];
            lanes[lane]->d[c] += sum;
        }
    }
}

struct MatrixLoad {
    u32* r;
    const u8* row;
    bool transposed;
};
inline void load_matrices(MatrixLoad** lanes, unsigned) {
    for (int lane = 0; lane < 32; lane++) {
        bool transposed = lanes[lane]->transposed;
        for (int matrix = 0; matrix < 4; matrix++) {
            u32 pair = 0;
            for (int half = 0; half < 2; half++) {
                int row = lane / 4, column = lane % 4 * 2 + half;
                if (transposed) std::swap(row, column);
                u16 bits;
                memcpy(&bits, lanes[matrix * 8 + row]->row + column * 2, 2);
                pair |= (u32)bits << 16 * half;
            }
            lanes[lane]->r[matrix] = pair;
        }
    }
}

}  // namespace emulator

template <class T>
inline void mma(float (&d)[4], const u32 (&a)[4], const u32* b) {
    emulator::Fragments<float> mine{d, a, b};
    emulator::warp_operation(ALL_LANES, mine, "mma", emulator::multiply<T>);
}
inline void mma_s8(int (&d)[4], const u32 (&a)[4], const u32* b) {
    emulator::Fragments<int> mine{d, a, b};
    emulator::warp_operation(ALL_LANES, mine, "mma", emulator::multiply_s8);
}
inline void ldmatrix(u32* r, const void* row) {
    emulator::check_shared(row, 16, 16, "ldmatrix");
    emulator::MatrixLoad mine{r, (const u8*)row, false};
    emulator::warp_operation(ALL_LANES, mine, "ldmatrix", emulator::load_matrices);
}
inline void ldmatrix_transposed(u32* r, const void* row) {
    emulator::check_shared(row, 16, 16, "ldmatrix");
    emulator::MatrixLoad mine{r, (const u8*)row, true};
    emulator::warp_operation(ALL_LANES, mine, "ldmatrix.trans", emulator::load_matrices);
}

// ---- Asynchronous copies of a thread

inline void copy_async(void* to, const void* from, bool valid) {
    emulator::check_shared(to, 16, 16, "cp.async");
    if ((uintptr_t)from % 16) emulator::fail("cp.async: a misaligned address of device memory");
    memset(to, 0xFF, 16);
    emulator::current->open_copies.push_back({to, from, 16, !valid});
}
inline void copy_commit() {
    auto* fiber = emulator::current;
    fiber->copy_groups.push_back(std::move(fiber->open_copies));
    fiber->open_copies.clear();
}
template <int PENDING>
inline void copy_wait() {
    auto& groups = emulator::current->copy_groups;
    while ((int)groups.size() > PENDING) {
        for (auto& copy : groups.front()) {
            if (copy.zeros) {
                memset(copy.to, 0, copy.bytes);
            } else {
                memcpy(copy.to, copy.from, copy.bytes);
            }
        }
        groups.pop_front();
    }
}

// ---- Barriers in shared memory, and copies of tiles

/// What the emulated driver's cuTensorMapEncodeTiled writes.
struct alignas(64) TensorMap {
    const u8* base;
    u64 rows, row_bytes, pitch;
    u32 box_rows, box_bytes, element_bytes, swizzled;
    u64 unused[10];
};
static_assert(sizeof(TensorMap) == 128);

namespace emulator {
struct SharedBarrier {
    u16 pending, needed;
    int bytes : 31;
    unsigned phase : 1;
};
static_assert(sizeof(SharedBarrier) == sizeof(u64));
inline void end_phase(SharedBarrier* barrier) {
    if (barrier->pending || barrier->bytes) return;
    barrier->phase ^= 1;
    barrier->pending = barrier->needed;
}
/// Where the 128-byte swizzle puts a byte, by its offset in a tile.
inline u32 swizzle(u32 offset) { return offset ^ (offset >> 7 & 7) << 4; }
}  // namespace emulator

inline void mbarrier_init(u64* barrier, u32 arrivals) {
    emulator::check_shared(barrier, 8, 8, "mbarrier");
    emulator::SharedBarrier fresh{(u16)arrivals, (u16)arrivals, 0, 0};
    memcpy(barrier, &fresh, 8);
}
inline void mbarrier_fence_init() {}
inline void mbarrier_arrive(u64* barrier) {
    auto* shared = (emulator::SharedBarrier*)barrier;
    if (!shared->pending) emulator::fail("mbarrier: more arrivals than it was made for");
    shared->pending--;
    emulator::end_phase(shared);
}
inline void mbarrier_arrive_expect(u64* barrier, u32 bytes) {
    ((emulator::SharedBarrier*)barrier)->bytes += bytes;
    mbarrier_arrive(barrier);
}
inline void mbarrier_wait(u64* barrier, u32 parity) {
    auto over = [=] { return ((emulator::SharedBarrier*)barrier)->phase != parity; };
    emulator::poll(over, "mbarrier.try_wait");
}
inline void copy_tile(void* to, const TensorMap* map, int column, int row, u64* barrier) {
    TensorMap m = *map;
    size_t bytes = (size_t)m.box_rows * m.box_bytes;
    emulator::check_shared(to, bytes, m.swizzled ? 1024 : 128, "cp.async.bulk.tensor");
    memset(to, 0xFF, bytes);
    emulator::running->bulk_copies.push_back([=] {
        for (u32 r = 0; r < m.box_rows; r++) {
            for (u32 c = 0; c < m.box_bytes; c++) {
                u64 from_row = (u64)row + r, from_byte = (u64)column * m.element_bytes + c;
                bool inside = row + (long)r >= 0 && from_row < m.rows && column >= 0 && from_byte < m.row_bytes;
                u32 offset = r * m.box_bytes + c;
                if (m.swizzled) offset = emulator::swizzle(offset);
                ((u8*)to)[offset] = inside ? m.base[from_row * m.pitch + from_byte] : 0;
            }
        }
        auto* shared = (emulator::SharedBarrier*)barrier;
        shared->bytes -= (int)bytes;
        emulator::end_phase(shared);
    });
}

// ---- Tensor cores of four warps: each warp has 16 of the 64 rows. Products are carried out when they are waited for.

inline u64 operand(const void* tile) {
    emulator::check_shared(tile, 16, 16, "wgmma operand");
    return (u64)((const u8*)tile - emulator::running->shared) >> 4 | (u64)1 << 16 | (u64)(1024 >> 4) << 32 |
           (u64)1 << 62;
}

namespace emulator {
/// A byte of an operand; the swizzle acts on the bits of the address.
inline const u8* element(u64 operand, int row, int byte) {
    u32 groups = (u32)(operand >> 32 & 0x3FFF) * 16;
    u32 offset = swizzle((u32)(operand & 0x3FFF) * 16 + row / 8 * groups + row % 8 * 128 + byte);
    if (offset + 2 > running->shared_bytes) fail("wgmma: an operand outside shared memory");
    return running->shared + offset;
}
inline void queue_product(u64 a, u64 b, std::function<void()> product) {
    struct Operands {
        u64 a, b;
    } mine{a, b};
    warp_operation(ALL_LANES, mine, "wgmma", [](Operands** lanes, unsigned) {
        for (int lane = 1; lane < 32; lane++) {
            if (lanes[lane]->a != lanes[0]->a || lanes[lane]->b != lanes[0]->b) fail("wgmma: lanes differ in operands");
        }
    });
    current->open_products.push_back(std::move(product));
}
/// The row and the column of accumulator c of a lane.
inline int accumulator_row(const Fiber* fiber, int c) {
    return fiber->warp % 4 * 16 + fiber->lane / 4 + (c >> 1 & 1) * 8;
}
inline int accumulator_column(const Fiber* fiber, int c) { return (c >> 2) * 8 + fiber->lane % 4 * 2 + (c & 1); }

/// What each Float8 is.
inline const std::vector<float> FLOATS_8 = [] {
    std::vector<float> all;
    for (int bits = 0; bits < 256; bits++) all.push_back(to_float(Float8{(u8)bits}));
    return all;
}();
}  // namespace emulator

template <class T, int ACCUMULATORS>
struct Wgmma {
    static void multiply(float (&d)[ACCUMULATORS], u64 a, u64 b) {
        auto* fiber = emulator::current;
        float* sums = d;
        emulator::queue_product(a, b, [=] {
            float left[2][16];
            for (int half = 0; half < 2; half++) {
                for (int k = 0; k < 16; k++) {
                    u16 bits;
                    memcpy(&bits, emulator::element(a, emulator::accumulator_row(fiber, half * 2), k * 2), 2);
                    left[half][k] = to_float(T{bits});
                }
            }
            for (int c = 0; c < ACCUMULATORS; c++) {
                float sum = 0;
                for (int k = 0; k < 16; k++) {
                    u16 bits;
                    memcpy(&bits, emulator::element(b, emulator::accumulator_column(fiber, c), k * 2), 2);
                    sum += left[c >> 1 & 1][k] * to_float(T{bits});
                }
                sums[c] += sum;
            }
        });
    }
};
/// Products are exact, sums in f32: hardware has fewer bits for them.
template <bool ADDS>
inline void wgmma_float8(float (&d)[96], u64 a, u64 b) {
    auto* fiber = emulator::current;
    float* sums = d;
    emulator::queue_product(a, b, [=] {
        for (int c = 0; c < 96; c++) {
            int row = emulator::accumulator_row(fiber, c), column = emulator::accumulator_column(fiber, c);
            float sum = 0;
            for (int k = 0; k < 32; k++) {
                sum += emulator::FLOATS_8[*emulator::element(a, row, k)] *
                       emulator::FLOATS_8[*emulator::element(b, column, k)];
            }
            sums[c] = ADDS ? sums[c] + sum : sum;
        }
    });
}
template <int N>
inline void wgmma_settle(float (&)[N]) {}
inline void wgmma_s8(int (&d)[96], u64 a, u64 b) {
    auto* fiber = emulator::current;
    int* sums = d;
    emulator::queue_product(a, b, [=] {
        for (int c = 0; c < 96; c++) {
            int row = emulator::accumulator_row(fiber, c), column = emulator::accumulator_column(fiber, c);
            for (int k = 0; k < 32; k++) {
                sums[c] += (int)(i8)*emulator::element(a, row, k) * (i8)*emulator::element(b, column, k);
            }
        }
    });
}
inline void wgmma_fence() { __syncwarp(); }
inline void wgmma_commit() {
    auto* fiber = emulator::current;
    fiber->product_groups.push_back(std::move(fiber->open_products));
    fiber->open_products.clear();
}
template <int PENDING>
inline void wgmma_wait() {
    emulator::wait_long();
    auto& groups = emulator::current->product_groups;
    while ((int)groups.size() > PENDING) {
        for (auto& product : groups.front()) product();
        groups.pop_front();
    }
    __syncwarp();
}
template <int REGISTERS>
inline void release_registers() {}
template <int REGISTERS>
inline void take_registers() {}
