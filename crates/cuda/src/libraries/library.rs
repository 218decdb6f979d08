//! One library: its names, how it is opened, what it says of its version.

use std::ffi::{OsStr, c_int};
use std::fs;
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library as Opened, RTLD_GLOBAL, RTLD_NOW};

/// A library of NVIDIA's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LibraryName {
    /// The driver.
    Driver,
    /// Products of matrices; cuDNN ends the process if it does not find it.
    CublasLt,
    /// What NVRTC opens by its bare name, so that it has to be open before.
    NvrtcBuiltins,
    /// The compiler of kernels.
    Nvrtc,
    /// Convolutions.
    Cudnn,
    /// Sums between devices; not used yet.
    Nccl,
}

impl LibraryName {
    /// All, in the order in which they are opened.
    pub const ALL: [LibraryName; 6] = [
        LibraryName::Driver,
        LibraryName::CublasLt,
        LibraryName::NvrtcBuiltins,
        LibraryName::Nvrtc,
        LibraryName::Cudnn,
        LibraryName::Nccl,
    ];

    /// What people call it.
    pub fn title(self) -> &'static str {
        match self {
            LibraryName::Driver => "NVIDIA driver",
            LibraryName::CublasLt => "cuBLASLt",
            LibraryName::NvrtcBuiltins => "NVRTC builtins",
            LibraryName::Nvrtc => "NVRTC",
            LibraryName::Cudnn => "cuDNN",
            LibraryName::Nccl => "NCCL",
        }
    }

    /// The names that the system knows it by, best first.
    pub fn sonames(self) -> &'static [&'static str] {
        match self {
            LibraryName::Driver => &["libcuda.so.1"],
            LibraryName::CublasLt => &["libcublasLt.so.13", "libcublasLt.so.12"],
            LibraryName::NvrtcBuiltins => {
                &["libnvrtc-builtins.so.13.0", "libnvrtc-builtins.so.12.9"]
            }
            LibraryName::Nvrtc => &["libnvrtc.so.13", "libnvrtc.so.12"],
            LibraryName::Cudnn => &["libcudnn.so.9"],
            LibraryName::Nccl => &["libnccl.so.2"],
        }
    }

    /// Its file in a folder.
    pub(super) fn in_folder(self, folder: &Path) -> Option<PathBuf> {
        if self == LibraryName::NvrtcBuiltins {
            // Its name holds the minor version; the one beside NVRTC is the one that NVRTC wants.
            let nvrtc = LibraryName::Nvrtc.in_folder(folder)?;
            let major = nvrtc.extension()?.to_str()?.to_owned();
            let start = format!("libnvrtc-builtins.so.{major}");
            let mut files: Vec<PathBuf> = fs::read_dir(folder)
                .ok()?
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(&start))
                .map(|entry| entry.path())
                .collect();
            files.sort();
            return files.into_iter().next();
        }
        self.sonames().iter().map(|name| folder.join(name)).find(|file| file.is_file())
    }

    /// The package of Python that brings it.
    pub(super) fn package(self) -> Option<&'static str> {
        match self {
            LibraryName::Driver => None,
            LibraryName::CublasLt => Some("nvidia-cublas"),
            LibraryName::NvrtcBuiltins | LibraryName::Nvrtc => Some("nvidia-cuda-nvrtc"),
            LibraryName::Cudnn => Some("nvidia-cudnn-cu13"),
            LibraryName::Nccl => Some("nvidia-nccl-cu13"),
        }
    }

    /// What an opened library says of its version.
    fn version(self, opened: &Opened) -> Option<String> {
        type Number = unsafe extern "C" fn() -> usize;
        type Into = unsafe extern "C" fn(*mut c_int) -> c_int;
        type TwoInto = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
        let number = |name: &str| {
            // SAFETY: the function has no arguments and returns a size_t in all versions.
            unsafe { opened.get::<Number>(name.as_bytes()).ok().map(|function| function()) }
        };
        match self {
            LibraryName::Driver => {
                let mut version = 0;
                // SAFETY: cuDriverGetVersion writes one int; it needs no initialisation.
                let status = unsafe {
                    let function = opened.get::<Into>(b"cuDriverGetVersion").ok()?;
                    function(&raw mut version)
                };
                (status == 0).then(|| format!("{}.{}", version / 1000, version % 1000 / 10))
            }
            LibraryName::CublasLt => number("cublasLtGetVersion").map(parts),
            LibraryName::Cudnn => number("cudnnGetVersion").map(parts),
            LibraryName::Nvrtc => {
                let (mut major, mut minor) = (0, 0);
                // SAFETY: nvrtcVersion writes two ints.
                let status = unsafe {
                    let function = opened.get::<TwoInto>(b"nvrtcVersion").ok()?;
                    function(&raw mut major, &raw mut minor)
                };
                (status == 0).then(|| format!("{major}.{minor}"))
            }
            LibraryName::NvrtcBuiltins | LibraryName::Nccl => None,
        }
    }
}

