//! Values in another order or format.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use bninception_cuda::ops::layout;
use bninception_cuda::ops::pool::{self, Windows};
use bninception_cuda::{Device, Format};
use common::*;

#[test]
fn planes() {
    for shape in SIZES.into_iter().flat_map(variants) {
        let pixels = shape.height * shape.width;
        let values = Random::new(1).values(shape.len(), shape.format);
        let mut device = host(2);
        let x = put_map(&mut device, shape, &values);
        let planes = device.allocate(4 * shape.len()).unwrap();
        layout::to_planes(&mut device, &x, planes).unwrap();
        let of = |index: usize| {
            let (image, rest) =
                (index / (pixels * shape.channels), index % (pixels * shape.channels));
            values[(image * pixels + rest % pixels) * shape.channels + rest / pixels]
        };
        let expected: Vec<f32> = (0..shape.len()).map(of).collect();
        assert_eq!(get_f32(&mut device, planes), expected);
    }
}

#[test]
fn flat_maps_and_back() {
    for shape in [[2, 4, 4, 128], [1, 1, 1, 24], [3, 3, 5, 10]].into_iter().flat_map(variants) {
        let pixels = shape.height * shape.width;
        let mut random = Random::new(2);
        let values = random.values(shape.len(), shape.format);
        let before = random.values(shape.len(), shape.format);
        let flat = Shape::whole([shape.batch, 1, 1, pixels * shape.channels], shape.format);
        let at = |index: usize| {
            let (image, rest) = (index / flat.channels, index % flat.channels);
            (image * pixels + rest % pixels) * shape.channels + rest / pixels
        };
        let expected: Vec<f32> = (0..shape.len()).map(|index| values[at(index)]).collect();
        for flat in [flat, flat.within(3, 6)] {
            let mut device = host(2);
            let (x, y) = (put_map(&mut device, shape, &values), new_map(&mut device, flat));
            layout::flatten(&mut device, &x, &y).unwrap();
            assert_eq!(get_map(&mut device, &y), expected);

            let dx = put_map(&mut device, shape, &before);
            layout::flatten_backward(&mut device, &y, &dx, false).unwrap();
            assert_eq!(get_map(&mut device, &dx), values);

            let dx = put_map(&mut device, shape, &before);
            layout::flatten_backward(&mut device, &y, &dx, true).unwrap();
            let sums: Vec<f64> =
                values.iter().zip(&before).map(|(&a, &b)| f64::from(a) + f64::from(b)).collect();
            expect_near(&get_map(&mut device, &dx), &sums, shape.format, 0.0);
        }
    }
}

#[test]
fn values_are_rounded_to_the_nearest() {
    // Each number of bf16 with the lower halves at which rounding turns, and others.
    let mut random = Random::new(3);
    let mut values = Vec::new();
    for upper in 0..=u16::MAX {
        let low = random.bits() as u32 & 0xFFFF;
        for lower in [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, low] {
            values.push(f32::from_bits(u32::from(upper) << 16 | lower));
        }
    }
    values.pop(); // so that there is no whole number of blocks
    let found = repeated(|device| {
        let from = put_f32(device, &values);
        let to = device.allocate(2 * values.len()).unwrap();
        layout::to_bf16(device, from, to).unwrap();
        let bytes = get(device, to);
        let value = |word: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*word)) << 16);
        bytes.as_chunks().0.iter().map(value).collect()
    });
    assert_eq!(found.len(), values.len());
    for (&value, &found) in values.iter().zip(&found) {
        if value.is_nan() {
            assert_eq!(found.to_bits(), 0x7FC0_0000);
            continue;
        }
        let below = value.to_bits() & 0xFFFF_0000;
        let lower = value.to_bits() & 0xFFFF;
        let up = lower > 0x8000 || (lower == 0x8000 && below & 0x1_0000 != 0);
        let expected = if up { below.wrapping_add(0x1_0000) } else { below };
        assert_eq!(found.to_bits(), expected, "{value}");
    }
}

#[test]
fn maps_are_rounded_as_vectors_are() {
    // Sums of two bf16 numbers, through the store of groups and through that of single values.
    for channels in [8, 7] {
        let shape = Shape::whole([1, 64, 64, channels], Format::Bf16);
        let mut random = Random::new(4);
        let [a, b] = [(); 2].map(|()| random.values(shape.len(), Format::Bf16));
        let mut device = host(1);
        let dy = put_map(&mut device, shape, &a);
        let dx = put_map(&mut device, shape, &b);
        let windows = Windows { kernel: [1, 1], stride: 1, pad: [0, 0] };
        pool::average_backward(&mut device, windows, &dy, &dx, true).unwrap();
        let sums = a.iter().zip(&b).map(|(a, b)| nearest(Format::Bf16, f64::from(a + b)));
        assert_eq!(get_map(&mut device, &dx), sums.collect::<Vec<_>>());
    }
}

#[test]
fn bf16_is_widened_or_added() {
    for count in [1, 255, 4096, 100_001] {
        let mut random = Random::new(6);
        let (values, before) = (random.values(count, Format::Bf16), random.floats(count));
        let bytes: Vec<u8> = values.iter().flat_map(|&value| half(value).to_le_bytes()).collect();
        let found = repeated(|device| {
            let from = put(device, &bytes);
            let [over, sum] = [(); 2].map(|()| put_f32(device, &before));
            layout::from_bf16(device, from, over, false).unwrap();
            layout::from_bf16(device, from, sum, true).unwrap();
            [get_f32(device, over), get_f32(device, sum)].concat()
        });
        let sums = values.iter().zip(&before).map(|(value, before)| value + before);
        assert_eq!(found, values.iter().copied().chain(sums).collect::<Vec<_>>());
    }
}
