// k-means: each point's nearest centroids, sums of clusters, distances to candidates for a seed. Formulas and order of
// sums as src/kmeans.rs, to the bit: products in f32, one chain of fused multiply-adds over the dimensions each; sums
// of points and of distances in f64. Points n × stride, centroids k × stride, both f32, stride a multiple of 4.
//
// Products of points and centroids: a block computes 128 points × 128 centroids (or 8 to 32 candidates), 16 dimensions
// at a time in shared memory, two such parts in turn: one is copied while the other is multiplied. A thread has 8 × 8
// (or 4 × 1 to 4 × 4) sums in registers. Rows in shared memory are 20 floats apart, so that eight neighbouring rows' 16
// bytes lie in different banks.
//
// Cost: 2 · n · k · d operations an iteration, bound by f32 arithmetic; a seed reads all points, and is bound by
// memory.
#include "device.h"

struct PointsParams {
    /// points × stride, zeros past the dimensions; stride is a multiple of 4.
    const float* points;
    u32 count, stride;
};

struct NearestParams {
    PointsParams points;
    /// clusters × stride.
    const float* centroids;
    /// Half the squared length of each.
    const float* halves;
    /// Of each point.
    u32* nearest;
    u32* second;
    u32 clusters, padding;
};

struct ConsiderParams {
    PointsParams points;
    const float* squared_lengths;
    /// Rows of `points`.
    const u32* candidates;
    /// What the last call wrote, or null before the first seed; how many candidates it had, and which was chosen.
    const float* before;
    u32 before_count, chosen;
    /// blocks × candidates × 128 points.
    float* considered;
    /// blocks × candidates.
    double* sums;
    u32 count, padding;
};

struct SumsParams {
    PointsParams points;
    const u32* order;
    /// Where each segment begins in `order`, then the end of the last.
    const u32* segments;
    /// Where each cluster's segments begin, then the end of the last one's.
    const u32* clusters;
    /// segments × dims.
    double* partial;
    /// clusters × dims.
    double* sums;
    u32 dims, padding;
};

namespace kmeans {

/// Points of a block, dimensions of a part, and how far apart rows lie in shared memory.
constexpr u32 BLOCK = 128, DEPTH = 16, PITCH = DEPTH + 4;
constexpr u32 NONE = 0xffffffffu;

/// Copies a part of some rows to shared memory; zeros for what is past the last row or dimension.
template <u32 ROWS, class Source>
DEVICE void load(float* to, u32 rows, u32 stride, u32 depth, Source source) {
    for (u32 i = threadIdx.x; i < ROWS * DEPTH / 4; i += blockDim.x) {
        u32 row = i / (DEPTH / 4), at = i % (DEPTH / 4) * 4;
        bool inside = row < rows && depth + at < stride;
        copy_async(to + row * PITCH + at, inside ? source(row) + depth + at : source(0), inside);
    }
}

/// The products of a thread's points and columns. Of the block's points these are those from `first_point` on, four
/// apart, and of its columns those from `first_column` on, eight apart.
template <u32 COLUMNS, int M, int N, class Source>
DEVICE void multiply(float (&sums)[M][N], float* shared, const PointsParams& p, u32 from, u32 first_point,
                     u32 first_column, u32 columns, Source column) {
    constexpr u32 PART = (BLOCK + COLUMNS) * PITCH;
    u32 rows = min(p.count - from, BLOCK);
    auto point = [&](u32 row) { return p.points + (size_t)(from + row) * p.stride; };
    auto fetch = [&](u32 part) {
        float* to = shared + part % 2 * PART;
        load<BLOCK>(to, rows, p.stride, part * DEPTH, point);
        load<COLUMNS>(to + BLOCK * PITCH, columns, p.stride, part * DEPTH, column);
        copy_commit();
    };
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < N; j++) sums[i][j] = 0.f;
    u32 parts = (p.stride + DEPTH - 1) / DEPTH;
    fetch(0);
    for (u32 part = 0; part < parts; part++) {
        if (part + 1 < parts) {
            fetch(part + 1);
            copy_wait<1>();
        } else {
            copy_wait<0>();
        }
        __syncthreads();
        const float* x = shared + part % 2 * PART + first_point * PITCH;
        const float* c = shared + part % 2 * PART + (BLOCK + first_column) * PITCH;
#pragma unroll
        for (u32 depth = 0; depth < DEPTH; depth += 4) {
            float4 points[M];
#pragma unroll
            for (int i = 0; i < M; i++) points[i] = *(const float4*)(x + i * 4 * PITCH + depth);
#pragma unroll
            for (int j = 0; j < N; j++) {
                float4 column = *(const float4*)(c + j * 8 * PITCH + depth);
#pragma unroll
                for (int i = 0; i < M; i++) {
                    sums[i][j] = fmaf(points[i].x, column.x, sums[i][j]);
                    sums[i][j] = fmaf(points[i].y, column.y, sums[i][j]);
                    sums[i][j] = fmaf(points[i].z, column.z, sums[i][j]);
                    sums[i][j] = fmaf(points[i].w, column.w, sums[i][j]);
                }
            }
        }
        // All have read this part before the one after the next takes its place.
        __syncthreads();
    }
}

