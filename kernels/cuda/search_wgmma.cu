// Nearest rows on Hopper's tensor cores (sm_90a); see search.h.
//
// A block compares 128 queries with 192 points at a time. One thread copies tiles of 128 bytes of their rows into a
// ring of three stages; two groups of four warps have 64 queries each. The ring runs on across tiles: while products
// are compared with limits, the next points arrive. Queries whose rows leave room for the ring stay in shared memory
// ("resident"): the ring then brings points only, two fifths less than with the queries of each tile.
#include "search.h"

#if defined(EMULATOR) || __CUDA_ARCH_FEAT_SM90_ALL
namespace search_wgmma {
using namespace search;
constexpr int STAGES = 3, POINTS = 192, DEPTH = 128;
constexpr int QUERY_BYTES = QUERIES * DEPTH, POINT_BYTES = POINTS * DEPTH;

DEVICE void multiply(Signed8, int (&d)[96], u64 a, u64 b) { wgmma_s8(d, a, b); }
DEVICE void multiply(Halves, float (&d)[96], u64 a, u64 b) { Wgmma<Float16, 96>::multiply(d, a, b); }

template <class Operand>
DEVICE void run(const TensorMap* queries, const TensorMap* points, const SearchParams& p) {
    DYNAMIC_SHARED(shared);
    // Tiles are placed by their elements.
    constexpr int ELEMENTS = DEPTH / Operand::BYTES;
    int steps = (p.bytes + DEPTH - 1) / DEPTH;
    int stage_bytes = POINT_BYTES + (p.resident ? 0 : QUERY_BYTES);
    u8* ring = shared + (p.resident ? steps * QUERY_BYTES : 0);
    u64* full = (u64*)(ring + STAGES * stage_bytes);
    u64 *empty = full + STAGES, *ready = empty + STAGES;
    int first_query = blockIdx.x * QUERIES;
    int2 own = share(p, POINTS);
    int tiles = (own.y - own.x + POINTS - 1) / POINTS;
    if (threadIdx.x == 0) {
        mbarrier_init(ready, 1);
        for (int stage = 0; stage < STAGES; stage++) {
            mbarrier_init(full + stage, 1);
            mbarrier_init(empty + stage, 8);
        }
        mbarrier_fence_init();
    }
    auto lists = begin<Operand>(p, (u8*)(ready + 2), first_query, 384);
    __syncthreads();

    int group = __shfl_sync(ALL_LANES, threadIdx.x / 128, 0), turn = 0;
    if (group == 2) {
        release_registers<40>();
        if (threadIdx.x != 256) return;
        if (p.resident) {
            mbarrier_arrive_expect(ready, steps * QUERY_BYTES);
            for (int step = 0; step < steps; step++) {
                copy_tile(shared + step * QUERY_BYTES, queries, step * ELEMENTS, first_query, ready);
            }
        }
        for (int tile = 0; tile < tiles; tile++) {
            for (int step = 0; step < steps; step++, turn++) {
                int stage = turn % STAGES;
                if (turn >= STAGES) mbarrier_wait(empty + stage, (turn / STAGES - 1) & 1);
                u8* at = ring + stage * stage_bytes;
                mbarrier_arrive_expect(full + stage, stage_bytes);
                copy_tile(at, points, step * ELEMENTS, own.x + tile * POINTS, full + stage);
                if (!p.resident) copy_tile(at + POINT_BYTES, queries, step * ELEMENTS, first_query, full + stage);
            }
        }
        return;
    }
    take_registers<232>();
    int row = threadIdx.x / 32 * 16;
    typename Operand::Sum limits[2];
    read_limits(lists, row, limits);
    if (p.resident) mbarrier_wait(ready, 0);
    for (int tile = 0; tile < tiles; tile++) {
        typename Operand::Sum sums[96] = {};
        for (int step = 0; step < steps; step++, turn++) {
            int stage = turn % STAGES;
            mbarrier_wait(full + stage, turn / STAGES & 1);
            u8* at = ring + stage * stage_bytes;
            u8* asked = p.resident ? shared + step * QUERY_BYTES : at + POINT_BYTES;
            u64 a = operand(asked + group * 64 * DEPTH), b = operand(at);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < DEPTH / 32; k++) multiply(Operand(), sums, a + k * 2, b + k * 2);
            wgmma_commit();
            wgmma_wait<1>();
            if (step > 0 && threadIdx.x % 32 == 0) mbarrier_arrive(empty + (turn - 1) % STAGES);
        }
        wgmma_wait<0>();
        if (threadIdx.x % 32 == 0) mbarrier_arrive(empty + (turn - 1) % STAGES);
        auto& blocks = reinterpret_cast<typename Operand::Sum(&)[24][4]>(sums);
        offer<Operand, 24>(p, lists, blocks, limits, row, own.x + tile * POINTS, own.y);
    }
    finish<Operand>(p, lists, row, first_query);
}
}  // namespace search_wgmma

/// Blocks: tiles of 128 queries times splits of the points, of 384 threads; of shared memory three stages of 40 KiB, or
/// the queries and three stages of 24 KiB, then 64 bytes and the lists. `queries` maps tiles of 128 rows, `points` of
/// 192, both of 128 bytes, swizzled.
#define SEARCH_WGMMA(name, Operand)                                                     \
    KERNEL(__launch_bounds__(384, 1) name)                                              \
    (GRID_CONSTANT TensorMap queries, GRID_CONSTANT TensorMap points, SearchParams p) { \
        search_wgmma::run<search::Operand>(&queries, &points, p);                       \
    }                                                                                   \
    REGISTER(name)
SEARCH_WGMMA(search_wgmma_s8, Signed8)
SEARCH_WGMMA(search_wgmma_f16, Halves)
#endif
