// A libcuda.so that runs kernels on the emulator: the program, and cudarc, cannot tell it from a driver.
//
// It has two devices: 0 is of compute capability 9.0, 1 of 8.0. What is queued on a stream runs as late as it may: when
// something waits for it. Memory starts as NaN and ends where an unreadable page begins, so that no kernel reads or
// writes past its end unnoticed. A kernel that fails makes the call that waits for it return CUDA_ERROR_LAUNCH_FAILED,
// after a line on standard error.
//
// Environment: EMULATOR_SCHEDULE, 0 to 5 (see runtime.h); EMULATOR_MEMORY, a device's bytes (default 4 GiB);
// EMULATOR_OLD, a device that is older than all kernels. The functions `emulatorSet...` go before them.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>

#include "../cuda/device.h"

namespace {

// Of CUDA's header, what is answered here; values are those of the driver's interface.
enum Result : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    NOT_FOUND = 500,
    NOT_READY = 600,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
};

using Device = int;
using Address = unsigned long long;

constexpr int DEVICES = 2;
constexpr int MULTIPROCESSORS = 6;
constexpr size_t PAGE = 4096;

std::atomic<size_t> set_memory{0};
size_t memory_bytes() {
    if (set_memory) return set_memory;
    const char* set = getenv("EMULATOR_MEMORY");
    return set ? strtoull(set, nullptr, 10) : (size_t)4 << 30;
}

// A device that is older than the kernels: of compute capability 7.0.
std::atomic<int> set_old{-1};
bool is_old(int device) {
    const char* set = getenv("EMULATOR_OLD");
    return device == set_old || (set && device == atoi(set));
}

std::mutex lock_of_all;
using Lock = std::lock_guard<std::mutex>;

struct Context {
    Device device;
};
Context contexts[DEVICES] = {{0}, {1}};
thread_local Context* current_context = nullptr;
thread_local int thread_schedule = -1;

unsigned schedule() {
    if (thread_schedule >= 0) return (unsigned)thread_schedule;
    const char* set = getenv("EMULATOR_SCHEDULE");
    return set ? (unsigned)atoi(set) : 0;
}

struct Allocation {
    uint8_t* mapping;
    size_t mapped, bytes;
    Device device;
};
std::map<Address, Allocation> allocations;
std::map<uintptr_t, size_t> pinned;
std::atomic<size_t> used[DEVICES];
// The same in the order of streams, where what is given back can be given out at once; and the most there was.
size_t held[DEVICES], peak[DEVICES];

using Work = std::function<int()>;

struct Event {
    struct Stream* stream = nullptr;
    uint64_t position = 0;
};

std::atomic<int> graphs{0};

struct Graph {
    std::vector<Work> work;
    Graph() { graphs++; }
    Graph(const Graph& other) : work(other.work) { graphs++; }
    ~Graph() { graphs--; }
};

struct Stream {
    std::deque<Work> queue;
    std::atomic<uint64_t> done{0}, queued{0};
    int error = SUCCESS;
    std::unique_ptr<Graph> capture;
    std::recursive_mutex mutex;

    void push(Work work) {
        std::lock_guard<std::recursive_mutex> lock(mutex);
        if (capture) {
            capture->work.push_back(std::move(work));
        } else {
            queue.push_back(std::move(work));
            queued++;
        }
    }
    /// Runs what was queued before `position`.
    int run(uint64_t position) {
        std::lock_guard<std::recursive_mutex> lock(mutex);
        while (done < position && !queue.empty()) {
            Work work = std::move(queue.front());
            queue.pop_front();
            done++;
            if (int result = work(); error == SUCCESS) error = result;
        }
        return error;
    }
    int run_all() { return run(queued); }
};
Stream default_streams[DEVICES];
// Who runs a stream holds it: another thread may destroy it meanwhile.
std::map<Stream*, std::shared_ptr<Stream>> streams;

Stream* resolve(Stream* stream) {
    Device device = current_context ? current_context->device : 0;
    // 0 to 2 name the default streams.
    return (uintptr_t)stream <= 2 ? &default_streams[device] : stream;
}

