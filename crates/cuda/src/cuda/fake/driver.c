/* A driver whose device is the host's memory, for tests of what calls a driver. It is as late as a driver may be: what is
 * started on a stream runs when somebody waits for it, and not before. Who reads too early sees old bytes. */

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INVALID 1
#define OUT_OF_MEMORY 2
#define NO_DEVICE 101
#define NOT_FOUND 500
#define NOT_READY 600
#define CAPTURE_UNSUPPORTED 900
#define EXPORT __attribute__((visibility("default")))

/* Bytes of the device. */
#define MEMORY (64u << 20)

typedef struct Event {
    unsigned long recorded, reached; /* Times. */
    double time;
    struct Stream *stream; /* Where it was recorded last. */
} Event;

typedef struct Op {
    void (*run)(void *);
    void *data;
    Event *record, *wait;
    struct Stream *waits_for; /* Where the event was recorded when the wait began. */
    unsigned long turn;
    struct Op *next;
} Op;

typedef struct Stream {
    Op *first, *last;
    int capturing;
    struct Stream *all;
} Stream;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Stream *streams;
static size_t used;
static double now; /* Milliseconds of the device: each thing that runs takes one. */
static _Thread_local int context; /* Whether the thread has one. */
static long calls_without_context;

static Op *new_op(void) { return calloc(1, sizeof(Op)); }

static void push(Stream *stream, Op *op) {
    if (stream->last) stream->last->next = op;
    else stream->first = op;
    stream->last = op;
}

static void run_until(Stream *stream, Event *event, unsigned long turn);

/* Runs the first thing of a stream; 0 if there is none. */
static int run_one(Stream *stream) {
    Op *op = stream->capturing ? NULL : stream->first;
    if (!op) return 0;
    if (op->wait) run_until(op->waits_for, op->wait, op->turn);
    stream->first = op->next;
    if (!stream->first) stream->last = NULL;
    if (op->run) {
        op->run(op->data);
        now += 1;
    }
    if (op->record) {
        op->record->reached = op->turn;
        op->record->time = now;
    }
    free(op);
    return 1;
}

static void run_until(Stream *stream, Event *event, unsigned long turn) {
    while (event->reached < turn && run_one(stream)) {}
}

static void run_all(Stream *stream) {
    while (run_one(stream)) {}
}

#define ENTER                                                                                                  \
    pthread_mutex_lock(&lock);                                                                                 \
    if (!context) calls_without_context++;
#define LEAVE(status)                                                                                          \
    do {                                                                                                       \
        pthread_mutex_unlock(&lock);                                                                           \
        return status;                                                                                         \
    } while (0)

/* For the tests and the other fakes. */

EXPORT long fake_calls_without_context(void) { return calls_without_context; }

/* Starts a function with a copy of its data. */
EXPORT int fake_start(void *stream, void (*run)(void *), const void *data, size_t bytes) {
    Op *op = new_op();
    op->run = run;
    op->data = malloc(bytes);
    memcpy(op->data, data, bytes);
    ENTER push(stream, op);
    LEAVE(0);
}

typedef void (*Function)(uint32_t, uint32_t, const void *);
typedef struct Kernel {
    char name[64];
    Function function;
    size_t bytes;
    struct Kernel *next;
} Kernel;
static Kernel *kernels;

/* A kernel of all modules: runs blocks of a range, with arguments of so many bytes. */
EXPORT void fake_kernel(const char *name, Function function, size_t bytes) {
    Kernel *kernel = calloc(1, sizeof(Kernel));
    strncpy(kernel->name, name, sizeof(kernel->name) - 1);
    kernel->function = function;
    kernel->bytes = bytes;
    pthread_mutex_lock(&lock);
    kernel->next = kernels;
    kernels = kernel;
    pthread_mutex_unlock(&lock);
}

/* The device. */

