// Rows of halves in Float8, with a scale for each (sm_90a).
//
// scale = m / 448, where m is the row's largest magnitude; code = x · (448 / m), rounded to nearest even: a row's codes
// depend on that row alone. A row of zeros has codes and scale 0. Numbers that are not finite become NaN, and so does
// what is multiplied with them. Equal to src/gpu/float8.rs bit for bit.
//
// Bound by memory: 2 bytes of a number are read, the second time from a cache, and 1 is written.
#include "device.h"

#if defined(EMULATOR) || __CUDA_ARCH_FEAT_SM90_ALL
namespace float8 {
DEVICE void read(const Float16* from, float (&x)[8]) {
    uint4 bits = *(const uint4*)from;
    u32 pairs[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = low_half<Float16>(pairs[i]);
        x[2 * i + 1] = high_half<Float16>(pairs[i]);
    }
}
}  // namespace float8

/// A warp a row; blocks of 128 threads. Columns are a multiple of 8.
KERNEL(__launch_bounds__(128) float8_rows)(const Float16* x, int rows, int columns, u8* codes, float* scales) {
    int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= rows) return;
    x += (size_t)row * columns;
    codes += (size_t)row * columns;
    float numbers[8], largest = 0.f;
    for (int at = lane * 8; at < columns; at += 256) {
        float8::read(x + at, numbers);
#pragma unroll
        for (int i = 0; i < 8; i++) largest = fmaxf(largest, fabsf(numbers[i]));
    }
    // Magnitudes are in the order of their bits.
    largest = __uint_as_float(__reduce_max_sync(ALL_LANES, __float_as_uint(largest)));
    float factor = largest > 0.f ? __fdiv_rn(448.f, largest) : 0.f;
    for (int at = lane * 8; at < columns; at += 256) {
        float8::read(x + at, numbers);
#pragma unroll
        for (int i = 0; i < 8; i++) numbers[i] *= factor;
        *(uint2*)(codes + at) = make_uint2(pack_float8(numbers[0], numbers[1], numbers[2], numbers[3]),
                                           pack_float8(numbers[4], numbers[5], numbers[6], numbers[7]));
    }
    if (lane == 0) scales[row] = __fdiv_rn(largest, 448.f);
}
REGISTER(float8_rows)
#endif
