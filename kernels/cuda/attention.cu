// Attention over ragged texts, with no padding (after Dao et al., FlashAttention-2): softmax(q k' · scale + bias) v per
// text and head, in one pass over the keys, sums in f32.
//
// A block holds 64 rows of queries and of keys: those of one head where a text is long, of two or four heads of the
// same text where it has at most 32 or 16 tokens. Each of its four warps makes 16 rows of the output. Keys and values
// come in tiles that start where their text starts, so that a text's numbers do not depend on where in the batch it
// lies.
#include "device.h"

struct AttentionParams {
    /// tokens × (queries of all heads, keys of all heads, values of all heads).
    const u16* query_key_value;
    /// A block's work each: first token of the text, its tokens, first query, first head.
    const int4* work;
    /// How many items of work there are.
    const int* work_items;
    /// Added to a score, in units of log2: by the distance of query and key (ALiBi, Press et al. 2022; symmetric), or
    /// from a table over key - query from -(reach - 1) to reach - 1 (relative positions, Raffel et al. 2020), per head.
    /// Either may be null.
    const float* slopes;
    const float* offsets;
    int reach;
    /// tokens × heads × width.
    u16* out;
    int heads;
    /// log2(e) / sqrt(width), or what a model has instead.
    float scale;
};

namespace attention {
constexpr int ROWS = 64;

/// Where chunk `chunk` (of 16 bytes) of a row lies, so that eight rows' chunks meet in no bank.
template <int WIDTH>
DEVICE int place(int row, int chunk) {
    int swizzled = WIDTH == 32 ? chunk ^ (row >> 1 & 3) : chunk ^ (row & 7);
    return row * WIDTH + swizzled * 8;
}

/// Starts copying a tile: SPAN rows of each of ROWS / SPAN heads. `from` is the first row of the first head.
template <int WIDTH, int SPAN>
DEVICE void load(u16* tile, const u16* from, int stride, int rows, int heads) {
    constexpr int CHUNKS = WIDTH / 8;
#pragma unroll
    for (int i = 0; i < ROWS * CHUNKS / 128; i++) {
        int at = threadIdx.x + i * 128, row = at / CHUNKS, chunk = at % CHUNKS;
        bool valid = row % SPAN < rows && row / SPAN < heads;
        size_t offset = valid ? (size_t)(row % SPAN) * stride + row / SPAN * WIDTH + chunk * 8 : 0;
        copy_async(tile + place<WIDTH>(row, chunk), from + offset, valid);
    }
}

template <class T, int WIDTH, int SPAN>
DEVICE void attend(const AttentionParams& p, int4 work) {
    DYNAMIC_SHARED(shared);
    constexpr int TILE = ROWS * WIDTH;
    u16 *queries = (u16*)shared, *keys = queries + TILE, *values = keys + 2 * TILE;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int first_token = work.x, length = work.y, first_query = work.z, first_head = work.w;
    int own_head = warp / (SPAN / 16), own_row = own_head * SPAN, row_in_head = warp % (SPAN / 16) * 16;
    int head = first_head + own_head, heads = min(ROWS / SPAN, p.heads - first_head);
    int width = p.heads * WIDTH, stride = 3 * width;
    const u16* q = p.query_key_value + (size_t)first_token * stride + first_head * WIDTH;
    const u16 *k = q + width, *v = k + width;

    load<WIDTH, SPAN>(queries, q + (size_t)first_query * stride, stride, length - first_query, heads);
    load<WIDTH, SPAN>(keys, k, stride, length, heads);
    copy_commit();
    load<WIDTH, SPAN>(values, v, stride, length, heads);
    copy_commit();
    copy_wait<1>();
    __syncthreads();
    u32 own_queries[WIDTH / 16][4];
#pragma unroll
    for (int i = 0; i < WIDTH / 16; i++) {
        int row = own_row + row_in_head + lane % 16;
        ldmatrix(own_queries[i], queries + place<WIDTH>(row, 2 * i + lane / 16));
    }
    float out[WIDTH / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, total[2] = {};
    bool real = own_head < heads;
    float slope = p.slopes && real ? p.slopes[head] : 0.f;
    const float* offsets = p.offsets && real ? p.offsets + (size_t)head * (2 * p.reach - 1) + p.reach - 1 : nullptr;
    int tiles = (length + SPAN - 1) / SPAN;
    for (int tile = 0; tile < tiles; tile++) {
        int first_key = tile * SPAN, here = tile % 2 * TILE, there = TILE - here, left = length - first_key - SPAN;
        if (tile) {
            copy_wait<1>();
            __syncthreads();
        }
        float scores[SPAN / 8][4] = {};
#pragma unroll
        for (int i = 0; i < WIDTH / 16; i++) {
#pragma unroll
            for (int j = 0; j < SPAN / 16; j++) {
                u32 b[4];
                int row = own_row + j * 16 + lane / 16 * 8 + lane % 8;
                ldmatrix(b, keys + here + place<WIDTH>(row, 2 * i + lane / 8 % 2));
                mma<T>(scores[2 * j], own_queries[i], b);
                mma<T>(scores[2 * j + 1], own_queries[i], b + 2);
            }
        }
        // The other half of the ring was read in the step before, by warps that have all passed the barrier since.
        if (left > 0) load<WIDTH, SPAN>(keys + there, k + (size_t)(first_key + SPAN) * stride, stride, left, heads);
        copy_commit();
        int query = first_query + row_in_head + lane / 4, key = first_key + lane % 4 * 2;
        // How far apart this lane's first key and query are: from there on, sums of small integers are exact in f32.
        float apart = (float)(key - query);
#pragma unroll
        for (int i = 0; i < SPAN / 8; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int down = (j >> 1) * 8, right = i * 8 + (j & 1);
                float score = fmaf(scores[i][j], p.scale, -slope * fabsf(apart + (float)(right - down)));
                bool inside = key + right < length;
                if (offsets && inside && query + down < length) score += offsets[key + right - query - down];
                scores[i][j] = inside ? score : -INFINITY;
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = largest[half];
#pragma unroll
            for (int i = 0; i < SPAN / 8; i++) most = fmaxf(most, fmaxf(scores[i][2 * half], scores[i][2 * half + 1]));
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 2));
            float shrink = exp2_approximate(largest[half] - most), sum = 0.f;
            largest[half] = most;
#pragma unroll
            for (int i = 0; i < SPAN / 8; i++) {
#pragma unroll
                for (int j = 2 * half; j < 2 * half + 2; j++) {
                    scores[i][j] = exp2_approximate(scores[i][j] - most);
                    sum += scores[i][j];
                }
            }
            total[half] = fmaf(total[half], shrink, sum);
#pragma unroll
            for (int i = 0; i < WIDTH / 8; i++) {
                out[i][2 * half] *= shrink;
                out[i][2 * half + 1] *= shrink;
            }
        }
        copy_wait<1>();
        __syncthreads();
#pragma unroll
        for (int i = 0; i < SPAN / 16; i++) {
            // Two tiles of scores, as `mma` leaves them, are one operand as it wants it.
            u32 weights[4] = {pack<T>(scores[2 * i][0], scores[2 * i][1]), pack<T>(scores[2 * i][2], scores[2 * i][3]),
                              pack<T>(scores[2 * i + 1][0], scores[2 * i + 1][1]),
                              pack<T>(scores[2 * i + 1][2], scores[2 * i + 1][3])};
#pragma unroll
            for (int j = 0; j < WIDTH / 16; j++) {
                u32 b[4];
                int row = own_row + i * 16 + lane / 8 % 2 * 8 + lane % 8;
                ldmatrix_transposed(b, values + here + place<WIDTH>(row, 2 * j + lane / 16));
                mma<T>(out[2 * j], weights, b);
                mma<T>(out[2 * j + 1], weights, b + 2);
            }
        }
        if (left > 0) load<WIDTH, SPAN>(values + there, v + (size_t)(first_key + SPAN) * stride, stride, left, heads);
        copy_commit();
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = total[half];
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        sum += __shfl_xor_sync(ALL_LANES, sum, 2);
        float inverse = 1.f / sum;
        int query = first_query + row_in_head + lane / 4 + half * 8;
        if (query >= length || !real) continue;
        u16* row = p.out + (size_t)(first_token + query) * width + head * WIDTH + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < WIDTH / 8; i++) {
            *(u32*)(row + i * 8) = pack<T>(out[i][2 * half] * inverse, out[i][2 * half + 1] * inverse);
        }
    }
}

template <class T, int WIDTH>
DEVICE void run(const AttentionParams& p) {
    int items = *p.work_items;
    for (int item = blockIdx.x; item < items; item += gridDim.x) {
        int4 work = p.work[item];
        if (work.y <= 16) {
            attend<T, WIDTH, 16>(p, work);
        } else if (work.y <= 32) {
            attend<T, WIDTH, 32>(p, work);
        } else {
            attend<T, WIDTH, 64>(p, work);
        }
        // All warps have read the last tiles before the next item's come.
        __syncthreads();
    }
}
}  // namespace attention

/// Any number of blocks, each taking items of work in turn, of 128 threads; 5 · 64 · width halves of shared memory.
#define ATTENTION(name, T, WIDTH, BLOCKS)                                                           \
    KERNEL(__launch_bounds__(128, BLOCKS) name)(AttentionParams p) { attention::run<T, WIDTH>(p); } \
    REGISTER(name)
ATTENTION(attention_32_f16, Float16, 32, 3)
ATTENTION(attention_64_f16, Float16, 64, 2)
ATTENTION(attention_32_bf16, BFloat16, 32, 3)
ATTENTION(attention_64_bf16, BFloat16, 64, 2)
