//! The definition of a convolution: plain loops in f64.
//!
//! `x` is `[n][c][h][w]`, weights and their gradient `[k][c][r][s]`, `dy` `[n][k][out_h][out_w]`, all of f32.
//! Slow and obviously right; tests and benchmarks hold every kernel against it.

use super::shape::ConvShape;

/// Offset of element (`n`, `c`, `row`, `column`) of an NCHW tensor.
fn at(
    channels: usize,
    height: usize,
    width: usize,
    n: usize,
    c: usize,
    y: usize,
    x: usize,
) -> usize {
    ((n * channels + c) * height + y) * width + x
}

/// Input row (or column) under output row `out` at filter row `tap`; `None` in the padding.
fn under(s: &ConvShape, out: usize, tap: usize, size: usize) -> Option<usize> {
    (out * s.stride + tap).checked_sub(s.pad).filter(|&i| i < size)
}

/// One output `y[n][k][row][column]`.
pub fn forward_at(
    s: &ConvShape,
    x: &[f32],
    weights: &[f32],
    n: usize,
    k: usize,
    row: usize,
    column: usize,
) -> f64 {
    let mut sum = 0.0;
    for r in 0..s.kernel {
        let Some(i) = under(s, row, r, s.in_height) else { continue };
        for q in 0..s.kernel {
            let Some(j) = under(s, column, q, s.in_width) else { continue };
            for c in 0..s.in_channels {
                let value = x[at(s.in_channels, s.in_height, s.in_width, n, c, i, j)];
                let weight = weights[at(s.in_channels, s.kernel, s.kernel, k, c, r, q)];
                sum += f64::from(value) * f64::from(weight);
            }
        }
    }
    sum
}

/// One input gradient `dx[n][c][row][column]`.
pub fn backward_input_at(
    s: &ConvShape,
    dy: &[f32],
    weights: &[f32],
    n: usize,
    c: usize,
    row: usize,
    column: usize,
) -> f64 {
    let (height, width) = (s.out_height(), s.out_width());
    // The output that sees input `i` at filter position `tap`, if there is one.
    let seen_by = |i: usize, tap: usize, size: usize| {
        let shifted = (i + s.pad).checked_sub(tap)?;
        (shifted.is_multiple_of(s.stride) && shifted / s.stride < size).then(|| shifted / s.stride)
    };
    let mut sum = 0.0;
    for r in 0..s.kernel {
        let Some(i) = seen_by(row, r, height) else { continue };
        for q in 0..s.kernel {
            let Some(j) = seen_by(column, q, width) else { continue };
            for k in 0..s.out_channels {
                let gradient = dy[at(s.out_channels, height, width, n, k, i, j)];
                let weight = weights[at(s.in_channels, s.kernel, s.kernel, k, c, r, q)];
                sum += f64::from(gradient) * f64::from(weight);
            }
        }
    }
    sum
}

/// One weight gradient `dw[k][c][r][q]`.
pub fn backward_weights_at(
    s: &ConvShape,
    x: &[f32],
    dy: &[f32],
    k: usize,
    c: usize,
    r: usize,
    q: usize,
) -> f64 {
    let (height, width) = (s.out_height(), s.out_width());
    let mut sum = 0.0;
    for n in 0..s.batch {
        for row in 0..height {
            let Some(i) = under(s, row, r, s.in_height) else { continue };
            for column in 0..width {
                let Some(j) = under(s, column, q, s.in_width) else { continue };
                let value = x[at(s.in_channels, s.in_height, s.in_width, n, c, i, j)];
                let gradient = dy[at(s.out_channels, height, width, n, k, row, column)];
                sum += f64::from(value) * f64::from(gradient);
            }
        }
    }
    sum
}
