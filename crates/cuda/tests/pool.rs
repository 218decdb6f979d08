//! Pools against their definitions.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use bninception_cuda::ops::pool::{self, Windows};
use bninception_cuda::{Device, Format, Host, Map};
use common::*;

/// A pool, its input and its output.
#[derive(Clone, Copy, Debug)]
struct Case {
    windows: Windows,
    input: [usize; 4],
    output: [usize; 4],
}

/// 3x3 pools by the rule of `bninception_model`'s `Pool`: `ceil(n / stride)` windows, the padding split evenly.
fn three_by_three(input: [usize; 4], stride: usize) -> Case {
    let [batch, height, width, channels] = input;
    let places = |n: usize| n.div_ceil(stride);
    let pad = |n: usize| ((places(n) - 1) * stride + 3).saturating_sub(n) / 2;
    let windows = Windows { kernel: [3, 3], stride, pad: [pad(height), pad(width)] };
    Case { windows, input, output: [batch, places(height), places(width), channels] }
}

/// 5x5 pools with stride 3 by the rule of its `AuxPool`: windows clipped to the map.
fn auxiliary(input: [usize; 4]) -> Case {
    let [batch, height, width, channels] = input;
    let window = |n: usize| n.min(5);
    let places = |n: usize| (n - window(n)) / 3 + 1;
    let windows = Windows { kernel: [window(height), window(width)], stride: 3, pad: [0, 0] };
    Case { windows, input, output: [batch, places(height), places(width), channels] }
}

fn cases() -> Vec<Case> {
    let mut cases = vec![three_by_three([1, 112, 112, 64], 2)];
    for input in SIZES {
        cases.extend([three_by_three(input, 1), three_by_three(input, 2), auxiliary(input)]);
    }
    cases
}

/// Values of few different ones, so that windows have equal ones.
fn coarse(shape: Shape) -> Vec<f32> {
    let mut random = Random::new(shape.len() as u64);
    (0..shape.len()).map(|_| (random.even() * 6.0).round() as f32).collect()
}

impl Case {
    /// For each window of image and channel: its place in the output, and the places in the input with those in
    /// the window.
    fn each(&self, mut visit: impl FnMut(usize, &[(usize, usize)])) {
        let [batch, height, width, channels] = self.input;
        let [_, out_height, out_width, _] = self.output;
        let Windows { kernel, stride, pad } = self.windows;
        let mut places = Vec::new();
        for image in 0..batch {
            for row in 0..out_height {
                for column in 0..out_width {
                    for c in 0..channels {
                        places.clear();
                        for r in 0..kernel[0] {
                            for s in 0..kernel[1] {
                                let y = (row * stride + r).wrapping_sub(pad[0]);
                                let x = (column * stride + s).wrapping_sub(pad[1]);
                                if y < height && x < width {
                                    let at = ((image * height + y) * width + x) * channels + c;
                                    places.push((at, r * kernel[1] + s));
                                }
                            }
                        }
                        let pixel = (image * out_height + row) * out_width + column;
                        visit(pixel * channels + c, &places);
                    }
                }
            }
        }
    }

    /// Shapes of input and output, whole and slices; of large maps a few.
    fn shapes(&self) -> Vec<(Shape, Shape)> {
        let (inputs, outputs) = (variants(self.input), variants(self.output));
        let all = inputs.iter().flat_map(|&x| outputs.iter().map(move |&y| (x, y)));
        let every = if inputs[0].len() < 40_000 { 1 } else { 7 };
        all.filter(|(x, y)| x.format == y.format).step_by(every).collect()
    }
}

