//! Average pools whose windows lie inside the map, forward and backward.
//!
//! Along an axis of `n` the window has `min(kernel, n)` places and the output
//! `(n - window) / stride + 1`, rounded down: places behind the last window that fits are left out.
//! The backward pass gathers, so that threads never write the same place.

use std::ops::Range;

use crate::dtype::Dtype;
use crate::element::Element;
use crate::map::Map;
use crate::map::View;
use crate::simd::isa::Isa;
use crate::simd::lanes::{Simd, dispatch, pixels, pixels_mut};
use crate::team::pieces::{check_planes, plane, planes, split};
use crate::team::threads::Team;

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

    /// The mean of each window, rounded to `dtype`. Writes whole planes of `y`, the halo as zeros.
    ///
    /// # Panics
    /// If a buffer is too short for `batch` images of its view.
    pub fn forward<E: Element>(
        &self,
        team: &Team,
        isa: Isa,
        dtype: Dtype,
        batch: usize,
        x: &[E],
        x_view: View,
        y: &mut [E],
        y_view: View,
    ) {
        check_planes(&self.input, batch, x, x_view);
        let output = self.output();
        split(team, batch * output.blocks(), planes(&output, batch, y, y_view), |index, y| {
            let x = plane(&self.input, x, x_view, index);
            dispatch!(isa, s => self.forward_plane(s, dtype, x, y));
            output.zero_halo(y);
        });
    }

    /// Gradient of [`WindowAverage::forward`]: overwrites the pixels of `dx`, or adds to them.
    ///
    /// # Panics
    /// If a buffer is too short for `batch` images of its view.
    pub fn backward<E: Element>(
        &self,
        team: &Team,
        isa: Isa,
        batch: usize,
        dy: &[E],
        dy_view: View,
        dx: &mut [E],
        dx_view: View,
        accumulate: bool,
    ) {
        let output = self.output();
        check_planes(&output, batch, dy, dy_view);
        let total = batch * output.blocks();
        split(team, total, planes(&self.input, batch, dx, dx_view), |index, dx| {
            let dy = plane(&output, dy, dy_view, index);
            dispatch!(isa, s => self.backward_plane(s, dy, dx, accumulate));
        });
    }

    fn axes(&self) -> (Axis, Axis) {
        let axis = |n: usize| {
            let window = n.min(self.kernel);
            Axis { window, stride: self.stride, output: (n - window) / self.stride + 1 }
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
struct Axis {
    window: usize,
    stride: usize,
    output: usize,
}

impl Axis {
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
