// Pools over windows, and over whole maps. Backward passes gather: each input pixel sums over the windows that cover
// it, so that no two threads write the same place.

// Windows of `kernel` places along an axis, `stride` apart, the first of them `pad` places in front of the map.
typedef struct Axis {
    u32 input, output, kernel, stride, pad;
} Axis;

// The input places of window `out` are `begin` to `end`; place `begin` has position `at` in the window.
typedef struct Span {
    u32 begin, end, at;
} Span;

INLINE Span window_of(Axis axis, u32 out) {
    u32 first = out * axis.stride; // Counted from the padding on.
    Span span;
    span.begin = first < axis.pad ? 0 : first - axis.pad;
    span.end = least(first + axis.kernel - axis.pad, axis.input);
    span.at = first < axis.pad ? axis.pad - first : 0;
    return span;
}

// The windows that cover input place `place` are `begin` to `end`; it has position `at` in the first of them, and
// `stride` less in each that follows.
INLINE Span covering(Axis axis, u32 place) {
    u32 padded = place + axis.pad;
    Span span;
    span.begin = padded < axis.kernel ? 0 : (padded - axis.kernel) / axis.stride + 1;
    span.end = least(padded / axis.stride + 1, axis.output);
    span.at = padded - span.begin * axis.stride;
    return span;
}

#define WINDOW_FIELDS                                                                                          \
    u32 batch; u32 in_height; u32 in_width; u32 out_height; u32 out_width; u32 channels; u32 in_stride;       \
    u32 out_stride; u32 kernel_height; u32 kernel_width; u32 stride; u32 pad_height; u32 pad_width; u32 chunk;

// Places, or windows, of a row that a thread reads before it uses them, so that its reads overlap. At the end of a row
// it reads the last one again, without a branch.
#define PLACES 3u
#define WINDOWS 2u

#define ROWS_AXIS {a->in_height, a->out_height, a->kernel_height, a->stride, a->pad_height}
#define COLUMNS_AXIS {a->in_width, a->out_width, a->kernel_width, a->stride, a->pad_width}

// The largest value of each window; a NaN always wins, and the first of equal ones. Its place in the window goes to
// winners, [n][h][w][c] of the output, where it is asked for.
MAP_KERNEL(max_pool, const void *x; void *y; u8 *winners; WINDOW_FIELDS u32 has_winners;) {
    EACH_THREAD {
        u32 map = a->out_height * a->out_width;
        Place at = place_of(block, thread, a->batch * map, a->channels, a->chunk);
        Axis row_axis = ROWS_AXIS, column_axis = COLUMNS_AXIS;
        u64 channel = (u64)at.group * GROUP;
        for (u32 pixel = at.first; pixel < at.end; pixel += at.step) {
            u32 image = pixel / map, place = pixel % map;
            Span rows = window_of(row_axis, place / a->out_width), columns = window_of(column_axis, place % a->out_width);
            Group best;
            u32 winner[GROUP];
            UNROLL for (u32 i = 0; i < GROUP; i++) {
                best.at[i] = float_of(0xFF800000u); // -infinity
                winner[i] = rows.at * a->kernel_width + columns.at;
            }
            for (u32 row = rows.begin; row < rows.end; row++) {
                u64 line = ((u64)image * a->in_height + row) * a->in_width;
                u32 position = (rows.at + row - rows.begin) * a->kernel_width + columns.at;
                for (u32 first = columns.begin; first < columns.end; first += PLACES) {
                    Group x[PLACES];
                    UNROLL for (u32 k = 0; k < PLACES; k++) {
                        u64 spot = line + least(first + k, columns.end - 1);
                        x[k] = load_group(a->x, spot * a->in_stride + channel, at.lanes, format, wide);
                    }
                    UNROLL for (u32 k = 0; k < PLACES; k++) {
                        u32 here = position + least(first + k, columns.end - 1) - columns.begin;
                        UNROLL for (u32 i = 0; i < GROUP; i++) {
                            float value = x[k].at[i];
                            u32 wins = value > best.at[i] || value != value;
                            best.at[i] = wins ? value : best.at[i];
                            winner[i] = wins ? here : winner[i];
                        }
                    }
                }
            }
            store_group(a->y, (u64)pixel * a->out_stride + channel, at.lanes, format, wide, best);
            if (!a->has_winners) continue;
            u8 *to = a->winners + (u64)pixel * a->channels + channel;
            if (wide) {
                Bytes bytes = {winner[0] | winner[1] << 8 | winner[2] << 16 | winner[3] << 24,
                               winner[4] | winner[5] << 8 | winner[6] << 16 | winner[7] << 24};
                *(Bytes *)to = bytes;
            } else {
                UNROLL for (u32 i = 0; i < GROUP; i++)
                    if (i < at.lanes) to[i] = (u8)winner[i];
            }
        }
    }
}

