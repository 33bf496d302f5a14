// Runs CUDA C++ kernels on a processor, so that they are tested where there is no GPU.
//
// Each CUDA thread is a fiber; a block's fibers take turns on one thread of the system, blocks run on several.
// Beyond wrong values it shows:
//   - barriers and warp operations that some of their threads never reach, or reach in another place,
//   - reads of asynchronous copies and products before they were waited for: these run as late as the hardware may run
//     them, and their destination is filled with NaN until then,
//   - results that depend on the order of threads (a missing barrier), by running under several schedules,
//   - reads of shared or device memory that nobody wrote: both start as NaN.
// It cannot show weak memory order, bank conflicts, or what an instruction's encoding means to real hardware.
#pragma once
#if !defined(__x86_64__)
#error "the emulator switches fibers in x86-64 assembly"
#endif
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    uint64_t count() const { return (uint64_t)x * y * z; }
};

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// One block at a time runs on a thread of the system, so a static array is the block's.
#define __shared__ static thread_local

namespace emulator {

enum class State : uint8_t { Ready, InWarp, AtBarrier, Polling, Done };

/// An asynchronous copy of a thread (cp.async), not yet carried out.
struct PendingCopy {
    void* to;
    const void* from;
    int bytes;
    bool zeros;
};

/// One CUDA thread.
struct Fiber {
    void* stack_pointer = nullptr;
    uint8_t* stack = nullptr;
    dim3 thread;
    unsigned linear = 0, lane = 0, warp = 0;
    State state = State::Done;
    int barrier = -1;
    /// The operation it waits in, for reports and to see that lanes meet in the same one.
    const char* where = "";
    /// What the lane brings to a warp's operation; it lies on the stack of the waiting fiber.
    void* operand = nullptr;
    unsigned mask = 0;
    std::deque<std::vector<PendingCopy>> copy_groups;
    std::vector<PendingCopy> open_copies;
    std::deque<std::vector<std::function<void()>>> product_groups;
    std::vector<std::function<void()>> open_products;
};

struct Barrier {
    unsigned arrived = 0, needed = 0;
};

/// A block that runs.
struct Block {
    dim3 index, block, grid;
    unsigned threads = 0, schedule = 0;
    std::vector<Fiber> fibers;
    /// Of each warp, the lanes that wait in an operation, and those that have left the kernel.
    std::vector<unsigned> waiting, left;
    Barrier barriers[16];
    std::vector<uint8_t> shared_allocation;
    uint8_t* shared = nullptr;
    size_t shared_bytes = 0;
    /// Bulk copies not yet carried out, in no order.
    std::vector<std::function<void()>> bulk_copies;
    uint64_t random = 1, switches = 0;
    void* scheduler_stack = nullptr;
    const std::function<void()>* kernel = nullptr;
    std::string error;
};

inline thread_local Fiber* current = nullptr;
inline thread_local Block* running = nullptr;

extern "C" void emulator_switch(void** save, void* load);
asm(R"(.text
.weak emulator_switch
.type emulator_switch,@function
emulator_switch:
 pushq %rbp
 pushq %rbx
 pushq %r12
 pushq %r13
 pushq %r14
 pushq %r15
 movq %rsp,(%rdi)
 movq %rsi,%rsp
 popq %r15
 popq %r14
 popq %r13
 popq %r12
 popq %rbx
 popq %rbp
 ret
)");

constexpr size_t STACK_BYTES = 256 << 10;

/// Stacks that no fiber uses, kept from grid to grid: fresh memory for each costs more than a small grid takes.
struct Stacks {
    std::mutex mutex;
    std::vector<uint8_t*> unused;

