// What both products of a dense layer (linear_mma.cu, linear_wgmma.cu) share: their parameters, and what they do with
// a tile of sums before it is stored.
//
// y = f(x w' + bias): x (rows × inputs) and w (columns × inputs) in halves or in Float8, sums and f in f32, y in
// halves. A row of y depends on that row of x alone, bit for bit: sums run over the inputs in one fixed order.
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
    /// For Float8: what the codes of a row of x, and of a row of w, are to be multiplied by.
    const float* row_scales;
    const float* column_scales;
};

/// Makes sums of what Float8's codes stand for of sums of codes, in the layout of `store_sums`.
template <int TILES>
DEVICE void scale_sums(const LinearParams& p, float (&sums)[TILES][4], int row, int column) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        // Rows and columns past the last are not stored: any number will do.
        float row_scale = p.row_scales[min(row + lane / 4 + half * 8, p.rows - 1)];
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            const float* scales = p.column_scales + min(column + tile * 8 + lane % 4 * 2, p.columns - 2);
            sums[tile][half * 2] *= row_scale * scales[0];
            sums[tile][half * 2 + 1] *= row_scale * scales[1];
        }
    }
}

/// The turned pair of row `row` whose first column is `column`.
DEVICE void rotate(const LinearParams& p, int row, int column, float& even, float& odd) {
    int pairs = p.head_columns / 2;
    float2 turn = p.rotations[(size_t)p.positions[row] * pairs + column % p.head_columns / 2];
    float turned = fmaf(even, turn.x, -odd * turn.y);
    odd = fmaf(even, turn.y, odd * turn.x);
    even = turned;
}

/// What ACTIVATION makes of a lane's two sums of a tile (where gated, of the tile and the next) in one of its two rows,
/// packed into halves.
template <class T, int ACTIVATION>
DEVICE u32 activate(const LinearParams& p, const float* sums, int row, int column) {
    constexpr bool GATED = ACTIVATION == GATED_GELU || ACTIVATION == GATED_SILU;
    // Columns past the last are not stored: any number will do.
    const float* bias = p.bias + min(column, p.columns - (GATED ? 10 : 2));
    float even = sums[0] + bias[0], odd = sums[1] + bias[1];
    if constexpr (ACTIVATION == GELU || ACTIVATION == GATED_GELU) {
        even = gelu(even);
        odd = gelu(odd);
    } else if constexpr (ACTIVATION == GATED_SILU) {
        even = silu(even);
        odd = silu(odd);
    } else if constexpr (ACTIVATION == ROTATE) {
        if (column < p.rotated_columns && row < p.rows) rotate(p, row, column, even, odd);
    }
    if constexpr (GATED) {
        even *= sums[4] + bias[8];
        odd *= sums[5] + bias[9];
    }
    return pack<T>(even, odd);
}

template <class T, int ACTIVATION, int TILES>
DEVICE void store_activated(const LinearParams& p, const float (&sums)[TILES][4], int row, int column) {
    // Tiles that make one: a gate's and its value's.
    constexpr int STEP = ACTIVATION == GATED_GELU || ACTIVATION == GATED_SILU ? 2 : 1;
    int lane = threadIdx.x % 32, quad = lane % 4, width = p.columns / STEP;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int r = row + lane / 4 + half * 8;
#pragma unroll
        for (int tile = 0; tile < TILES; tile += 4 * STEP) {
            u32 pairs[4], whole[4] = {};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int at = tile + i * STEP;
                pairs[i] = activate<T, ACTIVATION>(p, sums[at] + half * 2, r, column + at * 8 + quad * 2);
            }
            // Four lanes hold a pair each of four tiles: they exchange them, so that each has the eight numbers of one
            // tile and stores 16 bytes.
#pragma unroll
            for (int step = 0; step < 4; step++) {
                // In step s, lane q sends the pair of tile q ^ s to lane q ^ s and takes its own tile's from there.
                u32 sent = quad == step         ? pairs[0]
                           : quad == (step ^ 1) ? pairs[1]
                           : quad == (step ^ 2) ? pairs[2]
                                                : pairs[3];
                u32 taken = __shfl_xor_sync(ALL_LANES, sent, step);
                int from = quad ^ step;
                whole[0] = from == 0 ? taken : whole[0];
                whole[1] = from == 1 ? taken : whole[1];
                whole[2] = from == 2 ? taken : whole[2];
                whole[3] = from == 3 ? taken : whole[3];
            }
            int c = (column + tile * 8) / STEP + quad * 8;
            if (r < p.rows && c < width) {
                *(uint4*)((T*)p.out + (size_t)r * width + c) = make_uint4(whole[0], whole[1], whole[2], whole[3]);
            }
        }
    }
}

/// Stores what becomes of a warp's 16 rows of sums, in the layout that `mma` and `wgmma` leave them: `sums[tile][0..2]`
/// are columns 8·tile + 2·(lane mod 4) and the next of row lane/4, `sums[tile][2..4]` those of the row eight below.
///
/// `row` and `column` are those of the warp's first sum. TILES is a multiple of 8. One loop for each activation: a
/// question asked of each sum would keep them from overlapping.
template <class T, int TILES>
DEVICE void store_sums(const LinearParams& p, const float (&sums)[TILES][4], int row, int column) {
    switch (p.activation) {
        case NONE: return store_activated<T, NONE>(p, sums, row, column);
        case GELU: return store_activated<T, GELU>(p, sums, row, column);
        case GATED_GELU: return store_activated<T, GATED_GELU>(p, sums, row, column);
        case GATED_SILU: return store_activated<T, GATED_SILU>(p, sums, row, column);
        default: return store_activated<T, ROTATE>(p, sums, row, column);
    }
}
