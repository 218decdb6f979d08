// Fully connected layers of logits, dropout, and the loss. All values are f32.

// A block computes a tile of ROWS x COLUMNS products and each thread TALL x BROAD of them, DEPTH factors at a time.
#define ROWS 64u
#define COLUMNS 32u
#define DEPTH 32u
#define TALL 4u
#define BROAD 2u

// c[m][n] = sum over k of a[m][k] * b[k][n], plus bias[n]: rows and steps of both factors have any distance, of which
// one of each is 1. So it serves all three directions. Blocks lie along the columns first.
KERNEL(multiply,
       const float *left; const float *right; const float *bias; float *to; u32 rows; u32 columns; u32 steps;
       u32 left_row; u32 left_step; u32 right_step; u32 right_column; u32 has_bias;) {
    SHARED(float, lefts, DEPTH *(ROWS + 1));
    SHARED(float, rights, DEPTH *(COLUMNS + 1));
    PRIVATE(float, sums, TALL *BROAD);
    u32 tiles = divide_up(a->columns, COLUMNS);
    u32 first_row = block / tiles * ROWS, first_column = block % tiles * COLUMNS;
    EACH_THREAD {
        UNROLL for (u32 i = 0; i < TALL * BROAD; i++) OWN(sums)[i] = 0.0f;
    }
    BARRIER;
    for (u32 first = 0; first < a->steps; first += DEPTH) {
        EACH_THREAD {
            // Threads side by side read words side by side. What is outside counts 0.
            UNROLL for (u32 turn = 0; turn < DEPTH * ROWS / THREADS; turn++) {
                u32 index = turn * THREADS + thread;
                u32 step = a->left_step == 1 ? index % DEPTH : index / ROWS;
                u32 row = a->left_step == 1 ? index / DEPTH : index % ROWS;
                u32 inside = first + step < a->steps && first_row + row < a->rows;
                u64 at = (u64)(first_row + row) * a->left_row + (u64)(first + step) * a->left_step;
                lefts[step * (ROWS + 1) + row] = inside ? a->left[at] : 0.0f;
            }
            UNROLL for (u32 turn = 0; turn < DEPTH * COLUMNS / THREADS; turn++) {
                u32 index = turn * THREADS + thread;
                u32 step = a->right_step == 1 ? index % DEPTH : index / COLUMNS;
                u32 column = a->right_step == 1 ? index / DEPTH : index % COLUMNS;
                u32 inside = first + step < a->steps && first_column + column < a->columns;
                u64 at = (u64)(first_column + column) * a->right_column + (u64)(first + step) * a->right_step;
                rights[step * (COLUMNS + 1) + column] = inside ? a->right[at] : 0.0f;
            }
        }
        BARRIER;
        EACH_THREAD {
            // A thread's rows and columns lie apart, so that threads side by side read words side by side.
            u32 row = thread / (COLUMNS / BROAD), column = thread % (COLUMNS / BROAD);
            // Sums of sums of DEPTH products lose less to rounding than one long sum.
            float part[TALL * BROAD] = {0.0f};
            UNROLL for (u32 step = 0; step < DEPTH; step++) {
                float left[TALL], right[BROAD];
                UNROLL for (u32 i = 0; i < TALL; i++) left[i] = lefts[step * (ROWS + 1) + row + i * (ROWS / TALL)];
                UNROLL for (u32 j = 0; j < BROAD; j++)
                    right[j] = rights[step * (COLUMNS + 1) + column + j * (COLUMNS / BROAD)];
                UNROLL for (u32 i = 0; i < TALL; i++) {
                    UNROLL for (u32 j = 0; j < BROAD; j++)
                        part[i * BROAD + j] = multiply_add(left[i], right[j], part[i * BROAD + j]);
                }
            }
            UNROLL for (u32 i = 0; i < TALL * BROAD; i++) OWN(sums)[i] += part[i];
        }
        BARRIER;
    }
    EACH_THREAD {
        UNROLL for (u32 i = 0; i < TALL; i++) {
            UNROLL for (u32 j = 0; j < BROAD; j++) {
                u32 row = first_row + thread / (COLUMNS / BROAD) + i * (ROWS / TALL);
                u32 column = first_column + thread % (COLUMNS / BROAD) + j * (COLUMNS / BROAD);
                if (row >= a->rows || column >= a->columns) continue;
                float bias = a->has_bias ? a->bias[column] : 0.0f;
                a->to[(u64)row * a->columns + column] = OWN(sums)[i * BROAD + j] + bias;
            }
        }
    }
}

// Sums over the rows of [rows][columns], in f64. Blocks have ADDED columns, and for each as many threads as are left.
#define ADDED 32u
KERNEL(column_sums, const float *values; float *to; u32 rows; u32 columns;) {
    SHARED(double, sums, THREADS);
    EACH_THREAD {
        u32 column = block * ADDED + thread % ADDED;
        double sum = 0.0;
        if (column < a->columns) {
            for (u32 row = thread / ADDED; row < a->rows; row += THREADS / ADDED)
                sum += a->values[(u64)row * a->columns + column];
        }
        sums[thread] = sum;
    }
    BARRIER;
    EACH_THREAD {
        u32 column = block * ADDED + thread;
        if (thread >= ADDED || column >= a->columns) continue;
        double sum = 0.0;
        for (u32 other = thread; other < THREADS; other += ADDED) sum += sums[other];
        a->to[column] = (float)sum;
    }
}

