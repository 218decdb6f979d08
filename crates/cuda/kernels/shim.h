// What lets the same kernels compile as CUDA C (by NVRTC, without any header) and as C11.
//
// KERNEL(name, fields) { body } declares `struct name_arguments`, whose fields are addresses first and 32-bit
// scalars behind them, and the kernel. The body runs for one block; in it
//
//     a             points to the arguments
//     block         is the block's index
//     EACH_THREAD   runs the statement behind it for each thread of the block, `thread`; `continue` leaves it
//     BARRIER       stands between two such statements where the second reads what the first wrote
//     SHARED        declares an array of the block
//     PRIVATE, OWN  declare an array of each thread that outlives EACH_THREAD, and name the thread's own
//     UNROLL        stands in front of a loop over few places that has to disappear, ROLLED of one that has to stay
//
// MAP_KERNEL is the same for kernels over maps. It adds two scalars: the format of the maps' values, and whether
// eight channels may be read and written at once. Its body is compiled three times, so that `format` and `wide`
// are constants where that is fast.
//
// As C, a kernel is a function that runs a range of blocks. Nothing is added by atomic instructions: each sum has
// one order, and gives the same bits each time, whatever the number of blocks that run at once.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// Threads of every block.
#define THREADS 256u

// Number formats of maps.
#define F32 0u
#define BF16 1u

#ifdef __CUDACC__

#define INLINE static __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")
#define SHARED(type, name, count) __shared__ type name[count]
#define PRIVATE(type, name, count) type name[count]
#define OWN(name) name
#define EACH_THREAD for (u32 thread __attribute__((unused)) = threadIdx.x, once = 1; once; once = 0)
#define BARRIER __syncthreads()

#define KERNEL(name, ...)                                                                                      \
    struct name##_arguments {                                                                                  \
        __VA_ARGS__                                                                                            \
    };                                                                                                         \
    INLINE void name##_block(const struct name##_arguments *a, u32 block);                                     \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                      \
        name(const __grid_constant__ struct name##_arguments a) {                                              \
        name##_block(&a, blockIdx.x);                                                                          \
    }                                                                                                          \
    INLINE void name##_block(const struct name##_arguments *a, u32 block)

#define MAP_KERNEL(name, ...)                                                                                  \
    struct name##_arguments {                                                                                  \
        __VA_ARGS__ u32 format;                                                                                \
        u32 wide;                                                                                              \
    };                                                                                                         \
    INLINE void name##_block(const struct name##_arguments *a, u32 block, u32 format, u32 wide);               \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                      \
        name(const __grid_constant__ struct name##_arguments a) {                                              \
        if (a.wide && a.format == BF16) name##_block(&a, blockIdx.x, BF16, 1);                                 \
        else if (a.wide) name##_block(&a, blockIdx.x, F32, 1);                                                 \
        else name##_block(&a, blockIdx.x, a.format, 0);                                                        \
    }                                                                                                          \
    INLINE void name##_block(const struct name##_arguments *a, u32 block, u32 format, u32 wide)

INLINE u32 bits_of(float value) { return __float_as_uint(value); }
INLINE float float_of(u32 bits) { return __uint_as_float(bits); }
INLINE double double_of(u32 low, u32 high) { return __hiloint2double((int)high, (int)low); }
INLINE float multiply_add(float x, float y, float z) { return fmaf(x, y, z); }
// Blocks that run at once may set the same flag.
INLINE void set_flag(u32 *flag) { *(volatile u32 *)flag = 1; }

#else

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
#define ROLLED _Pragma("GCC unroll 1")
#define SHARED(type, name, count) type name[count]
#define PRIVATE(type, name, count) type name[THREADS][count]
#define OWN(name) name[thread]
#define EACH_THREAD for (u32 thread = 0; thread < THREADS; thread++)
#define BARRIER

// Bytes of the arguments, and the function that runs blocks `first` to `end`.
#define ENTRY(name)                                                                                            \
    const u32 bninception_##name##_bytes = sizeof(struct name##_arguments);                                    \
    void bninception_##name(u32 first, u32 end, const struct name##_arguments *a);                             \
    void bninception_##name(u32 first, u32 end, const struct name##_arguments *a)