struct Entry {
    float score;
    u32 centroid;

    DEVICE bool ahead_of(const Entry& other) const {
        return score > other.score || (score == other.score && centroid < other.centroid);
    }
};

/// The best two of what a thread, a warp or a block has seen.
struct Race {
    Entry best, second;

    DEVICE void join(const Race& other) {
        bool lost = other.best.ahead_of(best);
        Entry beaten = lost ? best : other.best, next = lost ? other.second : second;
        if (lost) best = other.best;
        second = beaten.ahead_of(next) ? beaten : next;
    }
};

DEVICE Race exchanged(const Race& race, int lanes) {
    return {{__shfl_xor_sync(ALL_LANES, race.best.score, lanes), __shfl_xor_sync(ALL_LANES, race.best.centroid, lanes)},
            {__shfl_xor_sync(ALL_LANES, race.second.score, lanes),
             __shfl_xor_sync(ALL_LANES, race.second.centroid, lanes)}};
}

/// Grid: blocks of points; 256 threads: four warps for the points, two for the centroids.
template <bool SECOND>
DEVICE void nearest(const NearestParams& p) {
    constexpr int M = 8, N = 8;
    constexpr u32 COLUMNS = 128;
    DYNAMIC_SHARED(bytes);
    float* shared = (float*)bytes;
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, from = blockIdx.x * BLOCK;
    u32 first_point = warp % 4 * 32 + lane / 8, first_column = warp / 4 * 64 + lane % 8;
    Race races[M];
#pragma unroll
    for (int i = 0; i < M; i++) races[i] = {{-INFINITY, NONE}, {-INFINITY, NONE}};
    for (u32 tile = 0; tile < p.clusters; tile += COLUMNS) {
        float sums[M][N];
        auto centroid = [&](u32 row) { return p.centroids + (size_t)(tile + row) * p.points.stride; };
        multiply<COLUMNS>(sums, shared, p.points, from, first_point, first_column, min(p.clusters - tile, COLUMNS),
                          centroid);
#pragma unroll
        for (int j = 0; j < N; j++) {
            u32 column = tile + first_column + j * 8;
            if (column >= p.clusters) break;
            float half = p.halves[column];
#pragma unroll
            for (int i = 0; i < M; i++) {
                // Columns rise: of equal scores the earlier stays ahead.
                float score = sums[i][j] - half;
                bool wins = score > races[i].best.score, places = score > races[i].second.score;
                if (wins) {
                    if (SECOND) races[i].second = races[i].best;
                    races[i].best = {score, column};
                } else if (SECOND && places) {
                    races[i].second = {score, column};
                }
            }
        }
    }
    // The lanes of a row, then the two warps of it.
    Race* joined = (Race*)shared;
#pragma unroll
    for (int i = 0; i < M; i++) {
#pragma unroll
        for (int lanes = 4; lanes; lanes >>= 1) races[i].join(exchanged(races[i], lanes));
        if (lane % 8 == 0 && warp >= 4) joined[first_point + i * 4] = races[i];
    }
    __syncthreads();
    if (lane % 8 == 0 && warp < 4) {
#pragma unroll
        for (int i = 0; i < M; i++) {
            u32 point = first_point + i * 4;
            races[i].join(joined[point]);
            if (from + point < p.points.count) {
                p.nearest[from + point] = races[i].best.centroid;
                if (SECOND) p.second[from + point] = races[i].second.centroid;
            }
        }
    }
}
/// Grid: blocks of points; 256 threads, of which each warp has 16 points; N candidates a thread.
template <int N>
DEVICE void consider(const ConsiderParams& p) {
    constexpr int M = 4;
    constexpr u32 COLUMNS = 8 * N;
    DYNAMIC_SHARED(bytes);
    float* shared = (float*)bytes;
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, from = blockIdx.x * BLOCK;
    u32 first_point = warp * 16 + lane / 8, first_column = lane % 8;
    float sums[M][N];
    auto candidate = [&](u32 row) { return p.points.points + (size_t)p.candidates[row] * p.points.stride; };
    multiply<COLUMNS>(sums, shared, p.points, from, first_point, first_column, p.count, candidate);
    const float* before = p.before ? p.before + ((size_t)blockIdx.x * p.before_count + p.chosen) * BLOCK : nullptr;
    float* considered = p.considered + (size_t)blockIdx.x * p.count * BLOCK;
    // Of each candidate its points, one number more than there are: quarters of one begin in different banks.
    constexpr u32 ROW = BLOCK + 1;
#pragma unroll
    for (int i = 0; i < M; i++) {
        u32 point = first_point + i * 4;
        bool inside = from + point < p.points.count;
#pragma unroll
        for (int j = 0; j < N; j++) {
            u32 c = first_column + j * 8;
            if (c >= p.count) break;
            float near = 0.f;
            if (inside) {
                float lengths = p.squared_lengths[from + point] + p.squared_lengths[p.candidates[c]];
                float squared = lengths - 2.f * sums[i][j];
                near = min(max(squared, 0.f), before ? before[point] : INFINITY);
            }
            shared[c * ROW + point] = near;
        }
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < p.count * BLOCK; i += blockDim.x) considered[i] = shared[i / BLOCK * ROW + i % BLOCK];
    // Four threads a candidate: a quarter each, then together.
    u32 c = threadIdx.x / 4, quarter = threadIdx.x % 4;
    double sum = 0.;
    if (c < p.count) {
        for (u32 i = 0; i < BLOCK / 4; i++) sum += shared[c * ROW + quarter * (BLOCK / 4) + i];
    }
    sum += __shfl_xor_sync(ALL_LANES, sum, 1);
    sum += __shfl_xor_sync(ALL_LANES, sum, 2);
    if (c < p.count && quarter == 0) p.sums[(size_t)blockIdx.x * p.count + c] = sum;
}

}  // namespace kmeans

