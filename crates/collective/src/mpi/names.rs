//! Which library files are tried, in which order.

use std::env;
use std::path::{Path, PathBuf};

use crate::launcher::{Family, Launcher};
use crate::mpiexec;

pub(super) use crate::launcher::LIBRARY_VARIABLE as VARIABLE;

impl Launcher {
    /// The libraries that processes of `launcher` try, in this order.
    pub fn library_names(launcher: Option<Launcher>) -> Vec<String> {
        names(env::var(VARIABLE).ok(), launcher)
    }
}

/// The names to try: what was asked for alone, or those of the launcher's family first. Behind them come files
/// beside the `mpiexec` on the PATH, because a Python environment has its library where the system does not look.
pub(super) fn names(asked: Option<String>, launcher: Option<Launcher>) -> Vec<String> {
    let family = launcher.map_or(Family::Unknown, |launcher| launcher.family);
    let own = family.library_files().into_iter().map(str::to_owned);
    let others = family.other_library_files().into_iter().map(str::to_owned);
    if let Some(asked) = asked.filter(|asked| !asked.is_empty()) {
        return match Path::new(&asked).is_dir() {
            true => own.chain(others).map(|name| format!("{asked}/{name}")).collect(),
            false => vec![asked],
        };
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let mpiexec = mpiexec::on_path("mpiexec", &path);
    let beside = mpiexec.map_or(Vec::new(), |file| mpiexec::libraries_beside(&file, family));
    let text = |file: PathBuf| file.into_os_string().into_string().ok();
    own.chain(beside.into_iter().filter_map(text)).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launchers_own_library_comes_first() {
        let launcher = |family| Some(Launcher { name: "one", size: Some(2), rank: None, family });
        assert_eq!(names(None, launcher(Family::OpenMpi))[0], "libmpi.so.40");
        assert_eq!(names(None, launcher(Family::Pmi))[0], "libmpi_abi.so.1");
        assert_eq!(names(Some("/a/libmpi.so".to_owned()), launcher(Family::Pmi)), ["/a/libmpi.so"]);
        assert!(names(Some(String::new()), None).len() >= 5);
        // A folder stands for the libraries in it.
        let inside = names(Some("/".to_owned()), launcher(Family::OpenMpi));
        assert_eq!((inside[0].as_str(), inside.len()), ("//libmpi.so.40", 5));
    }
}
