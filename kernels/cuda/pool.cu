// From the token vectors of a text to its embedding, and on to its codes, in one pass: only these leave the device.
//
// Pooling as src/pool.rs; then, where wanted, scaled to length 1, cut to fewer dimensions and scaled again, as
// sentence-transformers does; then stored as f32, as codes, or both. One block a text.
#include "codes.h"

enum Pooling : int { CLS = 0, MEAN = 1, MAX = 2, MEAN_SQRT_LEN = 3, WEIGHTED_MEAN = 4, LAST_TOKEN = 5 };

struct PoolParams {
    /// tokens × width halves.
    const void* tokens;
    /// texts + 1.
    const int* offsets;
    /// How many texts there are.
    const int* texts;
    int width, pooling;
    /// Tokens at the start of a text that are left out.
    int skipped;
    int normalise, dimensions;
    /// texts × dimensions, or null.
    float* vectors;
    CodeParams codes;
};

namespace pooling {
template <class T>
DEVICE void pool(const PoolParams& p) {
    DYNAMIC_SHARED(shared);
    float* partial = (float*)shared;
    int text = blockIdx.x;
    if (text >= *p.texts) return;
    int end = p.offsets[text + 1], first = min(p.offsets[text] + p.skipped, end), n = end - first;
    // Groups of threads take tokens in turn; within one, each thread has eight columns.
    int columns = p.width / 8, groups = blockDim.x / columns, group = threadIdx.x / columns;
    int column = threadIdx.x % columns * 8;
    bool largest = p.pooling == MAX, one = p.pooling == CLS || p.pooling == LAST_TOKEN;
    int from = p.pooling == LAST_TOKEN && n > 0 ? n - 1 : 0, to = one ? min(from + 1, n) : n;
    if (group < groups) {
        float sums[8];
#pragma unroll
        for (int i = 0; i < 8; i++) sums[i] = largest ? -INFINITY : 0.f;
        for (int t = from + group; t < to; t += groups) {
            uint4 bits = *(const uint4*)((const T*)p.tokens + (size_t)(first + t) * p.width + column);
            u32 pairs[4] = {bits.x, bits.y, bits.z, bits.w};
            float weight = p.pooling == WEIGHTED_MEAN ? t + 1.f : 1.f;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                float x = i % 2 ? high_half<T>(pairs[i / 2]) : low_half<T>(pairs[i / 2]);
                sums[i] = largest ? fmaxf(sums[i], x) : fmaf(x, weight, sums[i]);
            }
        }
#pragma unroll
        for (int i = 0; i < 8; i++) partial[group * p.width + column + i] = sums[i];
    }
    __syncthreads();
    float divisor = p.pooling == MEAN            ? n
                    : p.pooling == MEAN_SQRT_LEN ? sqrtf((float)n)
                    : p.pooling == WEIGHTED_MEAN ? (float)((long long)n * (n + 1) / 2)
                                                 : 1.f;
    float* vector = partial + groups * p.width;
    for (int i = threadIdx.x; i < p.width; i += blockDim.x) {
        float sum = partial[i];
        for (int g = 1; g < groups; g++) {
            sum = largest ? fmaxf(sum, partial[g * p.width + i]) : sum + partial[g * p.width + i];
        }
        vector[i] = n > 0 ? __fdiv_rn(sum, divisor) : 0.f;
    }
    __syncthreads();
    if (p.normalise) {
        // Every half of a warp sums the whole row: that is shorter than one doing so and telling the others.
        float length = row_length(vector, p.width);
        __syncthreads();
        for (int i = threadIdx.x; i < p.width; i += blockDim.x) vector[i] = __fdiv_rn(vector[i], length);
        __syncthreads();
        if (p.dimensions < p.width) {
            length = row_length(vector, p.dimensions);
            __syncthreads();
            for (int i = threadIdx.x; i < p.dimensions; i += blockDim.x) vector[i] = __fdiv_rn(vector[i], length);
            __syncthreads();
        }
    }
    if (p.vectors) {
        for (int i = threadIdx.x; i < p.dimensions; i += blockDim.x) {
            p.vectors[(size_t)text * p.dimensions + i] = vector[i];
        }
    }
    write_codes(p.codes, vector, text, p.dimensions, threadIdx.x / 32, blockDim.x / 32);
}
}  // namespace pooling

/// Blocks: at least the texts, of a multiple of 32 threads, at least width / 8; (threads / (width / 8) + 1) · width
/// floats of shared memory.
KERNEL(__launch_bounds__(256) pool_f16)(PoolParams p) { pooling::pool<Float16>(p); }
KERNEL(__launch_bounds__(256) pool_bf16)(PoolParams p) { pooling::pool<BFloat16>(p); }
REGISTER(pool_f16)
REGISTER(pool_bf16)