// The winners of a group.
typedef struct Winners {
    u32 at[GROUP];
} Winners;

INLINE Winners load_winners(const u8 *winners, u64 index, u32 lanes, u32 wide) {
    Winners of;
    if (wide) {
        Bytes bytes = *(const Bytes *)(winners + index);
        UNROLL for (u32 i = 0; i < 4; i++) {
            of.at[i] = bytes.x >> (8 * i) & 0xFF;
            of.at[4 + i] = bytes.y >> (8 * i) & 0xFF;
        }
    } else {
        UNROLL for (u32 i = 0; i < GROUP; i++) of.at[i] = i < lanes ? winners[index + i] : 0;
    }
    return of;
}

MAP_KERNEL(max_pool_gradient, const void *dy; const u8 *winners; void *dx; WINDOW_FIELDS u32 accumulate;) {
    EACH_THREAD {
        u32 map = a->in_height * a->in_width;
        Place at = place_of(block, thread, a->batch * map, a->channels, a->chunk);
        Axis row_axis = ROWS_AXIS, column_axis = COLUMNS_AXIS;
        u64 channel = (u64)at.group * GROUP;
        for (u32 pixel = at.first; pixel < at.end; pixel += at.step) {
            u32 image = pixel / map, place = pixel % map;
            Span rows = covering(row_axis, place / a->in_width), columns = covering(column_axis, place % a->in_width);
            u64 index = (u64)pixel * a->in_stride + channel;
            Group sum = {{0.0f}};
            if (a->accumulate) sum = load_group(a->dx, index, at.lanes, format, wide);
            for (u32 row = rows.begin; row < rows.end; row++) {
                u64 line = ((u64)image * a->out_height + row) * a->out_width;
                u32 first = (rows.at - (row - rows.begin) * a->stride) * a->kernel_width + columns.at;
                for (u32 column = columns.begin; column < columns.end; column += WINDOWS) {
                    Group dy[WINDOWS];
                    Winners winners[WINDOWS];
                    UNROLL for (u32 k = 0; k < WINDOWS; k++) {
                        u64 window = line + least(column + k, columns.end - 1);
                        dy[k] = load_group(a->dy, window * a->out_stride + channel, at.lanes, format, wide);
                        winners[k] = load_winners(a->winners, window * a->channels + channel, at.lanes, wide);
                    }
                    UNROLL for (u32 k = 0; k < WINDOWS; k++) {
                        u32 position = first - (column + k - columns.begin) * a->stride, is_one = column + k < columns.end;
                        UNROLL for (u32 i = 0; i < GROUP; i++)
                            sum.at[i] += is_one && winners[k].at[i] == position ? dy[k].at[i] : 0.0f;
                    }
                }
            }
            store_group(a->dx, index, at.lanes, format, wide, sum);
        }
    }
}

// Adds the places `columns` of a row of maps, which begins at pixel `line`.
INLINE void add_places(Group *sum, const void *values, u64 line, Span columns, u32 stride, const Place *at, u32 format,
                       u32 wide) {
    u64 channel = (u64)at->group * GROUP;
    for (u32 column = columns.begin; column < columns.end; column += PLACES) {
        Group x[PLACES];
        UNROLL for (u32 k = 0; k < PLACES; k++) {
            u64 spot = line + least(column + k, columns.end - 1);
            x[k] = load_group(values, spot * stride + channel, at->lanes, format, wide);
        }
        UNROLL for (u32 k = 0; k < PLACES; k++) {
            UNROLL for (u32 i = 0; i < GROUP; i++) sum->at[i] += column + k < columns.end ? x[k].at[i] : 0.0f;
        }
    }
}

// The mean over all places of each window, of which those outside the map count 0.
MAP_KERNEL(average_pool, const void *x; void *y; WINDOW_FIELDS) {
    EACH_THREAD {
        u32 map = a->out_height * a->out_width;
        Place at = place_of(block, thread, a->batch * map, a->channels, a->chunk);
        Axis row_axis = ROWS_AXIS, column_axis = COLUMNS_AXIS;
        float share = 1.0f / (float)(a->kernel_height * a->kernel_width);
        u64 channel = (u64)at.group * GROUP;
        for (u32 pixel = at.first; pixel < at.end; pixel += at.step) {
            u32 image = pixel / map, place = pixel % map;
            Span rows = window_of(row_axis, place / a->out_width), columns = window_of(column_axis, place % a->out_width);
            Group sum = {{0.0f}};
            for (u32 row = rows.begin; row < rows.end; row++) {
                u64 line = ((u64)image * a->in_height + row) * a->in_width;
                add_places(&sum, a->x, line, columns, a->in_stride, &at, format, wide);
            }
            UNROLL for (u32 i = 0; i < GROUP; i++) sum.at[i] *= share;
            store_group(a->y, (u64)pixel * a->out_stride + channel, at.lanes, format, wide, sum);
        }
    }
}

