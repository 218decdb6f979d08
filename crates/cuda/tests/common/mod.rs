//! What the tests of kernels share: maps in a host's memory, random values, and what is near enough.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses a part of it; what fails here fails a test

use bninception_cuda::convolution::{Convolution, Direction};
use bninception_cuda::host::{HostConvolution, Values, ValuesMut};
use bninception_cuda::{Device, Format, Host, Map, Region, transfer};

/// What lies in channels that nobody may touch: a bf16 number.
const SENTINEL: f32 = -12288.0;

/// Rows, columns and so on of a map, and where its channels lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) batch: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    pub(crate) format: Format,
    pub(crate) stride: usize,
    pub(crate) first: usize,
}

impl Shape {
    /// All channels of a map.
    pub(crate) fn whole([batch, height, width, channels]: [usize; 4], format: Format) -> Shape {
        Shape { batch, height, width, channels, format, stride: channels, first: 0 }
    }

    /// The same as channels `first..` of wider maps.
    pub(crate) fn within(self, first: usize, behind: usize) -> Shape {
        Shape { first, stride: first + self.channels + behind, ..self }
    }

    pub(crate) fn len(&self) -> usize {
        self.batch * self.height * self.width * self.channels
    }
}

/// Formats, and the places of channels within wider maps: whole maps, slices that are read and written in groups of
/// eight, and slices that are not.
pub(crate) fn variants(sizes: [usize; 4]) -> Vec<Shape> {
    let mut shapes = Vec::new();
    for format in [Format::F32, Format::Bf16] {
        let whole = Shape::whole(sizes, format);
        shapes.extend([whole, whole.within(8, 16), whole.within(3, 2)]);
    }
    shapes
}

/// Sizes of maps: some of the network's, and odd ones.
pub(crate) const SIZES: [[usize; 4]; 12] = [
    [1, 56, 56, 64],
    [1, 28, 28, 192],
    [2, 14, 14, 576],
    [3, 7, 7, 1024],
    [2, 7, 7, 352],
    [3, 1, 1, 8],
    [2, 1, 1, 2056],
    [1, 3, 5, 24],
    [3, 7, 9, 10],
    [1, 9, 7, 3],
    [3, 2, 2, 24],
    [2, 13, 4, 17],
];

pub(crate) fn host(threads: usize) -> Host {
    Host::new(Box::new(Naive), threads)
}

/// Runs with one thread, with three, and with three again, and wants the same bits each time.
pub(crate) fn repeated(run: impl Fn(&mut Host) -> Vec<f32>) -> Vec<f32> {
    let results = [1, 3, 3].map(|threads| run(&mut host(threads)));
    let bits =
        |values: &[f32]| -> Vec<u32> { values.iter().map(|value| value.to_bits()).collect() };
    for other in &results[1..] {
        assert!(bits(other) == bits(&results[0]), "results differ between threads or runs");
    }
    let [first, ..] = results;
    first
}

pub(crate) fn put(device: &mut Host, bytes: &[u8]) -> Region {
    let region = device.allocate(bytes.len()).unwrap();
    write(device, region, bytes);
    region
}

pub(crate) fn write(device: &mut Host, region: Region, bytes: &[u8]) {
    transfer::write(device, bytes, region).unwrap();
}

pub(crate) fn get(device: &mut Host, region: Region) -> Vec<u8> {
    transfer::read(device, region).unwrap()
}

pub(crate) fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(crate) fn f64s(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(crate) fn u32s(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(crate) fn put_f32(device: &mut Host, values: &[f32]) -> Region {
    put(device, &f32s(values))
}

pub(crate) fn get_f32(device: &mut Host, region: Region) -> Vec<f32> {
    let bytes = get(device, region);
    bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

pub(crate) fn get_f64(device: &mut Host, region: Region) -> Vec<f64> {
    let bytes = get(device, region);
    bytes.as_chunks().0.iter().map(|word| f64::from_le_bytes(*word)).collect()
}

pub(crate) fn get_u32(device: &mut Host, region: Region) -> Vec<u32> {
    let bytes = get(device, region);
    bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

/// A map that holds `values`, `[n][h][w][c]`, which are numbers of its format, between channels that must stay.
pub(crate) fn put_map(device: &mut Host, shape: Shape, values: &[f32]) -> Map {
    let Shape { batch, height, width, channels, format, stride, first } = shape;
    assert_eq!(values.len(), shape.len());
    let mut all = vec![SENTINEL; batch * height * width * stride];
    for (pixel, values) in all.chunks_exact_mut(stride).zip(values.chunks_exact(channels)) {
        pixel[first..first + channels].copy_from_slice(values);
    }
    let bytes = match format {
        Format::F32 => f32s(&all),
        Format::Bf16 => all.iter().flat_map(|&value| half(value).to_le_bytes()).collect(),
    };
    let region = put(device, &bytes);
    Map { region, format, batch, height, width, stride, first, channels }
}

/// A map whose values were not written yet.
pub(crate) fn new_map(device: &mut Host, shape: Shape) -> Map {
    put_map(device, shape, &vec![SENTINEL; shape.len()])
}

/// The values of a map.
///
/// # Panics
/// A channel beside it changed.
pub(crate) fn get_map(device: &mut Host, map: &Map) -> Vec<f32> {
    let bytes = get(device, map.region);
    let all: Vec<f32> = match map.format {
        Format::F32 => bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect(),
        Format::Bf16 => {
            let value = |word: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*word)) << 16);
            bytes.as_chunks().0.iter().map(value).collect()
        }
    };
    let meant = map.first..map.first + map.channels;
    let mut values = Vec::new();
    for pixel in all.chunks_exact(map.stride) {
        let beside = (0..map.stride).filter(|channel| !meant.contains(channel));
        beside.for_each(|channel| assert_eq!(pixel[channel], SENTINEL, "channel {channel} beside"));
        values.extend_from_slice(&pixel[meant.clone()]);
    }
    values
}

/// The bits of a number that bf16 has.
pub(crate) fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    assert!(bits & 0xFFFF == 0, "{value} is no bf16 number");
    (bits >> 16) as u16
}

