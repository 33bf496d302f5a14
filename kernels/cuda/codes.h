// Codes of embeddings by the formulas of src/quantize.rs and src/search_codes.rs, and rows scaled to length 1 by that
// of src/norm.rs: the same bits as there.
#pragma once
#include "device.h"

enum Code : int {
    NO_CODE = 0,
    /// Storage codes: rounded down and clipped; int8 is uint8 less 128.
    UINT8 = 1,
    INT8 = 2,
    /// As sentence-transformers up to 5.6 made them: truncated and wrapped around.
    UINT8_LEGACY = 3,
    INT8_LEGACY = 4,
    /// A bit per number, set where it is above 0, the first in the highest bit; binary is ubinary less 128.
    UBINARY = 5,
    BINARY = 6,
    /// The nearest integer of the number times a scale, clipped to ±127.
    SEARCH = 7,
};

struct CodeParams {
    int code;
    /// For SEARCH.
    float scale;
    /// Per dimension, for the storage codes: the lowest value, and the step to divide by.
    const float* lowest;
    const float* step;
    /// Rows of `stride` bytes: one per dimension, or ⌈dimensions / 8⌉ where a number is a bit, and what pads them.
    u8* out;
    int stride;
};

DEVICE int truncate(float x, float low, float high) { return (int)fminf(fmaxf(x, low), high); }

/// The code of one number; not for bits.
DEVICE u8 byte_code(const CodeParams& p, float x, int dimension) {
    if (p.code == SEARCH) {
        float clipped = fminf(fmaxf(x * p.scale, -127.f), 127.f);
        // Added to 1.5 · 2^23, a number is rounded to the nearest integer, which then is the sum's low bits.
        return (u8)__float_as_uint(clipped + 12582912.f);
    }
    float steps = __fdiv_rn(x - p.lowest[dimension], p.step[dimension]);
    switch (p.code) {
        case UINT8: return (u8)truncate(steps, 0.f, 255.f);
        case INT8: return (u8)truncate(steps, 0.f, 255.f) ^ 0x80;
        case UINT8_LEGACY: return (u8)truncate(steps, -2147483648.f, 2147483520.f);
        default: return (u8)truncate(steps - 128.f, -2147483648.f, 2147483520.f);
    }
}

/// Writes the codes of a row; all threads of whole warps come here together, warp `warp` of `warps`.
DEVICE void write_codes(const CodeParams& p, const float* row, size_t index, int dimensions, int warp, int warps) {
    int lane = threadIdx.x % 32;
    if (p.code == NO_CODE) return;
    bool bits = p.code == UBINARY || p.code == BINARY;
    u8* out = p.out + index * p.stride;
    for (int first = warp * 32; first < dimensions; first += warps * 32) {
        int at = first + lane;
        float x = at < dimensions ? row[at] : 0.f;
        if (bits) {
            u32 positive = __brev(__ballot_sync(ALL_LANES, x > 0.f));
            int byte = first / 8 + lane;
            if (lane < 4 && byte < (dimensions + 7) / 8) {
                out[byte] = (u8)(positive >> (24 - 8 * lane)) ^ (p.code == BINARY ? 0x80 : 0);
            }
        } else if (at < dimensions) {
            out[at] = byte_code(p, x, at);
        }
    }
}

/// The length of a row as norm.rs sums it: number i goes to lane i mod 16, the lanes are joined in a tree. Each half of
/// a warp may have its own row; all lanes come here.
DEVICE float row_length(const float* row, int dimensions) {
    float sum = 0.f;
    for (int i = threadIdx.x % 16; i < dimensions; i += 16) sum = fmaf(row[i], row[i], sum);
#pragma unroll
    for (int lanes = 8; lanes; lanes >>= 1) sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
    return fmaxf(__fsqrt_rn(sum), 1e-12f);
}
