//! 3x3 pools and the mean over a whole map, forward and backward.
//!
//! A maximum pool's output has `ceil(n / stride)` places along an axis of `n`; the padding that
//! this takes is split evenly, an odd one going to the end, and no place of the padding ever wins.
//! Average pools have stride 1. Backward passes gather: each input pixel sums over the windows
//! that cover it, so that threads never write the same place.

use std::ops::Range;

use crate::dtype::Dtype;
use crate::element::Element;
use crate::map::{BLOCK, Map};
use crate::planes::{Planes, PlanesMut};
use crate::run::Run;
use crate::simd::lanes::{Simd, dispatch, pixels, pixels_mut};
use crate::team::pieces::{chunks, planes, split};
use crate::team::threads::Team;

/// Rows and columns of a window.
const KERNEL: usize = 3;

/// A 3x3 maximum pool over maps of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool {
    /// The input.
    pub input: Map,
    /// Step between windows: 1 or 2.
    pub stride: usize,
}

impl MaxPool {
    /// The output.
    pub fn output(&self) -> Map {
        let places = |n: usize| n.div_ceil(self.stride);
        let (height, width) = (places(self.input.height), places(self.input.width));
        Map { height, width, ..self.input }
    }

    /// Bytes that [`MaxPool::forward`] remembers of `batch` images: the winner of each window.
    pub fn winners_len(&self, batch: usize) -> usize {
        let output = self.output();
        batch * output.channels * output.height * output.width
    }

    /// The largest value of each window of `x` (`[n][c_block][h][w][16]`), in `y`
    /// (`[n][c_block][out_h][out_w][16]`), and in `winners` (laid out as `y`, without a halo), where given,
    /// its place in the window (row * 3 + column): the first in that order among equals, as in PyTorch; a
    /// NaN always wins. Writes whole planes of `y`, the halo as zeros.
    ///
    /// # Panics
    /// If the maps are not those of the pool.
    pub fn forward<E: Element>(
        &self,
        run: Run<'_>,
        x: Planes<'_, E>,
        y: PlanesMut<'_, E>,
        winners: Option<&mut [u8]>,
    ) {
        let (batch, output, axes) = (x.batch(), self.output(), self.axes());
        x.expect("x", &self.input, batch);
        y.expect("y", &output, batch);
        let total = batch * output.blocks();
        let y = planes(y);
        match winners {
            Some(winners) => {
                let winners = &mut winners[..self.winners_len(batch)];
                let len = output.height * output.width * BLOCK;
                split(run.team, total, (y, chunks(winners, len)), |index, (y, winners)| {
                    let x = x.plane(index);
                    dispatch!(run.isa, s => forward_plane::<E, _, true>(s, &axes, x, y, winners));
                });
            }
            None => split(run.team, total, y, |index, y| {
                let x = x.plane(index);
                dispatch!(run.isa, s => forward_plane::<E, _, false>(s, &axes, x, y, &mut []));
            }),
        }
    }

    /// Gradient of [`MaxPool::forward`], from that of its output, `dy`, and `winners`, both laid out as
    /// there: overwrites the pixels of `dx` (`[n][c_block][h][w][16]`), or adds to them.
    ///
    /// # Panics
    /// If the maps are not those of the pool, or there are too few winners.
    pub fn backward<E: Element>(
        &self,
        run: Run<'_>,
        dy: Planes<'_, E>,
        winners: &[u8],
        dx: PlanesMut<'_, E>,
        accumulate: bool,
    ) {
        let (batch, output, axes) = (dy.batch(), self.output(), self.axes());
        dy.expect("dy", &output, batch);
        dx.expect("dx", &self.input, batch);
        let len = output.height * output.width * BLOCK;
        split(run.team, batch * output.blocks(), planes(dx), |index, dx| {
            let (dy, winners) = (dy.plane(index), &winners[index * len..][..len]);
            dispatch!(run.isa, s => backward_plane(s, &axes, dy, winners, dx, accumulate));
        });
    }

    fn axes(&self) -> PoolAxes {
        let axis = |input: usize, output: usize| {
            let covered = (output - 1) * self.stride + KERNEL;
            PoolAxis { input, output, stride: self.stride, pad: covered.saturating_sub(input) / 2 }
        };
        let output = self.output();
        PoolAxes {
            input: self.input,
            output,
            rows: axis(self.input.height, output.height),
            columns: axis(self.input.width, output.width),
        }
    }
}

