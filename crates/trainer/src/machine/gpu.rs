//! The GPUs of this machine, and the libraries through which they compute.

use std::fs;
use std::path::{Path, PathBuf};

use bninception_engine::HostConvolutions;
use bninception_engine::cuda::compile::Cache;
use bninception_engine::cuda::libraries::{self, Found, Libraries, LibraryName, Missing};
use bninception_engine::cuda::{Cuda, Device, DeviceError, Host, Properties, cuda};

/// The GPU number `number`.
///
/// # Errors
/// It is not there, or a library for it is missing.
pub fn open(number: usize) -> Result<Box<dyn Device>, DeviceError> {
    libraries::driver()?;
    Ok(Box::new(Cuda::open(number, &libraries::find(), &Cache::of_user())?))
}

/// The GPU for the process number `place` of those that share this machine, and its number: they take turns.
///
/// # Errors
/// There is none, or as [`open()`].
pub fn open_in_turn(place: usize) -> Result<(usize, Box<dyn Device>), DeviceError> {
    libraries::driver()?;
    let libraries = libraries::find();
    let devices = cuda::devices(&libraries)?.len();
    if devices == 0 {
        return Err(DeviceError::Unavailable("the driver has no GPU".to_owned()));
    }
    let number = place % devices;
    Ok((number, Box::new(Cuda::open(number, &libraries, &Cache::of_user())?)))
}

/// The processor in the place of a GPU, with so many threads.
pub fn host(threads: usize) -> Box<dyn Device> {
    Box::new(Host::new(Box::new(HostConvolutions::new(threads)), threads))
}

/// Whether the driver of a GPU can be loaded, which is looked up without the libraries beside it.
pub fn has_driver() -> bool {
    libraries::driver().is_ok()
}

/// Whether there is a card of NVIDIA's, whatever its driver does; false where the system does not tell.
pub fn has_card() -> bool {
    has_card_in(Path::new("/sys/bus/pci/devices"))
}

fn has_card_in(devices: &Path) -> bool {
    let says = |device: &Path, file: &str, start: &str| {
        fs::read_to_string(device.join(file)).is_ok_and(|text| text.starts_with(start))
    };
    // PCI's number of the vendor, and its class of displays and what computes like one.
    let is_card =
        |device: PathBuf| says(&device, "vendor", "0x10de") && says(&device, "class", "0x03");
    let Ok(entries) = fs::read_dir(devices) else { return false };
    entries.flatten().any(|entry| is_card(entry.path()))
}

/// What there is for GPUs.
#[derive(Clone, Debug)]
pub struct Gpus {
    /// The driver and the libraries, in the order in which they are opened.
    pub libraries: Vec<GpuLibrary>,
    /// The GPUs, or why none is to be had.
    pub devices: Result<Vec<GpuDevice>, String>,
    /// Why the first of them cannot be used, if it is so.
    pub unusable: Option<String>,
    /// Whether there is a card, whatever its driver does.
    pub has_card: bool,
}

/// A library, or where it was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuLibrary {
    /// What people call it.
    pub title: &'static str,
    /// Whether nothing works without it.
    pub is_needed: bool,
    /// Its file, and what it says of its version; or where it was looked for, and what to do.
    pub found: Result<(PathBuf, Option<String>), String>,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuDevice {
    /// Its name, as its maker gives it.
    pub name: String,
    /// Bytes of its memory.
    pub memory: usize,
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Such as `sm_90`.
    pub architecture: String,
}

impl Gpus {
    /// Those of this machine. The first GPU is opened, to see whether it can be.
    pub fn of_machine() -> Gpus {
        let libraries = libraries::find();
        let devices = cuda::devices(&libraries).map_err(|error| error.to_string());
        let devices = devices.map(|devices| devices.into_iter().map(GpuDevice::of).collect());
        let has_one = devices.as_ref().is_ok_and(|devices: &Vec<_>| !devices.is_empty());
        let opened = has_one.then(|| Cuda::open(0, &libraries, &Cache::of_user()));
        Gpus {
            unusable: opened.and_then(Result::err).map(|error| error.to_string()),
            has_card: has_card(),
            libraries: GpuLibrary::all(&libraries),
            devices,
        }
    }

    /// Whether there is a driver.
    pub fn has_driver(&self) -> bool {
        self.libraries.first().is_some_and(|driver| driver.found.is_ok())
    }
}

impl GpuLibrary {
    fn all(libraries: &Libraries) -> Vec<GpuLibrary> {
        let library = |(name, found): (LibraryName, Result<&Found, &Missing>)| GpuLibrary {
            title: name.title(),
            is_needed: name != LibraryName::Nccl,
            found: match found {
                Ok(found) => Ok((found.path.clone(), found.version.clone())),
                Err(missing) => Err(missing.to_string()),
            },
        };
        libraries.all().map(library).collect()
    }
}

impl GpuDevice {
    fn of(properties: Properties) -> GpuDevice {
        GpuDevice {
            name: properties.name,
            memory: properties.memory,
            multiprocessors: properties.multiprocessors,
            architecture: properties.architecture,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_known_by_its_vendor_and_class() {
        let dir = tempfile::tempdir().unwrap();
        let add = |name: &str, vendor: &str, class: &str| {
            let device = dir.path().join(name);
            fs::create_dir(&device).unwrap();
            fs::write(device.join("vendor"), vendor).unwrap();
            fs::write(device.join("class"), class).unwrap();
        };
        assert!(!has_card_in(&dir.path().join("nowhere")));
        // Another vendor's display; NVIDIA's sound; a network card.
        add("0", "0x8086\n", "0x030000\n");
        add("1", "0x10de\n", "0x040300\n");
        add("2", "0x15b3\n", "0x020000\n");
        fs::create_dir(dir.path().join("empty")).unwrap();
        assert!(!has_card_in(dir.path()));
        // A card for computing alone.
        add("3", "0x10de\n", "0x030200\n");
        assert!(has_card_in(dir.path()));
    }
}