/// `major * 10000 + minor * 100 + patch`, as cuDNN 9 (`CUDNN_VERSION`, cudnn_version.h) and cuBLAS
/// (`CUBLAS_VERSION`, cublas_api.h) count.
fn parts(number: usize) -> String {
    format!("{}.{}.{}", number / 10_000, number % 10_000 / 100, number % 100)
}

/// An opened library. It stays open until the process ends: it has threads and handlers of its own, which must not lose
/// their code.
#[derive(Clone, Copy, Debug)]
pub struct Library {
    opened: &'static Opened,
}

impl Library {
    /// A function.
    ///
    /// # Safety
    /// It has the type `F`.
    pub(crate) unsafe fn function<F: Copy>(&self, name: &str) -> Option<F> {
        // SAFETY: the caller's.
        unsafe { self.opened.get::<F>(name.as_bytes()) }.ok().map(|symbol| *symbol)
    }
}

/// A library that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its file.
    pub path: PathBuf,
    /// What it says of its version, where it does.
    pub version: Option<String>,
    pub(crate) library: Library,
}

impl Found {
    /// Opens a file, or what the system finds by a bare name.
    ///
    /// # Errors
    /// Why not, in the system's words.
    pub(super) fn open(name: LibraryName, file: &OsStr) -> Result<Found, String> {
        // SAFETY: the library is NVIDIA's, found where the user or his system keeps them; its initialisers have no
        // requirements. Its names are global, because cuDNN and NVRTC look for those of others.
        let opened = unsafe { Opened::open(Some(file), RTLD_NOW | RTLD_GLOBAL) }
            .map_err(|error| reason(&error))?;
        let opened: &'static Opened = Box::leak(Box::new(opened));
        let version = name.version(opened);
        let path = mapped(file).unwrap_or_else(|| PathBuf::from(file));
        Ok(Found { path, version, library: Library { opened } })
    }
}

/// The system's words; libloading puts its own in front.
fn reason(error: &libloading::Error) -> String {
    match error {
        libloading::Error::DlOpen { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

/// The file that the system has opened by a bare name.
fn mapped(name: &OsStr) -> Option<PathBuf> {
    if Path::new(name).is_absolute() {
        return Some(PathBuf::from(name));
    }
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let name = name.to_str()?;
    // A line ends with the file, which may be what a link of that name leads to: `libcuda.so.580.95.05`.
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let files = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let is_it = |file: &&Path| {
        file.file_name().is_some_and(|file| file.to_string_lossy().starts_with(stem))
    };
    files.into_iter().find(is_it).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_numbers() {
        assert_eq!(parts(92_801), "9.28.1");
        assert_eq!(parts(130_002), "13.0.2");
    }

    #[test]
    fn the_builtins_are_those_beside_the_compiler() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["libnvrtc-builtins.so.12.9", "libnvrtc-builtins.so.13.0"] {
            fs::write(at(name), "").unwrap();
        }
        assert_eq!(LibraryName::NvrtcBuiltins.in_folder(folder.path()), None);
        fs::write(at("libnvrtc.so.12"), "").unwrap();
        let builtins = LibraryName::NvrtcBuiltins.in_folder(folder.path());
        assert_eq!(builtins, Some(at("libnvrtc-builtins.so.12.9")));
        fs::write(at("libnvrtc.so.13"), "").unwrap();
        let builtins = LibraryName::NvrtcBuiltins.in_folder(folder.path());
        assert_eq!(builtins, Some(at("libnvrtc-builtins.so.13.0")));
    }
}
