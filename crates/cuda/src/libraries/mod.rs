//! NVIDIA's libraries, found at run time. A build needs none of them, nor does a machine without a GPU.
//!
//! ```text
//! places:    the folders in which they are looked for
//! library:   one library: its names, how it is opened, its version
//! functions: a table of a library's functions
//! ```
//!
//! They are opened by path and before anything calls them, so that what they look for by name is open already:
//! NVRTC has no path to its builtins, and cuDNN ends the process if it does not find cuBLASLt.

pub(crate) mod functions;
mod library;
mod places;

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;

use crate::error::DeviceError;
pub use library::{Found, Library, LibraryName};
pub use places::PATH_VARIABLE;
use places::{Variables, folders, folders_of_python};

/// A library that was not found: where it was looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The library.
    pub name: LibraryName,
    /// The folders, and behind them the system's.
    pub folders: Vec<PathBuf>,
    /// Files that have its name and cannot be opened, with the system's reason.
    pub broken: Vec<(PathBuf, String)>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let soname = self.name.sonames()[0];
        write!(f, "{} ({soname}) is not found. ", self.name.title())?;
        for (path, reason) in &self.broken {
            write!(f, "{} cannot be opened: {reason}. ", path.display())?;
        }
        if self.name == LibraryName::Driver {
            return write!(
                f,
                "It comes with the GPU's driver; in a container, the container must be started with GPUs"
            );
        }
        write!(f, "Looked in ")?;
        for folder in &self.folders {
            write!(f, "{}, ", folder.display())?;
        }
        write!(f, "the system's folders. ")?;
        if let Some(package) = self.name.package() {
            write!(f, "`pip install {package}` brings it; ")?;
        }
        write!(f, "{PATH_VARIABLE} names folders that have it")
    }
}

/// What was found of each library.
#[derive(Clone, Debug)]
pub struct Libraries {
    found: Vec<(LibraryName, Result<Found, Missing>)>,
}

/// Looks for all libraries and opens them. Takes no time to speak of where there are none.
pub fn find() -> Libraries {
    find_with(&|name| env::var_os(name))
}

/// Looks for the driver alone: without one, nobody needs the others, which are large.
///
/// # Errors
/// It was not found.
pub fn driver() -> Result<Found, DeviceError> {
    let found = look(LibraryName::Driver, &folders(&|name| env::var_os(name)));
    found.map_err(|missing| DeviceError::Unavailable(missing.to_string()))
}

fn find_with(variables: Variables<'_>) -> Libraries {
    let mut folders = folders(variables);
    let mut found: Vec<(LibraryName, Result<Found, Missing>)> =
        LibraryName::ALL.map(|name| (name, look(name, &folders))).into();
    let lacks = |name: LibraryName| found.iter().any(|(of, found)| *of == name && found.is_err());
    // To start Python takes longer than all the rest: only where there is a driver to use the libraries with.
    let used = [LibraryName::CublasLt, LibraryName::Nvrtc, LibraryName::Cudnn];
    if !lacks(LibraryName::Driver) && used.into_iter().any(lacks) {
        let more = folders_of_python(variables);
        folders.extend(
            more.iter().filter(|folder| !folders.contains(folder)).cloned().collect::<Vec<_>>(),
        );
        for (name, place) in &mut found {
            if place.is_err() {
                *place = look(*name, &folders);
            }
        }
    }
    Libraries { found }
}

/// The first that can be opened.
fn look(name: LibraryName, folders: &[PathBuf]) -> Result<Found, Missing> {
    let mut broken = Vec::new();
    for file in folders.iter().filter_map(|folder| name.in_folder(folder)) {
        match Found::open(name, file.as_os_str()) {
            Ok(found) => return Ok(found),
            Err(reason) => broken.push((file, reason)),
        }
    }
    let by_name = name.sonames().iter().map(OsStr::new);
    let mut by_system = by_name.filter_map(|soname| Found::open(name, soname).ok());
    by_system.next().ok_or_else(|| Missing { name, folders: folders.to_vec(), broken })
}

/// What lies in one folder, for tests.
#[cfg(test)]
pub(crate) fn find_in(folder: &std::path::Path) -> Libraries {
    let folders = [folder.to_owned()];
    Libraries { found: LibraryName::ALL.map(|name| (name, look(name, &folders))).into() }
}

