// After a search: the lists of all splits become one, exact cosines take the place of products of codes, neighbours
// vote. See search.h.
#include "search.h"

struct MergeParams {
    int queries, splits, k;
    const u64* best;
    const int* counts;
    /// queries × k keys, to work in.
    u64* merged;
    /// queries × k: points, nearest first, and their products (as the bits of an i32 or f32).
    u32* indices;
    int* products;
    int halves;
};

struct MeasureParams {
    /// Rows of length 1: queries × dimensions, points × dimensions.
    const float* queries;
    const float* points;
    int query_count, point_count, dimensions;
    /// queries × candidates, best first, with the products of their codes.
    const u32* candidates;
    const int* products;
    int candidate_count;
    /// How much a similarity by codes may be below the cosine, per query; and what a product is divided by.
    const double* bounds;
    double square_scale;
    int k;
    /// queries × k.
    u32* indices;
    float* cosines;
    /// Per query: 1 where no other point can be among the k nearest.
    int* exact;
};

struct VoteParams {
    int queries, k;
    /// queries × found: neighbours, nearest first, and the products of their codes.
    const u32* indices;
    const int* products;
    int found;
    /// A query's own row of the sample does not vote: query i is row first_own + i; or -1.
    int first_own;
    /// The topic of each row of the sample.
    const int* topics;
    double square_scale;
    float threshold;
    int outliers_abstain;
    /// queries: the topic, -1 for none, and its score.
    int* topic;
    float* score;
    /// queries × listed: the best topics and their scores; -1 after the last.
    int listed;
    int* best_topics;
    float* best_scores;
};

namespace search_finish {
using namespace search;

/// The dot product of two rows as norm.rs sums it, by half a warp: see codes.h's `row_length`.
DEVICE float half_warp_dot(const float* a, const float* b, int dimensions) {
    float sum = 0.f;
    for (int i = threadIdx.x % 16; i < dimensions; i += 16) sum = fmaf(a[i], b[i], sum);
#pragma unroll
    for (int lanes = 8; lanes; lanes >>= 1) sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
    return sum;
}

/// The votes of a topic.
struct Tally {
    int topic, votes, first;
    long long products;
};

/// The neighbours that vote: the first k that are not the query itself.
struct Voters {
    const VoteParams& p;
    int query;

    /// Calls `visit(rank, topic, product)` for each vote, nearest first.
    template <class Visit>
    DEVICE void each(Visit visit) const {
        int own = p.first_own < 0 ? -1 : p.first_own + query, taken = 0;
        for (int i = 0; i < p.found && taken < p.k; i++) {
            int point = (int)p.indices[(size_t)query * p.found + i];
            if (point == own) continue;
            int topic = p.topics[point];
            if (topic >= 0 || !p.outliers_abstain) visit(taken, topic, p.products[(size_t)query * p.found + i]);
            taken++;
        }
    }

    DEVICE Tally tally(int topic) const {
        Tally found = {topic, 0, 0, 0};
        each([&](int rank, int other, int product) {
            if (other != topic) return;
            if (found.votes == 0) found.first = rank;
            found.votes++;
            found.products += product;
        });
        return found;
    }

    /// The best topic that comes after `last` in the order of most votes, then nearest voter; votes 0 if there is none.
    DEVICE Tally next(const Tally& last, bool outliers_too) const {
        Tally best = {-1, 0, 0, 0};
        each([&](int, int topic, int) {
            if (topic < 0 && !outliers_too) return;
            Tally one = tally(topic);
            bool after = one.votes < last.votes || (one.votes == last.votes && one.first > last.first);
            bool better = one.votes > best.votes || (one.votes == best.votes && one.first < best.first);
            if (after && better) best = one;
        });
        return best;
    }
};

DEVICE float score(const VoteParams& p, const Tally& tally, int cast) {
    double mean = (double)tally.products / tally.votes / p.square_scale;
    double share = __dmul_rn((double)tally.votes / cast, mean);
    return (float)fmin(fmax(share, 0.0), 1.0);
}
}  // namespace search_finish

