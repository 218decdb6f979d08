//! Convolutions of a host in the place of a device, by the kernels of the CPU.

use std::borrow::Cow;

use bninception_cuda::host::{HostConvolution, Values, ValuesMut};
use bninception_cuda::{Convolution, Direction};
use bninception_kernels::conv::{Conv, ConvInput, ConvShape, Epilogue};
use bninception_kernels::dtype::{Dtype, round_to_bf16};
use bninception_kernels::map::{BLOCK, Map};
use bninception_kernels::planes::{Planes, PlanesMut};
use bninception_kernels::simd::Isa;
use bninception_kernels::team::Team;

/// The convolutions.
pub struct HostConvolutions {
    team: Team,
}

impl HostConvolutions {
    /// On so many threads.
    pub fn new(threads: usize) -> HostConvolutions {
        HostConvolutions { team: Team::new(threads.max(1)) }
    }
}

/// A convolution of the CPU's for one of a device.
struct Host<'a> {
    team: &'a Team,
    conv: Conv,
    /// Channels of input and output as they are, which are padded to a block here.
    channels: [usize; 2],
}

impl HostConvolution for HostConvolutions {
    fn run(&mut self, convolution: &Convolution, from: [Values<'_>; 2], to: ValuesMut<'_>) {
        let [first, second] = from.map(values);
        let c = convolution;
        let shape = ConvShape {
            batch: c.batch,
            in_channels: c.in_channels.next_multiple_of(BLOCK),
            out_channels: c.out_channels.next_multiple_of(BLOCK),
            in_height: c.in_height,
            in_width: c.in_width,
            kernel: c.kernel,
            stride: c.stride,
            pad: c.pad,
        };
        // Factors are rounded already where they are bf16, and their products are exact in f32. Rounding to TF32
        // is left out: what a device loses by it, a host does not tell.
        let conv = Conv::new(shape, Isa::chosen(), self.team.len(), false, Dtype::F32);
        let host = Host { team: &self.team, conv, channels: [c.in_channels, c.out_channels] };
        let result = match c.direction {
            Direction::Forward => host.forward(&first, &second),
            Direction::InputGradient => host.input_gradient(&first, &second),
            Direction::FilterGradient => host.filter_gradient(&first, &second),
        };
        write(&result, to, c.accumulate);
    }
}

impl Host<'_> {
    fn forward(&self, x: &[f32], filters: &[f32]) -> Vec<f32> {
        let (input, output) = self.maps();
        let batch = self.conv.shape().batch;
        let x = self.blocked(x, &input, self.channels[0]);
        let packed = self.packed(filters, false);
        let mut y = vec![0.0; output.buffer(batch)];
        let mut workspace = vec![0.0; self.conv.workspace_len()];
        let input = ConvInput::Maps(Planes::whole(&x[..], &input, batch));
        let to = PlanesMut::whole(&mut y[..], &output, batch);
        let no_bias = vec![0.0; output.channels];
        let bias = Epilogue::Bias(&no_bias);
        self.conv.forward(self.team, input, &packed, to, bias, &mut workspace);
        self.channels_last(&y, &output, self.channels[1])
    }

    fn input_gradient(&self, filters: &[f32], dy: &[f32]) -> Vec<f32> {
        let (input, output) = self.maps();
        let batch = self.conv.shape().batch;
        let dy = self.blocked(dy, &output, self.channels[1]);
        let packed = self.packed(filters, true);
        let mut dx = vec![0.0; input.buffer(batch)];
        let mut workspace = vec![0.0; self.conv.workspace_len()];
        let from = Planes::whole(&dy[..], &output, batch);
        let to = PlanesMut::whole(&mut dx[..], &input, batch);
        self.conv.backward_input(self.team, from, &packed, to, false, &mut workspace);
        self.channels_last(&dx, &input, self.channels[0])
    }

