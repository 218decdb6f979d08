//! Tests of the trait on a GPU. Where there is a driver they run on its first device; elsewhere on a driver, a
//! compiler and a cuDNN that are fakes of a few hundred lines of C, whose device is the host's memory and whose kernels
//! are ours as C. The fakes check what they are told, and are as late as real ones may be.

mod convolutions;
mod memory;
mod starts;

use std::fs;
use std::io::{Write, stderr};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libloading::os::unix::Library as Opened;

use super::{Cuda, Program, devices};
use crate::compile::Cache;
use crate::convolution::{Convolution, Direction, Precision};
use crate::device::Device;
use crate::error::DeviceError;
use crate::libraries::{self, Libraries, LibraryName};
use crate::memory::Region;
use crate::sources::{KERNELS, host_function};
use crate::transfer;

/// The libraries of this machine, or fakes of them.
struct Found {
    libraries: Libraries,
    is_fake: bool,
}

fn found() -> Option<&'static Found> {
    static FOUND: OnceLock<Option<Found>> = OnceLock::new();
    FOUND.get_or_init(open_libraries).as_ref()
}

fn open_libraries() -> Option<Found> {
    // SAFETY: the driver's initialisers have no requirements.
    if unsafe { Opened::new("libcuda.so.1") }.is_err() {
        return Some(Found { libraries: fakes(), is_fake: true });
    }
    let libraries = libraries::find();
    for name in [LibraryName::CublasLt, LibraryName::Nvrtc, LibraryName::Cudnn] {
        if let Err(missing) = libraries.get(name) {
            let text = "NOT TESTED on this machine's GPU, because a library is missing";
            // Not by eprintln, which the test program swallows where tests pass.
            let mut stderr = stderr();
            writeln!(stderr, "{text}: {missing}").unwrap();
            return None;
        }
    }
    Some(Found { libraries, is_fake: false })
}

/// Compiles the fakes and opens them, with our kernels.
fn fakes() -> Libraries {
    let folder = tempfile::tempdir().unwrap();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda/fake");
    let blas = folder.path().join("blas.c");
    fs::write(&blas, "unsigned long cublasLtGetVersion(void) { return 130002; }").unwrap();
    for (source, library) in [
        (sources.join("driver.c"), "libcuda.so.1"),
        (sources.join("nvrtc.c"), "libnvrtc.so.13"),
        (sources.join("cudnn.c"), "libcudnn.so.9"),
        (blas.clone(), "libcublasLt.so.13"),
        (blas, "libnvrtc-builtins.so.13.0"),
    ] {
        let status = Command::new("cc")
            .args(["-O1", "-w", "-shared", "-fPIC", "-pthread"])
            .arg(format!("-Wl,-soname,{library}"))
            .arg("-o")
            .arg(folder.path().join(library))
            .arg(source)
            .status();
        assert!(status.unwrap().success());
    }
    let libraries = libraries::find_in(folder.path());
    type AddKernel = unsafe extern "C" fn(*const std::ffi::c_char, crate::sources::Function, usize);
    let driver = libraries.get(LibraryName::Driver).unwrap();
    for name in KERNELS {
        let (function, bytes) = host_function(name).unwrap();
        let text = std::ffi::CString::new(*name).unwrap();
        // SAFETY: the fake declares it so, and copies the name.
        unsafe {
            let add: AddKernel = driver.library.function("fake_kernel").unwrap();
            add(text.as_ptr(), function, bytes);
        }
    }
    libraries
}

/// A test's turn: no other uses the device meanwhile, so that its memory is this test's.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A turn with the device; `None` if it cannot be tested, which was said.
fn open() -> Option<(MutexGuard<'static, ()>, Cuda)> {
    let turn = turn();
    Some((turn, again(found()?)))
}

/// The device once more.
fn again(found: &Found) -> Cuda {
    Cuda::open(0, &found.libraries, &Cache::none()).unwrap()
}

fn is_fake() -> bool {
    found().is_some_and(|found| found.is_fake)
}

fn put(cuda: &mut Cuda, bytes: &[u8]) -> Region {
    let region = cuda.allocate(bytes.len()).unwrap();
    transfer::write(cuda, bytes, region).unwrap();
    region
}

fn get(cuda: &mut Cuda, region: Region) -> Vec<u8> {
    transfer::read(cuda, region).unwrap()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Upper halves, of values that have no more.
fn halves(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()).collect()
}

fn wide(bytes: &[u8]) -> Vec<f32> {
    let halves = bytes.as_chunks::<2>().0.iter();
    halves.map(|bytes| f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16)).collect()
}

/// A convolution of a few values.
fn convolution(direction: Direction, precision: Precision) -> Convolution {
    Convolution {
        direction,
        precision,
        batch: 2,
        in_channels: 8,
        out_channels: 16,
        in_height: 7,
        in_width: 5,
        kernel: 3,
        stride: 2,
        pad: 1,
        accumulate: false,
        deterministic: false,
    }
}

#[test]
fn a_device_says_what_it_is() {
    let Some(found) = found() else { return };
    let all = devices(&found.libraries).unwrap();
    let (_turn, cuda) = open().unwrap();
    assert_eq!(&all[0], cuda.properties());
    assert!(cuda.properties().architecture.starts_with("sm_"));
    assert!(cuda.free_memory().unwrap() <= cuda.properties().memory);
    if found.is_fake {
        // As the data sheet of an H100 says: 3.35 TB/s.
        assert_eq!(cuda.properties().bandwidth, Some(3.352_32e12));
        assert_eq!(cuda.properties().architecture, "sm_90");
    }
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    let Some(found) = found() else { return };
    let error = Cuda::open(99, &found.libraries, &Cache::none()).err().unwrap();
    assert!(error.to_string().contains("there is no GPU 99"), "{error}");
}

#[test]
fn a_missing_library_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = Cuda::open(0, &libraries::find_in(folder.path()), &Cache::none()).err();
    let Some(DeviceError::Unavailable(message)) = error else {
        return; // this machine has them in its system's folders
    };
    assert!(message.contains("is not found"), "{message}");
}

#[test]
fn kernels_that_do_not_compile_or_are_not_there_are_errors() {
    let Some(found) = found() else { return };
    let open = |source, kernels| {
        let program = Program { source, kernels };
        Cuda::open_with(0, &found.libraries, &Cache::none(), &program).err().unwrap().to_string()
    };
    let error = open("__global__ void kernel() { nonsense; }", &[]);
    assert!(error.contains("cannot be compiled for sm_") && error.contains("nonsense"), "{error}");
    let error = open("", &["no_such_kernel"]);
    assert!(error.contains("cuModuleGetFunction") && error.contains("no_such_kernel"), "{error}");
}
