// Batch norm with the nonlinearity behind it, and its gradient. z = multiplier * x + offset is what enters the
// nonlinearity. Moments are [c][4]: mean, 1 / sqrt(variance + epsilon), multiplier, offset.
//
// Sums go over few values in f32 in each thread, over a block's threads in shared memory, and over the blocks in f64
// in a kernel of their own.

#define RELU 0u
#define SIGMOID 1u

// 1 / (1 + exp(-x)) with the constants of Cephes' expf (https://www.netlib.org/cephes/), as the CPU's kernels have it.
INLINE float sigmoid(float x) {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const float round = 12582912.0f;
    // Beyond this exp leaves the range of f32, and the sigmoid is 0 or 1 to the last bit. NaN passes.
    float power = -x > 87.0f ? 87.0f : -x < -87.0f ? -87.0f : -x;
    float shifted = power * 1.44269504f + round;
    float n = shifted - round;
    float r = power - n * 0.6933594f - n * -2.1219444e-4f;
    float p = 1.9875691e-4f;
    p = p * r + 1.3981999e-3f;
    p = p * r + 8.333452e-3f;
    p = p * r + 4.1665796e-2f;
    p = p * r + 1.6666665e-1f;
    p = p * r + 0.5f;
    float power_of_2 = float_of((bits_of(shifted) - bits_of(round) + 127u) << 23);
    return 1.0f / (1.0f + (p * r * r + r + 1.0f) * power_of_2);
}

INLINE float activate(float z, u32 activation) {
    if (activation == SIGMOID) return sigmoid(z);
    return z < 0.0f ? 0.0f : z; // NaN passes.
}

// The gradient of z; the slope of ReLU at 0 is 0.
INLINE float gradient_of_z(float z, float dy, u32 activation) {
    if (activation == SIGMOID) {
        float y = sigmoid(z);
        return dy * (y * (1.0f - y));
    }
    return z > 0.0f ? dy : 0.0f;
}

// What a thread needs of its channels' moments.
typedef struct Moments {
    Group mean, inv_std, multiplier, offset;
} Moments;

INLINE Moments load_moments(const float *moments, u32 group, u32 lanes) {
    Moments m;
    UNROLL for (u32 i = 0; i < GROUP; i++) {
        // Lanes without a channel read the last one's: their values are not stored.
        const float *of = moments + ((u64)group * GROUP + (i < lanes ? i : 0)) * 4;
        m.mean.at[i] = of[0];
        m.inv_std.at[i] = of[1];
        m.multiplier.at[i] = of[2];
        m.offset.at[i] = of[3];
    }
    return m;
}

// The sums of a block over its pixels: `sums` holds two of each thread's lanes. They go to partial [chunk][2][c].
INLINE void reduce_block(const Place *at, u32 thread, const float *sums, float *partial, u32 channels) {
    u32 width = at->width;
    for (u32 index = thread; index < 2 * GROUP * width; index += THREADS) {
        // Threads side by side read words side by side.
        u32 row = index / width, column = index % width;
        u32 which = row / GROUP, channel = (at->first_group + column) * GROUP + row % GROUP;
        if (channel >= channels) continue;
        partial[((u64)at->chunk * 2 + which) * channels + channel] = add_pixels(at, sums, row, column);
    }
}

// Sums of x - shift and of its square over each chunk of pixels, the shift being the chunk's first value: so nothing
// is lost where the mean is far from 0. partial: [chunk][2][c].
MAP_KERNEL(batch_norm_sums, const void *x; float *partial; u32 pixels; u32 channels; u32 x_stride; u32 chunk;) {
    SHARED(float, sums, 2 * GROUP * THREADS);
    EACH_THREAD {
        Place at = place_of(block, thread, a->pixels, a->channels, a->chunk);
        Group shift = {{0.0f}}, sum = {{0.0f}}, square = {{0.0f}};
        u64 channel = (u64)at.group * GROUP;
        if (at.first < at.end)
            shift = load_group(a->x, (u64)at.chunk * a->chunk * a->x_stride + channel, at.lanes, format, wide);
        u32 pixel = at.first;
        // Several at once, so that their reads overlap.
        for (; pixel + 3 * at.step < at.end; pixel += 4 * at.step) {
            Group x[4];
            UNROLL for (u32 k = 0; k < 4; k++)
                x[k] = load_group(a->x, (u64)(pixel + k * at.step) * a->x_stride + channel, at.lanes, format, wide);
            UNROLL for (u32 k = 0; k < 4; k++) {
                UNROLL for (u32 i = 0; i < GROUP; i++) {
                    float d = x[k].at[i] - shift.at[i];
                    sum.at[i] += d;
                    square.at[i] = multiply_add(d, d, square.at[i]);
                }
            }
        }
        for (; pixel < at.end; pixel += at.step) {
            Group x = load_group(a->x, (u64)pixel * a->x_stride + channel, at.lanes, format, wide);
            UNROLL for (u32 i = 0; i < GROUP; i++) {
                float d = x.at[i] - shift.at[i];
                sum.at[i] += d;
                square.at[i] = multiply_add(d, d, square.at[i]);
            }
        }
        UNROLL for (u32 i = 0; i < GROUP; i++) {
            sums[i * THREADS + thread] = sum.at[i];
            sums[(GROUP + i) * THREADS + thread] = square.at[i];
        }
    }
    BARRIER;
    EACH_THREAD {
        Place at = place_of(block, thread, a->pixels, a->channels, a->chunk);
        reduce_block(&at, thread, sums, a->partial, a->channels);
    }
}