#[test]
fn the_largest_value_of_each_window() {
    for case in cases() {
        for (input, output) in case.shapes() {
            let values = coarse(input);
            let (mut expected, mut places) = (vec![0.0; output.len()], vec![0; output.len()]);
            case.each(|out, window| {
                let (mut best, mut place) = (values[window[0].0], window[0].1);
                for &(at, position) in window {
                    if values[at] > best {
                        (best, place) = (values[at], position);
                    }
                }
                (expected[out], places[out]) = (best, place as u8);
            });
            let mut device = host(2);
            let x = put_map(&mut device, input, &values);
            let y = new_map(&mut device, output);
            let winners = device.allocate(output.len()).unwrap();
            pool::max(&mut device, case.windows, &x, &y, Some(winners)).unwrap();
            assert_eq!(get_map(&mut device, &y), expected, "{case:?}");
            assert!(get(&mut device, winners) == places, "{case:?}");
            let y = new_map(&mut device, output);
            pool::max(&mut device, case.windows, &x, &y, None).unwrap();
            assert_eq!(get_map(&mut device, &y), expected, "{case:?} without winners");
        }
    }
}

#[test]
fn a_nan_wins_and_minus_infinity_can() {
    let case = three_by_three([1, 4, 4, 8], 2);
    let mut device = host(1);
    let mut values = [f32::NEG_INFINITY; 128];
    values[5 * 8 + 1] = f32::NAN; // row 1, column 1, of the first window alone
    values[6 * 8 + 1] = 3.0; // of the first window, behind it
    let x = put_map(&mut device, Shape::whole(case.input, Format::Bf16), &values);
    let y = new_map(&mut device, Shape::whole(case.output, Format::Bf16));
    let winners = device.allocate(32).unwrap();
    pool::max(&mut device, case.windows, &x, &y, Some(winners)).unwrap();
    let found = get_map(&mut device, &y);
    assert!(found[1].is_nan());
    assert_eq!(get(&mut device, winners)[..2], [0, 4]);
    assert_eq!((found[0], found[9]), (f32::NEG_INFINITY, 3.0));
}

/// Compares what `run` leaves in dx, over what was there and over nothing, with sums of `weigh`ed dy.
fn expect_gradient(
    case: &Case,
    weigh: impl Fn(usize, usize, &[(usize, usize)]) -> f64,
    run: impl Fn(&mut Host, &Map, &Map, bool),
) {
    for (input, output) in case.shapes() {
        let mut random = Random::new(3);
        let dy_values = random.values(output.len(), input.format);
        let before = random.values(input.len(), input.format);
        let mut sums = vec![0.0; input.len()];
        case.each(|out, window| {
            for &(at, position) in window {
                sums[at] += f64::from(dy_values[out]) * weigh(out, position, window);
            }
        });
        for accumulate in [false, true] {
            let mut device = host(2);
            let dy = put_map(&mut device, output, &dy_values);
            let dx = put_map(&mut device, input, &before);
            run(&mut device, &dy, &dx, accumulate);
            let from = |(&sum, &before): (&f64, &f32)| {
                sum + if accumulate { f64::from(before) } else { 0.0 }
            };
            let expected: Vec<f64> = sums.iter().zip(&before).map(from).collect();
            expect_near(&get_map(&mut device, &dx), &expected, input.format, 2e-6);
            assert_eq!(get_map(&mut device, &dy), dy_values, "dy stays");
        }
    }
}

#[test]
fn the_gradient_goes_to_the_winners() {
    for case in cases() {
        let places = case.windows.kernel.iter().product::<usize>();
        let mut random = Random::new(5);
        // Of any place, also outside the map, where nobody gets it.
        let winners: Vec<u8> = (0..case.output.iter().product::<usize>())
            .map(|_| (random.bits() as usize % places) as u8)
            .collect();
        expect_gradient(
            &case,
            |out, position, _| f64::from(usize::from(winners[out]) == position),
            |device, dy, dx, accumulate| {
                let winners = put(device, &winners);
                pool::max_backward(device, case.windows, dy, winners, dx, accumulate).unwrap();
            },
        );
    }
}

