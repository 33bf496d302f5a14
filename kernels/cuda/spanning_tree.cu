// Core distances, and each point's lightest edge out of its component: what Borůvka's rounds of src/spanning_tree.rs
// ask for. Squared distances in f64 from f32 coordinates, summed in the order of the dimensions by fused multiply-add:
// the same bits as src/kd_tree.rs.
//
// The points stand in a kd-tree's order, cut into tiles: subtrees of up to 128 points, each with its box. A block takes
// the points of a tile, one a thread, and looks through all tiles, its own first and then outwards on both sides. It
// goes into a tile only where that one's box can hold something that a point still lacks; then 32 points at a time lie
// in shared memory and every thread computes its distances to eight at once.
//
// Cost: tiles² / 128 boxes, and of distances what boxes cannot rule out: in few dimensions a few tiles a tile.
#include "device.h"

struct TilesParams {
    /// Blocks of 16 points, dimension by dimension, as the kd-tree stores them.
    const float* coordinates;
    /// The first block of each tile, and how many it has.
    const uint2* tiles;
    /// Of each tile the lower bounds and then the upper ones.
    const double* boxes;
    /// What rounding leaves of a gap between boxes for sure.
    double safe;
    u32 points, count, dims, padding;
};

struct LightestParams {
    TilesParams tiles;
    /// Of each point, by its place in the tree: the squared core distance, component and row.
    const double* cores;
    const u32* components;
    const u32* rows;
    /// Of each tile: the smallest core distance, the component (MIXED of several) and the smallest row.
    const double* tile_cores;
    const u32* tile_components;
    const u32* tile_rows;
    /// Of each component the bits of a weight that it can reach.
    u64* bounds;
    /// Of each point what no edge out of its component is lighter than.
    double* at_least;
    /// Of each point's lightest edge the weight, the distance of its ends, and the other end.
    double* weights;
    double* distances;
    u32* ends;
};

namespace spanning_tree {

/// Points of a block of the kd-tree, and those that lie in shared memory.
constexpr u32 BLOCK = 16, LOADED = 32;
/// Points whose distances a thread computes at once.
constexpr int GROUP = 8;
/// The component of a tile whose points belong to several.
constexpr u32 MIXED = 0xffffffffu;
/// Ends of an edge that was not found, and of one that was not looked for.
constexpr u32 NO_EDGE = 0xffffffffu, SKIPPED = 0xfffffffeu;

/// What a block has in shared memory.
struct Shared {
    /// LOADED points, dimension by dimension.
    double* loaded;
    /// The gap to each of the tiles that are next, or less than 0 if none can be wanted.
    double* gaps;
    double* cores;
    u64* reach;
    u32 *components, *rows;
    /// The points that ask, dimension by dimension.
    float* queries;
    /// What a kernel has besides.
    double* more;

