//! Images of eight channels.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use bninception_cuda::Format;
use bninception_cuda::ops::image::{self, CHANNELS};
use common::*;

const IMAGES: [[usize; 4]; 4] =
    [[2, 224, 224, CHANNELS], [1, 1, 1, CHANNELS], [3, 5, 3, CHANNELS], [1, 17, 16, CHANNELS]];

/// `[n][h][w][8]` from a function of image, channel and pixel.
fn expected(sizes: [usize; 4], value: impl Fn(usize, usize, usize) -> f32) -> Vec<f32> {
    let [batch, height, width, _] = sizes;
    let mut values = Vec::new();
    for image in 0..batch {
        for pixel in 0..height * width {
            values.extend((0..CHANNELS).map(|c| if c < 3 { value(image, c, pixel) } else { 0.0 }));
        }
    }
    values
}

#[test]
fn levels_are_looked_up() {
    for sizes in IMAGES {
        for format in [Format::F32, Format::Bf16] {
            let pixels = sizes[1] * sizes[2];
            let mut random = Random::new(7);
            let levels: Vec<u8> = (0..sizes[0] * pixels * 3).map(|_| random.bits() as u8).collect();
            let table = random.floats(3 * 256);
            let found = repeated(|device| {
                let to = new_map(device, Shape::whole(sizes, format));
                let (levels, table) = (put(device, &levels), put_f32(device, &table));
                image::levels(device, levels, table, &to).unwrap();
                get_map(device, &to)
            });
            let expected = expected(sizes, |image, c, pixel| {
                let level = levels[(image * pixels + pixel) * 3 + c];
                nearest(format, f64::from(table[c * 256 + usize::from(level)]))
            });
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn values_change_places() {
    for sizes in IMAGES {
        for format in [Format::F32, Format::Bf16] {
            let pixels = sizes[1] * sizes[2];
            let values = Random::new(8).floats(sizes[0] * pixels * 3);
            let found = repeated(|device| {
                let to = new_map(device, Shape::whole(sizes, format));
                let values = put_f32(device, &values);
                image::values(device, values, &to).unwrap();
                get_map(device, &to)
            });
            let expected = expected(sizes, |image, c, pixel| {
                nearest(format, f64::from(values[(image * 3 + c) * pixels + pixel]))
            });
            assert_eq!(found, expected);
        }
    }
}

#[test]
#[should_panic(expected = "do not fit the levels")]
fn too_few_levels_are_refused() {
    let mut device = host(1);
    let to = new_map(&mut device, Shape::whole([1, 4, 4, CHANNELS], Format::F32));
    let (levels, table) = (put(&mut device, &[0; 47]), put_f32(&mut device, &[0.0; 768]));
    let _ = image::levels(&mut device, levels, table, &to);
}
