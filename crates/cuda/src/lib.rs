//! A device that computes: an NVIDIA GPU, or the host in its place.
//!
//! ```text
//! error:       what can go wrong on a device
//! memory:      ranges of device memory, memory of the host that a device reads
//! convolution: what is convolved, and in which direction
//! map:         channels of a batch of maps in device memory
//! launch:      one start of a kernel: its arguments and what it costs
//! device:      the trait: memory, copies, kernels, convolutions, captured graphs
//! transfer:    copies that are waited for
//! ops:         the kernels as safe functions that check sizes
//! host:        the trait on the CPU, with the same kernels compiled as C
//! sources:     the sources of the kernels, and their names
//! libraries:   NVIDIA's libraries, found at run time
//! compile:     kernels' source to machine code
//! cudnn:       convolutions by cuDNN's graph API
//! cuda:        the trait on an NVIDIA GPU
//! ```
#![allow(unsafe_code)] // calls into libraries and kernels; each block says why it is sound

pub mod compile;
pub mod convolution;
pub mod cuda;
pub mod cudnn;
pub mod device;
pub mod error;
pub mod host;
pub mod launch;
pub mod libraries;
pub mod map;
pub mod memory;
pub mod ops;
pub mod sources;
pub mod transfer;

pub use convolution::{Convolution, ConvolutionPlan, Direction, Precision};
pub use cuda::Cuda;
pub use device::{Device, Event, Graph, Properties, Stream, Timing};
pub use error::DeviceError;
pub use host::Host;
pub use map::{Format, Map};
pub use memory::{Pinned, Region};
