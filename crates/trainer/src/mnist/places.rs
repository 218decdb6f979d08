//! Loops that move values from place to place: patches under a filter, and 2 x 2 pools.

/// The maps that a loop goes over: `channels * images` squares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maps {
    pub(super) channels: usize,
    pub(super) images: usize,
    /// Rows, and columns.
    pub(super) side: usize,
}

impl Maps {
    /// Values of all maps.
    pub(super) fn len(self) -> usize {
        self.channels * self.images * self.side * self.side
    }
}

/// `patches[(c, i, j)][(n, y, x)] = maps[c][n][y + i][x + j]` for every place (y, x) where a filter
/// of `kernel` rows and columns fits (im2col).
pub(super) fn gather(maps: Maps, kernel: usize, values: &[f32], patches: &mut [f32]) {
    each_run(maps, kernel, |from, to, run| {
        if run == 1 {
            patches[to] = values[from]; // a filter that covers the map; a call would cost more
        } else {
            patches[to..][..run].copy_from_slice(&values[from..][..run]);
        }
    });
}

/// The gradient of [`gather`]: adds up what every value's copies received. Overwrites `values`.
pub(super) fn scatter(maps: Maps, kernel: usize, patches: &[f32], values: &mut [f32]) {
    values.fill(0.0);
    each_run(maps, kernel, |from, to, run| {
        for (value, patch) in values[from..][..run].iter_mut().zip(&patches[to..][..run]) {
            *value += *patch;
        }
    });
}

/// Calls `copy(from, to, run)` for every run of values that lie side by side in maps and in patches.
#[inline(always)]
fn each_run(maps: Maps, kernel: usize, mut copy: impl FnMut(usize, usize, usize)) {
    let Maps { channels, images, side } = maps;
    let places = side - kernel + 1;
    let mut to = 0;
    for c in 0..channels {
        for i in 0..kernel {
            for j in 0..kernel {
                for n in 0..images {
                    for y in 0..places {
                        copy(((c * images + n) * side + y + i) * side + j, to, places);
                        to += places;
                    }
                }
            }
        }
    }
}

/// The mean of every 2 x 2 square; `maps` says how many values there were before.
pub(super) fn pool(maps: Maps, values: &[f32], pooled: &mut [f32]) {
    let half = maps.side / 2;
    let pairs = values.chunks_exact(2 * maps.side).zip(pooled.chunks_exact_mut(half));
    for (rows, pooled) in pairs {
        let (upper, lower) = rows.split_at(maps.side);
        for (x, pooled) in pooled.iter_mut().enumerate() {
            let (upper, lower) = (&upper[2 * x..][..2], &lower[2 * x..][..2]);
            *pooled = 0.25 * (upper[0] + upper[1] + lower[0] + lower[1]);
        }
    }
}

/// The gradient of [`pool`]. Overwrites `values`.
pub(super) fn unpool(maps: Maps, pooled: &[f32], values: &mut [f32]) {
    let half = maps.side / 2;
    let pairs = values.chunks_exact_mut(2 * maps.side).zip(pooled.chunks_exact(half));
    for (rows, pooled) in pairs {
        let (upper, lower) = rows.split_at_mut(maps.side);
        for (x, pooled) in pooled.iter().enumerate() {
            upper[2 * x..][..2].fill(0.25 * pooled);
            lower[2 * x..][..2].fill(0.25 * pooled);
        }
    }
}