#[test]
fn the_mean_of_each_window() {
    for case in cases() {
        let places = case.windows.kernel.iter().product::<usize>() as f64;
        for (input, output) in case.shapes() {
            let values = Random::new(4).values(input.len(), input.format);
            let mut expected = vec![0.0; output.len()];
            case.each(|out, window| {
                let sum: f64 = window.iter().map(|&(at, _)| f64::from(values[at])).sum();
                expected[out] = sum / places;
            });
            let mut device = host(2);
            let x = put_map(&mut device, input, &values);
            let y = new_map(&mut device, output);
            pool::average(&mut device, case.windows, &x, &y).unwrap();
            expect_near(&get_map(&mut device, &y), &expected, input.format, 2e-6);
        }
        expect_gradient(
            &case,
            |_, _, _| 1.0 / places,
            |device, dy, dx, accumulate| {
                pool::average_backward(device, case.windows, dy, dx, accumulate).unwrap();
            },
        );
    }
}

#[test]
fn the_mean_of_each_channel() {
    for input in SIZES.into_iter().flat_map(variants) {
        let pixels = input.height * input.width;
        let mut random = Random::new(6);
        let values = random.values(input.len(), input.format);
        let gradient = random.floats(input.batch * input.channels);
        let feature = |index: usize| {
            let (image, c) = (index / input.channels, index % input.channels);
            let of = |pixel| values[(image * pixels + pixel) * input.channels + c];
            (0..pixels).map(|pixel| f64::from(of(pixel))).sum::<f64>() / pixels as f64
        };
        let expected: Vec<f64> = (0..input.batch * input.channels).map(feature).collect();
        let mut device = host(2);
        let x = put_map(&mut device, input, &values);
        let features = device.allocate(4 * expected.len()).unwrap();
        pool::global_average(&mut device, &x, features).unwrap();
        expect_near(&get_f32(&mut device, features), &expected, Format::F32, 2e-6);

        for accumulate in [false, true] {
            let dx = put_map(&mut device, input, &values);
            let dfeatures = put_f32(&mut device, &gradient);
            pool::global_average_backward(&mut device, dfeatures, &dx, accumulate).unwrap();
            let of = |index: usize| {
                let image = index / (pixels * input.channels);
                let of_feature = gradient[image * input.channels + index % input.channels];
                let before = if accumulate { f64::from(values[index]) } else { 0.0 };
                f64::from(of_feature) / pixels as f64 + before
            };
            let expected: Vec<f64> = (0..input.len()).map(of).collect();
            expect_near(&get_map(&mut device, &dx), &expected, input.format, 1e-6);
        }
    }
}

#[test]
fn threads_never_change_a_bit() {
    let case = three_by_three([2, 112, 112, 64], 2);
    let (input, output) =
        (Shape::whole(case.input, Format::F32), Shape::whole(case.output, Format::F32));
    let mut random = Random::new(9);
    let (values, gradient) = (random.floats(input.len()), random.floats(output.len()));
    repeated(|device| {
        let (x, y) = (put_map(device, input, &values), new_map(device, output));
        let winners = device.allocate(output.len()).unwrap();
        pool::max(device, case.windows, &x, &y, Some(winners)).unwrap();
        let dy = put_map(device, output, &gradient);
        let dx = put_map(device, input, &values);
        pool::max_backward(device, case.windows, &dy, winners, &dx, true).unwrap();
        pool::average_backward(device, case.windows, &dy, &dx, true).unwrap();
        let features = device.allocate(4 * 2 * 64).unwrap();
        pool::global_average(device, &dx, features).unwrap();
        [get_map(device, &y), get_map(device, &dx), get_f32(device, features)].concat()
    });
}

#[test]
#[should_panic(expected = "windows over")]
fn windows_behind_the_map_are_refused() {
    let case = three_by_three([1, 4, 4, 8], 2);
    let mut device = host(1);
    let x = new_map(&mut device, Shape::whole(case.input, Format::F32));
    let y = new_map(&mut device, Shape::whole([1, 3, 2, 8], Format::F32));
    let _ = pool::average(&mut device, case.windows, &x, &y);
}