EXPORT int cuInit(unsigned flags) { return flags ? INVALID : 0; }
EXPORT int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
EXPORT int cuGetErrorName(int error, const char **text) {
    *text = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_OF_THE_FAKE";
    return 0;
}
EXPORT int cuGetErrorString(int error, const char **text) { (void)error; *text = "the fake's words"; return 0; }
EXPORT int cuDeviceGetCount(int *count) { *count = 1; return 0; }
EXPORT int cuDeviceGet(int *device, int ordinal) { *device = 7; return ordinal == 0 ? 0 : NO_DEVICE; }
EXPORT int cuDeviceGetName(char *name, int bytes, int device) {
    strncpy(name, "Fake H100", (size_t)bytes);
    return device == 7 ? 0 : NO_DEVICE;
}
EXPORT int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = MEMORY; return device == 7 ? 0 : NO_DEVICE; }
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
        case 16: *value = 132; break;      /* Multiprocessors. */
        case 36: *value = 2619000; break;  /* kHz of the memory. */
        case 37: *value = 5120; break;     /* Bits of its bus. */
        case 75: *value = 9; break;        /* Architecture. */
        case 76: *value = 0; break;
        default: return INVALID;
    }
    return device == 7 ? 0 : NO_DEVICE;
}
EXPORT int cuDevicePrimaryCtxRetain(void **out, int device) { *out = &used; return device == 7 ? 0 : NO_DEVICE; }
EXPORT int cuDevicePrimaryCtxRelease_v2(int device) { return device == 7 ? 0 : NO_DEVICE; }
EXPORT int cuCtxSetCurrent(void *given) { context = given == &used; return context ? 0 : INVALID; }

/* Streams and events. */

EXPORT int cuStreamCreate(Stream **out, unsigned flags) {
    ENTER *out = calloc(1, sizeof(Stream));
    (*out)->all = streams;
    streams = *out;
    LEAVE(flags == 1 ? 0 : INVALID); /* Non-blocking. */
}
EXPORT int cuStreamDestroy_v2(Stream *stream) {
    ENTER run_all(stream);
    for (Stream **place = &streams; *place; place = &(*place)->all) {
        if (*place != stream) continue;
        *place = stream->all;
        free(stream);
        break;
    }
    LEAVE(0);
}
EXPORT int cuStreamSynchronize(Stream *stream) {
    ENTER if (stream->capturing) LEAVE(CAPTURE_UNSUPPORTED);
    run_all(stream);
    LEAVE(0);
}
EXPORT int cuStreamWaitEvent(Stream *stream, Event *event, unsigned flags) {
    Op *op = new_op();
    ENTER op->wait = event;
    op->waits_for = event->stream;
    op->turn = event->recorded;
    if (event->stream != stream) push(stream, op);
    LEAVE(flags ? INVALID : 0);
}
EXPORT int cuEventCreate(Event **out, unsigned flags) {
    (void)flags;
    ENTER *out = calloc(1, sizeof(Event));
    LEAVE(0);
}
EXPORT int cuEventDestroy_v2(Event *event) { (void)event; return 0; } /* Ops may name it. */
EXPORT int cuEventRecord(Event *event, Stream *stream) {
    Op *op = new_op();
    ENTER op->record = event;
    op->turn = ++event->recorded;
    event->stream = stream;
    push(stream, op);
    LEAVE(0);
}
EXPORT int cuEventSynchronize(Event *event) {
    ENTER run_until(event->stream, event, event->recorded);
    LEAVE(event->reached < event->recorded ? CAPTURE_UNSUPPORTED : 0);
}
/* Whether it has passed; if not, a little happens meanwhile. */
EXPORT int cuEventQuery(Event *event) {
    ENTER int passed = event->reached >= event->recorded;
    if (!passed) run_one(event->stream);
    LEAVE(passed ? 0 : NOT_READY);
}
EXPORT int cuEventElapsedTime(float *milliseconds, Event *before, Event *behind) {
    ENTER *milliseconds = (float)(behind->time - before->time);
    LEAVE(0);
}

/* Memory. What is taken is full of garbage. */

EXPORT int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    ENTER if (bytes == 0) LEAVE(INVALID);
    if (used + bytes > MEMORY) LEAVE(OUT_OF_MEMORY);
    char *block = aligned_alloc(256, 256 + (bytes + 255) / 256 * 256);
    memset(block, 0xAB, 256 + bytes);
    *(size_t *)block = bytes;
    used += bytes;
    *address = (uint64_t)(uintptr_t)(block + 256);
    LEAVE(0);
}
EXPORT int cuMemFree_v2(uint64_t address) {
    char *block = (char *)(uintptr_t)address - 256;
    ENTER used -= *(size_t *)block;
    /* Who still reads it sees that; volatile, lest the compiler leave it out. */
    for (size_t i = 0; i < *(size_t *)block; i++) ((volatile char *)block)[256 + i] = 0x6E;
    free(block);
    LEAVE(0);
}
EXPORT int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    ENTER *free_bytes = MEMORY - used;
    *total = MEMORY;
    LEAVE(0);
}
EXPORT int cuMemHostAlloc(void **address, size_t bytes, unsigned flags) {
    if (bytes == 0 || flags) return INVALID;
    *address = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    memset(*address, 0xCD, bytes);
    return 0;
}
EXPORT int cuMemFreeHost(void *address) { free(address); return 0; }

