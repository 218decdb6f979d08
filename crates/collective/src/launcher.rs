//! Who started this process, by the variables that launchers set.

use std::env;

/// The variable that names an MPI library, or a folder that holds one.
pub const LIBRARY_VARIABLE: &str = "BNINCEPTION_MPI_LIB";

/// A launcher of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launcher {
    /// Its name.
    pub name: &'static str,
    /// Processes that it started, if it says so.
    pub size: Option<usize>,
    /// Which of them this is, if it says so.
    pub rank: Option<usize>,
    /// The family of MPI that it belongs to.
    pub family: Family,
}

/// Files of Open MPI's library. The last name is anybody's, and there only to build programs with.
const OPEN_MPI_FILES: [&str; 2] = ["libmpi.so.40", "libmpi.so"];

/// Files of the libraries that speak PMI.
const PMI_FILES: [&str; 4] = ["libmpi_abi.so.1", "libmpich.so.12", "libmpi.so.12", "libmpi.so"];

/// Families of MPI libraries, as launchers tell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Open MPI.
    OpenMpi,
    /// MPICH and what is built on it, which speak PMI.
    Pmi,
    /// Any.
    Unknown,
}

impl Family {
    /// The family of a library or a launcher, by what it says of its version.
    pub fn of_version(text: &str) -> Family {
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&["Open MPI", "OpenRTE", "PMIx Reference RunTime Environment"]) {
            Family::OpenMpi
        } else if says(&["MPICH", "HYDRA", "Hydra", "Intel(R) MPI", "MVAPICH"]) {
            Family::Pmi
        } else {
            Family::Unknown
        }
    }

    /// Files by which libraries of the family are known. MPICH of Debian is called `libmpich.so.12`.
    pub fn library_files(self) -> Vec<&'static str> {
        match self {
            Family::OpenMpi => OPEN_MPI_FILES.to_vec(),
            Family::Pmi => PMI_FILES.to_vec(),
            Family::Unknown => [&OPEN_MPI_FILES[..1], &PMI_FILES].concat(),
        }
    }

    /// Files of the other families. One may still be the right one, where somebody has renamed it.
    pub(crate) fn other_library_files(self) -> Vec<&'static str> {
        let own = self.library_files();
        let all = Family::Unknown.library_files();
        all.into_iter().filter(|name| !own.contains(name)).collect()
    }

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Family::OpenMpi => "Open MPI",
            Family::Pmi => "MPICH",
            Family::Unknown => "unknown",
        }
    }

    /// Whether a launcher and a library of these families know of each other. Where one of them is not known,
    /// they may.
    pub fn fits(self, other: Family) -> bool {
        self == other || [self, other].contains(&Family::Unknown)
    }
}

/// The variables that hold the number of processes, the most particular first: Slurm and PMIx set theirs around
/// others.
const SIZES: [(&str, &str, Family); 3] = [
    ("OMPI_COMM_WORLD_SIZE", "Open MPI's mpirun", Family::OpenMpi),
    ("PMI_SIZE", "an mpiexec of MPICH's family", Family::Pmi),
    ("SLURM_STEP_NUM_TASKS", "srun", Family::Unknown),
];

/// The variables that hold the number of this process among them.
const RANKS: [&str; 4] = ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID"];

impl Launcher {
    /// The launcher of this process; none if it was started alone.
    pub fn of_process() -> Option<Launcher> {
        Launcher::of(|name| env::var(name).ok())
    }

    /// The launcher in an environment; none if the process was started alone.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Launcher> {
        let number = |name: &str| variable(name).and_then(|text| text.trim().parse::<usize>().ok());
        // A batch script of Slurm holds SLURM_NTASKS and SLURM_PROCID too, and is one process.
        let rank = RANKS.into_iter().find_map(number);
        for (name, launcher, family) in SIZES {
            if let Some(size) = number(name) {
                return Some(Launcher { name: launcher, size: Some(size), rank, family });
            }
        }
        // PMIx tells which process this is, and not how many there are.
        variable("PMIX_RANK")?;
        Some(Launcher { name: "a launcher with PMIx", size: None, rank, family: Family::Unknown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_by_versions() {
        for (text, family) in [
            ("mpiexec (Open MPI) 5.0.11", Family::OpenMpi),
            ("Open MPI v4.1.4, package: Debian OpenMPI", Family::OpenMpi),
            ("HYDRA build details:\n    Version: 5.0.2", Family::Pmi),
            ("MPICH Version:      5.0.2", Family::Pmi),
            ("Intel(R) MPI Library for Linux* OS, Version 2021.19", Family::Pmi),
            ("slurm 23.11.4", Family::Unknown),
        ] {
            assert_eq!(Family::of_version(text), family, "{text}");
        }
        assert!(!Family::OpenMpi.fits(Family::Pmi) && Family::Pmi.fits(Family::Unknown));
    }

    #[test]
    fn the_rank_is_told_too() {
        let launcher = Launcher::of(|name| match name {
            "PMI_SIZE" => Some("2".to_owned()),
            "PMI_RANK" => Some("1".to_owned()),
            _ => None,
        });
        assert_eq!(launcher.and_then(|launcher| launcher.rank), Some(1));
    }

    #[test]
    fn a_launcher_is_told_by_its_variables() {
        let of = |variables: &[(&str, &str)]| {
            Launcher::of(|name| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
            .map(|launcher| (launcher.size, launcher.family))
        };
        for (variables, expected) in [
            (&[][..], None),
            (
                &[("OMPI_COMM_WORLD_SIZE", "4"), ("PMIX_RANK", "0")],
                Some((Some(4), Family::OpenMpi)),
            ),
            (&[("PMI_SIZE", "2"), ("PMI_RANK", "1")], Some((Some(2), Family::Pmi))),
            (
                &[("SLURM_STEP_NUM_TASKS", "8"), ("SLURM_NTASKS", "8")],
                Some((Some(8), Family::Unknown)),
            ),
            // A batch script of Slurm, before srun.
            (&[("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0")], None),
            (&[("PMIX_RANK", "0")], Some((None, Family::Unknown))),
            (&[("PMI_SIZE", "many")], None),
        ] {
            assert_eq!(of(variables), expected, "{variables:?}");
        }
    }
}