    DEVICE Shared(u8* memory, u32 dims, u32 more_numbers) {
        loaded = (double*)memory;
        gaps = loaded + dims * LOADED;
        cores = gaps + blockDim.x;
        reach = (u64*)(cores + LOADED);
        more = (double*)(reach + 1);
        components = (u32*)(more + more_numbers);
        rows = components + LOADED;
        queries = (float*)(rows + LOADED);
    }
};

/// The tile in turn `turn`: the own one, the next, the one before, and so on around.
DEVICE u32 tile_of_turn(u32 turn, u32 own, u32 count) {
    return (turn % 2 ? own + (turn + 1) / 2 : own + count - turn / 2) % count;
}

/// At most the squared distance between points of two tiles.
DEVICE double gap_between(const TilesParams& p, u32 a, u32 b) {
    const double *x = p.boxes + (size_t)a * 2 * p.dims, *y = p.boxes + (size_t)b * 2 * p.dims;
    double sum = 0.;
    for (u32 d = 0; d < p.dims; d++) {
        double gap = max(max(y[d] - x[p.dims + d], x[d] - y[p.dims + d]), 0.);
        sum += gap * gap;
    }
    return sum * p.safe;
}

/// The thread's point, or one past all.
DEVICE u32 own_point(const TilesParams& p) {
    uint2 tile = p.tiles[blockIdx.x];
    u32 at = blockIdx.y * blockDim.x + threadIdx.x, point = tile.x * BLOCK + at;
    return at < tile.y * BLOCK ? min(point, p.points) : p.points;
}

/// Shows a search the points of a tile.
template <class Search>
DEVICE void look_through(const TilesParams& p, const Shared& shared, u32 tile, Search& search) {
    uint2 range = p.tiles[tile];
    for (u32 block = 0; block < range.y; block += LOADED / BLOCK) {
        u32 first = (range.x + block) * BLOCK, count = min(LOADED, (range.y - block) * BLOCK);
        __syncthreads();
        for (u32 i = threadIdx.x; i < p.dims * LOADED; i += blockDim.x) {
            u32 point = i % LOADED;
            size_t at = ((size_t)(range.x + block + point / BLOCK) * p.dims + i / LOADED) * BLOCK + point % BLOCK;
            if (point < count) shared.loaded[i] = p.coordinates[at];
        }
        if (threadIdx.x < LOADED && first + threadIdx.x < p.points) search.load(first);
        __syncthreads();
        for (u32 group = 0; group < count; group += GROUP) {
            double sums[GROUP] = {};
            for (u32 d = 0; d < p.dims; d++) {
                double query = shared.queries[d * blockDim.x + threadIdx.x];
#pragma unroll
                for (int i = 0; i < GROUP; i++) {
                    double difference = query - shared.loaded[d * LOADED + group + i];
                    sums[i] = fma(difference, difference, sums[i]);
                }
            }
#pragma unroll
            for (int i = 0; i < GROUP; i++) {
                if (first + group + i < p.points) search.take(first + group + i, group + i, sums[i]);
            }
        }
    }
}

/// Shows a search all points that it may want; every thread of the block brings its point's.
template <class Search>
DEVICE void look_around(const TilesParams& p, const Shared& shared, u32 point, Search& search) {
    for (u32 d = 0; d < p.dims; d++) {
        size_t at = ((size_t)(point / BLOCK) * p.dims + d) * BLOCK + point % BLOCK;
        shared.queries[d * blockDim.x + threadIdx.x] = point < p.points ? p.coordinates[at] : 0.f;
    }
    for (u32 turn = 0; turn < p.count; turn += blockDim.x) {
        if (threadIdx.x == 0) *shared.reach = 0;
        __syncthreads();
        // Numbers of at least 0 order as their bits do.
        if (search.active) atomicMax(shared.reach, (u64)__double_as_longlong(search.reach()));
        __syncthreads();
        bool near = false;
        if (turn + threadIdx.x < p.count) {
            u32 tile = tile_of_turn(turn + threadIdx.x, blockIdx.x, p.count);
            double gap = gap_between(p, blockIdx.x, tile);
            near = search.may_want(tile, gap, __longlong_as_double(*shared.reach));
            shared.gaps[threadIdx.x] = near ? gap : -1.;
        }
        if (!__syncthreads_or(near)) continue;
        for (u32 i = 0; i < min(blockDim.x, p.count - turn); i++) {
            double gap = shared.gaps[i];
            if (gap < 0.) continue;
            u32 tile = tile_of_turn(turn + i, blockIdx.x, p.count);
            if (!__syncthreads_or(search.active && search.wants(tile, gap))) continue;
            look_through(p, shared, tile, search);
            search.publish();
        }
    }
}

/// The k smallest distances of a point, as a heap with the largest on top.
struct Nearest {
    bool active;
    u32 own, k, size;
    double* heap;
    double bound;

    DEVICE double& at(u32 place) { return heap[place * blockDim.x]; }
    DEVICE double reach() const { return bound; }
    DEVICE bool may_want(u32, double gap, double reach) const { return gap < reach; }
    DEVICE bool wants(u32, double gap) const { return gap < bound; }
    DEVICE void load(u32) {}
    DEVICE void publish() {}
    DEVICE void take(u32 point, u32, double distance) {
        if (!active || distance >= bound || point == own) return;
        u32 place = size;
        if (size < k) {
            size++;
            for (u32 parent; place && at(parent = (place - 1) / 2) < distance; place = parent) at(place) = at(parent);
        } else {
            place = 0;
            for (u32 child; (child = 2 * place + 1) < k; place = child) {
                if (child + 1 < k && at(child + 1) > at(child)) child++;
                if (at(child) <= distance) break;
                at(place) = at(child);
            }
        }
        at(place) = distance;
        if (size == k) bound = at(0);
    }
};

/// A point's lightest edge to another component; of equally heavy ones that whose ends are nearer, then that to the
/// smaller row.
struct Lightest {
    const LightestParams& p;
    const Shared& shared;
    bool active;
    u32 component, block_component;
    double core, limit, weight, distance;
    u32 row, end;

