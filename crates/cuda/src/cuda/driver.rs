//! The driver: that it is there, what its errors mean, and the devices that it knows.

use std::ffi::CStr;

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdevice, CUdevice_attribute as Attribute, CUresult};

use crate::device::Properties;
use crate::error::DeviceError;
use crate::libraries::{Libraries, LibraryName};

/// Names the call of a driver's error.
pub(super) trait Checked<T> {
    fn of(self, call: &'static str) -> Result<T, DeviceError>;
}

impl<T> Checked<T> for Result<T, result::DriverError> {
    fn of(self, call: &'static str) -> Result<T, DeviceError> {
        self.map_err(|error| {
            let text = |text: Result<&CStr, _>| match text {
                Ok(text) => text.to_string_lossy().into_owned(),
                Err(_) => "unknown".to_owned(),
            };
            let (name, detail) = (text(error.error_name()), text(error.error_string()));
            DeviceError::Call { call, reason: format!("{name}: {detail} ({})", error.0 as u32) }
        })
    }
}

impl Checked<()> for CUresult {
    fn of(self, call: &'static str) -> Result<(), DeviceError> {
        self.result().of(call)
    }
}

/// Starts the driver.
///
/// # Errors
/// It is missing, or does not start.
pub(super) fn start(libraries: &Libraries) -> Result<(), DeviceError> {
    let found = libraries.need(LibraryName::Driver)?;
    // cudarc opens the driver itself, by its bare name, and panics if it finds none. The one that is open already has
    // that name; another one must not take its place.
    type Init = unsafe extern "C" fn(u32) -> CUresult;
    // SAFETY: cuInit takes an unsigned int.
    let ours = unsafe { found.library.function::<Init>("cuInit") };
    // SAFETY: it opens libraries that have the driver's names, and looks one function up.
    let theirs = unsafe {
        if sys::is_culib_present() {
            sys::culib().get::<Init>(b"cuInit").ok().map(|f| *f)
        } else {
            None
        }
    };
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours as usize == theirs as usize => {}
        _ => {
            return Err(DeviceError::Unavailable(format!(
                "{} is not the driver that the system finds by its name",
                found.path.display()
            )));
        }
    }
    // Without a device it fails: there is nothing to compute on, which is no fault of a call.
    result::init().of("cuInit").map_err(|error| DeviceError::Unavailable(error.to_string()))
}

/// Refuses a compiler of a later CUDA than the driver's, whose code the driver does not load
/// (<https://docs.nvidia.com/deploy/cuda-compatibility/>).
pub(super) fn check_version(driver: Option<&str>, compiler: (i32, i32)) -> Result<(), DeviceError> {
    let major = driver.and_then(|version| version.split('.').next()?.parse::<i32>().ok());
    match (driver, major) {
        (Some(driver), Some(major)) if major < compiler.0 => {
            Err(DeviceError::Unavailable(format!(
                "the driver is for CUDA {driver}, and NVRTC is of CUDA {}.{}: a newer driver is needed, or \
                 libraries for CUDA {major}",
                compiler.0, compiler.1
            )))
        }
        _ => Ok(()),
    }
}

/// The devices that the driver has, in its order.
///
/// # Errors
/// The driver is missing, or a call failed.
pub fn devices(libraries: &Libraries) -> Result<Vec<Properties>, DeviceError> {
    start(libraries)?;
    let count = result::device::get_count().of("cuDeviceGetCount")?;
    (0..count)
        .map(|ordinal| {
            let device = result::device::get(ordinal).of("cuDeviceGet")?;
            properties(device)
        })
        .collect()
}

/// What a device is.
pub(super) fn properties(device: CUdevice) -> Result<Properties, DeviceError> {
    let attribute = |attribute| {
        // SAFETY: the device is one of the driver's.
        let value = unsafe { result::device::get_attribute(device, attribute) };
        Ok(usize::try_from(value.of("cuDeviceGetAttribute")?).unwrap_or(0))
    };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let kilohertz = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?;
    let bus_bits = attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?;
    // Two transfers in each clock of the memory: deviceQuery of NVIDIA's cuda-samples computes it so.
    let bandwidth = 2.0 * kilohertz as f64 * 1e3 * bus_bits as f64 / 8.0;
    Ok(Properties {
        name: result::device::get_name(device).of("cuDeviceGetName")?,
        // SAFETY: the device is one of the driver's.
        memory: unsafe { result::device::total_mem(device) }.of("cuDeviceTotalMem")?,
        architecture: format!("sm_{major}{minor}"),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        bandwidth: (bandwidth > 0.0).then_some(bandwidth),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_that_is_newer_than_the_driver_is_refused() {
        let error = check_version(Some("12.4"), (13, 0)).unwrap_err().to_string();
        assert!(error.contains("CUDA 12.4") && error.contains("CUDA 13.0"), "{error}");
        assert!(check_version(Some("13.0"), (13, 2)).is_ok());
        assert!(check_version(Some("13.0"), (12, 9)).is_ok());
        assert!(check_version(None, (13, 0)).is_ok());
    }
}
