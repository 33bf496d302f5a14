// The layout of UMAP: points attract along the edges of a graph and repel random others. Formula, slots and random
// numbers as src/layout.rs, to the bit; see there why a slot's positions are read as they stood before it.
//
// layout: one block a chunk of 256 vertices, one launch a slot. Of the chunk's two lists of events (where an edge's
// head moves, where its tail does) the block gathers those that are due in their order, and takes 256 of them at a
// time: a thread computes an event's step, sixteen threads share the rows that push, and then the first thread of each
// vertex adds that vertex's steps in order. Nothing is written that another block reads, so there are no atomics on
// positions. Accumulation: f32, fused where src/layout/lanes.rs says mul_add.
//
// place: new points among fixed ones; a thread a point, all epochs in one launch.
#include "device.h"

struct LayoutForce {
    float a, b, pull, push;
    u32 negatives;
    /// Rows of `points`.
    u32 rows;
    const float* points;
};

struct LayoutParams {
    LayoutForce force;
    /// Where each (chunk, list) begins in the next three.
    const u64* starts;
    const u8* locals;
    const u32* others;
    const u32* paces;
    float* moved;
    /// Of the epoch's random numbers.
    u64 key;
    /// Lists of a chunk, and the first of the slot's two.
    u32 lists, list;
    u32 epoch;
    float alpha;
};

struct PlaceParams {
    LayoutForce force;
    const u64* offsets;
    const u32* targets;
    const u32* paces;
    /// Of each new point's random numbers.
    const u64* keys;
    /// The learning rate of each epoch.
    const float* alphas;
    float* placed;
    u32 count, epochs;
};

