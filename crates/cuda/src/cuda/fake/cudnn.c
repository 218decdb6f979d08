/* A cuDNN that convolves by its definition, for tests of what is told to cuDNN. It has four engines for each graph, of
 * which mode A lists three: one that sums in no fixed order, a fast one on tensor cores, a slow one. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int fake_start(void *stream, void (*run)(void *), const void *data, size_t bytes);

#define BAD_PARAM 2000
#define NOT_SUPPORTED 3000

enum { CONVOLUTION = 1, ENGINE, CONFIG, HEURISTICS, PLAN, FORWARD = 10, BACKWARD_FILTER, BACKWARD_DATA, GRAPH = 15,
       PACK, TENSOR };

/* What is known of attributes: those of a descriptor in the order in which they were set. */
typedef struct Attribute {
    int name, type;
    int64_t count;
    char values[96];
} Attribute;
typedef struct Descriptor {
    int kind, count, finished;
    Attribute attributes[12];
    int engine; /* Of an engine, a configuration, a plan. */
} Descriptor;
typedef struct Handle {
    void *stream;
} Handle;

/* Numerical notes, scratch, and things to do. */
static const struct { int index, notes[2], count; int64_t scratch; int slowness; } engines[4] = {
    {11, {0, 4}, 2, 1000, 0}, {12, {5}, 1, 64, 5}, {13, {0}, 1, 4000, 1}, {14, {9}, 1, 0, 9}};

static size_t size_of(int type) {
    switch (type) {
        case 0: case 3: case 5: case 6: case 15: return 8; /* Handle, int64, double, pointer, descriptor. */
        case 24: return 1;
        default: return 4;
    }
}
static Attribute *find(Descriptor *descriptor, int name) {
    for (int i = 0; i < descriptor->count; i++)
        if (descriptor->attributes[i].name == name) return &descriptor->attributes[i];
    return NULL;
}
static int64_t integer(Descriptor *descriptor, int name, int place) {
    return ((int64_t *)find(descriptor, name)->values)[place];
}
static Descriptor *named(Descriptor *descriptor, int name) {
    return *(Descriptor **)find(descriptor, name)->values;
}

size_t cudnnGetVersion(void) { return 92801; }
size_t cudnnGetCudartVersion(void) { return 13000; }
const char *cudnnGetErrorString(int status) { return status == BAD_PARAM ? "CUDNN_STATUS_BAD_PARAM" : "another"; }
void cudnnGetLastErrorString(char *text, size_t bytes) { strncpy(text, "the fake's words", bytes); }
int cudnnCreate(Handle **handle) { *handle = calloc(1, sizeof(Handle)); return 0; }
int cudnnDestroy(Handle *handle) { free(handle); return 0; }
int cudnnSetStream(Handle *handle, void *stream) { handle->stream = stream; return 0; }

int cudnnBackendCreateDescriptor(int kind, Descriptor **out) {
    *out = calloc(1, sizeof(Descriptor));
    (*out)->kind = kind;
    return 0;
}
int cudnnBackendDestroyDescriptor(Descriptor *descriptor) { free(descriptor); return 0; }
int cudnnBackendSetAttribute(Descriptor *descriptor, int name, int type, int64_t count, const void *values) {
    size_t bytes = (size_t)count * size_of(type);
    Attribute *attribute = &descriptor->attributes[descriptor->count];
    if (descriptor->finished || descriptor->count == 12 || bytes > sizeof(attribute->values)) return BAD_PARAM;
    *attribute = (Attribute){name, type, count, {0}};
    memcpy(attribute->values, values, bytes);
    descriptor->count++;
    return 0;
}

/* The attributes that must be there, before it ends. */
int cudnnBackendFinalize(Descriptor *descriptor) {
    static const int needed[][12] = {{CONVOLUTION, 100, 101, 102, 103, 104, 105, 106}, {HEURISTICS, 200, 201},
        {PLAN, 400, 401}, {FORWARD, 700, 701, 702, 703, 704, 705}, {BACKWARD_DATA, 706, 707, 708, 709, 710, 711},
        {BACKWARD_FILTER, 712, 713, 714, 715, 716, 717}, {GRAPH, 800, 801}, {PACK, 1000, 1001, 1003},
        {TENSOR, 900, 901, 902, 903, 906}};
    for (size_t i = 0; i < sizeof(needed) / sizeof(*needed); i++)
        for (int k = 1; needed[i][0] == descriptor->kind && needed[i][k]; k++)
            if (!find(descriptor, needed[i][k])) return BAD_PARAM;
    if (descriptor->kind == PLAN) descriptor->engine = named(descriptor, 401)->engine;
    descriptor->finished = 1;
    return 0;
}

