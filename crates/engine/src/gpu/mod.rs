//! The GPU engine: the network on a device, by a static plan over memory of the device.
//!
//! ```text
//! layout:      where each tensor lies in the device's vectors, and in which order
//! plan:        settings, and what the stages of a running pass share
//! convolution: convolutions with batch norm and nonlinearity
//! stage:       one stage, of any kind
//! head:        pool, fully connected layer, loss
//! pass:        the plan of all stages for one batch size
//! side:        training, evaluation or frozen layers: plans, memory, captured graphs
//! vectors:     the state of the run on the device
//! inputs:      what changes from step to step
//! results:     what a step tells
//! step:        the order of work of a step
//! network:     all of them for one network
//! executor:    the trait of all executors
//! pipeline:    updates whose results come later
//! check:       a device beside the host, kernel by kernel
//! host:        convolutions of a host in the place of a device
//! ```
//!
//! Everything runs through [`Device`](bninception_cuda::Device): on a GPU, or on the host with the same kernels
//! compiled as C.

pub mod check;
mod convolution;
mod executor;
mod head;
mod host;
mod inputs;
mod layout;
mod network;
mod pass;
mod pipeline;
mod plan;
mod results;
mod side;
mod stage;
mod step;
mod vectors;

pub use host::HostConvolutions;
pub use network::{Gpu, GpuOptions};