// Blocks of the kernels that add up partial sums have MERGED channels, and for each as many threads as are left.
#define MERGED 8u
#define MERGERS (THREADS / MERGED)

// The sum of what the threads of one channel have, of which `thread` is the first.
INLINE double add_mergers(const double *sums, u32 thread) {
    double sum = 0.0;
    for (u32 other = thread; other < THREADS; other += MERGED) sum += sums[other];
    return sum;
}

// Writes the moments of one channel.
INLINE void write_moments(float *moments, double mean, double inv_std, double gamma, double beta) {
    double multiplier = gamma * inv_std;
    moments[0] = (float)mean;
    moments[1] = (float)inv_std;
    moments[2] = (float)multiplier;
    moments[3] = (float)(beta - mean * multiplier);
}

// Moments of a batch from the sums of its chunks, and the running statistics behind it.
KERNEL(batch_norm_moments,
       const void *x; const float *partial; const float *gamma; const float *beta; const float *from_mean;
       const float *from_variance; const float *momentum; const float *bias; float *to_mean; float *to_variance;
       float *moments; u32 pixels; u32 channels; u32 x_stride; u32 chunk; u32 chunks; u32 format; u32 has_bias;
       u32 epsilon_low; u32 epsilon_high;) {
    SHARED(double, sums, THREADS);
    SHARED(double, squares, THREADS);
    EACH_THREAD {
        u32 channel = block * MERGED + thread % MERGED;
        double sum = 0.0, square = 0.0;
        if (channel < a->channels) {
            double shift = load(a->x, channel, a->format);
            for (u32 chunk = thread / MERGED; chunk < a->chunks; chunk += MERGERS) {
                u64 first = (u64)chunk * a->chunk;
                double count = least(a->chunk, a->pixels - (u32)first);
                // What was summed from the chunk's first value, as if from the first of all.
                double offset = load(a->x, first * a->x_stride + channel, a->format) - shift;
                double s = a->partial[(u64)chunk * 2 * a->channels + channel];
                double q = a->partial[((u64)chunk * 2 + 1) * a->channels + channel];
                sum += s + count * offset;
                square += q + offset * (2.0 * s + count * offset);
            }
        }
        sums[thread] = sum;
        squares[thread] = square;
    }
    BARRIER;
    EACH_THREAD {
        u32 c = block * MERGED + thread;
        if (thread >= MERGED || c >= a->channels) continue;
        double sum = add_mergers(sums, thread), square = add_mergers(squares, thread);
        double n = a->pixels;
        double from_shift = sum / n;
        double mean = load(a->x, c, a->format) + from_shift;
        double variance = square / n - from_shift * from_shift;
        // Rounding can leave a constant channel's variance a little below zero; NaN passes.
        if (variance < 0.0) variance = 0.0;
        double inv_std = 1.0 / sqrt(variance + double_of(a->epsilon_low, a->epsilon_high));
        write_moments(a->moments + (u64)c * 4, mean, inv_std, a->gamma[c], a->beta[c]);

        double momentum = a->momentum[0], bias = a->has_bias ? a->bias[c] : 0.0;
        a->to_mean[c] = (float)(a->from_mean[c] * (1.0 - momentum) + (mean + bias) * momentum);
        a->to_variance[c] = (float)(a->from_variance[c] * (1.0 - momentum) + variance * n / (n - 1.0) * momentum);
    }
}

