//! What an MPI library says of itself, MPI not being started.

use std::path::PathBuf;

use crate::launcher::Family;

/// A library that could be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundLibrary {
    /// Its file.
    pub path: PathBuf,
    /// The first line of what it says of itself.
    pub version: String,
    /// Which binary interface it has: `standard`, `MPICH` or `Open MPI`.
    pub interface: &'static str,
}

impl FoundLibrary {
    /// The family of launchers that it belongs to. The standard interface may be anybody's.
    pub fn family(&self) -> Family {
        match self.interface {
            "Open MPI" => Family::OpenMpi,
            "MPICH" => Family::Pmi,
            _ => Family::of_version(&self.version),
        }
    }
}