#define KERNEL(name, ...)                                                                                      \
    struct name##_arguments {                                                                                  \
        __VA_ARGS__                                                                                            \
    };                                                                                                         \
    INLINE void name##_block(const struct name##_arguments *a, u32 block);                                     \
    ENTRY(name) {                                                                                              \
        for (u32 block = first; block < end; block++) name##_block(a, block);                                  \
    }                                                                                                          \
    INLINE void name##_block(const struct name##_arguments *a, u32 block)

#define MAP_KERNEL(name, ...)                                                                                  \
    struct name##_arguments {                                                                                  \
        __VA_ARGS__ u32 format;                                                                                \
        u32 wide;                                                                                              \
    };                                                                                                         \
    INLINE void name##_block(const struct name##_arguments *a, u32 block, u32 format, u32 wide);               \
    ENTRY(name) {                                                                                              \
        for (u32 block = first; block < end; block++) {                                                        \
            if (a->wide && a->format == BF16) name##_block(a, block, BF16, 1);                                 \
            else if (a->wide) name##_block(a, block, F32, 1);                                                  \
            else name##_block(a, block, a->format, 0);                                                         \
        }                                                                                                      \
    }                                                                                                          \
    INLINE void name##_block(const struct name##_arguments *a, u32 block, u32 format, u32 wide)

INLINE u32 bits_of(float value) {
    union { float value; u32 bits; } both = {.value = value};
    return both.bits;
}
INLINE float float_of(u32 bits) {
    union { u32 bits; float value; } both = {.bits = bits};
    return both.value;
}
INLINE double double_of(u32 low, u32 high) {
    union { u64 bits; double value; } both = {.bits = (u64)high << 32 | low};
    return both.value;
}
INLINE float multiply_add(float x, float y, float z) { return x * y + z; }
INLINE void set_flag(u32 *flag) { __atomic_store_n(flag, 1, __ATOMIC_RELAXED); }

// Of the C library; CUDA knows them without a declaration.
float sqrtf(float);
float powf(float, float);
double sqrt(double);
double exp(double);
double log(double);

#endif

INLINE u32 least(u32 a, u32 b) { return a < b ? a : b; }
INLINE u32 divide_up(u32 a, u32 b) { return (a + b - 1) / b; }

// Leaves in its first place the sum of a shared array of THREADS values, of which there are two halves at each turn.
#define ADD_UP(sums)                                                                                           \
    for (u32 half = THREADS / 2; half > 0; half /= 2) {                                                        \
        EACH_THREAD {                                                                                          \
            if (thread < half) sums[thread] += sums[thread + half];                                            \
        }                                                                                                      \
        BARRIER;                                                                                               \
    }

// Whether neither infinite nor NaN.
INLINE u32 is_finite(float value) { return (bits_of(value) & 0x7F800000u) != 0x7F800000u; }

