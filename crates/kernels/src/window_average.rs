//! Average pools whose windows lie inside the map, forward and backward.
//!
//! Along an axis of `n` the window has `min(kernel, n)` places and the output
//! `(n - window) / stride + 1`, rounded down: places behind the last window that fits are left out.
//! The backward pass gathers, so that threads never write the same place.

use std::ops::Range;

use crate::dtype::Dtype;
use crate::element::Element;
use crate::map::Map;
use crate::planes::{Planes, PlanesMut};
use crate::run::Run;
use crate::simd::lanes::{Simd, dispatch, pixels, pixels_mut};
use crate::team::pieces::{planes, split};

/// An average pool over maps of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowAverage {
    /// The input.
    pub input: Map,
    /// Rows and columns of the window, clipped to the map.
    pub kernel: usize,
    /// Step between windows.
    pub stride: usize,
}

impl WindowAverage {
    /// The output.
    pub fn output(&self) -> Map {
        let (rows, columns) = self.axes();
        Map { height: rows.output, width: columns.output, ..self.input }
    }

    /// The mean of each window of `x` (`[n][c_block][h][w][16]`), rounded to the run's format, in `y`
    /// (`[n][c_block][out_h][out_w][16]`). Writes whole planes of `y`, the halo as zeros.
    ///
    /// # Panics
    /// If the maps are not those of the pool.
    pub fn forward<E: Element>(&self, run: Run<'_>, x: Planes<'_, E>, y: PlanesMut<'_, E>) {
        let (batch, output) = (x.batch(), self.output());
        x.expect("x", &self.input, batch);
        y.expect("y", &output, batch);
        split(run.team, batch * output.blocks(), planes(y), |index, y| {
            let x = x.plane(index);
            dispatch!(run.isa, s => self.forward_plane(s, run.dtype, x, y));
            output.zero_halo(y);
        });
    }

    /// Gradient of [`WindowAverage::forward`], from that of its output, `dy`, laid out as there: overwrites
    /// the pixels of `dx` (`[n][c_block][h][w][16]`), or adds to them.
    ///
    /// # Panics
    /// If the maps are not those of the pool.
    pub fn backward<E: Element>(
        &self,
        run: Run<'_>,
        dy: Planes<'_, E>,
        dx: PlanesMut<'_, E>,
        accumulate: bool,
    ) {
        let (batch, output) = (dy.batch(), self.output());
        dy.expect("dy", &output, batch);
        dx.expect("dx", &self.input, batch);
        split(run.team, batch * output.blocks(), planes(dx), |index, dx| {
            let dy = dy.plane(index);
            dispatch!(run.isa, s => self.backward_plane(s, dy, dx, accumulate));
        });
    }

    fn axes(&self) -> (WindowAxis, WindowAxis) {
        let axis = |n: usize| {
            let window = n.min(self.kernel);
            WindowAxis { window, stride: self.stride, output: (n - window) / self.stride + 1 }
        };
        (axis(self.input.height), axis(self.input.width))
    }

    #[inline(always)]
    fn forward_plane<E: Element, S: Simd>(&self, s: S, dtype: Dtype, x: &[E], y: &mut [E]) {
        let (rows, columns) = self.axes();
        let share = s.splat(1.0 / (rows.window * columns.window) as f32);
        let output = Map { height: rows.output, width: columns.output, ..self.input };
        for row in 0..rows.output {
            for (column, y) in pixels_mut(&mut y[output.row(row)]).iter_mut().enumerate() {
                let mut sum = s.zero();
                for r in rows.places(row) {
                    for x in &pixels(&x[self.input.row(r)])[columns.places(column)] {
                        sum = s.add(sum, E::load(s, x));
                    }
                }
                E::store(s, dtype, s.mul(sum, share), y);
            }
        }
    }

    #[inline(always)]
    fn backward_plane<E: Element, S: Simd>(&self, s: S, dy: &[E], dx: &mut [E], accumulate: bool) {
        let (rows, columns) = self.axes();
        let share = s.splat(1.0 / (rows.window * columns.window) as f32);
        let output = Map { height: rows.output, width: columns.output, ..self.input };
        for row in 0..self.input.height {
            for (column, dx) in pixels_mut(&mut dx[self.input.row(row)]).iter_mut().enumerate() {
                let mut sum = s.zero();
                for r in rows.covering(row) {
                    for dy in &pixels(&dy[output.row(r)])[columns.covering(column)] {
                        sum = s.add(sum, E::load(s, dy));
                    }
                }
                let before = if accumulate { E::load(s, dx) } else { s.zero() };
                E::store(s, Dtype::F32, s.add(s.mul(sum, share), before), dx);
            }
        }
    }
}

/// Windows along one axis.
#[derive(Clone, Copy)]
struct WindowAxis {
    window: usize,
    stride: usize,
    output: usize,
}

impl WindowAxis {
    /// The input places of window `out`.
    #[inline(always)]
    fn places(&self, out: usize) -> Range<usize> {
        out * self.stride..out * self.stride + self.window
    }

    /// The windows that cover input place `place`; none behind the last one.
    #[inline(always)]
    fn covering(&self, place: usize) -> Range<usize> {
        let end = (place / self.stride + 1).min(self.output);
        (place + 1).saturating_sub(self.window).div_ceil(self.stride).min(end)..end
    }
}
