// Layer norm (Ba et al. 2016): of a token's embeddings, and of a layer's output plus what went in.
//
// One warp a row; the row stays in registers, 16 bytes of halves a lane and chunk, statistics in f32 in two passes.
#include "device.h"

struct NormParams {
    const float* scale;
    const float* shift;
    float epsilon;
};

namespace layer_norm {

/// A lane's part of a row: CHUNKS times eight numbers, chunk c of lane l being numbers 8·(32·c + l) and on.
template <class T, int CHUNKS>
DEVICE void store_normalised(float (&x)[CHUNKS][8], T* out, int width, const NormParams& p) {
    int lane = threadIdx.x % 32;
    float sum = 0.f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
        for (int i = 0; i < 8; i++) sum += x[c][i];
    }
    float mean = warp_sum(sum) / width, squares = 0.f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        if ((c * 32 + lane) * 8 >= width) continue;
#pragma unroll
        for (int i = 0; i < 8; i++) squares = fmaf(x[c][i] - mean, x[c][i] - mean, squares);
    }
    float scale = 1.f / sqrtf(warp_sum(squares) / width + p.epsilon);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int at = (c * 32 + lane) * 8;
        if (at >= width) continue;
        u32 pairs[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 gamma = *(const float2*)(p.scale + at + 2 * i), beta = *(const float2*)(p.shift + at + 2 * i);
            pairs[i] = pack<T>(fmaf((x[c][2 * i] - mean) * scale, gamma.x, beta.x),
                               fmaf((x[c][2 * i + 1] - mean) * scale, gamma.y, beta.y));
        }
        *(uint4*)(out + at) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }
}

/// Adds eight halves to a chunk.
template <class T>
DEVICE void add(float (&x)[8], const T* from) {
    uint4 bits = *(const uint4*)from;
    u32 pairs[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] += low_half<T>(pairs[i]);
        x[2 * i + 1] += high_half<T>(pairs[i]);
    }
}

/// The sum of two rows, normalised into `out`, which may be one of them.
template <class T, int CHUNKS>
DEVICE void add_rows(const T* a, const T* b, T* out, int width, const NormParams& p) {
    float x[CHUNKS][8] = {};
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int at = (c * 32 + threadIdx.x % 32) * 8;
        if (at >= width) continue;
        add(x[c], a + at);
        add(x[c], b + at);
    }
    store_normalised<T, CHUNKS>(x, out, width, p);
}

template <class T>
DEVICE void add_any(const T* a, const T* b, T* out, int width, const NormParams& p) {
    if (width <= 256) {
        add_rows<T, 1>(a, b, out, width, p);
    } else if (width <= 512) {
        add_rows<T, 2>(a, b, out, width, p);
    } else if (width <= 768) {
        add_rows<T, 3>(a, b, out, width, p);
    } else {
        add_rows<T, 4>(a, b, out, width, p);
    }
}

template <class T>
DEVICE void embed(const int* ids, const int* positions, const T* words, const T* places, T* out, int tokens, int width,
                  const NormParams& p) {
    int token = blockIdx.x * 4 + threadIdx.x / 32;
    if (token >= tokens) return;
    const T *word = words + (size_t)ids[token] * width, *place = places + (size_t)positions[token] * width;
    add_any<T>(word, place, out + (size_t)token * width, width, p);
}

template <class T>
DEVICE void add_norm(const T* x, const T* residual, T* out, int tokens, int width, const NormParams& p) {
    int token = blockIdx.x * 4 + threadIdx.x / 32;
    if (token >= tokens) return;
    size_t at = (size_t)token * width;
    add_any<T>(x + at, residual + at, out + at, width, p);
}
}  // namespace layer_norm

/// Blocks: a quarter of the tokens, of 128 threads. Rows of up to 1,024 numbers, a multiple of 8.
#define NORM(suffix, T)                                                                                    \
    KERNEL(__launch_bounds__(128) embed_norm_##suffix)                                                     \
    (const int* ids, const int* positions, const T* words, const T* places, T* out, int tokens, int width, \
     NormParams p) {                                                                                       \
        layer_norm::embed<T>(ids, positions, words, places, out, tokens, width, p);                        \
    }                                                                                                      \
    KERNEL(__launch_bounds__(128) add_norm_##suffix)                                                       \
    (const T* x, const T* residual, T* out, int tokens, int width, NormParams p) {                         \
        layer_norm::add_norm<T>(x, residual, out, tokens, width, p);                                       \
    }                                                                                                      \
    REGISTER(embed_norm_##suffix)                                                                          \
    REGISTER(add_norm_##suffix)
NORM(f16, Float16)
NORM(bf16, BFloat16)