#define KMEANS(name, Params, body)                                     \
    KERNEL(__launch_bounds__(256) name)(Params p) { kmeans::body(p); } \
    REGISTER(name)
KMEANS(kmeans_nearest, NearestParams, nearest<false>)
KMEANS(kmeans_nearest_two, NearestParams, nearest<true>)
KMEANS(kmeans_consider_8, ConsiderParams, consider<1>)
KMEANS(kmeans_consider_16, ConsiderParams, consider<2>)
KMEANS(kmeans_consider_32, ConsiderParams, consider<4>)

/// Grid: segments; a thread a dimension.
KERNEL(__launch_bounds__(128) kmeans_segments)(SumsParams p) {
    u32 first = p.segments[blockIdx.x], end = p.segments[blockIdx.x + 1];
    for (u32 d = threadIdx.x; d < p.dims; d += blockDim.x) {
        double sum = 0.;
#pragma unroll 8
        for (u32 i = first; i < end; i++) sum += p.points.points[(size_t)p.order[i] * p.points.stride + d];
        p.partial[(size_t)blockIdx.x * p.dims + d] = sum;
    }
}
REGISTER(kmeans_segments)

/// Grid: clusters; a thread a dimension.
KERNEL(__launch_bounds__(128) kmeans_clusters)(SumsParams p) {
    u32 first = p.clusters[blockIdx.x], end = p.clusters[blockIdx.x + 1];
    for (u32 d = threadIdx.x; d < p.dims; d += blockDim.x) {
        double sum = 0.;
#pragma unroll 8
        for (u32 i = first; i < end; i++) sum += p.partial[(size_t)i * p.dims + d];
        p.sums[(size_t)blockIdx.x * p.dims + d] = sum;
    }
}
REGISTER(kmeans_clusters)
