//! Who started this process, by the variables that launchers set.

/// A launcher of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launcher {
    /// Its name.
    pub name: &'static str,
    /// Processes that it started, if it says so.
    pub size: Option<usize>,
    /// The family of MPI that it belongs to.
    pub family: Family,
}

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

/// The variables that hold the number of processes, the most particular first: Slurm and PMIx set theirs around
/// others.
const SIZES: [(&str, &str, Family); 4] = [
    ("OMPI_COMM_WORLD_SIZE", "Open MPI's mpirun", Family::OpenMpi),
    ("PMI_SIZE", "an mpiexec of MPICH's family", Family::Pmi),
    ("SLURM_STEP_NUM_TASKS", "srun", Family::Unknown),
    ("SLURM_NTASKS", "Slurm", Family::Unknown),
];

/// Variables of launchers that do not tell how many processes they started.
const PRESENT: [(&str, &str); 2] =
    [("PMIX_RANK", "a launcher with PMIx"), ("SLURM_PROCID", "Slurm")];

impl Launcher {
    /// The launcher in an environment; none if the process was started alone.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Launcher> {
        let number = |name: &str| variable(name).and_then(|text| text.trim().parse::<usize>().ok());
        // A job of Slurm holds SLURM_NTASKS outside of srun too; SLURM_PROCID is there inside of it alone, or in
        // a batch script, which is one process.
        let in_step = variable("SLURM_STEP_NUM_TASKS").is_some();
        for (name, launcher, family) in SIZES {
            if name == "SLURM_NTASKS" && !in_step {
                continue;
            }
            if let Some(size) = number(name) {
                return Some(Launcher { name: launcher, size: Some(size), family });
            }
        }
        let (_, name) = PRESENT
            .into_iter()
            .find(|(name, _)| *name != "SLURM_PROCID" && variable(name).is_some())?;
        Some(Launcher { name, size: None, family: Family::Unknown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
