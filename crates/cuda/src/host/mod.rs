//! The host in the place of a device: the same kernels, compiled as C.
//!
//! ```text
//! buffer: aligned memory that holds zeros at first
//! memory: the buffers of one host by their numbers
//! work:   what can be captured: kernels, convolutions, copies
//! device: the trait
//! ```

mod buffer;
mod device;
mod memory;
mod work;

pub use device::Host;

use crate::convolution::Convolution;

/// Values that a convolution reads.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Upper halves of single precision.
    Bf16(&'a [u16]),
}

/// Values that a convolution writes, or adds to where it accumulates.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// Single precision.
    F32(&'a mut [f32]),
    /// Upper halves of single precision.
    Bf16(&'a mut [u16]),
}

/// Computes convolutions for a host: whoever makes one brings it.
pub trait HostConvolution: Send {
    /// Forward from input and filters to the output; the input's gradient from filters and the output's gradient;
    /// the gradient of the filters from input and the output's gradient. Layouts: [`Convolution`].
    fn run(&mut self, convolution: &Convolution, from: [Values<'_>; 2], to: ValuesMut<'_>);
}
