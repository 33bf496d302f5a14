// Embeddings of any origin: scaled to length 1, their ranges, their codes. See codes.h.
#include "codes.h"

namespace quantize {
/// Orders floats as unsigned integers.
DEVICE u32 ordered(float x) {
    u32 bits = __float_as_uint(x);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
}  // namespace quantize

/// Scales each row to length 1. Half a warp a row; blocks of 128 threads.
KERNEL(__launch_bounds__(128) unit_rows)(const float* x, float* out, int rows, int dimensions) {
    int row = blockIdx.x * 8 + threadIdx.x / 16;
    size_t at = (size_t)min(row, rows - 1) * dimensions;
    float length = row_length(x + at, dimensions);
    if (row >= rows) return;
    for (int i = threadIdx.x % 16; i < dimensions; i += 16) out[at + i] = __fdiv_rn(x[at + i], length);
}

/// Widens the range of each dimension, as ordered integers, and the largest magnitude of all, as bits: NaN and infinity
/// are the largest. Blocks of 128 threads: columns times as many as share the rows.
KERNEL(__launch_bounds__(128) ranges)(const float* x, int rows, int dimensions, u32* lowest, u32* highest,
                                      u32* magnitude) {
    int column = blockIdx.x * 128 + threadIdx.x;
    u32 low = 0xffffffffu, high = 0, most = 0;
    if (column < dimensions) {
        for (int row = blockIdx.y; row < rows; row += gridDim.y) {
            float value = x[(size_t)row * dimensions + column];
            low = min(low, quantize::ordered(value));
            high = max(high, quantize::ordered(value));
            most = max(most, __float_as_uint(value) & 0x7fffffffu);
        }
        atomicMin(lowest + column, low);
        atomicMax(highest + column, high);
    }
    most = __reduce_max_sync(ALL_LANES, most);
    if (threadIdx.x % 32 == 0) atomicMax(magnitude, most);
}

/// Writes the codes of each row. A warp a row; blocks of 128 threads.
KERNEL(__launch_bounds__(128) codes)(const float* x, int rows, int dimensions, CodeParams p) {
    int row = blockIdx.x * 4 + threadIdx.x / 32;
    if (row < rows) write_codes(p, x + (size_t)row * dimensions, row, dimensions, 0, 1);
}
REGISTER(unit_rows)
REGISTER(ranges)
REGISTER(codes)
