//! Every kernel, and every convolution of a network in all directions and number formats: the device beside the host.

use bninception_engine::cuda::{Device, Precision};
use bninception_engine::gpu::check;

use super::comparison::Comparison;
use crate::config::Config;
use crate::device::{self, Opened};
use crate::error::Error;
use crate::machine::gpu;
use crate::setup;
use crate::terminal::signals;

/// Kernels.
pub(super) fn kernels(
    config: &Config,
    tell: &mut dyn FnMut(Comparison) -> Result<(), Error>,
) -> Result<(), Error> {
    let [mut device, mut host] = devices(config)?;
    let found = check::compare_kernels(device.as_mut(), host.as_mut())?;
    found.into_iter().try_for_each(|found| tell(Comparison::of_operation(found, "")))
}

/// Convolutions.
pub(super) fn convolutions(
    config: &Config,
    tell: &mut dyn FnMut(Comparison) -> Result<(), Error>,
) -> Result<(), Error> {
    let [mut device, mut host] = devices(config)?;
    let network = setup::network(config, setup::classes_without_data(config))?;
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        for convolution in check::convolutions(&network, precision, config.train.batch_size)? {
            signals::check()?;
            let mut told = Ok(());
            let mut tell = |found: &check::Comparison| {
                if told.is_ok() {
                    told = tell(Comparison::of_operation(found.clone(), precision.name()));
                }
            };
            let (device, host) = (device.as_mut(), host.as_mut());
            check::compare_convolutions(device, host, &[convolution], &mut tell)?;
            told?;
        }
    }
    Ok(())
}

/// The device of `config`, and the host.
fn devices(config: &Config) -> Result<[Box<dyn Device>; 2], Error> {
    let threads = setup::threads(config.train.threads);
    match device::open(config, threads)? {
        Some(Opened { device, .. }) => Ok([device, gpu::host(threads)]),
        None => Err(no_device()),
    }
}

/// `--device cpu`, or `auto` where there is no GPU.
pub(super) fn no_device() -> Error {
    Error::Usage("check-device compares a device: name one with --device".to_owned())
}
