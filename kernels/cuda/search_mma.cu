// Nearest rows on tensor cores of one warp each (sm_80 and later); see search.h.
//
// A block compares 128 queries with 128 points at a time, 64 bytes of both in each stage of a ring; a warp has 16
// queries and all points.
#include "search.h"

namespace search_mma {
using namespace search;
constexpr int POINTS = 128, DEPTH = 64, STAGE_BYTES = (QUERIES + POINTS) * DEPTH;

/// Where chunk `chunk` (of four, 16 bytes each) of a row lies.
DEVICE int place(int row, int chunk) { return row * DEPTH + (chunk ^ (row >> 1 & 3)) * 16; }

/// Starts copying 64 bytes of 128 rows; what lies outside becomes 0.
DEVICE void load(u8* tile, const u8* matrix, int rows, int bytes, int first, int k) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = threadIdx.x / 4 + i * 64, chunk = threadIdx.x % 4;
        bool valid = first + row < rows && k + chunk * 16 < bytes;
        const u8* from = valid ? matrix + (size_t)(first + row) * bytes + k + chunk * 16 : matrix;
        copy_async(tile + place(row, chunk), from, valid);
    }
}

DEVICE void multiply(Signed8, int (&d)[4], const u32 (&a)[4], const u32* b) { mma_s8(d, a, b); }
DEVICE void multiply(Halves, float (&d)[4], const u32 (&a)[4], const u32* b) { mma<Float16>(d, a, b); }

template <class Operand, int STAGES>
DEVICE void run(const u8* queries, const u8* points, const SearchParams& p) {
    DYNAMIC_SHARED(shared);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first_query = blockIdx.x * QUERIES, row = warp * 16;
    int2 own = share(p, POINTS);
    auto lists = begin<Operand>(p, shared + STAGES * STAGE_BYTES, first_query, 256);
    int steps = (p.bytes + DEPTH - 1) / DEPTH, total = (own.y - own.x + POINTS - 1) / POINTS * steps;
    auto load_turn = [&](int turn) {
        if (turn < total) {
            u8* stage = shared + turn % STAGES * STAGE_BYTES;
            int k = turn % steps * DEPTH;
            load(stage, queries, p.queries, p.bytes, first_query, k);
            load(stage + QUERIES * DEPTH, points, own.y, p.bytes, own.x + turn / steps * POINTS, k);
        }
        copy_commit();
    };
#pragma unroll
    for (int turn = 0; turn < STAGES - 1; turn++) load_turn(turn);
    __syncthreads();
    typename Operand::Sum limits[2];
    read_limits(lists, row, limits);
    for (int turn = 0; turn < total;) {
        typename Operand::Sum sums[POINTS / 8][4] = {};
        int column = own.x + turn / steps * POINTS;
        for (int step = 0; step < steps; step++, turn++) {
            copy_wait<STAGES - 2>();
            __syncthreads();
            load_turn(turn + STAGES - 1);
            const u8 *q = shared + turn % STAGES * STAGE_BYTES, *x = q + QUERIES * DEPTH;
#pragma unroll
            for (int k = 0; k < DEPTH / 32; k++) {
                u32 a[4];
                ldmatrix(a, q + place(row + lane % 16, k * 2 + lane / 16));
#pragma unroll
                for (int j = 0; j < POINTS / 16; j++) {
                    u32 b[4];
                    ldmatrix(b, x + place(j * 16 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
                    multiply(Operand(), sums[2 * j], a, b);
                    multiply(Operand(), sums[2 * j + 1], a, b + 2);
                }
            }
        }
        offer<Operand, POINTS / 8>(p, lists, sums, limits, row, column, own.y);
    }
    finish<Operand>(p, lists, row, first_query);
}
}  // namespace search_mma

/// Blocks: tiles of 128 queries times splits of the points, of 256 threads; stages of 16 KiB and the lists of shared
/// memory.
#define SEARCH_MMA(name, Operand, STAGES)                                                         \
    KERNEL(__launch_bounds__(256, 1) name)(const u8* queries, const u8* points, SearchParams p) { \
        search_mma::run<search::Operand, STAGES>(queries, points, p);                             \
    }                                                                                             \
    REGISTER(name)
SEARCH_MMA(search_mma_s8_4, Signed8, 4)
SEARCH_MMA(search_mma_s8_2, Signed8, 2)
SEARCH_MMA(search_mma_f16_4, Halves, 4)
SEARCH_MMA(search_mma_f16_2, Halves, 2)
