// A dense layer on tensor cores of one warp each (sm_80 and later); see linear.h.
//
// A block makes 128 × 128 sums: eight warps, each 32 × 64. Tiles of 128 × 32 of x and w come by asynchronous copies
// into a ring of four, their 16-byte chunks exchanged so that neither copies nor `ldmatrix` meet in a bank.
#include "linear.h"

namespace linear_mma {
constexpr int STAGES = 4, TILE = 128, DEPTH = 32;
constexpr int STAGE_BYTES = 2 * TILE * DEPTH * 2;

/// Where chunk `chunk` (of four) of a row lies.
DEVICE int place(int row, int chunk) { return row * DEPTH + (chunk ^ (row >> 1 & 3)) * 8; }

/// Starts copying rows first.. and columns k.. of a matrix; what lies outside becomes 0.
DEVICE void load(u16* tile, const u16* matrix, int rows, int inputs, int first, int k) {
#pragma unroll
    for (int i = 0; i < TILE * 4 / 256; i++) {
        int row = threadIdx.x / 4 + i * 64, chunk = threadIdx.x % 4;
        bool valid = first + row < rows && k + chunk * 8 < inputs;
        const u16* from = valid ? matrix + (size_t)(first + row) * inputs + k + chunk * 8 : matrix;
        copy_async(tile + place(row, chunk), from, valid);
    }
}

template <class T>
DEVICE void linear(const u16* x, const u16* w, const LinearParams& p) {
    DYNAMIC_SHARED(shared);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int row_tiles = (p.rows + TILE - 1) / TILE;
    int first_row = blockIdx.x % row_tiles * TILE, first_column = blockIdx.x / row_tiles * TILE;
    int warp_row = warp / 2 * 32, warp_column = warp % 2 * 64;
    int steps = (p.inputs + DEPTH - 1) / DEPTH;
    auto stage = [&](int step) { return (u16*)(shared + step % STAGES * STAGE_BYTES); };
    auto load_step = [&](int step) {
        if (step < steps) {
            load(stage(step), x, p.rows, p.inputs, first_row, step * DEPTH);
            load(stage(step) + TILE * DEPTH, w, p.columns, p.inputs, first_column, step * DEPTH);
        }
        copy_commit();
    };
#pragma unroll
    for (int step = 0; step < STAGES - 1; step++) load_step(step);

    float sums[2][8][4] = {};
    for (int step = 0; step < steps; step++) {
        copy_wait<STAGES - 2>();
        __syncthreads();
        // The stage that everyone has left is filled while this one is worked on.
        load_step(step + STAGES - 1);
        const u16 *xs = stage(step), *ws = xs + TILE * DEPTH;
#pragma unroll
        for (int k = 0; k < DEPTH / 16; k++) {
            u32 a[2][4], b[4][4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                ldmatrix(a[i], xs + place(warp_row + i * 16 + lane % 16, k * 2 + lane / 16));
            }
#pragma unroll
            for (int j = 0; j < 4; j++) {
                ldmatrix(b[j], ws + place(warp_column + j * 16 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
            }
#pragma unroll
            for (int i = 0; i < 2; i++) {
#pragma unroll
                for (int j = 0; j < 8; j++) mma<T>(sums[i][j], a[i], b[j / 2] + j % 2 * 2);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        store_sums<T, 8>(p, sums[i], first_row + warp_row + i * 16, first_column + warp_column);
    }
}
}  // namespace linear_mma

/// Blocks: row tiles times column tiles, of 256 threads; 64 KiB of shared memory. Inputs and columns are multiples
/// of 8.
KERNEL(__launch_bounds__(256, 2) linear_mma_f16)(const u16* x, const u16* w, LinearParams p) {
    linear_mma::linear<Float16>(x, w, p);
}
KERNEL(__launch_bounds__(256, 2) linear_mma_bf16)(const u16* x, const u16* w, LinearParams p) {
    linear_mma::linear<BFloat16>(x, w, p);
}
REGISTER(linear_mma_f16)
REGISTER(linear_mma_bf16)
