//! Local response normalisation across channels (section 3.3 of Krizhevsky et al. 2012):
//! `y = x / s^beta` with `s = 1 + alpha / size * sum of x^2 over the neighbours`.

use crate::dtype::Dtype;
use crate::element::Element;
use crate::map::{BLOCK, Map, View};
use crate::planes::{Planes, PlanesMut};
use crate::run::Run;
use crate::simd::lanes::{Lanes, Simd, dispatch, pixels, pixels_mut};
use crate::team::pieces::{chunks, split};

/// Constants of the layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lrn {
    /// Channels summed over, the middle one included; odd, at most 33.
    pub size: usize,
    /// Weight of the mean square.
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
}

/// Normalises all channels of `x`. Both maps are `[n][c_block][h][w][16]` and fill their buffers: a channel
/// needs its neighbours, so there are no views here. Writes whole images of `y`, the halo as zeros.
///
/// # Panics
/// If the maps are not alike or do not fill their buffers, or the size is even or beyond 33.
pub fn forward<E: Element>(run: Run<'_>, lrn: &Lrn, x: Planes<'_, E>, y: PlanesMut<'_, E>) {
    let (map, batch) = (x.map(), x.batch());
    check(lrn, x);
    y.expect("y", map, batch);
    check_view(map, y.view());
    let (x, y) = (x.values(), y.into_values());
    let end = batch * map.image();
    y[end..].fill(E::default());
    split(run.team, batch, chunks(&mut y[..end], map.image()), |index, y| {
        let x = &x[index * map.image()..][..map.image()];
        dispatch!(run.isa, s => forward_image(s, run.dtype, lrn, map, x, y));
    });
}

/// Gradient of [`forward`], from its input and the gradient of its output, all `[n][c_block][h][w][16]`:
/// overwrites the pixels of `dx`, or adds to them.
///
/// # Panics
/// As [`forward`].
pub fn backward<E: Element>(
    run: Run<'_>,
    lrn: &Lrn,
    x: Planes<'_, E>,
    dy: Planes<'_, E>,
    dx: PlanesMut<'_, E>,
    accumulate: bool,
) {
    let (map, batch) = (x.map(), x.batch());
    check(lrn, x);
    dy.expect("dy", map, batch);
    dx.expect("dx", map, batch);
    check_view(map, dy.view());
    check_view(map, dx.view());
    let (x, dy) = (x.values(), dy.values());
    let dx = &mut dx.into_values()[..batch * map.image()];
    split(run.team, batch, chunks(dx, map.image()), |index, dx| {
        let image = index * map.image()..(index + 1) * map.image();
        let (x, dy) = (&x[image.clone()], &dy[image]);
        dispatch!(run.isa, s => backward_image(s, lrn, map, x, dy, dx, accumulate));
    });
}

fn check<E: Element>(lrn: &Lrn, x: Planes<'_, E>) {
    check_view(x.map(), x.view());
    let range = 1..=2 * BLOCK + 1;
    assert!(lrn.size % 2 == 1 && range.contains(&lrn.size), "normalisation over {}", lrn.size);
}

fn check_view(map: &Map, view: View) {
    assert_eq!(view, View::whole(map), "normalisation across the channels of a part of a map");
}

#[inline(always)]
fn forward_image<E: Element, S: Simd>(
    s: S,
    dtype: Dtype,
    lrn: &Lrn,
    map: &Map,
    x: &[E],
    y: &mut [E],
) {
    let plane = map.plane() / BLOCK;
    let (x, y) = (pixels(x), pixels_mut(y));
    for row in 0..map.height {
        for column in 0..map.width {
            let at = map.pixel(row, column) / BLOCK;
            // Squares of the blocks before, at and behind the current one.
            let mut squares = [[0.0; BLOCK], [0.0; BLOCK], square(s, x, at)];
            for b in 0..map.blocks() {
                squares = [squares[1], squares[2], square(s, x, at + (b + 1) * plane)];
                if b + 1 == map.blocks() {
                    squares[2] = [0.0; BLOCK];
                }
                let at = at + b * plane;
                let factor = power(s, scale(s, lrn, &squares), lrn.beta);
                E::store(s, dtype, s.mul(E::load(s, &x[at]), factor), &mut y[at]);
            }
        }
    }
    for plane in y.as_flattened_mut().chunks_exact_mut(map.plane()) {
        map.zero_halo(plane);
    }
}

