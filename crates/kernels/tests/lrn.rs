//! Local response normalisation against its definition in f64.

mod common;

use bninception_kernels::dtype::Dtype;
use bninception_kernels::lrn::{Lrn, backward, forward};
use bninception_kernels::map::View;
use bninception_kernels::planes::{Planes, PlanesMut};
use bninception_kernels::run::Run;
use common::{Plain, assert_close, assert_surroundings, each_way, map};

/// Rounding of sums of squares and two roots, on values of size one.
const TOLERANCE: f64 = 3e-6;

#[test]
fn both_directions_match_the_definition() {
    let constants = [(5, 1e-4, 0.75), (5, 0.5, 0.75), (1, 0.3, 0.75), (33, 0.9, 0.6)];
    for (channels, height, width, batch) in [(64, 5, 7, 2), (16, 1, 1, 1), (192, 4, 4, 3)] {
        for (size, alpha, beta) in constants {
            let lrn = Lrn { size, alpha, beta };
            let map = map(channels, height, width);
            let (x, dy) = (Plain::random(1, map, batch), Plain::random(2, map, batch));
            let (alpha, beta) = (f64::from(alpha), f64::from(beta));
            let near = |c: usize| c.saturating_sub(size / 2)..(c + size / 2 + 1).min(channels);
            let scale = |n, c: usize, row, column| {
                let sum: f64 = near(c).map(|j| x.at(n, j, row, column).powi(2)).sum();
                1.0 + alpha / size as f64 * sum
            };
            let (mut y, mut dx) = (Vec::new(), Vec::new());
            x.each(|n, c, row, column| {
                y.push(x.at(n, c, row, column) * scale(n, c, row, column).powf(-beta));
                let ratio = |j: usize| {
                    let s = scale(n, j, row, column).powf(-beta - 1.0);
                    dy.at(n, j, row, column) * x.at(n, j, row, column) * s
                };
                let sum: f64 = near(c).map(ratio).sum();
                let direct = dy.at(n, c, row, column) * scale(n, c, row, column).powf(-beta);
                let factor = 2.0 * alpha * beta / size as f64;
                dx.push(direct - factor * x.at(n, c, row, column) * sum);
            });
            let summed: Vec<f64> =
                dx.iter().zip(&x.values).map(|(d, &b)| d + f64::from(b)).collect();
            let view = View::whole(&map);
            let (x_buffer, dy_buffer) = (x.blocked(view, 7.0), dy.blocked(view, 7.0));
            each_way(|isa, team| {
                let what = format!("{lrn:?} {map:?} {isa:?} {} threads", team.len());
                let mut y_buffer = vec![7.0; x_buffer.len()];
                let run = Run { team, isa, dtype: Dtype::F32 };
                let x = Planes::whole(&x_buffer, &map, batch);
                forward(run, &lrn, x, PlanesMut::whole(&mut y_buffer, &map, batch));
                let found = Plain::read(map, batch, view, &y_buffer);
                assert_close(&what, &found.values, &y, TOLERANCE);
                assert_surroundings(&map, batch, view, &y_buffer, 7.0);
                for (accumulate, expected) in [(false, &dx), (true, &summed)] {
                    let mut buffer = x_buffer.clone();
                    let dy = Planes::whole(&dy_buffer, &map, batch);
                    let dx = PlanesMut::whole(&mut buffer, &map, batch);
                    backward(run, &lrn, x, dy, dx, accumulate);
                    let found = Plain::read(map, batch, view, &buffer);
                    assert_close(&format!("dx, {what}"), &found.values, expected, TOLERANCE);
                }
            });
        }
    }
}
