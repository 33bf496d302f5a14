// What both products of a dense layer (linear_mma.cu, linear_wgmma.cu) share: their parameters, and what they do with
// a tile of sums before it is stored.
//
// y = f(x w' + bias): x (rows × inputs) and w (columns × inputs) in halves, sums and f in f32, y in halves. A row of y
// depends on that row of x alone, bit for bit: sums run over the inputs in one fixed order.
#pragma once
#include "activation.h"

enum Activation : int {
    NONE = 0,
    GELU = 1,
    /// gelu(gate) · up. Columns come in blocks of 16: eight gates, then the eight values that they gate; y is half as
    /// wide.
    GATED_GELU = 2,
    /// silu(gate) · up, in the same blocks.
    GATED_SILU = 3,
    /// Pairs of columns (2i, 2i + 1) of each head are turned by their row's position (Su et al. 2021), where the column
    /// is below `rotated_columns`.
    ROTATE = 4,
};

struct LinearParams {
    /// One number per column.
    const float* bias;
    /// rows × columns (half of them where gated).
    void* out;
    int rows, columns, inputs, activation;
    /// For ROTATE: each row's position; (cosine, sine) of positions × half a head; a head's columns.
    const int* positions;
    const float2* rotations;
    int head_columns, rotated_columns;
};

/// The turned pair of row `row` whose first column is `column`.
DEVICE void rotate(const LinearParams& p, int row, int column, float& even, float& odd) {
    int pairs = p.head_columns / 2;
    float2 turn = p.rotations[(size_t)p.positions[row] * pairs + column % p.head_columns / 2];
    float turned = fmaf(even, turn.x, -odd * turn.y);
    odd = fmaf(even, turn.y, odd * turn.x);
    even = turned;
}

/// Stores a warp's 16 rows of sums, in the layout that `mma` and `wgmma` leave them: `sums[tile][0..2]` are columns
/// 8·tile + 2·(lane mod 4) and the next of row lane/4, `sums[tile][2..4]` those of the row eight below.
///
/// `row` and `column` are those of the warp's first sum. TILES is a multiple of 4, of 8 where it may be gated.
template <class T, int TILES>
DEVICE void store_sums(const LinearParams& p, float (&sums)[TILES][4], int row, int column) {
    int lane = threadIdx.x % 32, quad = lane % 4;
    bool gated = p.activation == GATED_GELU || p.activation == GATED_SILU;
    int width = gated ? p.columns / 2 : p.columns;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int r = row + lane / 4 + half * 8;
        u32 pairs[TILES];
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            int c = column + tile * 8 + quad * 2;
            float even = sums[tile][half * 2], odd = sums[tile][half * 2 + 1];
            if (c < p.columns) {
                float2 bias = *(const float2*)(p.bias + c);
                even += bias.x;
                odd += bias.y;
                if (p.activation == GELU) {
                    even = gelu(even);
                    odd = gelu(odd);
                } else if (p.activation == ROTATE && c < p.rotated_columns && r < p.rows) {
                    rotate(p, r, c, even, odd);
                }
            }
            sums[tile][half * 2] = even;
            sums[tile][half * 2 + 1] = odd;
        }
        if (gated) {
#pragma unroll
            for (int tile = 0; tile < TILES; tile += 2) {
                float even = sums[tile][half * 2], odd = sums[tile][half * 2 + 1];
                bool by_gelu = p.activation == GATED_GELU;
                even = (by_gelu ? gelu(even) : silu(even)) * sums[tile + 1][half * 2];
                odd = (by_gelu ? gelu(odd) : silu(odd)) * sums[tile + 1][half * 2 + 1];
                pairs[tile / 2] = pack<T>(even, odd);
            }
        } else {
#pragma unroll
            for (int tile = 0; tile < TILES; tile++) {
                pairs[tile] = pack<T>(sums[tile][half * 2], sums[tile][half * 2 + 1]);
            }
        }
        // Four lanes hold a pair each of four tiles: they exchange them, so that each has the eight numbers of one tile
        // and stores 16 bytes.
        int out_column = gated ? column / 2 : column;
#pragma unroll
        for (int tile = 0; tile < TILES; tile += 4) {
            if (gated && tile >= TILES / 2) break;
            u32 whole[4] = {};
#pragma unroll
            for (int step = 0; step < 4; step++) {
                // In step s, lane q sends the pair of tile q ^ s to lane q ^ s and takes its own tile's from there.
                u32 sent = quad == step         ? pairs[tile]
                           : quad == (step ^ 1) ? pairs[tile + 1]
                           : quad == (step ^ 2) ? pairs[tile + 2]
                                                : pairs[tile + 3];
                u32 taken = __shfl_xor_sync(ALL_LANES, sent, step);
                int from = quad ^ step;
                whole[0] = from == 0 ? taken : whole[0];
                whole[1] = from == 1 ? taken : whole[1];
                whole[2] = from == 2 ? taken : whole[2];
                whole[3] = from == 3 ? taken : whole[3];
            }
            int c = out_column + (tile + quad) * 8;
            if (r < p.rows && c < width) {
                *(uint4*)((T*)p.out + (size_t)r * width + c) = make_uint4(whole[0], whole[1], whole[2], whole[3]);
            }
        }
    }
}