/// `dx = dy * s^-beta - 2 * alpha * beta / size * x * sum over the neighbours of r`, with
/// `r = dy * x * s^(-beta - 1)`.
#[inline(always)]
fn backward_image<E: Element, S: Simd>(
    s: S,
    lrn: &Lrn,
    map: &Map,
    x: &[E],
    dy: &[E],
    dx: &mut [E],
    accumulate: bool,
) {
    const NONE: Lanes = [0.0; BLOCK];
    let plane = map.plane() / BLOCK;
    let (x, dy, dx) = (pixels(x), pixels(dy), pixels_mut(dx));
    let factor = s.splat(2.0 * lrn.alpha * lrn.beta / lrn.size as f32);
    for row in 0..map.height {
        for column in 0..map.width {
            let at = map.pixel(row, column) / BLOCK;
            let mut squares = [NONE, NONE, square(s, x, at)];
            // r of three blocks, and dy * s^-beta of the last two: a block is finished one turn
            // after it enters, when its neighbours behind are known.
            let mut ratios = [NONE; 3];
            let mut direct = [s.zero(); 2];
            for b in 0..=map.blocks() {
                ratios = [ratios[1], ratios[2], NONE];
                direct[0] = direct[1];
                if b < map.blocks() {
                    squares = [squares[1], squares[2], square(s, x, at + (b + 1) * plane)];
                    if b + 1 == map.blocks() {
                        squares[2] = NONE;
                    }
                    let scale = scale(s, lrn, &squares);
                    let at = at + b * plane;
                    direct[1] = s.mul(E::load(s, &dy[at]), power(s, scale, lrn.beta));
                    let ratio = s.div(s.mul(direct[1], E::load(s, &x[at])), scale);
                    s.store(ratio, &mut ratios[2]);
                }
                if b > 0 {
                    let at = at + (b - 1) * plane;
                    let sums = neighbours(s, lrn, &ratios);
                    let value = s.sub(direct[0], s.mul(s.mul(factor, E::load(s, &x[at])), sums));
                    let before = if accumulate { E::load(s, &dx[at]) } else { s.zero() };
                    E::store(s, Dtype::F32, s.add(before, value), &mut dx[at]);
                }
            }
        }
    }
}

/// Squares of pixel `at`, or zeros behind the last one.
#[inline(always)]
fn square<E: Element, S: Simd>(s: S, x: &[[E; BLOCK]], at: usize) -> Lanes {
    let Some(x) = x.get(at) else { return [0.0; BLOCK] };
    let x = E::load(s, x);
    s.array(s.mul(x, x))
}

/// s of the middle block, from the squares of three.
#[inline(always)]
fn scale<S: Simd>(s: S, lrn: &Lrn, squares: &[Lanes; 3]) -> S::Value {
    let weight = s.splat(lrn.alpha / lrn.size as f32);
    s.add(s.splat(1.0), s.mul(weight, neighbours(s, lrn, squares)))
}

/// Sums over the neighbours of each channel of the middle block.
#[inline(always)]
fn neighbours<S: Simd>(s: S, lrn: &Lrn, blocks: &[Lanes; 3]) -> S::Value {
    let values = blocks.as_flattened();
    let mut sums = s.zero();
    for shift in 0..lrn.size {
        let window = &values[BLOCK - lrn.size / 2 + shift..][..BLOCK];
        sums = s.add(sums, s.load(&pixels(window)[0]));
    }
    sums
}

/// `scale^-beta`; by two square roots for the exponent 3/4 that everybody uses.
#[inline(always)]
fn power<S: Simd>(s: S, scale: S::Value, beta: f32) -> S::Value {
    if beta == 0.75 {
        let root = s.sqrt(scale);
        s.div(s.splat(1.0), s.mul(root, s.sqrt(root)))
    } else {
        s.load(&s.array(scale).map(|scale| scale.powf(-beta)))
    }
}
