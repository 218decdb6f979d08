//! The GPU engine with the host in the place of a device.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // helpers of tests; each test uses some of them

use bninception_engine::cuda::{Device, Host, Precision};
use bninception_engine::model::Network;
use bninception_engine::{Gpu, GpuOptions, HostConvolutions};

/// A host on which convolutions run on two threads.
pub fn device() -> Box<dyn Device> {
    Box::new(Host::new(Box::new(HostConvolutions::new(2)), 2))
}

/// The engine with all options but the precision as they are by default.
pub fn gpu(network: &Network, precision: Precision) -> Gpu {
    with_options(network, GpuOptions { precision, ..GpuOptions::default() })
}

/// The engine with these options.
pub fn with_options(network: &Network, options: GpuOptions) -> Gpu {
    Gpu::new(network.clone(), device(), options).unwrap()
}
