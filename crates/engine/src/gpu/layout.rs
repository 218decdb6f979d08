//! Where each trainable tensor lies in the vectors of a device, and in which order.
//!
//! Filters are `[k][r][s][c]` there, as the convolutions read them, and those of a stage's members lie one behind
//! the other. Those that read the image have as many channels as it has in device memory. Vectors of weights,
//! velocity, averages and gradients are alike, so the optimizer need not know the order. What lies between tensors
//! is 0 and stays so.

use std::ops::Range;

use bninception_cuda::ops::image;
use bninception_cuda::ops::update::{PIECE, PIECE_WORDS};
use bninception_model::parameters::TensorSpec;
use bninception_model::{ParameterTable, Role};

use crate::lowering::stage::Stage;

/// Tensors begin at a multiple of so many values: 256 bytes in f32 and 128 in bf16, where cuDNN asks for 16
/// (<https://docs.nvidia.com/deeplearning/cudnn/latest/developer/core-concepts.html>).
const ALIGNMENT: usize = 64;

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
struct Tensor {
    /// Its place in the vectors of the host.
    host: Range<usize>,
    /// Its place in those of the device.
    device: Range<usize>,
    /// Extents of filters on the host, and their channels on the device; `None` where the order is the same.
    filters: Option<Filters>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Filters {
    channels: usize,
    taps: usize,
    device_channels: usize,
}

/// The places of all trainable tensors.
#[derive(Debug)]
pub(super) struct Layout {
    /// In the order of the table.
    tensors: Vec<Tensor>,
    len: usize,
}

impl Layout {
    /// For the tensors of `table`, whose filters belong to `stages`.
    pub(super) fn new<'a>(
        table: &ParameterTable,
        stages: impl Iterator<Item = &'a Stage>,
    ) -> Layout {
        let mut places: Vec<Option<Range<usize>>> = vec![None; table.trainable.len()];
        let mut end = 0_usize;
        for stage in stages {
            let Stage::Conv(stage) = stage else { continue };
            end = end.next_multiple_of(ALIGNMENT);
            for member in &stage.members {
                let of_member = |spec: &TensorSpec| spec.range == member.weight;
                let Some(index) = table.trainable.iter().position(of_member) else { continue };
                let range = end..end + device_len(&table.trainable[index]);
                end = range.end;
                places[index] = Some(range);
            }
        }
        let tensors = table.trainable.iter().zip(places).map(|(spec, place)| {
            let device = place.unwrap_or_else(|| {
                let start = end.next_multiple_of(ALIGNMENT);
                start..start + device_len(spec)
            });
            end = end.max(device.end);
            Tensor { host: spec.range.clone(), device, filters: filters(spec) }
        });
        let tensors = tensors.collect();
        Layout { tensors, len: end.next_multiple_of(ALIGNMENT) }
    }

    /// Values of a vector on the device.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The place on the device of the tensor that lies at `host` on the host.
    pub(super) fn of(&self, host: &Range<usize>) -> Range<usize> {
        let found = self.tensors.binary_search_by_key(&host.start, |tensor| tensor.host.start);
        match found {
            Ok(index) => self.tensors[index].device.clone(),
            Err(_) => unreachable!("stages name tensors of their network's table"),
        }
    }

    /// A vector of the device from one of the host.
    pub(super) fn to_device(&self, host: &[f32], device: &mut [f32]) {
        device.fill(0.0);
        for tensor in &self.tensors {
            let (from, to) = (&host[tensor.host.clone()], &mut device[tensor.device.clone()]);
            match tensor.filters {
                None => to.copy_from_slice(from),
                Some(filters) => filters.each(from.len(), |host, device| to[device] = from[host]),
            }
        }
    }

    /// A vector of the host from one of the device.
    pub(super) fn to_host(&self, device: &[f32], host: &mut [f32]) {
        for tensor in &self.tensors {
            let (from, to) = (&device[tensor.device.clone()], &mut host[tensor.host.clone()]);
            match tensor.filters {
                None => to.copy_from_slice(from),
                Some(filters) => filters.each(to.len(), |host, device| to[host] = from[device]),
            }
        }
    }

    /// The pieces through which the optimizer goes ([`PIECE_WORDS`]).
    pub(super) fn pieces(&self) -> Vec<u32> {
        let mut pieces = Vec::new();
        for (index, tensor) in self.tensors.iter().enumerate() {
            for start in tensor.device.clone().step_by(PIECE) {
                let len = PIECE.min(tensor.device.end - start);
                let piece: [u32; PIECE_WORDS] = [start as u32, len as u32, index as u32, 0];
                pieces.extend(piece);
            }
        }
        pieces
    }
}

impl Filters {
    /// Calls `copy` with the place of each value on the host and on the device.
    fn each(&self, len: usize, mut copy: impl FnMut(usize, usize)) {
        let Filters { channels, taps, device_channels } = *self;
        for index in 0..len {
            let (k, c, tap) = (index / (channels * taps), index / taps % channels, index % taps);
            copy(index, (k * taps + tap) * device_channels + c);
        }
    }
}