/// WindowRow along one axis.
#[derive(Clone, Copy)]
struct PoolAxis {
    input: usize,
    output: usize,
    stride: usize,
    /// Padding in front of the first place.
    pad: usize,
}

impl PoolAxis {
    /// The input places of window `out`, padding left out.
    #[inline(always)]
    fn window(&self, out: usize) -> Range<usize> {
        let first = out * self.stride;
        first.saturating_sub(self.pad)..(first + KERNEL - self.pad).min(self.input)
    }

    /// The windows that cover input place `place`.
    #[inline(always)]
    fn covering(&self, place: usize) -> Range<usize> {
        let padded = place + self.pad;
        (padded + self.stride - 1).saturating_sub(KERNEL - 1) / self.stride
            ..(padded / self.stride + 1).min(self.output)
    }

    /// Position of input place `place` within window `out`.
    #[inline(always)]
    fn position(&self, place: usize, out: usize) -> usize {
        place + self.pad - out * self.stride
    }
}

struct PoolAxes {
    input: Map,
    output: Map,
    rows: PoolAxis,
    columns: PoolAxis,
}

/// The greatest of the values seen so far, and where it was.
#[derive(Clone, Copy)]
struct Best<V> {
    value: V,
    place: V,
}

/// One plane of [`MaxPool::forward`], with or without keeping the winners.
#[inline(always)]
fn forward_plane<E: Element, S: Simd, const KEEP: bool>(
    s: S,
    axes: &PoolAxes,
    x: &[E],
    y: &mut [E],
    winners: &mut [u8],
) {
    let winners = winners.as_chunks_mut::<BLOCK>().0;
    let see = |best: &mut Best<S::Value>, x: &[E; BLOCK], place: usize| {
        let x = E::load(s, x);
        let wins = s.greater_or_nan(x, best.value);
        best.value = s.select(wins, x, best.value);
        if KEEP {
            best.place = s.select(wins, s.splat(place as f32), best.place);
        }
    };
    for row in 0..axes.output.height {
        let rows = axes.rows.window(row);
        let y = pixels_mut(&mut y[axes.output.row(row)]);
        for (column, y) in y.iter_mut().enumerate() {
            let columns = axes.columns.window(column);
            let mut best = Best { value: s.splat(f32::NEG_INFINITY), place: s.zero() };
            for r in rows.clone() {
                let x = &pixels(&x[axes.input.row(r)])[columns.clone()];
                let place = axes.rows.position(r, row) * KERNEL
                    + axes.columns.position(columns.start, column);
                match x {
                    // All but those at the edges.
                    [first, second, third] => {
                        see(&mut best, first, place);
                        see(&mut best, second, place + 1);
                        see(&mut best, third, place + 2);
                    }
                    _ => x.iter().enumerate().for_each(|(c, x)| see(&mut best, x, place + c)),
                }
            }
            E::store(s, Dtype::F32, best.value, y);
            if KEEP {
                s.store_bytes(best.place, &mut winners[row * axes.output.width + column]);
            }
        }
    }
    axes.output.zero_halo(y);
}

/// One row of windows that cover a row of the input.
#[derive(Clone, Copy)]
struct WindowRow<'a, E> {
    dy: &'a [[E; BLOCK]],
    winners: &'a [[u8; BLOCK]],
    /// Place of the input row's first column within a window.
    first: usize,
}

