//! The sizes of a convolution in results.

use bninception_engine::bench::Operation;
use bninception_engine::cuda::Convolution;
use serde_json::{Value, json};

/// Channels, filters, and rows of the input, which has as many columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConvSizes {
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    size: usize,
}

impl ConvSizes {
    /// Of a convolution of the processor.
    pub(super) fn of(operation: &Operation) -> ConvSizes {
        let s = &operation.shape;
        let (inputs, outputs, size) = (s.in_channels, s.out_channels, s.in_height);
        ConvSizes { inputs, outputs, kernel: s.kernel, stride: s.stride, size }
    }

    /// Of one of a device.
    pub(super) fn of_device(convolution: &Convolution) -> ConvSizes {
        let c = convolution;
        let (inputs, outputs, size) = (c.in_channels, c.out_channels, c.in_height);
        ConvSizes { inputs, outputs, kernel: c.kernel, stride: c.stride, size }
    }

    /// `64->192 3x3/1 @56`
    pub(super) fn to_text(self) -> String {
        let ConvSizes { inputs, outputs, kernel, stride, size } = self;
        format!("{inputs}->{outputs} {kernel}x{kernel}/{stride} @{size}")
    }

    pub(super) fn to_json(self) -> Value {
        let ConvSizes { inputs, outputs, kernel, stride, size } = self;
        json!({
            "inputs": inputs, "outputs": outputs, "kernel": kernel, "stride": stride, "size": size,
        })
    }
}