int run_everything() {
    int result = SUCCESS;
    auto run = [&](Stream& stream) {
        if (int one = stream.run_all(); result == SUCCESS) result = one;
    };
    std::vector<std::shared_ptr<Stream>> all;
    {
        Lock lock(lock_of_all);
        for (auto& stream : streams) all.push_back(stream.second);
    }
    for (auto& stream : all) run(*stream);
    for (Stream& stream : default_streams) run(stream);
    return result;
}

struct Function {
    const emulator::Kernel* kernel;
    std::string name;
    int shared_limit = 48 << 10;
};
struct Module {
    std::map<std::string, std::unique_ptr<Function>> functions;
};

thread_local const char* running_kernel = nullptr;

void report_fault(int signal, siginfo_t* info, void*) {
    char line[256];
    const char* kernel = running_kernel ? running_kernel : "no kernel";
    int n = snprintf(line, sizeof line, "emulator: an address outside of memory (%p) in %s\n", info->si_addr, kernel);
    if (write(2, line, n) < 0) abort();
    ::signal(signal, SIG_DFL);
}

bool is_pinned(const void* p) {
    auto after = pinned.upper_bound((uintptr_t)p);
    if (after == pinned.begin()) return false;
    --after;
    return (uintptr_t)p < after->first + after->second;
}

int allocate(Address* out, size_t bytes) {
    if (!current_context) return INVALID_CONTEXT;
    if (bytes == 0) return INVALID_VALUE;
    Device device = current_context->device;
    // A driver waits for memory that is about to be given back.
    bool full;
    {
        Lock lock(lock_of_all);
        full = used[device] + bytes > memory_bytes();
    }
    if (full) run_everything();
    Lock lock(lock_of_all);
    if (used[device] + bytes > memory_bytes()) return OUT_OF_MEMORY;
    // Addresses are multiples of 256, as a driver's are; the rest up to the unreadable page is watched for writes.
    size_t rounded = (bytes + 255) / 256 * 256, mapped = (rounded + PAGE - 1) / PAGE * PAGE + PAGE;
    void* mapping = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect((uint8_t*)mapping + mapped - PAGE, PAGE, PROT_NONE);
    memset(mapping, 0xFF, mapped - PAGE);
    uint8_t* start = (uint8_t*)mapping + mapped - PAGE - rounded;
    *out = (Address)start;
    allocations[*out] = {(uint8_t*)mapping, mapped, bytes, device};
    used[device] += bytes;
    held[device] += bytes;
    peak[device] = std::max(peak[device], held[device]);
    return SUCCESS;
}

void give_back(Address address) {
    Lock lock(lock_of_all);
    auto found = allocations.find(address);
    if (found != allocations.end()) held[found->second.device] -= found->second.bytes;
}

int release(Address address) {
    Lock lock(lock_of_all);
    auto found = allocations.find(address);
    if (found == allocations.end()) return INVALID_VALUE;
    Allocation a = found->second;
    int result = SUCCESS;
    for (const uint8_t* p = (uint8_t*)address + a.bytes; p < a.mapping + a.mapped - PAGE; p++) {
        if (*p != 0xFF) {
            fprintf(stderr, "emulator: something was written past the end of %zu bytes of device memory\n", a.bytes);
            result = LAUNCH_FAILED;
            break;
        }
    }
    munmap(a.mapping, a.mapped);
    used[a.device] -= a.bytes;
    allocations.erase(found);
    return result;
}

int launch(const Function& function, dim3 grid, dim3 block, unsigned shared, unsigned schedule, void** parameters) {
    void (*call)(void**) = function.kernel->call;
    std::string name = function.name;
    auto body = [&] {
        running_kernel = name.c_str();
        call(parameters);
    };
    std::string error = emulator::run_grid(grid, block, shared, schedule, body);
    if (error.empty()) return SUCCESS;
    fprintf(stderr, "emulator: %s: %s\n", name.c_str(), error.c_str());
    return LAUNCH_FAILED;
}

}  // namespace