/// Sums a row of the gradient over windows two places apart, of which an even place meets the last column of
/// one and the first of the next, and an odd place the middle of one.
#[inline(always)]
fn backward_row_by_two<E: Element, S: Simd, const ROWS: usize>(
    s: S,
    axis: PoolAxis,
    windows: [WindowRow<E>; ROWS],
    dx: &mut [[E; BLOCK]],
    accumulate: bool,
) {
    // WindowRow that do not exist have no winner.
    let nothing = (s.splat(-1.0), s.zero());
    let mut before = [nothing; ROWS];
    for column in 0..=axis.output {
        let mut here = [nothing; ROWS];
        if column < axis.output {
            for (here, windows) in here.iter_mut().zip(&windows) {
                let winner = s.load_bytes(&windows.winners[column]);
                *here = (winner, E::load(s, &windows.dy[column]));
            }
        }
        let won = |(winner, dy): (S::Value, S::Value), place: usize| {
            s.select(s.equal(winner, s.splat(place as f32)), dy, s.zero())
        };
        let even = (2 * column).checked_sub(axis.pad).and_then(|place| dx.get_mut(place));
        if let Some(dx) = even {
            let mut sum = if accumulate { E::load(s, dx) } else { s.zero() };
            for (i, windows) in windows.iter().enumerate() {
                sum = s.add(sum, won(before[i], windows.first + 2));
                sum = s.add(sum, won(here[i], windows.first));
            }
            E::store(s, Dtype::F32, sum, dx);
        }
        let odd = (2 * column + 1).checked_sub(axis.pad).and_then(|place| dx.get_mut(place));
        if let (Some(dx), true) = (odd, column < axis.output) {
            let mut sum = if accumulate { E::load(s, dx) } else { s.zero() };
            for (i, windows) in windows.iter().enumerate() {
                sum = s.add(sum, won(here[i], windows.first + 1));
            }
            E::store(s, Dtype::F32, sum, dx);
        }
        before = here;
    }
}

#[inline(always)]
fn backward_plane<E: Element, S: Simd>(
    s: S,
    axes: &PoolAxes,
    dy: &[E],
    winners: &[u8],
    dx: &mut [E],
    accumulate: bool,
) {
    let winners = winners.as_chunks::<BLOCK>().0;
    for row in 0..axes.input.height {
        let windows = axes.rows.covering(row);
        let dx = pixels_mut(&mut dx[axes.input.row(row)]);
        let row_of = |r: usize| WindowRow {
            dy: pixels(&dy[axes.output.row(r)]),
            winners: &winners[r * axes.output.width..][..axes.output.width],
            first: axes.rows.position(row, r) * KERNEL,
        };
        match (axes.columns.stride, windows.len()) {
            (2, 1) => {
                let windows = [row_of(windows.start)];
                backward_row_by_two(s, axes.columns, windows, dx, accumulate);
                continue;
            }
            (2, 2) => {
                let windows = [row_of(windows.start), row_of(windows.start + 1)];
                backward_row_by_two(s, axes.columns, windows, dx, accumulate);
                continue;
            }
            _ => {}
        }
        for (column, dx) in dx.iter_mut().enumerate() {
            let columns = axes.columns.covering(column);
            let mut sum = if accumulate { E::load(s, dx) } else { s.zero() };
            for r in windows.clone() {
                let dy = &pixels(&dy[axes.output.row(r)])[columns.clone()];
                let winners = &winners[r * axes.output.width..][columns.clone()];
                let first = axes.rows.position(row, r) * KERNEL
                    + axes.columns.position(column, columns.start);
                for (c, (dy, winner)) in dy.iter().zip(winners).enumerate() {
                    let place = s.splat((first - c * axes.columns.stride) as f32);
                    let wins = s.equal(s.load_bytes(winner), place);
                    sum = s.add(sum, s.select(wins, E::load(s, dy), s.zero()));
                }
            }
            E::store(s, Dtype::F32, sum, dx);
        }
    }
}

/// The mean of the nine neighbours of each pixel of `x`, those outside the map counting as zero, rounded to
/// the run's format. Both are `[n][c_block][h][w][16]`. Writes whole planes of `y`, the halo as zeros.
///
/// # Panics
/// If the maps are not alike.
pub fn average<E: Element>(run: Run<'_>, x: Planes<'_, E>, y: PlanesMut<'_, E>) {
    let (map, batch) = (x.map(), x.batch());
    y.expect("y", map, batch);
    split(run.team, batch * map.blocks(), planes(y), |index, y| {
        let x = x.plane(index);
        dispatch!(run.isa, s => average_plane(s, run.dtype, map, x, y, false));
        map.zero_halo(y);
    });
}

