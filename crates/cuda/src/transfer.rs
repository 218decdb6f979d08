//! Copies that are waited for, through memory of the host that is taken for them alone. Not for every step.

use crate::device::{Device, Stream};
use crate::error::DeviceError;
use crate::memory::{Pinned, Region};

/// Copies `bytes` to the first bytes of a region, behind all work that was started.
///
/// # Errors
/// Memory that is not to be had, or a failed call.
///
/// # Panics
/// The region is shorter.
pub fn write(device: &mut dyn Device, bytes: &[u8], to: Region) -> Result<(), DeviceError> {
    let to = to.slice(0..bytes.len());
    through(device, bytes.len(), |device, pinned| {
        device.pinned_mut(pinned)?[..bytes.len()].copy_from_slice(bytes);
        device.upload(pinned, to, Stream::Compute)?;
        device.synchronise()
    })
}

/// The bytes of a region behind all work that was started.
///
/// # Errors
/// Memory that is not to be had, or a failed call.
pub fn read(device: &mut dyn Device, from: Region) -> Result<Vec<u8>, DeviceError> {
    through(device, from.bytes(), |device, pinned| {
        device.download(from, pinned, Stream::Compute)?;
        Ok(device.pinned(pinned)?[..from.bytes()].to_vec())
    })
}

/// Takes memory of the host for `copy`, and gives it back however that ends.
fn through<T>(
    device: &mut dyn Device,
    bytes: usize,
    copy: impl FnOnce(&mut dyn Device, Pinned) -> Result<T, DeviceError>,
) -> Result<T, DeviceError> {
    let pinned = device.allocate_pinned(bytes)?;
    let outcome = copy(device, pinned);
    device.free_pinned(pinned);
    outcome
}