extern "C" {

void emulatorSetSchedule(int schedule) { thread_schedule = schedule; }
void emulatorSetMemory(size_t bytes) { set_memory = bytes; }
void emulatorSetOld(int device) { set_old = device; }
/// The most bytes that a device held at once since the last call.
size_t emulatorPeakMemory(int device) {
    Lock lock(lock_of_all);
    size_t most = peak[device];
    peak[device] = held[device];
    return most;
}
/// How many graphs there are: recorded, being recorded, and ready to be launched.
int emulatorGraphs() { return graphs; }

int cuInit(unsigned) {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action = {};
        action.sa_sigaction = report_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &action, nullptr);
    });
    return SUCCESS;
}
int cuDriverGetVersion(int* version) {
    *version = 13000;
    return SUCCESS;
}
int cuGetErrorName(int error, const char** name) {
    switch (error) {
        case SUCCESS: *name = "CUDA_SUCCESS"; break;
        case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
        case LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
        default: *name = "CUDA_ERROR_OF_THE_EMULATOR"; break;
    }
    return SUCCESS;
}
int cuGetErrorString(int error, const char** text) {
    switch (error) {
        case OUT_OF_MEMORY: *text = "out of memory"; break;
        case LAUNCH_FAILED: *text = "a kernel failed on the emulator"; break;
        case NOT_FOUND: *text = "no such kernel"; break;
        default: *text = "the emulator refuses this call"; break;
    }
    return SUCCESS;
}

// ---- Devices and contexts

int cuDeviceGetCount(int* count) {
    *count = DEVICES;
    return SUCCESS;
}
int cuDeviceGet(Device* device, int ordinal) {
    if (ordinal < 0 || ordinal >= DEVICES) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}
