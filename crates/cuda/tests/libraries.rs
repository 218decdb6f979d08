//! What NVIDIA's libraries do on a machine without a GPU: NVRTC compiles all kernels, and cuDNN plans all convolutions, for
//! devices that are described. Runs where the libraries are found (`BNINCEPTION_CUDA_PATH`), else says so.

#![allow(unsafe_code)] // opens the stub of a driver
#![allow(clippy::print_stderr)] // what was found, and that nothing was
#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use std::fs;
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

use bninception_cuda::compile::{Cache, Nvrtc, compile};
use bninception_cuda::cudnn::{Note, WithoutDevice};
use bninception_cuda::libraries::{Libraries, LibraryName, find};
use bninception_cuda::sources::{KERNELS, source};
use bninception_cuda::{Convolution, DeviceError, Direction, Precision};

/// Sizes of a convolution: channels of input and output, rows of the input, rows of a filter, step.
type Sizes = (usize, usize, usize, usize, usize);

/// The convolutions of all presets, which `engine/tests/device_convolutions.rs` keeps true.
const CONVOLUTIONS: &str = include_str!("convolutions.txt");

fn all_sizes() -> Vec<Sizes> {
    let lines = CONVOLUTIONS.lines().filter(|line| !line.starts_with('#'));
    let sizes = lines.map(|line| {
        let numbers: Vec<usize> = line.split(' ').map(|word| word.parse().unwrap()).collect();
        let [in_channels, out_channels, rows, kernel, stride] = numbers[..] else {
            panic!("{line}");
        };
        (in_channels, out_channels, rows, kernel, stride)
    });
    sizes.collect()
}

const DEVICES: [(&str, &str); 4] = [
    ("A100", include_str!("../devices/a100.json")),
    ("H100", include_str!("../devices/h100.json")),
    ("H200", include_str!("../devices/h200.json")),
    ("B200", include_str!("../devices/b200.json")),
];

/// The libraries, if they are here; a stub in the place of a driver that is not.
fn libraries() -> Option<&'static Libraries> {
    static FOUND: OnceLock<Option<Libraries>> = OnceLock::new();
    FOUND.get_or_init(open).as_ref()
}

fn open() -> Option<Libraries> {
    let mut libraries = find();
    let needed = [LibraryName::CublasLt, LibraryName::Nvrtc, LibraryName::Cudnn];
    for name in needed {
        if let Err(missing) = libraries.get(name) {
            // Not by eprintln, which the test program swallows where tests pass.
            let mut stderr = stderr();
            writeln!(stderr, "NOT TESTED, because a library is missing: {missing}").unwrap();
            return None;
        }
    }
    if libraries.get(LibraryName::Driver).is_err() {
        let stub = stub_driver();
        // SAFETY: the stub has no initialisers. Opened by its path, it is found by its name from now on.
        let opened = unsafe { libloading::os::unix::Library::new(&stub) }.unwrap();
        std::mem::forget(opened);
        libraries = find();
    }
    for (name, found) in libraries.all() {
        match found {
            Ok(found) => {
                let version = found.version.as_deref().unwrap_or("of unknown version");
                eprintln!("{}: {} {version}", name.title(), found.path.display());
            }
            Err(missing) => eprintln!("{missing}"),
        }
    }
    Some(libraries)
}

fn stub_driver() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join("libcuda.so.1");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stub_driver.c");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o"])
        .arg(&file)
        .arg(source)
        .status()
        .unwrap();
    assert!(status.success());
    file
}

fn convolution(sizes: Sizes, direction: Direction, precision: Precision) -> Convolution {
    let (in_channels, out_channels, rows, kernel, stride) = sizes;
    Convolution {
        direction,
        precision,
        batch: 32,
        in_channels,
        out_channels,
        in_height: rows,
        in_width: rows,
        kernel,
        stride,
        pad: kernel / 2,
        accumulate: false,
        deterministic: false,
    }
}

const PRECISIONS: [Precision; 3] = [Precision::Bf16, Precision::Tf32, Precision::F32];