int cudnnBackendGetAttribute(Descriptor *descriptor, int name, int type, int64_t room, int64_t *count, void *values) {
    int engine = descriptor->engine;
    if (descriptor->kind == HEURISTICS && name == 202 && type == 15) {
        int is_fallback = *(int *)find(descriptor, 200)->values == 2;
        /* For images of three channels it lists the first only. */
        Descriptor *operation = named(named(descriptor, 201), 801);
        int is_image = operation->kind == FORWARD && integer(named(operation, 704), 902, 1) == 3;
        int first = is_fallback ? 3 : 0, end = is_fallback ? 4 : is_image ? 1 : 3;
        for (*count = 0; first < end && *count < room; first++, ++*count) {
            Descriptor *config = ((Descriptor **)values)[*count];
            config->engine = first;
            cudnnBackendSetAttribute(config, 1300, 15, 1, find(descriptor, 201)->values);
        }
    } else if (descriptor->kind == CONFIG && name == 300 && type == 15) {
        (*(Descriptor **)values)->engine = engine;
        *count = 1;
    } else if (descriptor->kind == ENGINE && name == 1301 && type == 3) {
        *(int64_t *)values = engines[engine].index;
        *count = 1;
    } else if (descriptor->kind == ENGINE && name == 1303 && type == 11) {
        memcpy(values, engines[engine].notes, sizeof(int) * (size_t)engines[engine].count);
        *count = engines[engine].count;
    } else if (descriptor->kind == ENGINE && name == 1305 && type == 19) {
        *count = 0;
    } else if (descriptor->kind == PLAN && name == 402 && type == 3) {
        *(int64_t *)values = engines[engine].scratch;
        *count = 1;
    } else {
        return NOT_SUPPORTED;
    }
    return 0;
}

/* One operand: where value n, c, h, w lies. */
typedef struct Operand {
    char *address;
    int is_bf16;
    int64_t sizes[4], strides[4];
} Operand;
typedef struct Work {
    int kind, is_filled;
    double alpha, beta;
    int64_t pad[2], step[2];
    Operand x, w, y;
    char *scratch;
    int64_t scratch_bytes;
} Work;

