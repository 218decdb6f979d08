// Images as the first convolution reads them: eight channels, of which the last five are zeros.

// Levels, one byte each, as the values of a table [3][256].
MAP_KERNEL(image_levels, const u8 *levels; const float *table; void *to; u32 pixels;) {
    EACH_THREAD {
        u32 pixel = block * THREADS + thread;
        if (pixel >= a->pixels) continue;
        Group group = {{0.0f}};
        UNROLL for (u32 c = 0; c < 3; c++) group.at[c] = a->table[c * 256 + a->levels[(u64)pixel * 3 + c]];
        store_group(a->to, (u64)pixel * GROUP, GROUP, format, wide, group);
    }
}

// Values [n][3][h][w]; a plane is h * w.
MAP_KERNEL(image_values, const float *values; void *to; u32 pixels; u32 plane;) {
    EACH_THREAD {
        u32 pixel = block * THREADS + thread;
        if (pixel >= a->pixels) continue;
        u64 image = pixel / a->plane;
        u32 place = pixel % a->plane;
        Group group = {{0.0f}};
        UNROLL for (u32 c = 0; c < 3; c++) group.at[c] = a->values[(image * 3 + c) * a->plane + place];
        store_group(a->to, (u64)pixel * GROUP, GROUP, format, wide, group);
    }
}