MAP_KERNEL(average_pool_gradient, const void *dy; void *dx; WINDOW_FIELDS u32 accumulate;) {
    EACH_THREAD {
        u32 map = a->in_height * a->in_width;
        Place at = place_of(block, thread, a->batch * map, a->channels, a->chunk);
        Axis row_axis = ROWS_AXIS, column_axis = COLUMNS_AXIS;
        float share = 1.0f / (float)(a->kernel_height * a->kernel_width);
        u64 channel = (u64)at.group * GROUP;
        for (u32 pixel = at.first; pixel < at.end; pixel += at.step) {
            u32 image = pixel / map, place = pixel % map;
            Span rows = covering(row_axis, place / a->in_width), columns = covering(column_axis, place % a->in_width);
            u64 index = (u64)pixel * a->in_stride + channel;
            Group before = {{0.0f}}, sum = {{0.0f}};
            if (a->accumulate) before = load_group(a->dx, index, at.lanes, format, wide);
            for (u32 row = rows.begin; row < rows.end; row++) {
                u64 line = ((u64)image * a->out_height + row) * a->out_width;
                add_places(&sum, a->dy, line, columns, a->out_stride, &at, format, wide);
            }
            UNROLL for (u32 i = 0; i < GROUP; i++) sum.at[i] = multiply_add(sum.at[i], share, before.at[i]);
            store_group(a->dx, index, at.lanes, format, wide, sum);
        }
    }
}

// The mean of each channel over all pixels of an image, a chunk: features are [n][c].
MAP_KERNEL(global_average, const void *x; float *features; u32 batch; u32 map; u32 channels; u32 x_stride;) {
    SHARED(float, sums, GROUP * THREADS);
    EACH_THREAD {
        Place at = place_of(block, thread, a->batch * a->map, a->channels, a->map);
        Group sum = {{0.0f}};
        u64 channel = (u64)at.group * GROUP;
        u32 pixel = at.first;
        // Several at once, so that their reads overlap.
        for (; pixel + 3 * at.step < at.end; pixel += 4 * at.step) {
            Group x[4];
            UNROLL for (u32 k = 0; k < 4; k++)
                x[k] = load_group(a->x, (u64)(pixel + k * at.step) * a->x_stride + channel, at.lanes, format, wide);
            UNROLL for (u32 k = 0; k < 4; k++) {
                UNROLL for (u32 i = 0; i < GROUP; i++) sum.at[i] += x[k].at[i];
            }
        }
        for (; pixel < at.end; pixel += at.step) {
            Group x = load_group(a->x, (u64)pixel * a->x_stride + channel, at.lanes, format, wide);
            UNROLL for (u32 i = 0; i < GROUP; i++) sum.at[i] += x.at[i];
        }
        UNROLL for (u32 i = 0; i < GROUP; i++) sums[i * THREADS + thread] = sum.at[i];
    }
    BARRIER;
    EACH_THREAD {
        Place at = place_of(block, thread, a->batch * a->map, a->channels, a->map);
        for (u32 index = thread; index < GROUP * at.width; index += THREADS) {
            u32 lane = index / at.width, column = index % at.width;
            u32 channel = (at.first_group + column) * GROUP + lane;
            if (channel >= a->channels) continue;
            a->features[(u64)at.chunk * a->channels + channel] = add_pixels(&at, sums, lane, column) / (float)a->map;
        }
    }
}

MAP_KERNEL(global_average_gradient,
           const float *dfeatures; void *dx; u32 batch; u32 map; u32 channels; u32 x_stride; u32 chunk;
           u32 accumulate;) {
    EACH_THREAD {
        Place at = place_of(block, thread, a->batch * a->map, a->channels, a->chunk);
        float share = 1.0f / (float)a->map;
        u64 channel = (u64)at.group * GROUP;
        for (u32 pixel = at.first; pixel < at.end; pixel += at.step) {
            u64 index = (u64)pixel * a->x_stride + channel;
            Group dx = {{0.0f}};
            if (a->accumulate) dx = load_group(a->dx, index, at.lanes, format, wide);
            // f32 has twice the bytes of bf16, but is aligned as well.
            Group value = load_group(a->dfeatures, (u64)(pixel / a->map) * a->channels + channel, at.lanes, F32, wide);
            UNROLL for (u32 i = 0; i < GROUP; i++) dx.at[i] = multiply_add(value.at[i], share, dx.at[i]);
            store_group(a->dx, index, at.lanes, format, wide, dx);
        }
    }
}