// Moments of running statistics. They hold the bias of the convolution, which its output here does not.
KERNEL(running_moments,
       const float *gamma; const float *beta; const float *mean; const float *variance; const float *bias;
       float *moments; u32 channels; u32 has_bias; u32 epsilon_low; u32 epsilon_high;) {
    EACH_THREAD {
        u32 c = block * THREADS + thread;
        if (c >= a->channels) continue;
        double mean = (double)a->mean[c] - (a->has_bias ? a->bias[c] : 0.0);
        double inv_std = 1.0 / sqrt((double)a->variance[c] + double_of(a->epsilon_low, a->epsilon_high));
        write_moments(a->moments + (u64)c * 4, mean, inv_std, a->gamma[c], a->beta[c]);
    }
}

// Moments that normalise nothing.
KERNEL(bias_moments, const float *bias; float *moments; u32 channels; u32 has_bias;) {
    EACH_THREAD {
        u32 c = block * THREADS + thread;
        if (c >= a->channels) continue;
        write_moments(a->moments + (u64)c * 4, 0.0, 1.0, 1.0, a->has_bias ? a->bias[c] : 0.0);
    }
}

MAP_KERNEL(normalise,
           const void *x; const float *moments; void *y; u32 pixels; u32 channels; u32 x_stride; u32 y_stride;
           u32 chunk; u32 activation;) {
    EACH_THREAD {
        Place at = place_of(block, thread, a->pixels, a->channels, a->chunk);
        if (at.first >= at.end) continue;
        Moments m = load_moments(a->moments, at.group, at.lanes);
        u64 channel = (u64)at.group * GROUP;
        for (u32 pixel = at.first; pixel < at.end; pixel += 2 * at.step) {
            // Two at once, so that their reads overlap; the last one twice where there is no other.
            u32 pixels[2] = {pixel, pixel + at.step < at.end ? pixel + at.step : pixel};
            Group x[2];
            UNROLL for (u32 k = 0; k < 2; k++)
                x[k] = load_group(a->x, (u64)pixels[k] * a->x_stride + channel, at.lanes, format, wide);
            UNROLL for (u32 k = 0; k < 2; k++) {
                UNROLL for (u32 i = 0; i < GROUP; i++) {
                    float z = multiply_add(x[k].at[i], m.multiplier.at[i], m.offset.at[i]);
                    x[k].at[i] = activate(z, a->activation);
                }
                store_group(a->y, (u64)pixels[k] * a->y_stride + channel, at.lanes, format, wide, x[k]);
            }
        }
    }
}

// Sums of dz and of dz * (x - mean) over each chunk of pixels: partial [chunk][2][c].
MAP_KERNEL(gradient_sums,
           const void *dy; const void *x; const float *moments; float *partial; u32 pixels; u32 channels;
           u32 dy_stride; u32 x_stride; u32 chunk; u32 activation;) {
    SHARED(float, sums, 2 * GROUP * THREADS);
    EACH_THREAD {
        Place at = place_of(block, thread, a->pixels, a->channels, a->chunk);
        Group sum = {{0.0f}}, product = {{0.0f}};
        u64 channel = (u64)at.group * GROUP;
        if (at.first < at.end) {
            Moments m = load_moments(a->moments, at.group, at.lanes);
            for (u32 pixel = at.first; pixel < at.end; pixel += 2 * at.step) {
                // Two at once, so that their reads overlap; one that is not there counts 0.
                u32 both = pixel + at.step < at.end;
                u32 pixels[2] = {pixel, both ? pixel + at.step : pixel};
                Group x[2], dy[2];
                UNROLL for (u32 k = 0; k < 2; k++) {
                    x[k] = load_group(a->x, (u64)pixels[k] * a->x_stride + channel, at.lanes, format, wide);
                    dy[k] = load_group(a->dy, (u64)pixels[k] * a->dy_stride + channel, at.lanes, format, wide);
                }
                UNROLL for (u32 k = 0; k < 2; k++) {
                    UNROLL for (u32 i = 0; i < GROUP; i++) {
                        float z = multiply_add(x[k].at[i], m.multiplier.at[i], m.offset.at[i]);
                        float dz = gradient_of_z(z, dy[k].at[i], a->activation);
                        float along = dz * (x[k].at[i] - m.mean.at[i]);
                        sum.at[i] += k == 0 || both ? dz : 0.0f;
                        product.at[i] += k == 0 || both ? along : 0.0f;
                    }
                }
            }
        }
        UNROLL for (u32 i = 0; i < GROUP; i++) {
            sums[i * THREADS + thread] = sum.at[i];
            sums[(GROUP + i) * THREADS + thread] = product.at[i];
        }
    }
    BARRIER;
    EACH_THREAD {
        Place at = place_of(block, thread, a->pixels, a->channels, a->chunk);
        reduce_block(&at, thread, sums, a->partial, a->channels);
    }
}

