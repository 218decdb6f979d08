// Passes over whole vectors: the optimizer, averages, sums over micro-batches.
//
// A gate is two words. While the first is not 0, nothing that looks at it changes anything; the second is set by
// whoever finds a number that is not finite.

// Stochastic gradient descent: a block for each piece, [pieces][4]: first value, values, number of the tensor, 0.
// Rates are [tensors][2]: rate, below 0 where a tensor stays as it is, and decay. Constants: scale of the gradient, momentum.
KERNEL(sgd,
       const u32 *pieces; const float *rates; const float *constants; const float *gradients; float *velocity;
       float *weights; u16 *rounded; u32 *gate; u32 values; u32 tensors; u32 nesterov; u32 has_rounded;) {
    EACH_THREAD {
        const u32 *piece = a->pieces + (u64)block * 4;
        u64 end = (u64)piece[0] + piece[1];
        // A piece that is not of these vectors would reach into other memory.
        if (end > a->values || piece[2] >= a->tensors) {
            set_flag(a->gate + 1);
            continue;
        }
        float rate = a->rates[(u64)piece[2] * 2], decay = a->rates[(u64)piece[2] * 2 + 1];
        float scale = a->constants[0], momentum = a->constants[1];
        if (a->gate[0] || rate < 0.0f) continue;
        u32 finite = 1;
        for (u64 first = (u64)piece[0] + thread; first < end; first += STRIP * THREADS) {
            Strip g = load_strip(a->gradients, first, end);
            Strip v = load_strip(a->velocity, first, end);
            Strip w = load_strip(a->weights, first, end);
            UNROLL for (u32 k = 0; k < STRIP; k++) {
                float gradient = multiply_add(decay, w.at[k], scale * g.at[k]);
                v.at[k] = multiply_add(momentum, v.at[k], gradient);
                float step = a->nesterov ? multiply_add(momentum, v.at[k], gradient) : v.at[k];
                w.at[k] = multiply_add(-rate, step, w.at[k]);
                finite &= is_finite(w.at[k]);
            }
            store_strip(a->velocity, first, end, v);
            store_strip(a->weights, first, end, w);
            if (a->has_rounded) store_strip_bf16(a->rounded, first, end, w);
        }
        if (!finite) set_flag(a->gate + 1);
    }
}

KERNEL(average, const float *values; const float *share; float *average; const u32 *gate; u32 count;) {
    EACH_THREAD {
        if (a->gate[0]) continue;
        float share = a->share[0];
        EACH_STRIP(a->count) {
            Strip values = load_strip(a->values, first, end), average = load_strip(a->average, first, end);
            UNROLL for (u32 k = 0; k < STRIP; k++)
                average.at[k] = multiply_add(share, values.at[k] - average.at[k], average.at[k]);
            store_strip(a->average, first, end, average);
        }
    }
}

KERNEL(move_statistics, const float *from; float *to; u32 *gate; u32 count;) {
    EACH_THREAD {
        if (a->gate[0]) continue;
        u32 finite = 1;
        EACH_STRIP(a->count) {
            Strip values = load_strip(a->from, first, end);
            UNROLL for (u32 k = 0; k < STRIP; k++) finite &= is_finite(values.at[k]);
            store_strip(a->to, first, end, values);
        }
        if (!finite) set_flag(a->gate + 1);
    }
}

KERNEL(settle, u32 *gate;) {
    EACH_THREAD {
        if (thread == 0 && block == 0 && a->gate[1]) a->gate[0] = 1;
    }
}

KERNEL(add, const float *values; float *sum; u32 count;) {
    EACH_THREAD {
        EACH_STRIP(a->count) {
            Strip values = load_strip(a->values, first, end), sum = load_strip(a->sum, first, end);
            UNROLL for (u32 k = 0; k < STRIP; k++) sum.at[k] += values.at[k];
            store_strip(a->sum, first, end, sum);
        }
    }
}

KERNEL(divide, float *values; u32 count; float divisor;) {
    EACH_THREAD {
        EACH_STRIP(a->count) {
            Strip values = load_strip(a->values, first, end);
            UNROLL for (u32 k = 0; k < STRIP; k++) values.at[k] /= a->divisor;
            store_strip(a->values, first, end, values);
        }
    }
}

// The sum of squares of each piece of PIECE values.
KERNEL(squared_norm, const float *values; double *partial; u32 count;) {
    SHARED(double, sums, THREADS);
    EACH_THREAD {
        double sum = 0.0;
        EACH_STRIP(a->count) {
            Strip values = load_strip(a->values, first, end);
            UNROLL for (u32 k = 0; k < STRIP; k++) sum += (double)values.at[k] * values.at[k];
        }
        sums[thread] = sum;
    }
    BARRIER;
    ADD_UP(sums);
    EACH_THREAD {
        if (thread == 0) a->partial[block] = sums[0];
    }
}

// The norm from the sums of the pieces, and the factor that makes it no longer than the limit.
KERNEL(norm_merge,
       const double *partial; const double *limit; double *norm; float *scale; u32 *gate; u32 pieces;) {
    SHARED(double, sums, THREADS);
    EACH_THREAD {
        double sum = 0.0;
        for (u32 piece = thread; piece < a->pieces; piece += THREADS) sum += a->partial[piece];
        sums[thread] = sum;
    }
    BARRIER;
    ADD_UP(sums);
    EACH_THREAD {
        if (thread != 0) continue;
        double norm = sqrt(sums[0]), limit = a->limit[0];
        a->norm[0] = norm;
        // NaN is not above anything, and infinity is not below itself.
        u32 finite = norm < double_of(0, 0x7FF00000u);
        u32 clips = limit > 0.0 && norm > limit && finite;
        if (!finite) set_flag(a->gate + 1);
        a->scale[0] = clips ? (float)(limit / norm) : 1.0f;
    }
}