/// The nearest number of a format, by trying both neighbours.
pub(crate) fn nearest(format: Format, value: f64) -> f32 {
    let single = value as f32;
    if format == Format::F32 || !single.is_finite() {
        return single;
    }
    let below = single.to_bits() & 0xFFFF_0000;
    let distance = |bits: u32| (f64::from(f32::from_bits(bits)) - value).abs();
    let above = below.wrapping_add(0x1_0000);
    let (down, up) = (distance(below), distance(above));
    let even = if below & 0x1_0000 == 0 { below } else { above };
    f32::from_bits(if down < up {
        below
    } else if up < down {
        above
    } else {
        even
    })
}

/// Random numbers.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>).
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From -1 to 1.
    pub(crate) fn even(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    /// About normal, by a sum.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..6).map(|_| self.even()).sum::<f64>() / 2.0_f64.sqrt()
    }

    /// So many numbers of a format.
    pub(crate) fn values(&mut self, count: usize, format: Format) -> Vec<f32> {
        (0..count).map(|_| nearest(format, self.normal())).collect()
    }

    /// So many numbers of f32.
    pub(crate) fn floats(&mut self, count: usize) -> Vec<f32> {
        self.values(count, Format::F32)
    }
}

/// Wants each value to be the expected one, rounded to `format`, where sums of f32 may be off by `slack`.
#[track_caller]
pub(crate) fn expect_near(found: &[f32], expected: &[f64], format: Format, slack: f64) {
    assert_eq!(found.len(), expected.len());
    let unit = match format {
        Format::F32 => f64::from(f32::EPSILON) / 2.0,
        Format::Bf16 => 1.0 / 256.0,
    };
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        let limit = unit * expected.abs() + slack;
        assert!(error <= limit, "value {index}: {found}, expected {expected} within {limit:e}");
    }
}

/// Convolutions by their definition, in f64.
pub(crate) struct Naive;

impl HostConvolution for Naive {
    fn run(&mut self, convolution: &Convolution, from: [Values<'_>; 2], to: ValuesMut<'_>) {
        let c = convolution;
        let [a, b] = from.map(|values| -> Vec<f64> {
            match values {
                Values::F32(values) => values.iter().map(|&value| value.into()).collect(),
                Values::Bf16(values) => {
                    let value = |&bits: &u16| f32::from_bits(u32::from(bits) << 16).into();
                    values.iter().map(value).collect()
                }
            }
        });
        let len = match c.direction {
            Direction::Forward => c.output_len(),
            Direction::InputGradient => c.input_len(),
            Direction::FilterGradient => c.filter_len(),
        };
        let mut sums = vec![0.0; len];
        let (height, width) = (c.out_height(), c.out_width());
        for place in 0..c.output_len() {
            let (pixel, k) = (place / c.out_channels, place % c.out_channels);
            let (row, column) = (pixel / width % height, pixel % width);
            for tap in 0..c.kernel * c.kernel * c.in_channels {
                let (r, s) = (tap / c.in_channels / c.kernel, tap / c.in_channels % c.kernel);
                let (y, x) = (row * c.stride + r, column * c.stride + s);
                if y < c.pad || x < c.pad || y - c.pad >= c.in_height || x - c.pad >= c.in_width {
                    continue;
                }
                let image = pixel / width / height;
                let line = image * c.in_height + y - c.pad;
                let at = (line * c.in_width + x - c.pad) * c.in_channels + tap % c.in_channels;
                let filter = k * c.kernel * c.kernel * c.in_channels + tap;
                match c.direction {
                    Direction::Forward => sums[place] += a[at] * b[filter],
                    Direction::InputGradient => sums[at] += a[filter] * b[place],
                    Direction::FilterGradient => sums[filter] += a[at] * b[place],
                }
            }
        }
        let before = |value: f32| if c.accumulate { f64::from(value) } else { 0.0 };
        match to {
            ValuesMut::F32(to) => {
                for (to, sum) in to.iter_mut().zip(sums) {
                    *to = (before(*to) + sum) as f32;
                }
            }
            ValuesMut::Bf16(to) => {
                for (to, sum) in to.iter_mut().zip(sums) {
                    let value = f32::from_bits(u32::from(*to) << 16);
                    *to = half(nearest(Format::Bf16, before(value) + sum));
                }
            }
        }
    }
}