fn filters(spec: &TensorSpec) -> Option<Filters> {
    let &[_, channels, rows, columns] = &spec.shape[..] else { return None };
    let device_channels = if reads_image(spec) { image::CHANNELS } else { channels };
    let filters = Filters { channels, taps: rows * columns, device_channels };
    (spec.role == Role::ConvWeight).then_some(filters)
}

/// Whether filters have the channels of an image: no other map has so few.
fn reads_image(spec: &TensorSpec) -> bool {
    spec.role == Role::ConvWeight && spec.shape[1] == 3
}

fn device_len(spec: &TensorSpec) -> usize {
    if reads_image(spec) { spec.range.len() / 3 * image::CHANNELS } else { spec.range.len() }
}

#[cfg(test)]
mod tests {
    use bninception_model::{Network, NetworkOptions};

    use super::*;
    use crate::lowering::lower::{Purpose, lower};
    use crate::lowering::padded::Padded;

    fn layout(classes: usize) -> (ParameterTable, Layout) {
        let options = NetworkOptions { classes, image_size: 64, ..NetworkOptions::default() };
        let network = Network::bn_inception(options).unwrap();
        let padded = Padded::to(image::CHANNELS, &network);
        let lowered = lower(&network, &padded, Purpose::Training, true).unwrap();
        let table = ParameterTable::new(&network);
        let layout = Layout::new(&table, lowered.stages.iter());
        (table, layout)
    }

    #[test]
    fn what_goes_to_the_device_comes_back() {
        let (table, layout) = layout(7);
        let host: Vec<f32> = (0..table.n_trainable()).map(|index| index as f32 + 1.0).collect();
        let mut device = vec![f32::NAN; layout.len()];
        layout.to_device(&host, &mut device);
        assert_eq!(device.iter().filter(|&&value| value != 0.0).count(), host.len());
        let mut back = vec![0.0; host.len()];
        layout.to_host(&device, &mut back);
        assert_eq!(back, host);
    }

    #[test]
    fn filters_have_their_channels_last() {
        let (table, layout) = layout(10);
        let host: Vec<f32> = (0..table.n_trainable()).map(|index| index as f32).collect();
        let mut device = vec![0.0; layout.len()];
        layout.to_device(&host, &mut device);
        for name in ["conv1_7x7_s2.weight", "conv2_3x3.weight", "inception_3a_3x3_reduce.weight"] {
            let spec = table.trainable.iter().find(|spec| spec.name == name).unwrap();
            let &[k, c, rows, columns] = &spec.shape[..] else { panic!("{name}") };
            let wide = if c == 3 { 8 } else { c };
            let place = layout.of(&spec.range);
            assert_eq!(place.len(), k * rows * columns * wide, "{name}");
            let (out, input, row, column) = (k - 1, c - 1, rows / 2, columns - 1);
            let from = ((out * c + input) * rows + row) * columns + column;
            let to = ((out * rows + row) * columns + column) * wide + input;
            assert_eq!(device[place.start + to], host[spec.range.start + from], "{name}");
        }
    }

    #[test]
    fn members_of_a_stage_lie_one_behind_the_other_and_tensors_are_aligned() {
        let (table, layout) = layout(10);
        let of = |name: &str| {
            let spec = table.trainable.iter().find(|spec| spec.name == name).unwrap();
            layout.of(&spec.range)
        };
        let members = ["1x1", "3x3_reduce", "double_3x3_reduce"];
        let places = members.map(|name| of(&format!("inception_3a_{name}.weight")));
        assert_eq!(places[0].end, places[1].start);
        assert_eq!(places[1].end, places[2].start);
        assert_eq!(places[0].start % ALIGNMENT, 0);
        let mut places: Vec<_> = layout.tensors.iter().map(|t| t.device.clone()).collect();
        places.sort_by_key(|place| place.start);
        assert!(places.windows(2).all(|pair| pair[0].end <= pair[1].start), "tensors overlap");
    }

    #[test]
    fn pieces_cover_each_tensor_once() {
        let (table, layout) = layout(10);
        let mut covered = vec![0_u8; layout.len()];
        for piece in layout.pieces().chunks(PIECE_WORDS) {
            let (start, len) = (piece[0] as usize, piece[1] as usize);
            assert!(len <= PIECE);
            covered[start..start + len].iter_mut().for_each(|times| *times += 1);
            let device = &layout.tensors[piece[2] as usize].device;
            assert!(device.start <= start && start + len <= device.end);
        }
        let n: usize = table.trainable.iter().map(device_len).sum();
        assert_eq!(covered.iter().map(|&times| usize::from(times)).sum::<usize>(), n);
        assert!(covered.iter().all(|&times| times <= 1));
    }
}