static float get(const Operand *operand, int64_t n, int64_t c, int64_t h, int64_t w) {
    int64_t at = n * operand->strides[0] + c * operand->strides[1] + h * operand->strides[2] + w * operand->strides[3];
    if (!operand->is_bf16) return ((float *)operand->address)[at];
    uint32_t bits = (uint32_t)((uint16_t *)operand->address)[at] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
static void put(const Operand *operand, const int64_t *place, double value) {
    int64_t at = 0;
    for (int i = 0; i < 4; i++) at += place[i] * operand->strides[i];
    float narrow = (float)value;
    uint32_t bits;
    memcpy(&bits, &narrow, 4);
    if (operand->is_bf16) ((uint16_t *)operand->address)[at] = (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    else ((float *)operand->address)[at] = narrow;
}

/* Each value of the result is the sum over all places of the loops that it takes part in. */
static void convolve(void *data) {
    Work *work = data;
    memset(work->scratch, 0x5A, (size_t)work->scratch_bytes);
    Operand *to = work->kind == FORWARD ? &work->y : work->kind == BACKWARD_DATA ? &work->x : &work->w;
    int64_t values = to->sizes[0] * to->sizes[1] * to->sizes[2] * to->sizes[3];
    double *sums = calloc((size_t)values, sizeof(double));
#define AT(o, n, c, h, w) ((((n) * (o).sizes[1] + (c)) * (o).sizes[2] + (h)) * (o).sizes[3] + (w))
    for (int64_t n = 0; n < work->y.sizes[0]; n++)
    for (int64_t k = 0; k < work->y.sizes[1]; k++)
    for (int64_t oh = 0; oh < work->y.sizes[2]; oh++)
    for (int64_t ow = 0; ow < work->y.sizes[3]; ow++)
    for (int64_t c = 0; c < work->w.sizes[1]; c++)
    for (int64_t r = 0; r < work->w.sizes[2]; r++)
    for (int64_t s = 0; s < work->w.sizes[3]; s++) {
        int64_t h = oh * work->step[0] + r - work->pad[0], w = ow * work->step[1] + s - work->pad[1];
        if (h < 0 || w < 0 || h >= work->x.sizes[2] || w >= work->x.sizes[3]) continue;
        if (work->kind == FORWARD)
            sums[AT(work->y, n, k, oh, ow)] += (double)get(&work->x, n, c, h, w) * get(&work->w, k, c, r, s);
        else if (work->kind == BACKWARD_DATA)
            sums[AT(work->x, n, c, h, w)] += (double)get(&work->y, n, k, oh, ow) * get(&work->w, k, c, r, s);
        else
            sums[AT(work->w, k, c, r, s)] += (double)get(&work->y, n, k, oh, ow) * get(&work->x, n, c, h, w);
    }
    for (int64_t a = 0; a < to->sizes[0]; a++)
    for (int64_t b = 0; b < to->sizes[1]; b++)
    for (int64_t c = 0; c < to->sizes[2]; c++)
    for (int64_t d = 0; d < to->sizes[3]; d++) {
        double before = work->beta != 0 ? work->beta * get(to, a, b, c, d) : 0;
        put(to, (int64_t[]){a, b, c, d}, work->alpha * sums[AT(*to, a, b, c, d)] + before);
    }
    free(sums);
}
static void idle(void *data) { (void)data; }

static int operand(Operand *out, Descriptor *tensor, Descriptor *pack) {
    out->is_bf16 = *(int *)find(tensor, 901)->values == 9;
    memcpy(out->sizes, find(tensor, 902)->values, sizeof(out->sizes));
    memcpy(out->strides, find(tensor, 903)->values, sizeof(out->strides));
    for (int64_t i = 0; i < find(pack, 1000)->count; i++)
        if (integer(pack, 1000, (int)i) == integer(tensor, 906, 0)) out->address = ((char **)find(pack, 1001)->values)[i];
    int64_t alignment = integer(tensor, 900, 0);
    return !out->address || (uintptr_t)out->address % (uintptr_t)alignment ? BAD_PARAM : 0;
}
int cudnnBackendExecute(Handle *handle, Descriptor *plan, Descriptor *pack) {
    if (!plan->finished || !pack->finished) return BAD_PARAM;
    Descriptor *operation = named(named(named(plan, 401), 1300), 801), *shape = NULL;
    /* Alpha, beta, convolution, x, w, y. */
    static const int names[3][6] = {{700, 701, 702, 704, 703, 705}, {712, 713, 714, 716, 715, 717}, {706, 707, 708, 710, 709, 711}};
    const int *name = names[operation->kind - FORWARD];
    Work work = {.kind = operation->kind, .scratch = *(char **)find(pack, 1003)->values,
                 .scratch_bytes = engines[plan->engine].scratch};
    work.alpha = *(double *)find(operation, name[0])->values;
    work.beta = *(double *)find(operation, name[1])->values;
    shape = named(operation, name[2]);
    for (int i = 0; i < 2; i++) {
        if (integer(shape, 102, i) != 1 || integer(shape, 104, i) != integer(shape, 105, i)) return NOT_SUPPORTED;
        work.step[i] = integer(shape, 103, i);
        work.pad[i] = integer(shape, 105, i);
    }
    int status = operand(&work.x, named(operation, name[3]), pack) | operand(&work.w, named(operation, name[4]), pack)
               | operand(&work.y, named(operation, name[5]), pack);
    if (status) return status;
    for (int i = 0; i < engines[plan->engine].slowness; i++) fake_start(handle->stream, idle, &i, sizeof(i));
    return fake_start(handle->stream, convolve, &work, sizeof(work));
}
