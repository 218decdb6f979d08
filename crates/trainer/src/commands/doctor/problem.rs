//! What is amiss, and what to do about it.

use bninception_collective::{CollectiveError, LIBRARY_VARIABLE, Launcher};

use super::libraries::Found;

/// One thing that is amiss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub what: String,
    pub remedy: String,
}

impl Problem {
    /// No library can be opened, and a launcher started this process.
    pub(super) fn no_library(launcher: Launcher) -> Problem {
        Problem {
            what: format!(
                "{} started this process, but no MPI library can be opened",
                launcher.name
            ),
            remedy: format!(
                "add the folder of the launcher's own library to LD_LIBRARY_PATH, name it with {LIBRARY_VARIABLE}, \
                 or start with `bninception launch`, which looks beside mpiexec"
            ),
        }
    }

    /// Library and launcher are of different MPIs.
    pub(super) fn other_family(launcher: Launcher, found: &Found) -> Problem {
        Problem {
            what: format!(
                "{} started this process, but the library {} is of another MPI: {}",
                launcher.name, found.path, found.version
            ),
            remedy: format!(
                "name the launcher's own library with {LIBRARY_VARIABLE}, or take the mpiexec that belongs to \
                 this one"
            ),
        }
    }

    /// The ranks do not find each other.
    pub(super) fn not_connected(error: &CollectiveError) -> Problem {
        Problem {
            what: format!("the processes do not find each other: {error}"),
            remedy: "take launcher and library from the same MPI; `bninception launch` does so"
                .to_owned(),
        }
    }
}
