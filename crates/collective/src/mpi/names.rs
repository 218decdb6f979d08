//! Which library files are tried, in which order.

use crate::launcher::{Family, Launcher};

/// The variable that names a library.
pub(super) const VARIABLE: &str = "BNINCEPTION_MPI_LIB";

/// The names to try: the one that was asked for alone, or those of the launcher's family first. MPICH of Debian
/// is called `libmpich.so.12`.
pub(super) fn names(asked: Option<String>, launcher: Option<Launcher>) -> Vec<String> {
    if let Some(asked) = asked.filter(|asked| !asked.is_empty()) {
        return vec![asked];
    }
    let open_mpi = ["libmpi.so.40"];
    let pmi = ["libmpi_abi.so.1", "libmpich.so.12", "libmpi.so.12"];
    let order = match launcher.map(|launcher| launcher.family) {
        Some(Family::OpenMpi) => [&open_mpi[..], &["libmpi.so"], &pmi[..]],
        Some(Family::Pmi) => [&pmi[..], &["libmpi.so"], &open_mpi[..]],
        Some(Family::Unknown) | None => [&open_mpi[..], &pmi[..], &["libmpi.so"]],
    };
    order.concat().into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launchers_own_library_comes_first() {
        let launcher = |family| Some(Launcher { name: "one", size: Some(2), family });
        assert_eq!(names(None, launcher(Family::OpenMpi))[0], "libmpi.so.40");
        assert_eq!(names(None, launcher(Family::Pmi))[0], "libmpi_abi.so.1");
        assert_eq!(names(Some("/a/libmpi.so".to_owned()), launcher(Family::Pmi)), ["/a/libmpi.so"]);
        assert_eq!(names(Some(String::new()), None).len(), 5);
    }
}
