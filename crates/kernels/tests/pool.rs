//! Pools against their definition in f64, with and without padding.

mod common;

use bninception_kernels::dtype::Dtype;
use bninception_kernels::flatten::{flat, flatten, flatten_backward};
use bninception_kernels::map::{Map, View};
use bninception_kernels::planes::{Planes, PlanesMut};
use bninception_kernels::pool::{
    MaxPool, average, average_backward, global_average, global_average_backward,
};
use bninception_kernels::run::Run;
use bninception_kernels::window_average::WindowAverage;
use common::{Plain, assert_close, assert_surroundings, each_way, map, random, views};

/// Sums of at most 49 values of size one, plus the value that is added to.
const TOLERANCE: f64 = 1e-6;

/// The network's extents at 224 and 64 px with their parities, and odd ones.
const EXTENTS: [(usize, usize); 9] =
    [(1, 1), (2, 2), (4, 4), (7, 7), (8, 8), (14, 14), (13, 9), (28, 28), (5, 12)];

/// Input places of the window of output place `out`, as indices that may lie outside the map.
fn window(out: usize, n: usize, stride: usize) -> [isize; 3] {
    let covered = (n.div_ceil(stride) - 1) * stride + 3;
    let pad = covered.saturating_sub(n) / 2;
    std::array::from_fn(|k| (out * stride + k) as isize - pad as isize)
}

/// For every output: its windows' places inside the map, in scan order, with their number.
fn places(map: &Map, stride: usize, row: usize, column: usize) -> Vec<(usize, usize, usize)> {
    let mut places = Vec::new();
    for (r, &y) in window(row, map.height, stride).iter().enumerate() {
        for (c, &x) in window(column, map.width, stride).iter().enumerate() {
            if (0..map.height as isize).contains(&y) && (0..map.width as isize).contains(&x) {
                places.push((y as usize, x as usize, 3 * r + c));
            }
        }
    }
    places
}

fn each_case(mut test: impl FnMut(MaxPool, usize, &Plain, &Plain)) {
    for (height, width) in EXTENTS {
        for stride in [1, 2] {
            for (channels, batch) in [(32, 1), (16, 3)] {
                let pool = MaxPool { input: map(channels, height, width), stride };
                let mut x = Plain::random(1, pool.input, batch);
                // Ties, as a ReLU makes them.
                for value in &mut x.values {
                    *value = value.max(0.0);
                }
                let dy = Plain::random(2, pool.output(), batch);
                test(pool, batch, &x, &dy);
            }
        }
    }
}

#[test]
fn maximum_and_its_gradient_match_the_definition() {
    each_case(|pool, batch, x, dy| {
        let (mut y, mut winners) = (Vec::new(), Vec::new());
        let mut dx = vec![0.0; x.values.len()];
        dy.each(|n, c, row, column| {
            let mut best = (f64::NEG_INFINITY, 0, 0);
            for (r, q, place) in places(&pool.input, pool.stride, row, column) {
                if x.at(n, c, r, q) > best.0 {
                    best = (x.at(n, c, r, q), x.index(n, c, r, q), place);
                }
            }
            y.push(best.0);
            winners.push(best.2 as u8);
            dx[best.1] += dy.at(n, c, row, column);
        });
        check(pool, batch, x, dy, &y, &dx, true);
    });
}

#[test]
fn average_and_its_gradient_match_the_definition() {
    each_case(|pool, batch, x, dy| {
        if pool.stride != 1 {
            return;
        }
        let mut y = Vec::new();
        let mut dx = vec![0.0; x.values.len()];
        dy.each(|n, c, row, column| {
            let places = places(&pool.input, pool.stride, row, column);
            y.push(places.iter().map(|&(r, q, _)| x.at(n, c, r, q)).sum::<f64>() / 9.0);
            for (r, q, _) in places {
                dx[x.index(n, c, r, q)] += dy.at(n, c, row, column) / 9.0;
            }
        });
        check(pool, batch, x, dy, &y, &dx, false);
    });
}