// The nearest bf16 number, of two equally near ones the even one; NaN stays NaN.
INLINE u32 bf16_of(float value) {
    u32 bits = bits_of(value);
    u32 rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    return (bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : rounded;
}

INLINE float load(const void *values, u64 index, u32 format) {
    return format == BF16 ? float_of((u32)((const u16 *)values)[index] << 16) : ((const float *)values)[index];
}

INLINE void store(void *values, u64 index, u32 format, float value) {
    if (format == BF16) ((u16 *)values)[index] = (u16)bf16_of(value);
    else ((float *)values)[index] = value;
}

// The values of a group: eight channels of one pixel, from a multiple of eight on. The last group of a map may have
// fewer, its `lanes`; the others are 0.
#define GROUP 8u
typedef struct Group {
    float at[GROUP];
} Group;

// Four 32-bit words, and eight bytes in two, that are read and written at once.
#ifdef __CUDACC__
typedef uint4 Words;
typedef uint2 Bytes;
#else
typedef struct Words {
    u32 x, y, z, w;
} Words;
typedef struct Bytes {
    u32 x, y;
} Bytes;
#endif

INLINE Group load_group(const void *values, u64 index, u32 lanes, u32 format, u32 wide) {
    Group group;
    if (wide && format == BF16) {
        Words words = *(const Words *)((const u16 *)values + index);
        u32 pairs[4] = {words.x, words.y, words.z, words.w};
        UNROLL for (u32 i = 0; i < 4; i++) {
            group.at[2 * i] = float_of(pairs[i] << 16);
            group.at[2 * i + 1] = float_of(pairs[i] & 0xFFFF0000u);
        }
    } else if (wide) {
        const Words *halves = (const Words *)((const float *)values + index);
        Words low = halves[0], high = halves[1];
        u32 words[GROUP] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
        UNROLL for (u32 i = 0; i < GROUP; i++) group.at[i] = float_of(words[i]);
    } else {
        UNROLL for (u32 i = 0; i < GROUP; i++) group.at[i] = i < lanes ? load(values, index + i, format) : 0.0f;
    }
    return group;
}

INLINE void store_group(void *values, u64 index, u32 lanes, u32 format, u32 wide, Group group) {
    if (wide && format == BF16) {
        u32 pairs[4];
        UNROLL for (u32 i = 0; i < 4; i++) pairs[i] = bf16_of(group.at[2 * i]) | bf16_of(group.at[2 * i + 1]) << 16;
        Words words = {pairs[0], pairs[1], pairs[2], pairs[3]};
        *(Words *)((u16 *)values + index) = words;
    } else if (wide) {
        u32 words[GROUP];
        UNROLL for (u32 i = 0; i < GROUP; i++) words[i] = bits_of(group.at[i]);
        Words low = {words[0], words[1], words[2], words[3]}, high = {words[4], words[5], words[6], words[7]};
        ((Words *)((float *)values + index))[0] = low;
        ((Words *)((float *)values + index))[1] = high;
    } else {
        UNROLL for (u32 i = 0; i < GROUP; i++)
            if (i < lanes) store(values, index + i, format, group.at[i]);
    }
}

// Where a thread works: one group of the pixels `first`, `first + step` and so on below `end`. A block's threads lie
// side by side along the channels, and what is left of them on further pixels. Each block has a chunk of the pixels;
// where a pixel has more groups than a block has threads, several blocks share a chunk.
typedef struct Place {
    u32 group, lanes, first, end, step;
    u32 chunk;       // Of the block.
    u32 first_group; // Of the block.
    u32 width;       // Threads along the channels.
} Place;

INLINE Place place_of(u32 block, u32 thread, u32 pixels, u32 channels, u32 chunk) {
    u32 groups = divide_up(channels, GROUP);
    u32 width = least(groups, THREADS);
    u32 columns = divide_up(groups, width);
    Place at;
    at.width = width;
    at.chunk = columns == 1 ? block : block / columns;
    at.first_group = columns == 1 ? 0 : block % columns * width;
    at.group = at.first_group + thread % width;
    at.lanes = at.group < groups ? least(GROUP, channels - at.group * GROUP) : 0;
    at.step = THREADS / width;
    at.first = at.chunk * chunk + thread / width;
    at.end = least(pixels, (at.chunk + 1) * chunk);
    // No whole row of threads is left at the end, or no group.
    if (thread / width >= at.step || at.lanes == 0) at.first = at.end;
    return at;
}

// The sum over the pixels of a block of row `row` of `sums`, [rows][THREADS], for its groups in column `column`.
INLINE float add_pixels(const Place *at, const float *sums, u32 row, u32 column) {
    float sum = 0.0f;
    for (u32 pixel = 0; pixel < at->step; pixel++) sum += sums[row * THREADS + pixel * at->width + column];
    return sum;
}

// Values of a vector that a block goes through, and those of them that a thread reads before it writes, so that
// its reads overlap: `first`, `first + THREADS` and so on below `end`.
#define PIECE 4096u
#define STRIP 4u
typedef struct Strip {
    float at[STRIP];
} Strip;

INLINE Strip load_strip(const float *values, u64 first, u64 end) {
    Strip strip;
    UNROLL for (u32 k = 0; k < STRIP; k++)
        strip.at[k] = first + k * THREADS < end ? values[first + k * THREADS] : 0.0f;
    return strip;
}

INLINE void store_strip(float *values, u64 first, u64 end, Strip strip) {
    UNROLL for (u32 k = 0; k < STRIP; k++)
        if (first + k * THREADS < end) values[first + k * THREADS] = strip.at[k];
}

INLINE void store_strip_bf16(u16 *values, u64 first, u64 end, Strip strip) {
    UNROLL for (u32 k = 0; k < STRIP; k++)
        if (first + k * THREADS < end) values[first + k * THREADS] = (u16)bf16_of(strip.at[k]);
}

// The strips of a thread in a vector of `values` values, of which each block has a piece.
#define EACH_STRIP(values)                                                                                     \
    for (u64 begin = (u64)block * PIECE, end = begin + PIECE < values ? begin + PIECE : values,               \
             first = begin + thread;                                                                           \
         first < end; first += STRIP * THREADS)