    uint8_t* take() {
        std::lock_guard<std::mutex> lock(mutex);
        if (unused.empty()) {
            int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
            void* fresh = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
            if (fresh == MAP_FAILED) {
                perror("a fiber's stack");
                abort();
            }
            return (uint8_t*)fresh;
        }
        uint8_t* stack = unused.back();
        unused.pop_back();
        return stack;
    }
    void give_back(uint8_t* stack) {
        std::lock_guard<std::mutex> lock(mutex);
        unused.push_back(stack);
    }
};
inline Stacks stacks;

/// Gives way to the scheduler.
inline void yield() { emulator_switch(&current->stack_pointer, running->scheduler_stack); }

inline void resume(Fiber& fiber) {
    current = &fiber;
    running->switches++;
    emulator_switch(&running->scheduler_stack, fiber.stack_pointer);
}

/// Where a fiber begins, and where it stays once its kernel has returned.
inline void enter() {
    (*running->kernel)();
    current->state = State::Done;
    running->left[current->warp] |= 1u << current->lane;
    for (;;) yield();
}

/// Stops the block with an error.
[[noreturn]] inline void fail(const std::string& what) {
    if (running->error.empty()) {
        const dim3& b = running->index;
        char place[96];
        snprintf(place, sizeof place, "block (%u, %u, %u), thread %u: ", b.x, b.y, b.z, current->linear);
        running->error = place + what;
    }
    current->state = State::Done;
    for (;;) yield();
}

inline uint64_t next_random() {
    uint64_t& s = running->random;
    s ^= s << 13;
    s ^= s >> 7;
    s ^= s << 17;
    return s;
}

/// An operation of the lanes in `mask`: the last lane to arrive carries it out for all, by `combine(operands, mask)`.
template <class Operand, class Combine>
inline void warp_operation(unsigned mask, Operand& operand, const char* where, Combine&& combine) {
    Fiber* me = current;
    unsigned first = me->linear - me->lane;
    Fiber* warp = &running->fibers[first];
    unsigned lanes = std::min(32u, running->threads - first);
    std::string name = where;
    if (!(mask >> me->lane & 1)) fail(name + ": the mask leaves out the lane itself");
    if (lanes < 32 && mask >> lanes) fail(name + ": the mask names a lane that the block does not have");
    if (mask & running->left[me->warp]) fail(name + ": the mask names a lane that has left the kernel");
    me->operand = &operand;
    me->mask = mask;
    me->where = where;
    unsigned& waiting = running->waiting[me->warp];
    waiting |= 1u << me->lane;
    bool complete = (waiting & mask) == mask;
    for (unsigned lane = 0; complete && lane < lanes; lane++) {
        bool other = (mask >> lane & 1) && lane != me->lane;
        if (other && (warp[lane].mask != mask || strcmp(warp[lane].where, where))) complete = false;
    }
    if (!complete) {
        me->state = State::InWarp;
        yield();
        return;
    }
    Operand* operands[32] = {};
    for (unsigned lane = 0; lane < lanes; lane++) {
        if (mask >> lane & 1) operands[lane] = lane == me->lane ? &operand : (Operand*)warp[lane].operand;
    }
    combine(operands, mask);
    waiting &= ~mask;
    for (unsigned lane = 0; lane < lanes; lane++) {
        if ((mask >> lane & 1) && lane != me->lane) warp[lane].state = State::Ready;
    }
}

/// Lets the threads that wait at a barrier go on, if all have come.
inline bool release(int id) {
    Barrier& barrier = running->barriers[id];
    if (barrier.arrived < barrier.needed) return false;
    barrier.arrived = 0;
    for (Fiber& fiber : running->fibers) {
        if (fiber.state == State::AtBarrier && fiber.barrier == id) fiber.state = State::Ready;
    }
    return true;
}

/// A barrier of `needed` threads.
inline void barrier_wait(int id, unsigned needed, const char* where) {
    Barrier& barrier = running->barriers[id];
    if (barrier.arrived && barrier.needed != needed) fail("barrier: its threads differ on how many they are");
    barrier.needed = needed;
    current->where = where;
    barrier.arrived++;
    if (release(id)) return;
    current->state = State::AtBarrier;
    current->barrier = id;
    yield();
}

/// Waits until `done()`, which something asynchronous makes true.
template <class Done>
inline void poll(Done&& done, const char* where) {
    current->where = where;
    while (!done()) {
        current->state = State::Polling;
        yield();
    }
}

/// Lets all else run first: asynchronous work ends as late as it may.
inline void wait_long() {
    current->where = "asynchronous work";
    current->state = State::Polling;
    yield();
}

/// Schedules. 0: threads forward; 1: backward; 2 and 3: in a new random order each round; 4 and more: one random warp
/// at a time until it can go no further, which sets warps as far apart as can be; odd ones with lanes backward.
constexpr unsigned SCHEDULES = 6;

inline void prepare(Fiber& fiber, unsigned linear) {
    const dim3& b = running->block;
    fiber.linear = linear;
    fiber.lane = linear % 32;
    fiber.warp = linear / 32;
    fiber.state = State::Ready;
    fiber.copy_groups.clear();
    fiber.open_copies.clear();
    fiber.product_groups.clear();
    fiber.open_products.clear();
    fiber.thread = dim3(linear % b.x, linear / b.x % b.y, linear / (b.x * b.y));
    if (!fiber.stack) fiber.stack = stacks.take();
    void** top = (void**)(fiber.stack + STACK_BYTES - 64);
    *--top = nullptr;
    *--top = (void*)&enter;
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    fiber.stack_pointer = top;
}

/// Carries out one bulk copy.
inline void run_bulk_copy(Block& block) {
    size_t at = block.schedule >= 2 ? next_random() % block.bulk_copies.size() : 0;
    auto copy = std::move(block.bulk_copies[at]);
    block.bulk_copies.erase(block.bulk_copies.begin() + at);
    copy();
}

/// Runs a random warp that can run until it cannot; false if none can, or the block failed.
inline bool run_one_warp(Block& block) {
    unsigned warps = (block.threads + 31) / 32, first = next_random() % warps;
    for (unsigned k = 0; k < warps; k++) {
        unsigned from = (first + k) % warps * 32, to = std::min(block.threads, from + 32);
        bool ran = false, again = true;
        while (again) {
            again = false;
            for (unsigned i = from; i < to; i++) {
                Fiber& fiber = block.fibers[block.schedule & 1 ? from + to - 1 - i : i];
                if (fiber.state != State::Ready) continue;
                again = ran = true;
                resume(fiber);
                if (!block.error.empty()) return false;
            }
        }
        if (ran) return true;
    }
    return false;
}

inline std::string deadlock(const Block& block) {
    std::map<std::string, int> places;
    for (const Fiber& fiber : block.fibers) places[fiber.state == State::Done ? "exit" : fiber.where]++;
    std::string report = "block (" + std::to_string(block.index.x) + ", " + std::to_string(block.index.y) +
                         "): deadlock, threads by where they wait:";
    for (const auto& place : places) report += " " + std::to_string(place.second) + " in " + place.first + ",";
    report.pop_back();
    return report;
}

inline void run_block(Block& block) {
    running = &block;
    unsigned n = block.threads;
    for (Barrier& barrier : block.barriers) barrier = Barrier{};
    block.bulk_copies.clear();
    block.waiting.assign((n + 31) / 32, 0);
    block.left.assign((n + 31) / 32, 0);
    memset(block.shared, 0xFF, block.shared_bytes);
    std::vector<unsigned> order(n);
    for (unsigned i = 0; i < n; i++) {
        prepare(block.fibers[i], i);
        order[i] = block.schedule == 1 ? n - 1 - i : i;
    }
    for (;;) {
        if (block.schedule >= 4) {
            bool ran = run_one_warp(block);
            if (!block.error.empty()) return;
            if (ran) {
                if (!block.bulk_copies.empty() && next_random() % 4 == 0) run_bulk_copy(block);
                continue;
            }
        } else if (block.schedule >= 2) {
            for (unsigned i = n; i > 1; i--) std::swap(order[i - 1], order[next_random() % i]);
        }
        bool ran = false, alive = false;
        for (unsigned i : order) {
            Fiber& fiber = block.fibers[i];
            if (fiber.state == State::Done) continue;
            alive = true;
            if (fiber.state != State::Ready && fiber.state != State::Polling) continue;
            bool polled = fiber.state == State::Polling;
            fiber.state = State::Ready;
            resume(fiber);
            if (!polled || fiber.state != State::Polling) ran = true;
            if (!block.error.empty()) return;
        }
        if (!alive) return;
        if (!block.bulk_copies.empty() && (!ran || block.schedule < 2 || next_random() % 4 == 0)) {
            run_bulk_copy(block);
            ran = true;
        }
        if (!ran) {
            block.error = deadlock(block);
            return;
        }
    }
}

/// Runs a grid; returns what went wrong, or nothing.
inline std::string run_grid(dim3 grid, dim3 block_dim, size_t shared_bytes, unsigned schedule,
                            const std::function<void()>& kernel) {
    uint64_t total = grid.count();
    std::atomic<uint64_t> next{0};
    std::mutex mutex;
    std::string error;
    auto work = [&] {
        Block block;
        block.block = block_dim;
        block.grid = grid;
        block.threads = (unsigned)block_dim.count();
        block.fibers.resize(block.threads);
        block.shared_bytes = shared_bytes;
        block.shared_allocation.resize(shared_bytes + 1024);
        block.shared = (uint8_t*)(((uintptr_t)block.shared_allocation.data() + 1023) & ~(uintptr_t)1023);
        block.kernel = &kernel;
        block.schedule = schedule;
        for (uint64_t i; (i = next++) < total;) {
            uint64_t at = schedule == 1 ? total - 1 - i : i;
            block.index = dim3(at % grid.x, at / grid.x % grid.y, at / ((uint64_t)grid.x * grid.y));
            block.random = 0x9E3779B97F4A7C15ull * (at + 1) + schedule;
            run_block(block);
            if (block.error.empty()) continue;
            std::lock_guard<std::mutex> lock(mutex);
            if (error.empty()) error = block.error;
            next = total;
        }
        for (Fiber& fiber : block.fibers) {
            if (fiber.stack) stacks.give_back(fiber.stack);
        }
    };
    std::vector<std::thread> others;
    uint64_t threads = std::min<uint64_t>(std::max(1u, std::thread::hardware_concurrency()), total);
    for (uint64_t i = 1; i < threads; i++) others.emplace_back(work);
    // A fresh thread for each: static shared arrays then start anew, and the caller's thread keeps its own.
    std::thread(work).join();
    for (std::thread& other : others) other.join();
    return error;
}

/// A kernel as cuLaunchKernel needs it: the sizes of its parameters, and a call from pointers to them.
struct Kernel {
    std::vector<size_t> parameter_bytes;
    void (*call)(void** parameters);
};

inline std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

template <auto K>
struct Caller;
template <class... A, void (*K)(A...)>
struct Caller<K> {
    template <size_t... I>
    static void with(void** parameters, std::index_sequence<I...>) {
        K(*(std::remove_cv_t<A>*)parameters[I]...);
    }
    static void call(void** parameters) { with(parameters, std::index_sequence_for<A...>{}); }
    static Kernel kernel() { return {{sizeof(A)...}, &call}; }
};

struct Registration {
    Registration(const char* name, Kernel kernel) { kernels()[name] = std::move(kernel); }
};

}  // namespace emulator
