// The same values in another order or format.

// Maps as [n][c][h][w] in f32. Threads lie side by side along the pixels of an image, so that writes do.
MAP_KERNEL(to_planes, const void *x; float *planes; u32 pixels; u32 map; u32 channels; u32 x_stride;) {
    EACH_THREAD {
        u32 groups = divide_up(a->channels, GROUP);
        u32 pixel = block / groups * THREADS + thread, group = block % groups;
        if (pixel >= a->pixels) continue;
        u32 lanes = least(GROUP, a->channels - group * GROUP);
        u64 image = pixel / a->map, place = pixel % a->map;
        Group x = load_group(a->x, (u64)pixel * a->x_stride + group * GROUP, lanes, format, wide);
        UNROLL for (u32 i = 0; i < GROUP; i++)
            if (i < lanes) a->planes[(image * a->channels + group * GROUP + i) * a->map + place] = x.at[i];
    }
}

// All values of an image as the channels of one pixel, channel by channel. The maps are small.
KERNEL(flatten, const void *x; void *y; u32 values; u32 map; u32 channels; u32 x_stride; u32 y_stride; u32 format;) {
    EACH_THREAD {
        u64 index = (u64)block * THREADS + thread;
        if (index >= a->values) continue;
        u32 length = a->channels * a->map;
        u64 image = index / length;
        u32 value = (u32)(index % length), place = value % a->map, channel = value / a->map;
        u64 from = (image * a->map + place) * a->x_stride + channel;
        store(a->y, image * a->y_stride + value, a->format, load(a->x, from, a->format));
    }
}

KERNEL(flatten_gradient,
       const void *dy; void *dx; u32 values; u32 map; u32 channels; u32 x_stride; u32 y_stride; u32 accumulate;
       u32 format;) {
    EACH_THREAD {
        u64 index = (u64)block * THREADS + thread;
        if (index >= a->values) continue;
        u32 length = a->channels * a->map;
        u64 image = index / length;
        u32 value = (u32)(index % length), channel = value % a->channels, place = value / a->channels;
        u64 to = (image * a->map + place) * a->x_stride + channel;
        float before = a->accumulate ? load(a->dx, to, a->format) : 0.0f;
        float dy = load(a->dy, image * a->y_stride + (u64)channel * a->map + place, a->format);
        store(a->dx, to, a->format, before + dy);
    }
}

// f32 rounded to bf16.
KERNEL(to_bf16, const float *from; u16 *to; u32 values;) {
    EACH_THREAD {
        EACH_STRIP(a->values) store_strip_bf16(a->to, first, end, load_strip(a->from, first, end));
    }
}

// bf16 as f32, added to what is there or in its place.
KERNEL(from_bf16, const u16 *from; float *to; u32 values; u32 accumulate;) {
    EACH_THREAD {
        u64 begin = (u64)block * PIECE, end = begin + PIECE < a->values ? begin + PIECE : a->values;
        for (u64 index = begin + thread; index < end; index += THREADS) {
            float before = a->accumulate ? a->to[index] : 0.0f;
            a->to[index] = before + float_of((u32)a->from[index] << 16);
        }
    }
}