/// A warp a query; blocks of 128 threads.
KERNEL(__launch_bounds__(128) search_merge)(MergeParams p) {
    using namespace search_finish;
    __shared__ u64 added[4][64];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, query = blockIdx.x * 4 + warp;
    if (query >= p.queries) return;
    u64* merged = p.merged + (size_t)query * p.k;
    int count = 0;
    for (int split = 0; split < p.splits; split++) {
        size_t list = (size_t)split * p.queries + query;
        int n = p.counts[list];
        for (int first = 0; first < n; first += 64) {
            int here = min(n - first, 64);
            const u64* keys = p.best + list * p.k + first;
            u64 a = lane < here ? keys[lane] : 0, b = lane + 32 < here ? keys[lane + 32] : 0;
            __syncwarp();
            added[warp][lane] = a;
            added[warp][lane + 32] = b;
            __syncwarp();
            count = merge(added[warp], here, a, b, merged, count, p.k);
        }
    }
    for (int i = lane; i < count; i += 32) {
        u64 key = merged[i];
        p.indices[(size_t)query * p.k + i] = ~(u32)key;
        float product = Halves::product(key);
        p.products[(size_t)query * p.k + i] = p.halves ? __float_as_int(product) : Signed8::product(key);
    }
}

/// A warp a query; blocks of 128 threads, with 4 · (k + 64) keys of shared memory.
KERNEL(__launch_bounds__(128) search_measure)(MeasureParams p) {
    using namespace search_finish;
    DYNAMIC_SHARED(shared);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, query = blockIdx.x * 4 + warp;
    if (query >= p.query_count) return;
    u64* best = (u64*)shared + warp * (p.k + 64);
    u64* added = best + p.k;
    const float* row = p.queries + (size_t)query * p.dimensions;
    const u32* candidates = p.candidates + (size_t)query * p.candidate_count;
    int count = 0;
    for (int first = 0; first < p.candidate_count; first += 64) {
        int here = min(p.candidate_count - first, 64);
        // Each half of the warp measures every other candidate.
        for (int i = 0; i < here; i += 2) {
            int at = i + lane / 16;
            u32 point = candidates[first + min(at, here - 1)];
            float cosine = half_warp_dot(row, p.points + (size_t)point * p.dimensions, p.dimensions);
            if (lane % 16 == 0 && at < here) added[at] = (u64)Halves::ordered(cosine) << 32 | (u32)~point;
        }
        __syncwarp();
        u64 a = lane < here ? added[lane] : 0, b = lane + 32 < here ? added[lane + 32] : 0;
        sort(a, b);
        __syncwarp();
        added[lane] = a;
        added[lane + 32] = b;
        __syncwarp();
        count = merge(added, here, a, b, best, count, p.k);
    }
    for (int i = lane; i < count; i += 32) {
        p.indices[(size_t)query * p.k + i] = ~(u32)best[i];
        p.cosines[(size_t)query * p.k + i] = Halves::product(best[i]);
    }
    if (lane == 0) {
        double last = p.products[(size_t)query * p.candidate_count + p.candidate_count - 1];
        bool all = p.candidate_count == p.point_count;
        p.exact[query] = all || __dadd_rn(last / p.square_scale, p.bounds[query]) < Halves::product(best[p.k - 1]);
    }
}

/// A thread a query; blocks of 128 threads. The formula, and its order of operations, of operators/src/assign.rs.
KERNEL(__launch_bounds__(128) search_vote)(VoteParams p) {
    using namespace search_finish;
    int query = blockIdx.x * 128 + threadIdx.x;
    if (query >= p.queries) return;
    Voters voters = {p, query};
    int cast = 0;
    voters.each([&](int, int, int) { cast++; });
    Tally none = {-1, 0x7fffffff, 0, 0}, winner = voters.next(none, true);
    float best = winner.votes ? score(p, winner, cast) : 0.f;
    p.topic[query] = winner.votes == 0 || best < p.threshold ? -1 : winner.topic;
    p.score[query] = best;
    Tally last = none;
    for (int i = 0; i < p.listed; i++) {
        if (last.votes) last = voters.next(last, false);
        p.best_topics[(size_t)query * p.listed + i] = last.votes ? last.topic : -1;
        p.best_scores[(size_t)query * p.listed + i] = last.votes ? score(p, last, cast) : 0.f;
    }
}
REGISTER(search_merge)
REGISTER(search_measure)
REGISTER(search_vote)