// The gradients of shift and, where it is asked for, scale from the sums of the chunks.
KERNEL(gradient_merge,
       const float *partial; const float *moments; float *beta; float *gamma; u32 channels; u32 chunks;
       u32 has_gamma;) {
    SHARED(double, sums, THREADS);
    SHARED(double, products, THREADS);
    EACH_THREAD {
        u32 channel = block * MERGED + thread % MERGED;
        double sum = 0.0, product = 0.0;
        if (channel < a->channels) {
            for (u32 chunk = thread / MERGED; chunk < a->chunks; chunk += MERGERS) {
                sum += a->partial[(u64)chunk * 2 * a->channels + channel];
                product += a->partial[((u64)chunk * 2 + 1) * a->channels + channel];
            }
        }
        sums[thread] = sum;
        products[thread] = product;
    }
    BARRIER;
    EACH_THREAD {
        u32 c = block * MERGED + thread;
        if (thread >= MERGED || c >= a->channels) continue;
        a->beta[c] = (float)add_mergers(sums, thread);
        if (a->has_gamma) a->gamma[c] = (float)(add_mergers(products, thread) * a->moments[(u64)c * 4 + 1]);
    }
}

// Replaces x by its gradient: multiplier * (dz - mean of dz - xhat * mean of dz * xhat).
MAP_KERNEL(input_gradient,
           const void *dy; const float *moments; const float *gamma; const float *beta; void *x; u32 pixels;
           u32 channels; u32 dy_stride; u32 x_stride; u32 chunk; u32 activation;) {
    EACH_THREAD {
        Place at = place_of(block, thread, a->pixels, a->channels, a->chunk);
        if (at.first >= at.end) continue;
        Moments m = load_moments(a->moments, at.group, at.lanes);
        u64 channel = (u64)at.group * GROUP;
        Group slope, shift;
        UNROLL for (u32 i = 0; i < GROUP; i++) {
            u64 c = channel + (i < at.lanes ? i : 0);
            slope.at[i] = m.inv_std.at[i] * (a->gamma[c] / (float)a->pixels);
            shift.at[i] = a->beta[c] / (float)a->pixels;
        }
        for (u32 pixel = at.first; pixel < at.end; pixel += 2 * at.step) {
            u32 pixels[2] = {pixel, pixel + at.step < at.end ? pixel + at.step : pixel};
            Group x[2], dy[2];
            UNROLL for (u32 k = 0; k < 2; k++) {
                x[k] = load_group(a->x, (u64)pixels[k] * a->x_stride + channel, at.lanes, format, wide);
                dy[k] = load_group(a->dy, (u64)pixels[k] * a->dy_stride + channel, at.lanes, format, wide);
            }
            UNROLL for (u32 k = 0; k < 2; k++) {
                UNROLL for (u32 i = 0; i < GROUP; i++) {
                    float z = multiply_add(x[k].at[i], m.multiplier.at[i], m.offset.at[i]);
                    float dz = gradient_of_z(z, dy[k].at[i], a->activation);
                    float along = (x[k].at[i] - m.mean.at[i]) * slope.at[i];
                    x[k].at[i] = m.multiplier.at[i] * (dz - shift.at[i] - along);
                }
                store_group(a->x, (u64)pixels[k] * a->x_stride + channel, at.lanes, format, wide, x[k]);
            }
        }
    }
}

// Replaces x by the gradient of z.
MAP_KERNEL(activation_gradient,
           const void *dy; const float *moments; void *x; u32 pixels; u32 channels; u32 dy_stride; u32 x_stride;
           u32 chunk; u32 activation;) {
    EACH_THREAD {
        Place at = place_of(block, thread, a->pixels, a->channels, a->chunk);
        if (at.first >= at.end) continue;
        Moments m = load_moments(a->moments, at.group, at.lanes);
        u64 channel = (u64)at.group * GROUP;
        for (u32 pixel = at.first; pixel < at.end; pixel += at.step) {
            u64 index = (u64)pixel * a->x_stride + channel;
            Group x = load_group(a->x, index, at.lanes, format, wide);
            Group dy = load_group(a->dy, (u64)pixel * a->dy_stride + channel, at.lanes, format, wide);
            UNROLL for (u32 i = 0; i < GROUP; i++) {
                float z = multiply_add(x.at[i], m.multiplier.at[i], m.offset.at[i]);
                x.at[i] = gradient_of_z(z, dy.at[i], a->activation);
            }
            store_group(a->x, index, at.lanes, format, wide, x);
        }
    }
}
