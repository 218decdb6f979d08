// Normalisation across channels: y = x * s^-beta with s = 1 + alpha / size * sum of x^2 over the channels around.
//
// A block holds whole pixels in shared memory. Channel c of a block's pixel lies at [c % 8][pixel * groups + c / 8],
// so that threads side by side meet no bank twice.

INLINE float power(float scale, float beta) {
    if (beta == 0.75f) {
        float root = sqrtf(scale);
        return 1.0f / (root * sqrtf(root));
    }
    return powf(scale, -beta);
}

// Where a thread's channels lie.
typedef struct Spot {
    u32 pixel, group, lanes, groups, first; // `first`: of the pixel, in each row of shared memory.
} Spot;

INLINE Spot spot_of(u32 block, u32 thread, u32 pixels, u32 channels) {
    Spot at;
    at.groups = divide_up(channels, GROUP);
    u32 rows = THREADS / at.groups, row = thread / at.groups;
    at.pixel = block * rows + row;
    at.group = thread % at.groups;
    at.first = row * at.groups;
    at.lanes = row < rows && at.pixel < pixels ? least(GROUP, channels - at.group * GROUP) : 0;
    return at;
}

// The sum of `values` over the channels around channel c, of squares where `square`.
INLINE float sum_around(const float *values, Spot at, u32 c, u32 channels, u32 size, u32 square) {
    u32 half = size / 2, begin = c < half ? 0 : c - half, end = least(c + half + 1, channels);
    float sum = 0.0f;
    ROLLED for (u32 other = begin; other < end; other++) {
        float value = values[other % GROUP * THREADS + at.first + other / GROUP];
        sum += square ? value * value : value;
    }
    return sum;
}

MAP_KERNEL(lrn,
           const void *x; void *y; u32 pixels; u32 channels; u32 x_stride; u32 y_stride; u32 size; float alpha;
           float beta;) {
    SHARED(float, values, GROUP * THREADS);
    EACH_THREAD {
        Spot at = spot_of(block, thread, a->pixels, a->channels);
        if (at.lanes == 0) continue;
        Group x = load_group(a->x, (u64)at.pixel * a->x_stride + at.group * GROUP, at.lanes, format, wide);
        UNROLL for (u32 i = 0; i < GROUP; i++) values[i * THREADS + thread] = x.at[i];
    }
    BARRIER;
    EACH_THREAD {
        Spot at = spot_of(block, thread, a->pixels, a->channels);
        if (at.lanes == 0) continue;
        Group y = {{0.0f}};
        UNROLL for (u32 i = 0; i < GROUP; i++) {
            if (i >= at.lanes) continue;
            float sum = sum_around(values, at, at.group * GROUP + i, a->channels, a->size, 1);
            float scale = 1.0f + a->alpha / (float)a->size * sum;
            y.at[i] = values[i * THREADS + thread] * power(scale, a->beta);
        }
        store_group(a->y, (u64)at.pixel * a->y_stride + at.group * GROUP, at.lanes, format, wide, y);
    }
}

// dx = dy * s^-beta - 2 * alpha * beta / size * x * sum around of r, with r = dy * x * s^(-beta - 1).
MAP_KERNEL(lrn_gradient,
           const void *x; const void *dy; void *dx; u32 pixels; u32 channels; u32 x_stride; u32 dy_stride;
           u32 dx_stride; u32 size; float alpha; float beta; u32 accumulate;) {
    SHARED(float, values, GROUP * THREADS);
    SHARED(float, direct, GROUP * THREADS);
    SHARED(float, ratios, GROUP * THREADS);
    EACH_THREAD {
        Spot at = spot_of(block, thread, a->pixels, a->channels);
        if (at.lanes == 0) continue;
        Group x = load_group(a->x, (u64)at.pixel * a->x_stride + at.group * GROUP, at.lanes, format, wide);
        Group dy = load_group(a->dy, (u64)at.pixel * a->dy_stride + at.group * GROUP, at.lanes, format, wide);
        UNROLL for (u32 i = 0; i < GROUP; i++) {
            values[i * THREADS + thread] = x.at[i];
            direct[i * THREADS + thread] = dy.at[i];
        }
    }
    BARRIER;
    EACH_THREAD {
        Spot at = spot_of(block, thread, a->pixels, a->channels);
        UNROLL for (u32 i = 0; i < GROUP; i++) {
            if (i >= at.lanes) continue;
            float sum = sum_around(values, at, at.group * GROUP + i, a->channels, a->size, 1);
            float scale = 1.0f + a->alpha / (float)a->size * sum;
            u32 index = i * THREADS + thread;
            direct[index] *= power(scale, a->beta);
            ratios[index] = direct[index] * values[index] / scale;
        }
    }
    BARRIER;
    EACH_THREAD {
        Spot at = spot_of(block, thread, a->pixels, a->channels);
        if (at.lanes == 0) continue;
        u64 to = (u64)at.pixel * a->dx_stride + at.group * GROUP;
        Group dx = {{0.0f}};
        if (a->accumulate) dx = load_group(a->dx, to, at.lanes, format, wide);
        float factor = 2.0f * a->alpha * a->beta / (float)a->size;
        UNROLL for (u32 i = 0; i < GROUP; i++) {
            if (i >= at.lanes) continue;
            float sum = sum_around(ratios, at, at.group * GROUP + i, a->channels, a->size, 0);
            u32 index = i * THREADS + thread;
            dx.at[i] += direct[index] - factor * values[index] * sum;
        }
        store_group(a->dx, to, at.lanes, format, wide, dx);
    }
}
