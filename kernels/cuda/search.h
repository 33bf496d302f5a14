// Exact nearest rows by dot products: what the searches on tensor cores (search_mma.cu, search_wgmma.cu) share.
//
// A block compares 128 queries with its share of the points, tile by tile, and never stores a product that cannot be
// among a query's k best: a warp compares its 16 rows of products with the rows' limits (the k-th best so far) and puts
// those above into a short pending list of their row; when one is half full, it is sorted and merged into the row's
// list of the k best.
//
// A product and its point are one key, larger is nearer: the product, ordered, above the point's number, inverted, so
// that of equal products the smaller point wins. Points come in rising order, so a product that only equals a limit
// comes too late, and comparing products alone is exact. Nothing depends on the order of threads, blocks or splits.
#pragma once
#include "device.h"

struct SearchParams {
    int queries, points;
    /// Bytes of a row, a multiple of 16.
    int bytes;
    /// The number of the first point, where points come in parts.
    int first_point;
    int k;
    /// Whether a row's best lie in shared memory.
    int near;
    /// Whether the queries stay in shared memory, where a kernel can do both.
    int resident, padding;
    /// splits × queries × k keys, best first, and how many of them there are: 0 before the first part.
    u64* best;
    int* counts;
};

namespace search {
constexpr int QUERIES = 128, PENDING = 64;

/// Signed bytes, multiplied and summed exactly.
struct Signed8 {
    static constexpr int BYTES = 1;
    using Sum = int;
    static DEVICE Sum least() { return -2147483647 - 1; }
    static DEVICE Sum most() { return 2147483647; }
    static DEVICE u32 ordered(Sum sum) { return (u32)sum ^ 0x80000000u; }
    static DEVICE Sum product(u64 key) { return (int)((u32)(key >> 32) ^ 0x80000000u); }
};

/// Halves, summed in f32 in one fixed order.
struct Halves {
    static constexpr int BYTES = 2;
    using Sum = float;
    static DEVICE Sum least() { return -INFINITY; }
    static DEVICE Sum most() { return INFINITY; }
    static DEVICE u32 ordered(Sum sum) {
        u32 bits = __float_as_uint(sum + 0.f);
        return bits >> 31 ? ~bits : bits | 0x80000000u;
    }
    static DEVICE Sum product(u64 key) {
        u32 bits = (u32)(key >> 32);
        return __uint_as_float(bits >> 31 ? bits & 0x7fffffffu : ~bits);
    }
};

/// The 128 rows' lists, in shared memory but for `best` where k is large: 128 · (512 + 12) bytes, and 8 · k more for
/// each row where they are near.
template <class Sum>
struct Lists {
    u64* pending;
    u64* best;
    int* pending_count;
    int* best_count;
    Sum* limit;
    int k;
};

/// Sorts 64 keys, two of a lane (elements lane and lane + 32), largest first.
DEVICE void sort(u64& a, u64& b) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int width = 2; width <= 64; width *= 2) {
#pragma unroll
        for (int step = width / 2; step; step /= 2) {
            if (step == 32) {
                u64 larger = a > b ? a : b;
                b = a > b ? b : a;
                a = larger;
                continue;
            }
            u64 other_a = __shfl_xor_sync(ALL_LANES, a, step), other_b = __shfl_xor_sync(ALL_LANES, b, step);
            bool first = !(lane & step);
            bool a_falls = !(lane & width), b_falls = !((lane + 32) & width);
            a = (a > other_a) == (first == a_falls) ? a : other_a;
            b = (b > other_b) == (first == b_falls) ? b : other_b;
        }
    }
}

/// How many of `n` keys, largest first, are larger than `key`.
DEVICE int rank(const u64* keys, int n, u64 key) {
    int low = 0;
    while (low < n) {
        int middle = (low + n) / 2;
        if (keys[middle] > key) {
            low = middle + 1;
        } else {
            n = middle;
        }
    }
    return low;
}

/// Merges `n` keys at `added` (largest first, at most 64, in memory that the warp shares; two of them in each lane as
/// `sort` leaves them) into `best`, of which there are `count`; returns how many of k there are then.
DEVICE int merge(const u64* added, int n, u64 a, u64 b, u64* best, int count, int k) {
    int lane = threadIdx.x % 32;
    int place_a = lane + rank(best, count, a), place_b = lane + 32 + rank(best, count, b);
    __syncwarp();
    // Keys only move back: from the last 32 on, none is overwritten before it has moved.
    for (int first = (count - 1) / 32 * 32; first >= 0; first -= 32) {
        int from = first + lane;
        u64 key = from < count ? best[from] : 0;
        int to = from + (from < count ? rank(added, n, key) : 0);
        __syncwarp();
        if (from < count && to < k) best[to] = key;
        __syncwarp();
    }
    if (lane < n && place_a < k) best[place_a] = a;
    if (lane + 32 < n && place_b < k) best[place_b] = b;
    __syncwarp();
    return min(k, count + n);
}