#[test]
fn every_convolution_has_a_plan_on_every_device() {
    let Some(libraries) = libraries() else { return };
    for (device, description) in DEVICES {
        let cudnn = WithoutDevice::new(libraries, description).unwrap();
        for (batch, deterministic, accumulate) in
            [(32, false, false), (256, false, false), (256, true, true)]
        {
            for precision in PRECISIONS {
                let mut problems = Vec::new();
                let mut workspaces = BTreeMap::new();
                let mut compiled = 0;
                for sizes in all_sizes() {
                    for direction in Direction::ALL {
                        // Images have no gradient.
                        if sizes.0 == 8 && direction == Direction::InputGradient {
                            continue;
                        }
                        let convolution = Convolution {
                            batch,
                            deterministic,
                            accumulate: accumulate && direction != Direction::Forward,
                            ..convolution(sizes, direction, precision)
                        };
                        match cudnn.plans(&convolution, 8) {
                            Ok(plans) => {
                                let best = &plans[0];
                                let is_compiled =
                                    best.engine.notes.contains(&Note::RuntimeCompilation);
                                compiled += usize::from(is_compiled);
                                workspaces.insert(convolution.to_string(), best.workspace);
                            }
                            Err(error @ DeviceError::NoPlan { .. }) => {
                                problems.push(error.to_string());
                            }
                            Err(error) => panic!("{device}: {error}"),
                        }
                    }
                }
                let total: usize = workspaces.values().sum();
                let largest = workspaces.iter().max_by_key(|(_, bytes)| **bytes).unwrap();
                eprintln!(
                    "{device}, batch {batch}{}, {}: {} plans ({compiled} compiled), workspaces {} MB, the \
                     largest {} MB for {}",
                    if deterministic { ", deterministic, adding" } else { "" },
                    precision.name(),
                    workspaces.len(),
                    total / 1_000_000,
                    largest.1 / 1_000_000,
                    largest.0,
                );
                assert!(problems.is_empty(), "{device}: {}", problems.join("\n"));
            }
        }
    }
}

#[test]
fn engines_that_round_are_not_offered_for_f32() {
    let Some(libraries) = libraries() else { return };
    let cudnn = WithoutDevice::new(libraries, DEVICES[1].1).unwrap();
    let sizes = (192, 192, 14, 3, 1);
    for direction in Direction::ALL {
        let exact = cudnn.plans(&convolution(sizes, direction, Precision::F32), 64).unwrap();
        let rounds = |note: &Note| matches!(note, Note::TensorCore | Note::DownConvertInputs);
        assert!(exact.iter().all(|plan| !plan.engine.notes.iter().any(rounds)), "{exact:?}");
        let fast = cudnn.plans(&convolution(sizes, direction, Precision::Tf32), 64).unwrap();
        assert!(fast[0].engine.notes.contains(&Note::TensorCore), "{fast:?}");
    }
}

#[test]
fn a_wrong_description_is_an_error() {
    let Some(libraries) = libraries() else { return };
    let error = WithoutDevice::new(libraries, "{}").err().unwrap();
    assert!(error.to_string().contains("cudnnBackendFinalize"), "{error}");
}

#[test]
fn every_kernel_compiles_for_every_architecture() {
    let Some(libraries) = libraries() else { return };
    let nvrtc = Nvrtc::open(libraries).unwrap();
    for architecture in ["sm_80", "sm_90", "sm_100"] {
        let start = Instant::now();
        let code = compile(&nvrtc, &Cache::none(), &source(), architecture).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        eprintln!(
            "{architecture}: {} kernels, {} bytes, {seconds:.1} s",
            KERNELS.len(),
            code.len()
        );
        assert!(code.starts_with(b"\x7fELF"), "{architecture}");
        for kernel in KERNELS {
            // The code of a kernel lies in a section of its name.
            let section = format!(".text.{kernel}\0");
            let found = code.windows(section.len()).any(|bytes| bytes == section.as_bytes());
            assert!(found, "{architecture}: {kernel}");
        }
    }
}

#[test]
fn what_was_compiled_is_kept() {
    let Some(libraries) = libraries() else { return };
    let nvrtc = Nvrtc::open(libraries).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let kernel = "extern \"C\" __global__ void kernel(float *x) { *x = 1.0f; }";
    let code = compile(&nvrtc, &cache, kernel, "sm_90").unwrap();
    let files: Vec<PathBuf> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    assert_eq!(compile(&nvrtc, &cache, kernel, "sm_90").unwrap(), code);
    fs::write(&files[0], b"damaged").unwrap();
    assert_eq!(compile(&nvrtc, &cache, kernel, "sm_90").unwrap(), code);
    assert!(fs::read(&files[0]).unwrap().len() > code.len());
    compile(&nvrtc, &cache, kernel, "sm_80").unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_wrong_kernel_is_an_error_with_the_compilers_words() {
    let Some(libraries) = libraries() else { return };
    let nvrtc = Nvrtc::open(libraries).unwrap();
    let error = nvrtc.compile("__global__ void kernel() { nonsense; }", "sm_90").unwrap_err();
    assert!(error.to_string().contains("nonsense"), "{error}");
    let error = nvrtc.compile("__global__ void kernel() {}", "sm_7").unwrap_err();
    assert!(error.to_string().contains("sm_7"), "{error}");
}