namespace umap {

constexpr int CHUNK = 256;
constexpr int WARPS = CHUNK / 32;
/// Events at once on the processor: these share their random rows.
constexpr int LANES = 16;
/// Events that a thread looks at between two barriers.
constexpr int SCANNED = 4;
/// Due events that wait: less than a tile's, and what one look can add.
constexpr u32 RING = 2048;
static_assert(CHUNK + CHUNK * SCANNED <= RING, "a look at the events must fit");

/// How far apart rows of up to D values lie.
template <int D>
constexpr int STRIDE = D <= 2   ? 2
                       : D <= 8 ? 8
                                : D;

DEVICE u64 mix(u64 x) {
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

/// A random row below `rows`.
DEVICE u32 random_row(u32 draw, u64 key, u32 rows) {
    u32 x = draw * 0x9e3779b9u ^ (u32)key;
    x = (x ^ x >> 16) * 0x21f0aaadu;
    x = (x ^ x >> 15) * 0x735a2d97u + (u32)(key >> 32);
    x = (x ^ x >> 16) * 0x7feb352du;
    x ^= x >> 15;
    return __umulhi(x, rows);
}

/// Whether an edge's counter passes a multiple of 2^31 in this epoch.
DEVICE bool is_due(u32 pace, u32 epoch) { return (pace * epoch ^ pace * (epoch ? epoch - 1 : 0)) >> 31; }

/// x^y for a finite x of at least 0, by the polynomials of src/layout/lanes.rs.
DEVICE float power(float x, float y) {
    constexpr u32 SQRT_HALF = 0x3f3504f3u;
    constexpr float ROUND = 12582912.f;
    u32 shifted = __float_as_uint(x) - SQRT_HALF;
    int exponent = (int)shifted >> 23;
    float t = __uint_as_float((shifted & 0x7fffffu) + SQRT_HALF) - 1.f;
    float log2 = -0.14574448f;
    log2 = fmaf(log2, t, 0.23689037f);
    log2 = fmaf(log2, t, -0.25006905f);
    log2 = fmaf(log2, t, 0.28670746f);
    log2 = fmaf(log2, t, -0.3600872f);
    log2 = fmaf(log2, t, 0.48093945f);
    log2 = fmaf(log2, t, -0.72135717f);
    log2 = fmaf(log2, t, 1.4426948f);
    float product = y * fmaf(log2, t, (float)exponent);
    product = product > 126.f ? 126.f : product;
    product = product < -126.f ? -126.f : product;
    float rounded = product + ROUND;
    float f = product - (rounded - ROUND);
    float exp2 = 0.0013264727f;
    exp2 = fmaf(exp2, f, 0.009671513f);
    exp2 = fmaf(exp2, f, 0.055507336f);
    exp2 = fmaf(exp2, f, 0.24022242f);
    exp2 = fmaf(exp2, f, 0.693147f);
    exp2 = fmaf(exp2, f, 1.f);
    return __uint_as_float(__float_as_uint(exp2) + (__float_as_uint(rounded) << 23));
}

DEVICE float clipped(float step) {
    step = step > 4.f ? 4.f : step;
    return step < -4.f ? -4.f : step;
}

/// Reads the first D values of a row.
template <int D>
DEVICE void load(float (&x)[D], const float* points, u32 row) {
    const float* from = points + (size_t)row * STRIDE<D>;
    if constexpr (D == 2) {
        float2 two = *(const float2*)from;
        x[0] = two.x, x[1] = two.y;
    } else {
#pragma unroll
        for (int d = 0; d + 4 <= D; d += 4) {
            float4 four = *(const float4*)(from + d);
            x[d] = four.x, x[d + 1] = four.y, x[d + 2] = four.z, x[d + 3] = four.w;
        }
#pragma unroll
        for (int d = D / 4 * 4; d < D; d++) x[d] = from[d];
    }
}

/// |x − y|².
template <int D>
DEVICE float squared_distance(const float (&x)[D], const float (&y)[D]) {
    float s = 0.f;
#pragma unroll
    for (int d = 0; d < D; d++) {
        float delta = x[d] - y[d];
        s = fmaf(delta, delta, s);
    }
    return s;
}

/// step += scale (x − y), each component clipped; those of a step lie APART numbers apart.
template <int APART, int D>
DEVICE void add_clipped(float scale, const float (&x)[D], const float (&y)[D], float* step) {
#pragma unroll
    for (int d = 0; d < D; d++) step[d * APART] += clipped(scale * (x[d] - y[d]));
}

/// Adds the pull of `there` on `here`.
template <int APART, int D>
DEVICE void add_pull(const LayoutForce& force, const float (&here)[D], const float (&there)[D], float* step) {
    float s = squared_distance(here, there), p = power(s, force.b - 1.f);
    float scale = __fdiv_rn(force.pull * p, fmaf(force.a * p, s, 1.f));
    add_clipped<APART>(s > 0.f ? scale : 0.f, here, there, step);
}

/// Adds the push of `there` on `here`, unless that is a point's own row.
template <int APART, int D>
DEVICE void add_push(const LayoutForce& force, bool own, const float (&here)[D], const float (&there)[D], float* step) {
    float s = squared_distance(here, there);
    float scale = __fdiv_rn(force.push, (0.001f + s) * fmaf(force.a, power(s, force.b), 1.f));
    add_clipped<APART>(s > 0.f && !own ? scale : 0.f, here, there, step);
}

/// A list of a chunk's events.
struct Events {
    const u8* locals;
    const u32* others;
    const u32* paces;
    u32 length;
};

/// Adds to `ring` those of the events from `from` on that are due, behind the `queued` ones; returns how many they are.
DEVICE u32 gather_due(const LayoutParams& p, const Events& events, u32 from, u32 queued, u32* ring, u32* counts) {
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, due[SCANNED], count = 0;
    u32 first = from + warp * 32 * SCANNED + lane;
#pragma unroll
    for (int k = 0; k < SCANNED; k++) {
        u32 event = first + k * 32;
        due[k] = __ballot_sync(ALL_LANES, event < events.length && is_due(events.paces[event], p.epoch));
        count += __popc(due[k]);
    }
    if (lane == 0) counts[warp] = count;
    __syncthreads();
    u32 at = queued, all = 0;
    for (u32 w = 0; w < WARPS; w++) {
        at += w < warp ? counts[w] : 0;
        all += counts[w];
    }
#pragma unroll
    for (int k = 0; k < SCANNED; k++) {
        if (due[k] >> lane & 1) ring[(at + __popc(due[k] & ((1u << lane) - 1))) % RING] = first + k * 32;
        at += __popc(due[k]);
    }
    __syncthreads();
    return all;
}

/// Computes the step of an event, one of sixteen that stand side by side in a warp; `place` is its key's.
template <int D, int APART>
DEVICE void compute_step(const LayoutParams& p, u32 row, u32 other, u64 place, u32 pushes, float* step) {
    const LayoutForce& force = p.force;
    float here[D], there[D];
    load(here, force.points, row);
    load(there, force.points, other);
    add_pull<APART>(force, here, there, step);
    u64 key = mix(p.key ^ ((u64)row << 32 | other) ^ place * 0x9e3779b97f4a7c15ull);
    for (u32 first = 0; first < pushes; first += LANES) {
        u32 drawn = random_row(first, key, force.rows);
        load(there, force.points, drawn);
        for (u32 k = first; k < min(pushes, first + LANES); k++) {
            add_push<APART>(force, drawn == row, here, there, step);
            // Each lane hands its row on to the one before.
            int next = (threadIdx.x + 1) % LANES;
            drawn = __shfl_sync(ALL_LANES, drawn, next, LANES);
#pragma unroll
            for (int d = 0; d < D; d++) there[d] = __shfl_sync(ALL_LANES, there[d], next, LANES);
        }
    }
}

/// Moves a chunk's vertices by the events of a slot.
template <int D>
DEVICE void move_chunk(const LayoutParams& p) {
    DYNAMIC_SHARED(shared);
    float* steps = (float*)shared;
    u32* ring = (u32*)(steps + D * CHUNK);
    int* movers = (int*)(ring + RING);
    u32* counts = (u32*)(movers + CHUNK);
    constexpr int S = STRIDE<D>;
    u32 chunk = blockIdx.x, base = chunk * CHUNK, thread = threadIdx.x;
    u32 vertices = min((u32)CHUNK, p.force.rows - base);
    const float* points = p.force.points + (size_t)base * S;
    for (u32 i = thread; i < vertices * S; i += CHUNK) p.moved[(size_t)base * S + i] = points[i];
    for (u32 tail = 0; tail < 2; tail++) {
        u32 list = p.list + tail, pushes = tail ? 0 : p.force.negatives;
        u64 start = p.starts[(size_t)chunk * p.lists + list];
        Events events{p.locals + start, p.others + start, p.paces + start,
                      (u32)(p.starts[(size_t)chunk * p.lists + list + 1] - start)};
        u32 seen = 0, queued = 0, done = 0;
        while (seen < events.length || done < queued) {
            if (seen < events.length && queued - done < CHUNK) {
                queued += gather_due(p, events, seen, queued, ring, counts);
                seen += CHUNK * SCANNED;
                continue;
            }
            // Lanes without an event are the chunk's first vertex and row 0, whose random rows others are given.
            u32 place = done + thread, row = base, other = 0;
            movers[thread] = -1;
            if (place < queued) {
                u32 event = ring[place % RING];
                movers[thread] = events.locals[event];
                row += events.locals[event];
                other = events.others[event];
            }
            if (done + thread / 32 * 32 < queued) {
                u64 key = (u64)list << 32 | place;
                // Registers hold a step of few dimensions.
                if constexpr (D <= 16) {
                    float step[D] = {};
                    compute_step<D, 1>(p, row, other, key, pushes, step);
#pragma unroll
                    for (int d = 0; d < D; d++) steps[d * CHUNK + thread] = step[d];
                } else {
                    for (int d = 0; d < D; d++) steps[d * CHUNK + thread] = 0.f;
                    compute_step<D, CHUNK>(p, row, other, key, pushes, steps + thread);
                }
            }
            __syncthreads();
            // A vertex's events stand side by side: its first thread adds all of their steps.
            int mover = movers[thread];
            if (mover >= 0 && (thread == 0 || movers[thread - 1] != mover)) {
                u32 end = thread + 1;
                while (end < CHUNK && movers[end] == mover) end++;
                float* values = p.moved + (size_t)row * S;
                for (int d = 0; d < D; d++) {
                    float value = values[d];
                    for (u32 i = thread; i < end; i++) value = fmaf(steps[d * CHUNK + i], p.alpha, value);
                    values[d] = value;
                }
            }
            __syncthreads();
            done += min((u32)CHUNK, queued - done);
        }
    }
}

/// Places a new point.
template <int D>
DEVICE void place_point(const PlaceParams& p) {
    u32 point = blockIdx.x * blockDim.x + threadIdx.x;
    if (point >= p.count) return;
    float here[D], there[D], *placed = p.placed + (size_t)point * STRIDE<D>;
    load(here, p.placed, point);
    u64 start = p.offsets[point], end = p.offsets[point + 1];
    for (u32 epoch = 0; epoch < p.epochs; epoch++) {
        u64 key = mix(p.keys[point] ^ epoch);
        float alpha = p.alphas[epoch];
        u32 draw = 0;
        for (u64 edge = start; edge < end; edge++) {
            if (!is_due(p.paces[edge], epoch)) continue;
            float pull[D] = {}, push[D] = {};
            load(there, p.force.points, p.targets[edge]);
            add_pull<1>(p.force, here, there, pull);
#pragma unroll
            for (int d = 0; d < D; d++) here[d] = fmaf(pull[d], alpha, here[d]);
            for (u32 k = 0; k < p.force.negatives; k++) {
                load(there, p.force.points, random_row(draw++, key, p.force.rows));
                add_push<1>(p.force, false, here, there, push);
            }
#pragma unroll
            for (int d = 0; d < D; d++) here[d] = fmaf(push[d], alpha, here[d]);
        }
    }
    for (int d = 0; d < D; d++) placed[d] = here[d];
}
}  // namespace umap

/// Blocks: one a chunk, of 256 threads; or one for 128 new points. In up to D dimensions, rows padded with zeros.
#define LAYOUT(D)                                                                         \
    KERNEL(__launch_bounds__(256) layout_##D)(LayoutParams p) { umap::move_chunk<D>(p); } \
    KERNEL(__launch_bounds__(128) place_##D)(PlaceParams p) { umap::place_point<D>(p); }  \
    REGISTER(layout_##D)                                                                  \
    REGISTER(place_##D)
LAYOUT(2)
LAYOUT(5)
LAYOUT(16)
LAYOUT(64)
