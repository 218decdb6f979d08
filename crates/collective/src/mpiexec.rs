//! The program that starts ranks, and the library beside it.

use std::env;
use std::env::consts::ARCH;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::launcher::Family;

/// A program that starts ranks: `mpiexec`, `mpirun`, `srun`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mpiexec {
    /// Its file.
    pub path: PathBuf,
    /// What it says of its version, or why it does not.
    pub version: Result<String, String>,
    /// The MPI that it belongs to.
    pub family: Family,
}

impl Mpiexec {
    /// The first program of this name in the folders of PATH, asked for its version.
    pub fn on_path(name: &str) -> Option<Mpiexec> {
        on_path(name, &env::var_os("PATH").unwrap_or_default()).map(Mpiexec::at)
    }

    /// The program at a path, asked for its version.
    pub fn at(path: PathBuf) -> Mpiexec {
        let output = Command::new(&path).arg("--version").stdin(Stdio::null()).output();
        let (version, family) = match output {
            Ok(output) if output.status.success() => {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                (Ok(version_in(&text)), Family::of_version(&text))
            }
            Ok(output) => (Err(format!("--version ended with {}", output.status)), Family::Unknown),
            Err(error) => (Err(error.to_string()), Family::Unknown),
        };
        Mpiexec { path, version, family }
    }

    /// The library beside it, if there is one.
    pub fn library(&self) -> Option<PathBuf> {
        libraries_beside(&self.path, self.family).into_iter().next()
    }
}

/// The first executable file of this name in the folders of `path`.
pub fn on_path(name: &str, path: &OsStr) -> Option<PathBuf> {
    env::split_paths(path).map(|dir| dir.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

/// The libraries of a family that belong to `PREFIX/bin/mpiexec`: in `PREFIX/lib`, as in a Python environment, in
/// `PREFIX/lib64`, or in Debian's folder for the machine. Where the program is a link, beside its target too.
pub fn libraries_beside(mpiexec: &Path, family: Family) -> Vec<PathBuf> {
    let of_machine = format!("lib/{ARCH}-linux-gnu");
    let programs = [Some(mpiexec.to_owned()), mpiexec.canonicalize().ok()];
    let prefixes = programs.iter().flatten().filter_map(|program| program.parent()?.parent());
    let mut found: Vec<PathBuf> = Vec::new();
    for prefix in prefixes {
        for folder in ["lib", "lib64", &of_machine] {
            // Those of another family may lie in the same folder of a system.
            let files =
                family.library_files().into_iter().map(|name| prefix.join(folder).join(name));
            found.extend(files.filter(|file| file.is_file()));
        }
    }
    // `lib64` may be a link to `lib`.
    let mut seen = Vec::new();
    found.retain(|file| {
        let file = file.canonicalize();
        let is_new = !seen.iter().any(|other| Some(other) == file.as_ref().ok());
        seen.extend(file);
        is_new
    });
    found
}

/// The version in what a launcher says: its first line, or where this is a heading of MPICH's Hydra, the line behind.
fn version_in(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let version = lines.find_map(|line| line.strip_prefix("Version:"));
    match version {
        Some(version) if first.starts_with("HYDRA") => format!("MPICH's Hydra {}", version.trim()),
        _ => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_one_line() {
        for (text, version) in [
            ("mpiexec (Open MPI) 5.0.11\n\nReport bugs to x\n", "mpiexec (Open MPI) 5.0.11"),
            ("HYDRA build details:\n    Version:       5.0.2\n", "MPICH's Hydra 5.0.2"),
            ("slurm 23.11.4\n", "slurm 23.11.4"),
            ("", ""),
        ] {
            assert_eq!(version_in(text), version);
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        assert_eq!(on_path("mpiexec", OsStr::new("/no/such:/nor/this")), None);
        assert!(libraries_beside(Path::new("/no/such/bin/mpiexec"), Family::Unknown).is_empty());
        let absent = Mpiexec::at(PathBuf::from("/no/such/bin/mpiexec"));
        assert!(absent.version.is_err() && absent.family == Family::Unknown);
    }
}