typedef struct Copy {
    void *to;
    const void *from;
    size_t bytes;
    int byte;
} Copy;
static void copy(void *data) {
    Copy *copy = data;
    if (copy->from) memcpy(copy->to, copy->from, copy->bytes);
    else memset(copy->to, copy->byte, copy->bytes);
}
static int start_copy(Stream *stream, Copy given) { return fake_start(stream, copy, &given, sizeof(given)); }
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, Stream *stream) {
    return start_copy(stream, (Copy){(void *)(uintptr_t)to, from, bytes, 0});
}
EXPORT int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, Stream *stream) {
    return start_copy(stream, (Copy){to, (void *)(uintptr_t)from, bytes, 0});
}
EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Stream *stream) {
    return start_copy(stream, (Copy){(void *)(uintptr_t)to, (void *)(uintptr_t)from, bytes, 0});
}
EXPORT int cuMemsetD8Async(uint64_t to, unsigned char byte, size_t bytes, Stream *stream) {
    return start_copy(stream, (Copy){(void *)(uintptr_t)to, NULL, bytes, byte});
}

/* Kernels. */

EXPORT int cuModuleLoadData(void **module, const char *code) {
    *module = &kernels;
    return memcmp(code, "code for sm_90", 14) ? INVALID : 0;
}
EXPORT int cuModuleUnload(void *module) { return module == &kernels ? 0 : INVALID; }
EXPORT int cuModuleGetFunction(Kernel **out, void *module, const char *name) {
    ENTER Kernel *kernel = kernels;
    while (kernel && strcmp(kernel->name, name)) kernel = kernel->next;
    *out = kernel;
    LEAVE(!kernel ? NOT_FOUND : module == &kernels ? 0 : INVALID);
}

typedef struct Start {
    Kernel *kernel;
    uint32_t blocks;
    char arguments[512];
} Start;
static void run_kernel(void *data) {
    Start *start = data;
    start->kernel->function(0, start->blocks, start->arguments);
}
EXPORT int cuLaunchKernel(Kernel *kernel, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz,
                          unsigned shared, Stream *stream, void **parameters, void **extra) {
    if (x == 0 || y != 1 || z != 1 || tx != 256 || ty != 1 || tz != 1 || shared || extra) return INVALID;
    Start start = {kernel, x, {0}};
    if (kernel->bytes > sizeof(start.arguments)) return INVALID;
    memcpy(start.arguments, parameters[0], kernel->bytes);
    return fake_start(stream, run_kernel, &start, sizeof(start));
}

/* Graphs. */

typedef struct Graph {
    Op *first;
} Graph;
EXPORT int cuStreamBeginCapture_v2(Stream *stream, int mode) {
    ENTER run_all(stream); /* So that all that follows is what is captured. */
    stream->capturing = 1;
    LEAVE(mode == 2 ? 0 : INVALID); /* Relaxed. */
}
EXPORT int cuStreamEndCapture(Stream *stream, Graph **graph) {
    ENTER *graph = calloc(1, sizeof(Graph));
    (*graph)->first = stream->first;
    stream->first = stream->last = NULL;
    stream->capturing = 0;
    LEAVE(0);
}
EXPORT int cuGraphInstantiateWithFlags(Graph **instance, Graph *graph, unsigned long long flags) {
    *instance = calloc(1, sizeof(Graph));
    (*instance)->first = graph->first;
    return flags ? INVALID : 0;
}
EXPORT int cuGraphDestroy(Graph *graph) { free(graph); return 0; }
EXPORT int cuGraphExecDestroy(Graph *graph) { free(graph); return 0; }
EXPORT int cuGraphLaunch(Graph *graph, Stream *stream) {
    ENTER for (Op *op = graph->first; op; op = op->next) {
        Op *again = new_op();
        *again = *op;
        again->next = NULL;
        push(stream, again);
    }
    LEAVE(0);
}