fn check(pool: MaxPool, batch: usize, x: &Plain, dy: &Plain, y: &[f64], dx: &[f64], max: bool) {
    let output = pool.output();
    let before = Plain::random(3, pool.input, batch);
    let summed: Vec<f64> = dx.iter().zip(&before.values).map(|(d, &b)| d + f64::from(b)).collect();
    each_way(|isa, team| {
        let what = format!("{pool:?} max {max} {isa:?} {} threads", team.len());
        let run = Run { team, isa, dtype: Dtype::F32 };
        for (x_view, y_view) in views(&pool.input).into_iter().zip(views(&output)) {
            let x_buffer = x.blocked(x_view, 0.0);
            let x = Planes::new(&x_buffer, &pool.input, x_view, batch);
            let mut y_buffer = vec![7.0; y_view.blocks * batch * output.plane() + 1024];
            let mut winners = vec![77; pool.winners_len(batch)];
            if max {
                let y = PlanesMut::new(&mut y_buffer, &output, y_view, batch);
                pool.forward(run, x, y, Some(&mut winners[..]));
                let mut forgetful = vec![7.0; y_buffer.len()];
                let y = PlanesMut::new(&mut forgetful, &output, y_view, batch);
                pool.forward(run, x, y, None);
                assert_eq!(y_buffer, forgetful, "{what}");
            } else {
                average(run, x, PlanesMut::new(&mut y_buffer, &output, y_view, batch));
            }
            assert_surroundings(&output, batch, y_view, &y_buffer, 7.0);
            let found = Plain::read(output, batch, y_view, &y_buffer);
            assert_close(&what, &found.values, y, TOLERANCE);

            let dy_buffer = dy.blocked(y_view, 7.0);
            for (accumulate, expected) in [(false, dx), (true, &summed)] {
                let mut dx_buffer = before.blocked(x_view, 7.0);
                let dy = Planes::new(&dy_buffer, &output, y_view, batch);
                let dx = PlanesMut::new(&mut dx_buffer, &pool.input, x_view, batch);
                if max {
                    pool.backward(run, dy, &winners, dx, accumulate);
                } else {
                    average_backward(run, dy, dx, accumulate);
                }
                let found = Plain::read(pool.input, batch, x_view, &dx_buffer);
                assert_close(&format!("gradient, {what}"), &found.values, expected, TOLERANCE);
            }
        }
    });
}

#[test]
fn a_value_that_is_not_a_number_survives_the_maximum() {
    let pool = MaxPool { input: map(16, 6, 6), stride: 2 };
    let mut x = Plain::random(1, pool.input, 1);
    let index = x.index(0, 3, 2, 2);
    x.values[index] = f32::NAN;
    each_way(|isa, team| {
        let view = View { blocks: 1, first: 0 };
        let mut y = vec![0.0; pool.output().buffer(1)];
        let x_buffer = x.blocked(view, 0.0);
        let x = Planes::new(&x_buffer, &pool.input, view, 1);
        let run = Run { team, isa, dtype: Dtype::F32 };
        pool.forward(run, x, PlanesMut::new(&mut y, &pool.output(), view, 1), None);
        let y = Plain::read(pool.output(), 1, view, &y);
        assert!(y.at(0, 3, 1, 1).is_nan() && y.at(0, 3, 0, 0).is_nan());
        assert!(!y.at(0, 3, 2, 2).is_nan());
    });
}

#[test]
fn global_average_and_its_gradient_match_the_definition() {
    for (height, width) in EXTENTS {
        let (map, batch) = (map(48, height, width), 3);
        let x = Plain::random(1, map, batch);
        let dy = random(2, batch * 48);
        let pixels = (height * width) as f64;
        let mut y = vec![0.0; batch * 48];
        let mut dx = Vec::new();
        x.each(|n, c, row, column| {
            y[n * 48 + c] += x.at(n, c, row, column) / pixels;
            dx.push(f64::from(dy[n * 48 + c]) / pixels);
        });
        each_way(|isa, team| {
            for view in views(&map) {
                let mut found = vec![7.0; batch * 48];
                let run = Run { team, isa, dtype: Dtype::F32 };
                let x_buffer = x.blocked(view, 7.0);
                global_average(run, Planes::new(&x_buffer, &map, view, batch), &mut found);
                assert_close("global average", &found, &y, 1e-5);
                let mut buffer = x.blocked(view, 7.0);
                let dx_maps = PlanesMut::new(&mut buffer, &map, view, batch);
                global_average_backward(team, &dy, dx_maps);
                let found = Plain::read(map, batch, view, &buffer);
                assert_close("gradient of the global average", &found.values, &dx, TOLERANCE);
            }
        });
    }
}