    DEVICE double load_limit() const { return __longlong_as_double((long long)__ldcg(p.bounds + component)); }
    DEVICE double reach() const { return min(weight, limit); }
    DEVICE bool may_want(u32 tile, double gap, double reach) const {
        bool same = block_component != MIXED && p.tile_components[tile] == block_component;
        return !same && max(gap, p.tile_cores[tile]) <= reach;
    }
    DEVICE bool wants(u32 tile, double gap) {
        if (p.tile_components[tile] == component) return false;
        limit = load_limit();
        double least = max(max(gap, p.tile_cores[tile]), core);
        return least <= limit && is_better(least, gap, p.tile_rows[tile]);
    }
    DEVICE void load(u32 first) {
        u32 i = threadIdx.x;
        shared.cores[i] = p.cores[first + i];
        shared.components[i] = p.components[first + i];
        shared.rows[i] = p.rows[first + i];
    }
    DEVICE bool is_better(double other_weight, double other_distance, u32 other_row) const {
        if (other_weight != weight) return other_weight < weight;
        if (other_distance != distance) return other_distance < distance;
        return other_row < row;
    }
    DEVICE void take(u32 point, u32 i, double between) {
        double heavy = max(max(between, shared.cores[i]), core);
        if (!active || shared.components[i] == component || !is_better(heavy, between, shared.rows[i])) return;
        weight = heavy;
        distance = between;
        row = shared.rows[i];
        end = point;
    }
    /// Tells the component what was found.
    DEVICE void publish() {
        if (active && weight < limit) atomicMin(p.bounds + component, (u64)__double_as_longlong(weight));
    }
};

DEVICE void find_core_distance(const TilesParams& p, u32 k, double* squared) {
    DYNAMIC_SHARED(memory);
    Shared shared(memory, p.dims, k * blockDim.x);
    u32 point = own_point(p);
    bool active = point < p.points;
    if (!__syncthreads_or(active)) return;
    Nearest search{active, point, k, 0, shared.more + threadIdx.x, INFINITY};
    look_around(p, shared, point, search);
    if (active) squared[point] = search.bound;
}

DEVICE void find_lightest_edge(const LightestParams& p) {
    DYNAMIC_SHARED(memory);
    Shared shared(memory, p.tiles.dims, 0);
    u32 point = own_point(p.tiles);
    u32 block_component = p.tile_components[blockIdx.x];
    Lightest search{p, shared, false, MIXED, block_component, 0., 0., INFINITY, INFINITY, 0xffffffffu, NO_EDGE};
    if (point < p.tiles.points) {
        search.component = p.components[point];
        search.core = p.cores[point];
        search.limit = search.load_limit();
        search.active = max(p.at_least[point], search.core) <= search.limit;
        p.ends[point] = search.active ? NO_EDGE : SKIPPED;
    }
    if (!__syncthreads_or(search.active)) return;
    look_around(p.tiles, shared, point, search);
    if (!search.active) return;
    double limit = search.load_limit();
    p.at_least[point] = max(p.at_least[point], min(search.weight, limit));
    if (search.end == NO_EDGE || search.weight > limit) return;
    p.ends[point] = search.end;
    p.weights[point] = search.weight;
    p.distances[point] = search.distance;
}
}  // namespace spanning_tree

/// Writes each point's squared distance to its k-th nearest other one, by its place in the tree. Blocks: tiles × what
/// parts of 32, 64 or 128 threads make 128. Shared memory: see `Shared`, with k numbers a thread besides.
KERNEL(__launch_bounds__(128) core_distances)(TilesParams p, u32 k, double* squared) {
    spanning_tree::find_core_distance(p, k, squared);
}

/// Searches for the lightest edge out of its component of each point that may have it. Blocks: one a tile, of 128
/// threads.
KERNEL(__launch_bounds__(128) lightest_edges)(LightestParams p) { spanning_tree::find_lightest_edge(p); }
REGISTER(core_distances)
REGISTER(lightest_edges)