impl Libraries {
    /// A library, or where it was looked for.
    ///
    /// # Errors
    /// It was not found.
    pub fn get(&self, name: LibraryName) -> Result<&Found, &Missing> {
        let found = self.found.iter().find(|(of, _)| *of == name);
        match found {
            Some((_, found)) => found.as_ref(),
            None => unreachable!("all names are looked for"),
        }
    }

    /// A library that is needed now.
    ///
    /// # Errors
    /// It was not found.
    pub(crate) fn need(&self, name: LibraryName) -> Result<&Found, DeviceError> {
        self.get(name).map_err(|missing| DeviceError::Unavailable(missing.to_string()))
    }

    /// Each library with what was found of it, in a fixed order.
    pub fn all(&self) -> impl Iterator<Item = (LibraryName, Result<&Found, &Missing>)> {
        self.found.iter().map(|(name, found)| (*name, found.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// A library that says that it is cuDNN of this version, made by the C compiler that a build needs anyway.
    fn fake_cudnn(folder: &Path, version: u32) {
        fs::create_dir_all(folder).unwrap();
        let source = folder.join("fake.c");
        fs::write(&source, format!("unsigned long cudnnGetVersion(void) {{ return {version}; }}"))
            .unwrap();
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(folder.join("libcudnn.so.9"))
            .arg(&source)
            .status();
        assert!(status.unwrap().success());
    }

    #[test]
    fn a_missing_library_is_a_message_that_says_where_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let missing = look(LibraryName::Cudnn, &[folder.path().to_owned()]);
        let Err(missing) = missing else {
            return; // this machine has cuDNN in its system's folders
        };
        let text = missing.to_string();
        for part in ["cuDNN (libcudnn.so.9) is not found", "pip install nvidia-cudnn-cu13"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.contains(&folder.path().display().to_string()), "{text}");
        assert!(text.contains(PATH_VARIABLE), "{text}");
    }

    #[test]
    fn a_broken_file_is_told_and_the_next_one_taken() {
        let root = tempfile::tempdir().unwrap();
        let (broken, whole) = (root.path().join("broken"), root.path().join("whole"));
        fs::create_dir(&broken).unwrap();
        fs::write(broken.join("libcudnn.so.9"), "").unwrap();
        if let Err(missing) = look(LibraryName::Cudnn, std::slice::from_ref(&broken)) {
            assert_eq!(missing.broken.len(), 1);
            let text = missing.to_string();
            assert!(text.contains("cannot be opened") && text.contains("too short"), "{text}");
        }
        fake_cudnn(&whole, 92_801);
        let found = look(LibraryName::Cudnn, &[broken, whole.clone()]).unwrap();
        assert_eq!(found.path, whole.join("libcudnn.so.9"));
        assert_eq!(found.version.as_deref(), Some("9.28.1"));
    }

    #[test]
    fn the_driver_is_found_alone_where_it_is_found_among_all() {
        let alone = driver().map(|found| found.path).map_err(|error| error.to_string());
        let libraries = find();
        let among = libraries.get(LibraryName::Driver);
        assert_eq!(alone, among.map(|found| found.path.clone()).map_err(Missing::to_string));
    }

    #[test]
    fn the_first_folder_wins() {
        let root = tempfile::tempdir().unwrap();
        let (first, second) = (root.path().join("first"), root.path().join("second"));
        fake_cudnn(&first, 90_500);
        fake_cudnn(&second, 91_100);
        let found = look(LibraryName::Cudnn, &[first, second]).unwrap();
        assert_eq!(found.version.as_deref(), Some("9.5.0"));
    }

    #[test]
    fn a_machine_without_libraries_is_found_out_quickly() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().as_os_str().to_owned();
        let start = std::time::Instant::now();
        let libraries = find_with(&|name| (name == PATH_VARIABLE).then(|| own.clone()));
        if libraries.get(LibraryName::Driver).is_err() {
            assert!(start.elapsed() < std::time::Duration::from_millis(50));
        }
        assert_eq!(libraries.all().count(), LibraryName::ALL.len());
    }
}