/// Gradient of [`average`], which is the average of the gradient: overwrites the pixels of `dx`, or adds to
/// them. Both are `[n][c_block][h][w][16]`.
///
/// # Panics
/// If the maps are not alike.
pub fn average_backward<E: Element>(
    run: Run<'_>,
    dy: Planes<'_, E>,
    dx: PlanesMut<'_, E>,
    accumulate: bool,
) {
    let (map, batch) = (dy.map(), dy.batch());
    dx.expect("dx", map, batch);
    split(run.team, batch * map.blocks(), planes(dx), |index, dx| {
        let dy = dy.plane(index);
        dispatch!(run.isa, s => average_plane(s, Dtype::F32, map, dy, dx, accumulate));
    });
}

/// Weight of a place in an average.
const SHARE: f32 = 1.0 / (KERNEL * KERNEL) as f32;

/// Writes the mean of the nine neighbours of each pixel, places outside the map counting as zero,
/// or adds it to what is there. Each sum over three rows serves three pixels.
#[inline(always)]
fn average_plane<E: Element, S: Simd>(
    s: S,
    dtype: Dtype,
    map: &Map,
    from: &[E],
    to: &mut [E],
    accumulate: bool,
) {
    for row in 0..map.height {
        let rows = [row.saturating_sub(1), row, (row + 1).min(map.height - 1)];
        let rows = rows.map(|row| pixels(&from[map.row(row)]));
        // The row itself stands in for a neighbour outside the map, and is left out of the sum.
        let above = s.splat(if row > 0 { 1.0 } else { 0.0 });
        let below = s.splat(if row + 1 < map.height { 1.0 } else { 0.0 });
        let (mut left, mut middle) = (s.zero(), column_sum(s, rows, above, below, 0));
        for (c, to) in pixels_mut(&mut to[map.row(row)]).iter_mut().enumerate() {
            let right = column_sum(s, rows, above, below, c + 1);
            let sum = s.add(s.add(left, middle), right);
            let before = if accumulate { E::load(s, to) } else { s.zero() };
            E::store(s, dtype, s.add(s.mul(sum, s.splat(SHARE)), before), to);
            (left, middle) = (middle, right);
        }
    }
}

/// Sum over three rows at one column, the outer ones weighted; zero behind the last column.
#[inline(always)]
fn column_sum<E: Element, S: Simd>(
    s: S,
    rows: [&[[E; BLOCK]]; 3],
    above: S::Value,
    below: S::Value,
    column: usize,
) -> S::Value {
    let [Some(upper), Some(middle), Some(lower)] = rows.map(|row| row.get(column)) else {
        return s.zero();
    };
    let outer = s.add(s.mul(above, E::load(s, upper)), s.mul(below, E::load(s, lower)));
    s.add(E::load(s, middle), outer)
}

/// The mean of each channel over the whole map: of `x`, `[n][c_block][h][w][16]`, in `y`, `[n][c]`.
///
/// # Panics
/// If `y` is too short.
pub fn global_average<E: Element>(run: Run<'_>, x: Planes<'_, E>, y: &mut [f32]) {
    let (map, batch) = (x.map(), x.batch());
    let share = 1.0 / (map.height * map.width) as f32;
    let y = &mut y[..batch * map.channels];
    split(run.team, batch * map.blocks(), chunks(y, BLOCK), |index, y| {
        let x = x.plane(index);
        dispatch!(run.isa, s => {
            let mut sum = s.zero();
            for row in 0..map.height {
                for x in pixels(&x[map.row(row)]) {
                    sum = s.add(sum, E::load(s, x));
                }
            }
            s.store(s.mul(sum, s.splat(share)), &mut pixels_mut(y)[0]);
        });
    });
}

/// Gradient of [`global_average`], from that of its output, `dy` (`[n][c]`): overwrites the pixels of `dx`
/// (`[n][c_block][h][w][16]`).
///
/// # Panics
/// If `dy` is too short.
pub fn global_average_backward<E: Element>(team: &Team, dy: &[f32], dx: PlanesMut<'_, E>) {
    let (map, batch) = (*dx.map(), dx.batch());
    let share = 1.0 / (map.height * map.width) as f32;
    let dy = pixels(&dy[..batch * map.channels]);
    split(team, batch * map.blocks(), planes(dx), |index, dx| {
        let value = dy[index].map(|dy| E::of(dy * share));
        for row in 0..map.height {
            pixels_mut(&mut dx[map.row(row)]).fill(value);
        }
    });
}