/// Empties a row's pending list into its best.
template <class Operand, class Sum>
DEVICE void flush(const Lists<Sum>& lists, int row) {
    int lane = threadIdx.x % 32, n = lists.pending_count[row];
    u64* pending = lists.pending + row * PENDING;
    u64* best = lists.best + (size_t)row * lists.k;
    u64 a = lane < n ? pending[lane] : 0, b = lane + 32 < n ? pending[lane + 32] : 0;
    sort(a, b);
    __syncwarp();
    pending[lane] = a;
    pending[lane + 32] = b;
    __syncwarp();
    int count = merge(pending, n, a, b, best, lists.best_count[row], lists.k);
    __syncwarp();
    if (lane == 0) {
        lists.pending_count[row] = 0;
        lists.best_count[row] = count;
        if (count == lists.k) lists.limit[row] = Operand::product(best[lists.k - 1]);
    }
    __syncwarp();
}

/// Puts lists in shared memory at `at`, filled with what earlier parts of the points left.
template <class Operand, class Sum = typename Operand::Sum>
DEVICE Lists<Sum> begin(const SearchParams& p, u8* at, int first_query, int threads) {
    Lists<Sum> lists;
    bool near = p.near;
    size_t first = (size_t)blockIdx.y * p.queries + first_query;
    lists.k = p.k;
    lists.pending = (u64*)at;
    lists.best = near ? lists.pending + QUERIES * PENDING : p.best + first * p.k;
    lists.pending_count = (int*)(lists.pending + QUERIES * PENDING + (near ? QUERIES * p.k : 0));
    lists.best_count = lists.pending_count + QUERIES;
    lists.limit = (Sum*)(lists.best_count + QUERIES);
    for (int row = threadIdx.x; row < QUERIES; row += threads) {
        bool real = first_query + row < p.queries;
        int count = real ? p.counts[first + row] : 0;
        const u64* keys = p.best + (first + row) * p.k;
        for (int i = 0; near && i < count; i++) lists.best[row * p.k + i] = keys[i];
        lists.pending_count[row] = 0;
        lists.best_count[row] = count;
        Sum limit = count == p.k ? Operand::product(keys[p.k - 1]) : Operand::least();
        // No product passes for a row that is no query.
        lists.limit[row] = real ? limit : Operand::most();
    }
    return lists;
}

/// The limits of a lane's two rows of a warp's 16.
template <class Sum>
DEVICE void read_limits(const Lists<Sum>& lists, int row, Sum (&limits)[2]) {
    int lane = threadIdx.x % 32;
    limits[0] = lists.limit[row + lane / 4];
    limits[1] = lists.limit[row + lane / 4 + 8];
}

/// Offers a warp's products of rows `row` to `row` + 15 with points `column` and on, in the layout of `mma`; points
/// from `end` on, and rows from `queries` on, are none.
template <class Operand, int TILES, class Sum = typename Operand::Sum>
DEVICE void offer(const SearchParams& p, const Lists<Sum>& lists, const Sum (&sums)[TILES][4], Sum (&limits)[2],
                  int row, int column, int end) {
    int lane = threadIdx.x % 32;
    bool any = false;
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
        for (int i = 0; i < 4; i++) any |= sums[tile][i] > limits[i / 2];
    }
    if (!__any_sync(ALL_LANES, any)) return;
    // Of four tiles a row gets 32 keys at most, as many as it has room for.
#pragma unroll
    for (int first = 0; first < TILES; first += 4) {
#pragma unroll
        for (int tile = first; tile < first + 4; tile++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int r = row + lane / 4 + i / 2 * 8, point = column + tile * 8 + lane % 4 * 2 + i % 2;
                if (sums[tile][i] > limits[i / 2] && point < end) {
                    int at = atomicAdd(lists.pending_count + r, 1);
                    u64 key = (u64)Operand::ordered(sums[tile][i]) << 32 | (u32) ~(p.first_point + point);
                    lists.pending[r * PENDING + at] = key;
                }
            }
        }
        __syncwarp();
        u32 full = __ballot_sync(ALL_LANES, lane < 16 && lists.pending_count[row + lane % 16] > PENDING / 2);
        if (!full) continue;
        for (; full; full &= full - 1) flush<Operand>(lists, row + __ffs(full) - 1);
        read_limits(lists, row, limits);
    }
}

/// Empties the pending lists of a warp's rows, and writes them where the next part, or the next kernel, finds them.
template <class Operand, class Sum = typename Operand::Sum>
DEVICE void finish(const SearchParams& p, const Lists<Sum>& lists, int row, int first_query) {
    int lane = threadIdx.x % 32;
    for (int r = row; r < row + 16 && first_query + r < p.queries; r++) {
        if (lists.pending_count[r]) flush<Operand>(lists, r);
        size_t query = (size_t)blockIdx.y * p.queries + first_query + r;
        int count = lists.best_count[r];
        for (int i = lane; p.near && i < count; i += 32) p.best[query * p.k + i] = lists.best[r * p.k + i];
        if (lane == 0) p.counts[query] = count;
    }
}

/// The points of this block's split, in whole tiles of `tile`.
DEVICE int2 share(const SearchParams& p, int tile) {
    int tiles = (p.points + tile - 1) / tile, each = (tiles + gridDim.y - 1) / gridDim.y;
    return make_int2(min(p.points, (int)blockIdx.y * each * tile), min(p.points, ((int)blockIdx.y + 1) * each * tile));
}
}  // namespace search
