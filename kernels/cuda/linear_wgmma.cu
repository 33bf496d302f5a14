// A dense layer on Hopper's tensor cores (sm_90a); see linear.h.
//
// As many blocks as there are multiprocessors, each making tiles of 128 × WIDTH sums in turn. One thread copies tiles
// of 128 bytes of inputs into a ring of four stages; two groups of four warps make 64 rows of sums each. The ring runs
// on across tiles: while sums are stored, the next tile's first stages arrive.
//
// Sums of Float8 leave the tensor cores after each stage: these keep some 14 bits of them, so that only what 128 inputs
// add up to is rounded so (as in the DeepSeek-V3 report, 2024, section 3.3.2), and the rest is added in f32. Meanwhile
// the other group multiplies.
#include "linear.h"

#if defined(EMULATOR) || __CUDA_ARCH_FEAT_SM90_ALL
namespace linear_wgmma {
constexpr int STAGES = 4, ROWS = 128, DEPTH = 128;
constexpr int X_BYTES = ROWS * DEPTH;

/// x and w in T, y in HALF.
template <class T, class HALF, int WIDTH>
DEVICE void linear(const TensorMap* x, const TensorMap* w, const LinearParams& p) {
    DYNAMIC_SHARED(shared);
    constexpr bool IS_FLOAT8 = sizeof(T) == 1;
    // Tiles are placed by their elements.
    constexpr int STAGE_BYTES = X_BYTES + WIDTH * DEPTH, ELEMENTS = DEPTH / sizeof(T);
    u64* full = (u64*)(shared + STAGES * STAGE_BYTES);
    u64* empty = full + STAGES;
    int column_tiles = (p.columns + WIDTH - 1) / WIDTH;
    int tiles = (p.rows + ROWS - 1) / ROWS * column_tiles, steps = (p.inputs + ELEMENTS - 1) / ELEMENTS;
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            mbarrier_init(full + stage, 1);
            mbarrier_init(empty + stage, 8);
        }
        mbarrier_fence_init();
    }
    __syncthreads();

    int group = __shfl_sync(ALL_LANES, threadIdx.x / 128, 0);
    int turn = 0;  // steps of all tiles so far: stage turn % STAGES, for the turn / STAGES-th time
    if (group == 2) {
        release_registers<40>();
        if (threadIdx.x != 256) return;
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            for (int step = 0; step < steps; step++, turn++) {
                int stage = turn % STAGES;
                if (turn >= STAGES) mbarrier_wait(empty + stage, (turn / STAGES - 1) & 1);
                u8* at = shared + stage * STAGE_BYTES;
                mbarrier_arrive_expect(full + stage, STAGE_BYTES);
                copy_tile(at, x, step * ELEMENTS, tile / column_tiles * ROWS, full + stage);
                copy_tile(at + X_BYTES, w, step * ELEMENTS, tile % column_tiles * WIDTH, full + stage);
            }
        }
        return;
    }
    take_registers<232>();
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        float sums[WIDTH / 2] = {};
        for (int step = 0; step < steps; step++, turn++) {
            int stage = turn % STAGES;
            mbarrier_wait(full + stage, turn / STAGES & 1);
            u8* at = shared + stage * STAGE_BYTES;
            u64 a = operand(at + group * 64 * DEPTH), b = operand(at + X_BYTES);
            wgmma_fence();
            if constexpr (IS_FLOAT8) {
                float part[WIDTH / 2];
                wgmma_float8<false>(part, a, b);
#pragma unroll
                for (int k = 1; k < DEPTH / 32; k++) wgmma_float8<true>(part, a + k * 2, b + k * 2);
                wgmma_commit();
                wgmma_wait<0>();
                wgmma_settle(part);
                if (threadIdx.x % 32 == 0) mbarrier_arrive(empty + stage);
#pragma unroll
                for (int i = 0; i < WIDTH / 2; i++) sums[i] += part[i];
            } else {
#pragma unroll
                for (int k = 0; k < DEPTH / 32; k++) Wgmma<T, WIDTH / 2>::multiply(sums, a + k * 2, b + k * 2);
                wgmma_commit();
                // This warp's products of the step before are done now; when all eight warps say so, its stage is free.
                wgmma_wait<1>();
                if (step > 0 && threadIdx.x % 32 == 0) mbarrier_arrive(empty + (turn - 1) % STAGES);
            }
        }
        if constexpr (!IS_FLOAT8) {
            wgmma_wait<0>();
            if (threadIdx.x % 32 == 0) mbarrier_arrive(empty + (turn - 1) % STAGES);
        }
        int row = tile / column_tiles * ROWS + threadIdx.x / 32 * 16, column = tile % column_tiles * WIDTH;
        auto& blocks = reinterpret_cast<float (&)[WIDTH / 8][4]>(sums);
        if constexpr (IS_FLOAT8) scale_sums<WIDTH / 8>(p, blocks, row, column);
        store_sums<HALF, WIDTH / 8>(p, blocks, row, column);
    }
}
}  // namespace linear_wgmma

/// At most as many blocks as multiprocessors, of 384 threads; four stages and 64 bytes of shared memory. `x` maps tiles
/// of 128 rows, `w` of WIDTH, both of 128 bytes, with the 128-byte swizzle.
#define LINEAR(name, T, HALF, WIDTH)                                         \
    KERNEL(__launch_bounds__(384, 1) name)                                   \
    (GRID_CONSTANT TensorMap x, GRID_CONSTANT TensorMap w, LinearParams p) { \
        linear_wgmma::linear<T, HALF, WIDTH>(&x, &w, p);                     \
    }                                                                        \
    REGISTER(name)
LINEAR(linear_wgmma_192_f16, Float16, Float16, 192)
LINEAR(linear_wgmma_256_f16, Float16, Float16, 256)
LINEAR(linear_wgmma_192_bf16, BFloat16, BFloat16, 192)
LINEAR(linear_wgmma_256_bf16, BFloat16, BFloat16, 256)
LINEAR(linear_wgmma_192_float8, Float8, Float16, 192)
#endif