int cuDeviceGetName(char* name, int length, Device device) {
    snprintf(name, length, "emulator of compute capability %d.0", device == 0 ? 9 : 8);
    return SUCCESS;
}
int cuDeviceTotalMem_v2(size_t* bytes, Device) {
    *bytes = memory_bytes();
    return SUCCESS;
}
int cuDeviceGetAttribute(int* value, int attribute, Device device) {
    switch (attribute) {
        case 16: *value = MULTIPROCESSORS; break;
        case 75: *value = is_old(device) ? 7 : device == 0 ? 9 : 8; break;  // compute capability, major
        case 76: *value = 0; break;                                         // minor
        case 97: *value = device == 0 ? 227 << 10 : 163 << 10; break;       // shared memory of a block
        case 115: *value = 1; break;                                        // memory pools
        default: *value = 0; break;
    }
    return SUCCESS;
}
int cuDevicePrimaryCtxRetain(Context** context, Device device) {
    *context = &contexts[device];
    return SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(Device) { return SUCCESS; }
int cuCtxSetCurrent(Context* context) {
    current_context = context;
    return SUCCESS;
}
int cuCtxGetCurrent(Context** context) {
    *context = current_context;
    return SUCCESS;
}
int cuCtxSynchronize() { return run_everything(); }

// ---- Memory

int cuDeviceGetDefaultMemPool(Context** pool, Device device) {
    *pool = &contexts[device];
    return SUCCESS;
}
int cuMemPoolSetAttribute(Context*, int, void*) { return SUCCESS; }
int cuMemPoolGetAttribute(Context* pool, int attribute, void* value) {
    // 5 is what the pool holds, 7 what of it is used: here nothing is kept.
    if (attribute != 5 && attribute != 7) return NOT_SUPPORTED;
    *(u64*)value = used[pool->device];
    return SUCCESS;
}

int cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
    if (!current_context) return INVALID_CONTEXT;
    *total = memory_bytes();
    *free_bytes = *total - used[current_context->device];
    return SUCCESS;
}
int cuMemAlloc_v2(Address* address, size_t bytes) { return allocate(address, bytes); }
int cuMemAllocAsync(Address* address, size_t bytes, Stream*) { return allocate(address, bytes); }
int cuMemFree_v2(Address address) {
    run_everything();
    give_back(address);
    return release(address);
}
int cuMemFreeAsync(Address address, Stream* stream) {
    give_back(address);
    resolve(stream)->push([=] { return release(address); });
    return SUCCESS;
}
int cuMemHostAlloc(void** p, size_t bytes, unsigned) {
    *p = malloc(bytes);
    if (!*p) return OUT_OF_MEMORY;
    Lock lock(lock_of_all);
    pinned[(uintptr_t)*p] = bytes;
    return SUCCESS;
}
int cuMemFreeHost(void* p) {
    run_everything();
    Lock lock(lock_of_all);
    pinned.erase((uintptr_t)p);
    free(p);
    return SUCCESS;
}
int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, Stream* stream) {
    bool late;
    {
        Lock lock(lock_of_all);
        late = is_pinned(from);
    }
    if (late) {
        resolve(stream)->push([=] {
            memcpy((void*)to, from, bytes);
            return (int)SUCCESS;
        });
    } else {
        // A driver has read memory that is not pinned when the call returns.
        auto copy = std::make_shared<std::vector<uint8_t>>((const uint8_t*)from, (const uint8_t*)from + bytes);
        resolve(stream)->push([=] {
            memcpy((void*)to, copy->data(), bytes);
            return (int)SUCCESS;
        });
    }
    return SUCCESS;
}
int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, Stream* stream) {
    Stream* on = resolve(stream);
    on->push([=] {
        memcpy(to, (const void*)from, bytes);
        return (int)SUCCESS;
    });
    bool late;
    {
        Lock lock(lock_of_all);
        late = is_pinned(to);
    }
    return late || on->capture ? (int)SUCCESS : on->run_all();
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, Stream* stream) {
    resolve(stream)->push([=] {
        memmove((void*)to, (const void*)from, bytes);
        return (int)SUCCESS;
    });
    return SUCCESS;
}
int cuMemsetD8Async(Address to, unsigned char value, size_t bytes, Stream* stream) {
    resolve(stream)->push([=] {
        memset((void*)to, value, bytes);
        return (int)SUCCESS;
    });
    return SUCCESS;
}
int cuTensorMapEncodeTiled(TensorMap* map, int type, unsigned rank, void* base, const u64* sizes, const u64* strides,
                           const u32* box, const u32* element_strides, int interleave, int swizzle, int, int) {
    // 6 is FLOAT16, 0 UINT8, 9 BFLOAT16; 3 is the 128-byte swizzle.
    u32 bytes = type == 0 ? 1 : type == 6 || type == 9 ? 2 : 0;
    bool fits = bytes && rank == 2 && !interleave && (swizzle == 0 || swizzle == 3) && (uintptr_t)base % 16 == 0 &&
                strides[0] % 16 == 0 && box[0] * bytes <= 128 && box[0] <= 256 && box[1] <= 256 &&
                element_strides[0] == 1 && element_strides[1] == 1;
    if (!fits) return INVALID_VALUE;
    *map = {(const u8*)base, sizes[1], sizes[0] * bytes, strides[0], box[1], box[0] * bytes, bytes, swizzle == 3, {}};
    return SUCCESS;
}

// ---- Modules and launches