/// Expected results, with the gradient alone and added to `before`.
struct Expected {
    y: Vec<f64>,
    dx: Vec<f64>,
}

#[test]
fn averages_of_windows_and_their_gradients_match_the_definition() {
    for (height, width) in EXTENTS {
        let pool = WindowAverage { input: map(32, height, width), kernel: 5, stride: 3 };
        let (rows, columns) = (height.min(5), width.min(5));
        let share = 1.0 / (rows * columns) as f64;
        let (batch, output) = (3, pool.output());
        assert_eq!(output.height, (height - rows) / 3 + 1);
        let (x, dy) = (Plain::random(1, pool.input, batch), Plain::random(2, output, batch));
        let mut expected = Expected { y: Vec::new(), dx: vec![0.0; x.values.len()] };
        dy.each(|n, c, row, column| {
            let mut sum = 0.0;
            for r in 3 * row..3 * row + rows {
                for q in 3 * column..3 * column + columns {
                    sum += x.at(n, c, r, q);
                    expected.dx[x.index(n, c, r, q)] += dy.at(n, c, row, column) * share;
                }
            }
            expected.y.push(sum * share);
        });
        let what = format!("{pool:?}");
        check_linear(
            &what,
            &x,
            &dy,
            &expected,
            |run, x, y| pool.forward(run, x, y),
            |run, dy, dx, accumulate| pool.backward(run, dy, dx, accumulate),
        );
    }
}

#[test]
fn flat_maps_hold_channel_by_channel() {
    for (height, width) in EXTENTS {
        let (map, batch) = (map(32, height, width), 2);
        let x = Plain::random(1, map, batch);
        let dy = Plain::random(2, flat(&map), batch);
        let f64s = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect();
        let expected = Expected { y: f64s(&x.values), dx: f64s(&dy.values) };
        check_linear(
            "flat",
            &x,
            &dy,
            &expected,
            |run, x, y| flatten(run.team, x, y),
            |run, dy, dx, accumulate| flatten_backward(run.team, dy, dx, accumulate),
        );
    }
}

/// Checks an operation without choices and its gradient, which is also added to what is there.
fn check_linear(
    what: &str,
    x: &Plain,
    dy: &Plain,
    expected: &Expected,
    forward: impl Fn(Run<'_>, Planes<'_, f32>, PlanesMut<'_, f32>),
    backward: impl Fn(Run<'_>, Planes<'_, f32>, PlanesMut<'_, f32>, bool),
) {
    let (batch, output) = (x.batch, dy.map);
    let before = Plain::random(3, x.map, batch);
    let summed: Vec<f64> =
        expected.dx.iter().zip(&before.values).map(|(d, &b)| d + f64::from(b)).collect();
    each_way(|isa, team| {
        let what = format!("{what} {isa:?} {} threads", team.len());
        let run = Run { team, isa, dtype: Dtype::F32 };
        for (x_view, y_view) in views(&x.map).into_iter().zip(views(&output)) {
            let mut y = vec![7.0; y_view.blocks * batch * output.plane() + 1024];
            let (x_buffer, dy_buffer) = (x.blocked(x_view, 7.0), dy.blocked(y_view, 7.0));
            forward(
                run,
                Planes::new(&x_buffer, &x.map, x_view, batch),
                PlanesMut::new(&mut y, &output, y_view, batch),
            );
            assert_surroundings(&output, batch, y_view, &y, 7.0);
            let found = Plain::read(output, batch, y_view, &y);
            assert_close(&what, &found.values, &expected.y, TOLERANCE);
            for (accumulate, expected) in [(false, &expected.dx), (true, &summed)] {
                let mut dx = before.blocked(x_view, 7.0);
                let dy = Planes::new(&dy_buffer, &output, y_view, batch);
                backward(run, dy, PlanesMut::new(&mut dx, &x.map, x_view, batch), accumulate);
                let found = Plain::read(x.map, batch, x_view, &dx);
                assert_close(&format!("gradient, {what}"), &found.values, expected, TOLERANCE);
            }
        }
    });
}