    fn filter_gradient(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let (input, output) = self.maps();
        let shape = *self.conv.shape();
        let x = self.blocked(x, &input, self.channels[0]);
        let dy = self.blocked(dy, &output, self.channels[1]);
        let taps = shape.kernel * shape.kernel;
        let mut gradient = vec![0.0; shape.out_channels * shape.in_channels * taps];
        let mut workspace = vec![0.0; self.conv.workspace_len()];
        let input = ConvInput::Maps(Planes::whole(&x[..], &input, shape.batch));
        let from = Planes::whole(&dy[..], &output, shape.batch);
        let to = &mut [&mut gradient[..]];
        self.conv.backward_weights(self.team, input, from, to, &mut workspace);
        let [channels, out_channels] = self.channels;
        let mut filters = vec![0.0; out_channels * taps * channels];
        let wide = gradient.chunks_exact(shape.in_channels * taps);
        for (last, wide) in filters.chunks_exact_mut(taps * channels).zip(wide) {
            for (tap, last) in last.chunks_exact_mut(channels).enumerate() {
                let planes = wide[tap..].iter().step_by(taps);
                last.iter_mut().zip(planes).for_each(|(last, plane)| *last = *plane);
            }
        }
        filters
    }

    /// Maps of input and output.
    fn maps(&self) -> (Map, Map) {
        let s = self.conv.shape();
        let input = Map { channels: s.in_channels, height: s.in_height, width: s.in_width };
        (input, s.out_map())
    }

    /// Filters `[k][r][s][c]` in the order of the kernels, from `[k][c][r][s]` of padded channels.
    fn packed(&self, filters: &[f32], is_backward: bool) -> Vec<f32> {
        let shape = self.conv.shape();
        let (taps, channels) = (shape.kernel * shape.kernel, self.channels[0]);
        let mut planes = vec![0.0; shape.out_channels * shape.in_channels * taps];
        let wide = planes.chunks_exact_mut(shape.in_channels * taps);
        for (last, wide) in filters.chunks_exact(taps * channels).zip(wide) {
            for (tap, last) in last.chunks_exact(channels).enumerate() {
                let planes = wide[tap..].iter_mut().step_by(taps);
                planes.zip(last).for_each(|(plane, last)| *plane = *last);
            }
        }
        let len = match is_backward {
            true => self.conv.packed_backward_len(),
            false => self.conv.packed_len(),
        };
        let mut packed = vec![0.0; len];
        match is_backward {
            true => self.conv.pack_backward(self.team, &[&planes], &mut packed),
            false => self.conv.pack(self.team, &[&planes], &mut packed),
        }
        packed
    }

    /// `[n][h][w][channels]` as maps of blocks.
    fn blocked(&self, values: &[f32], map: &Map, channels: usize) -> Vec<f32> {
        let batch = self.conv.shape().batch;
        let mut blocked = vec![0.0; map.buffer(batch)];
        for (pixel, values) in offsets(map, batch).zip(values.chunks_exact(channels)) {
            for (block, values) in values.chunks(BLOCK).enumerate() {
                blocked[pixel + block * map.plane()..][..values.len()].copy_from_slice(values);
            }
        }
        blocked
    }

    /// Maps of blocks as `[n][h][w][channels]`.
    fn channels_last(&self, blocked: &[f32], map: &Map, channels: usize) -> Vec<f32> {
        let batch = self.conv.shape().batch;
        let mut values = vec![0.0; batch * map.height * map.width * channels];
        for (pixel, values) in offsets(map, batch).zip(values.chunks_exact_mut(channels)) {
            for (block, values) in values.chunks_mut(BLOCK).enumerate() {
                values.copy_from_slice(&blocked[pixel + block * map.plane()..][..values.len()]);
            }
        }
        values
    }
}

/// Where the first block of each pixel lies in maps of blocks, image by image and row by row.
fn offsets(map: &Map, batch: usize) -> impl Iterator<Item = usize> {
    let Map { height, width, .. } = *map;
    let (map, places) = (*map, (0..batch * height * width).map(move |i| (i / width, i % width)));
    places.map(move |(row, column)| row / height * map.image() + map.pixel(row % height, column))
}

fn values(values: Values<'_>) -> Cow<'_, [f32]> {
    match values {
        Values::F32(values) => values.into(),
        Values::Bf16(values) => {
            values.iter().map(|&bits| f32::from_bits(u32::from(bits) << 16)).collect()
        }
    }
}

fn write(values: &[f32], to: ValuesMut<'_>, accumulate: bool) {
    match to {
        ValuesMut::F32(to) => {
            for (to, &value) in to.iter_mut().zip(values) {
                let before = if accumulate { *to } else { 0.0 };
                *to = before + value;
            }
        }
        ValuesMut::Bf16(to) => {
            for (to, &value) in to.iter_mut().zip(values) {
                let before = if accumulate { f32::from_bits(u32::from(*to) << 16) } else { 0.0 };
                *to = (round_to_bf16(before + value).to_bits() >> 16) as u16;
            }
        }
    }
}