int cuModuleLoadData(Module** module, const void*) {
    *module = new Module;
    return SUCCESS;
}
int cuModuleUnload(Module* module) {
    delete module;
    return SUCCESS;
}
int cuModuleGetFunction(Function** function, Module* module, const char* name) {
    auto found = emulator::kernels().find(name);
    if (found == emulator::kernels().end()) return NOT_FOUND;
    auto& slot = module->functions[name];
    if (!slot) slot = std::make_unique<Function>(Function{&found->second, name});
    *function = slot.get();
    return SUCCESS;
}
int cuFuncGetAttribute(int* value, int, Function*) {
    *value = 0;
    return SUCCESS;
}
int cuFuncSetAttribute(Function* function, int attribute, int value) {
    if (attribute == 8) function->shared_limit = value;
    return SUCCESS;
}
int cuLaunchKernel(Function* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, Stream* stream, void** parameters, void**) {
    dim3 grid(gx, gy, gz), block(bx, by, bz);
    if (!grid.count() || !block.count() || block.count() > 1024 || gy > 65535 || gz > 65535 ||
        shared > (unsigned)function->shared_limit) {
        return INVALID_VALUE;
    }
    // Parameters are copied now, as a driver does.
    auto copies = std::make_shared<std::vector<std::vector<uint64_t>>>();
    for (size_t i = 0; i < function->kernel->parameter_bytes.size(); i++) {
        size_t bytes = function->kernel->parameter_bytes[i];
        // 16 words more, so that the copy can start at a multiple of 64 bytes, as tensor maps do.
        std::vector<uint64_t> copy(bytes / 8 + 17);
        copies->push_back(std::move(copy));
        uintptr_t at = ((uintptr_t)copies->back().data() + 63) & ~(uintptr_t)63;
        memcpy((void*)at, parameters[i], bytes);
    }
    unsigned now = schedule();
    Function copy = *function;
    resolve(stream)->push([=] {
        std::vector<void*> pointers;
        for (auto& words : *copies) pointers.push_back((void*)(((uintptr_t)words.data() + 63) & ~(uintptr_t)63));
        return launch(copy, grid, block, shared, now, pointers.data());
    });
    return SUCCESS;
}

// ---- Streams, events, graphs

int cuStreamCreate(Stream** stream, unsigned) {
    if (!current_context) return INVALID_CONTEXT;
    auto made = std::make_shared<Stream>();
    *stream = made.get();
    Lock lock(lock_of_all);
    streams[*stream] = std::move(made);
    return SUCCESS;
}
int cuStreamDestroy_v2(Stream* stream) {
    if (stream->capture) return INVALID_VALUE;
    stream->run_all();
    Lock lock(lock_of_all);
    streams.erase(stream);
    return SUCCESS;
}
int cuStreamSynchronize(Stream* stream) {
    return resolve(stream)->capture ? (int)INVALID_VALUE : resolve(stream)->run_all();
}
int cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    Stream* other = event->stream;
    uint64_t position = event->position;
    if (other) resolve(stream)->push([=] { return other->run(position); });
    return SUCCESS;
}
int cuEventCreate(Event** event, unsigned) {
    *event = new Event;
    return SUCCESS;
}
int cuEventDestroy_v2(Event* event) {
    delete event;
    return SUCCESS;
}
int cuEventRecord(Event* event, Stream* stream) {
    event->stream = resolve(stream);
    event->position = event->stream->queued;
    return SUCCESS;
}
int cuEventSynchronize(Event* event) { return event->stream ? event->stream->run(event->position) : (int)SUCCESS; }
int cuEventQuery(Event* event) {
    return !event->stream || event->stream->done >= event->position ? SUCCESS : NOT_READY;
}
int cuEventElapsedTime_v2(float* ms, Event*, Event*) {
    *ms = 0;
    return SUCCESS;
}
int cuStreamBeginCapture_v2(Stream* stream, int) {
    if (resolve(stream)->capture) return INVALID_VALUE;
    resolve(stream)->capture = std::make_unique<Graph>();
    return SUCCESS;
}
int cuStreamEndCapture(Stream* stream, Graph** graph) {
    *graph = resolve(stream)->capture.release();
    return SUCCESS;
}
int cuStreamIsCapturing(Stream* stream, int* status) {
    *status = resolve(stream)->capture != nullptr;
    return SUCCESS;
}
int cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, unsigned long long) {
    *executable = new Graph(*graph);
    return SUCCESS;
}
int cuGraphLaunch(Graph* executable, Stream* stream) {
    for (const Work& work : executable->work) resolve(stream)->push(work);
    return SUCCESS;
}
int cuGraphExecDestroy(Graph* executable) {
    run_everything();
    delete executable;
    return SUCCESS;
}
int cuGraphDestroy(Graph* graph) {
    delete graph;
    return SUCCESS;
}
}