KERNEL(dropout, float *values; const float *mask; u32 count;) {
    EACH_THREAD {
        u64 begin = (u64)block * PIECE, end = begin + PIECE < a->count ? begin + PIECE : a->count;
        for (u64 first = begin + thread; first < end; first += STRIP * THREADS) {
            Strip values = load_strip(a->values, first, end), mask = load_strip(a->mask, first, end);
            UNROLL for (u32 k = 0; k < STRIP; k++) values.at[k] *= mask.at[k];
            store_strip(a->values, first, end, values);
        }
    }
}

// How an image came out.
typedef struct Outcome {
    double loss;
    u32 rank;       // Classes that beat the label.
    u32 not_finite; // Whether a logit is not.
} Outcome;

// Softmax cross-entropy: a block for each image, sums in f64. Shares are [2]: smoothing, and the part of an image's
// own label; the rest is its partner's, which is as far from the end of the batch as it is from the beginning.
KERNEL(softmax_loss,
       const float *logits; const u32 *labels; const double *class_weights; const double *shares; float *dlogits;
       Outcome *outcomes; u32 batch; u32 classes; u32 weight_low; u32 weight_high;) {
    SHARED(float, largest, THREADS);
    SHARED(double, sums, THREADS);
    SHARED(double, means, THREADS);
    SHARED(u32, ranks, THREADS);
    SHARED(u32, not_finite, THREADS);
    const float *logits = a->logits + (u64)block * a->classes;
    u32 label = a->labels[block], partner = a->labels[a->batch - 1 - block];
    // There is no such class: the loss is no number, and nothing is read of the class.
    u32 wrong = label >= a->classes || partner >= a->classes;
    if (wrong) label = partner = 0;
    double smoothing = a->shares[0], own = a->shares[1];
    double own_weight = wrong ? double_of(0, 0x7FF80000u) : own * a->class_weights[label];
    double partner_weight = own == 1.0 ? 0.0 : (1.0 - own) * a->class_weights[partner];
    EACH_THREAD {
        float target = logits[label], max = float_of(0xFF800000u); // -infinity
        u32 rank = 0, bad = wrong;
        for (u32 k = thread; k < a->classes; k += THREADS) {
            float logit = logits[k];
            // A NaN is dropped here but comes back with the sum.
            max = logit > max ? logit : max;
            rank += logit > target || (logit == target && k < label);
            bad |= !is_finite(logit);
        }
        largest[thread] = max;
        ranks[thread] = rank;
        not_finite[thread] = bad;
    }
    BARRIER;
    for (u32 half = THREADS / 2; half > 0; half /= 2) {
        EACH_THREAD {
            if (thread >= half) continue;
            float other = largest[thread + half];
            largest[thread] = other > largest[thread] ? other : largest[thread];
            ranks[thread] += ranks[thread + half];
            not_finite[thread] |= not_finite[thread + half];
        }
        BARRIER;
    }
    EACH_THREAD {
        double sum = 0.0, mean = 0.0;
        for (u32 k = thread; k < a->classes; k += THREADS) {
            double shifted = (double)logits[k] - (double)largest[0];
            sum += exp(shifted);
            mean += shifted;
        }
        sums[thread] = sum;
        means[thread] = mean;
    }
    BARRIER;
    ADD_UP(sums);
    ADD_UP(means);
    EACH_THREAD {
        double log_sum = log(sums[0]), even = smoothing / a->classes;
        double factor = double_of(a->weight_low, a->weight_high) / a->batch;
        for (u32 k = thread; k < a->classes; k += THREADS) {
            double probability = exp((double)logits[k] - (double)largest[0] - log_sum);
            double gradient = own_weight * (probability - even - (k == label ? 1.0 - smoothing : 0.0));
            // A weight of 0 does not make NaN of what is not finite.
            if (partner_weight != 0.0)
                gradient += partner_weight * (probability - even - (k == partner ? 1.0 - smoothing : 0.0));
            a->dlogits[(u64)block * a->classes + k] = (float)(gradient * factor);
        }
        if (thread != 0) continue;
        double common = log_sum - smoothing * (means[0] / a->classes);
        double loss = own_weight * (common - (1.0 - smoothing) * ((double)logits[label] - (double)largest[0]));
        if (partner_weight != 0.0)
            loss += partner_weight * (common - (1.0 - smoothing) * ((double)logits[partner] - (double)largest[0]));
        a->outcomes[block].loss = loss;
        a->outcomes[block].rank = ranks[0];
        a->outcomes[block].not_finite = not_finite[0];
    }
}

// Sums over the images: report is the loss in f64, and counts of 64 bits.
KERNEL(loss_report, const Outcome *outcomes; u64 *report; u32 *gate; u32 batch;) {
    SHARED(double, sums, THREADS);
    SHARED(u32, counts, 3 * THREADS);
    EACH_THREAD {
        double sum = 0.0;
        u32 top1 = 0, top5 = 0, not_finite = 0;
        for (u32 image = thread; image < a->batch; image += THREADS) {
            Outcome outcome = a->outcomes[image];
            sum += outcome.loss;
            top1 += !outcome.not_finite && outcome.rank < 1;
            top5 += !outcome.not_finite && outcome.rank < 5;
            not_finite += outcome.not_finite;
        }
        sums[thread] = sum;
        counts[thread] = top1;
        counts[THREADS + thread] = top5;
        counts[2 * THREADS + thread] = not_finite;
    }
    BARRIER;
    ADD_UP(sums);
    EACH_THREAD {
        if (thread < 3) {
            u64 count = 0;
            for (u32 other = 0; other < THREADS; other++) count += counts[thread * THREADS + other];
            a->report[1 + thread] = count;
        }
        if (thread != 0) continue;
        *(double *)a->report = sums[0];
        if (!(sums[0] - sums[0] == 0.0)) set_flag(a->gate + 1);
    }
}
