//! The programs that could start ranks here.

use bninception_collective::{Launcher, Mpiexec};

use super::libraries::{Found, Libraries};

/// Names of such programs.
const NAMES: [&str; 3] = ["mpiexec", "mpirun", "srun"];

/// A program by its name, if it is on the PATH.
#[derive(Debug)]
pub(super) struct Starter {
    pub name: &'static str,
    pub program: Option<Program>,
}

/// Such a program, and the library that its processes would open.
#[derive(Debug)]
pub(super) struct Program {
    pub mpiexec: Mpiexec,
    pub library: Option<Found>,
}

impl Starter {
    /// All of them.
    pub(super) fn on_path(libraries: &mut Libraries) -> Vec<Starter> {
        let look = |name: &'static str| {
            let program = Mpiexec::on_path(name).map(|mpiexec| {
                let launcher = Launcher { name, size: None, rank: None, family: mpiexec.family };
                let library = libraries.first_of(&Launcher::library_names(Some(launcher)));
                Program { mpiexec, library }
            });
            Starter { name, program }
        };
        NAMES.into_iter().map(look).collect()
    }
}

impl Program {
    /// Whether its processes would find each other; `None` without a library.
    pub(super) fn fits(&self) -> Option<bool> {
        self.library.as_ref().map(|library| library.family.fits(self.mpiexec.family))
    }
}
