//! A convolution as cuDNN's graph of one operation.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use super::api::{BFLOAT16, CROSS_CORRELATION, FLOAT, Functions, Kind, Type, attribute};
use super::descriptor::Descriptor;
use crate::convolution::{Convolution, Direction, Precision};
use crate::error::DeviceError;

/// Bytes to a multiple of which all operands are aligned: what vector loads of 16 bytes need.
pub(crate) const ALIGNMENT: usize = 16;

/// The numbers of input, filters and output in a graph.
pub(super) const IDS: [i64; 3] = [1, 2, 3];

/// The graph of a convolution; `handle` is that of a device, or null without one.
///
/// Of bf16 inputs cuDNN has no precompiled engine that gives the filters' gradient in f32 (9.28, for the description of an H100), so that there
/// it is in bf16: [`crate::cuda`] widens it.
pub(super) fn graph(
    functions: &Arc<Functions>,
    handle: *mut c_void,
    convolution: &Convolution,
) -> Result<Arc<Descriptor>, DeviceError> {
    let Convolution { batch, in_channels, out_channels, in_height, in_width, .. } = *convolution;
    let (out_height, out_width) = (convolution.out_height(), convolution.out_width());
    let kernel = convolution.kernel;
    let sizes = [
        [batch, in_channels, in_height, in_width],
        [out_channels, in_channels, kernel, kernel],
        [batch, out_channels, out_height, out_width],
    ];
    let data = match convolution.precision {
        Precision::F32 | Precision::Tf32 => FLOAT,
        Precision::Bf16 => BFLOAT16,
    };
    let (kind, numbers) = match convolution.direction {
        Direction::Forward => (Kind::Forward, attribute::FORWARD),
        Direction::InputGradient => (Kind::BackwardData, attribute::BACKWARD_DATA),
        Direction::FilterGradient => (Kind::BackwardFilter, attribute::BACKWARD_FILTER),
    };
    let [alpha, beta, geometry, tensors @ ..] = numbers;
    let added = convolution.accumulate && !is_widened(convolution);
    let mut operation = Descriptor::new(functions, kind)?
        .double(alpha, 1.0)?
        .double(beta, if added { 1.0 } else { 0.0 })?
        .named(geometry, &self::geometry(functions, convolution)?)?;
    for ((attribute, id), sizes) in tensors.into_iter().zip(IDS).zip(sizes) {
        operation = operation.named(attribute, &tensor(functions, id, data, sizes)?)?;
    }
    let mut graph = Descriptor::new(functions, Kind::Graph)?;
    if !handle.is_null() {
        graph = graph.pointers(attribute::GRAPH_HANDLE, Type::Handle, &[handle])?;
    }
    graph.named(attribute::GRAPH_OPERATIONS, &operation.finish()?)?.finish()
}

/// Whether cuDNN computes in another format than the result has.
pub(crate) fn is_widened(convolution: &Convolution) -> bool {
    convolution.precision == Precision::Bf16 && convolution.direction == Direction::FilterGradient
}

/// How the filters move.
fn geometry(
    functions: &Arc<Functions>,
    convolution: &Convolution,
) -> Result<Arc<Descriptor>, DeviceError> {
    let both = |value: usize| [value as i64; 2];
    Descriptor::new(functions, Kind::Convolution)?
        .integers(attribute::CONVOLUTION_SPATIAL_DIMS, &[2])?
        .choice(attribute::CONVOLUTION_COMPUTE_TYPE, Type::Data, FLOAT)?
        .choice(attribute::CONVOLUTION_MODE, Type::ConvolutionMode, CROSS_CORRELATION)?
        .integers(attribute::CONVOLUTION_PRE_PADDINGS, &both(convolution.pad))?
        .integers(attribute::CONVOLUTION_POST_PADDINGS, &both(convolution.pad))?
        .integers(attribute::CONVOLUTION_STRIDES, &both(convolution.stride))?
        .integers(attribute::CONVOLUTION_DILATIONS, &both(1))?
        .finish()
}

/// A packed tensor `[n][h][w][c]`; cuDNN lists its sizes as n, c, h, w in any case.
fn tensor(
    functions: &Arc<Functions>,
    id: i64,
    data: c_int,
    sizes: [usize; 4],
) -> Result<Arc<Descriptor>, DeviceError> {
    let sizes = sizes.map(|size| size as i64);
    let [_, channels, height, width] = sizes;
    let strides = [height * width * channels, 1, width * channels, channels];
    Descriptor::new(functions, Kind::Tensor)?
        .choice(attribute::TENSOR_DATA_TYPE, Type::Data, data)?
        .integers(attribute::TENSOR_DIMENSIONS, &sizes)?
        .integers(attribute::TENSOR_STRIDES, &strides)?
        .integers(attribute::TENSOR_ID, &[id])?
        .integers(attribute::TENSOR_ALIGNMENT, &[ALIGNMENT as i64])?
        .finish()
}
