//! What is amiss among all that was found.

use bninception_collective::{Family, LIBRARY_VARIABLE};
use bninception_engine::{ISA_VARIABLE, Isa};

use super::findings::Findings;
use super::problem::Problem;
use super::ranks::Host;
use super::starters::Program;
use crate::machine::gpu::{GpuLibrary, Gpus};
use crate::terminal::text::quoted;

/// All that is amiss.
pub(super) fn problems(findings: &Findings) -> Vec<Problem> {
    let mut problems: Vec<Problem> = findings.ranks.problem.clone().into_iter().collect();
    let isa_wanted = std::env::var(ISA_VARIABLE).unwrap_or_default();
    problems.extend(of_instruction_set(&isa_wanted, Isa::chosen()));
    problems.extend(of_gpus(&findings.gpus));
    problems.extend(of_named_library(findings));
    if findings.ranks.launcher.is_none() {
        let is_named = findings.named_library.is_some();
        let programs = findings.starters.iter().filter_map(|starter| starter.program.as_ref());
        let of_programs = programs.filter_map(|program| of_program(program, is_named));
        // `mpiexec` and `mpirun` are the same program more often than not.
        problems.extend(of_programs.take(1));
    }
    problems.extend(findings.ranks.hosts.iter().filter_map(of_host));
    problems
}

fn of_instruction_set(wanted: &str, chosen: Isa) -> Option<Problem> {
    if !wanted.is_empty() && wanted != chosen.name() {
        let names: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
        return Some(Problem {
            what: format!("{ISA_VARIABLE}={wanted} is no instruction set of this machine"),
            remedy: format!("unset it, or choose one of: {}", names.join(", ")),
        });
    }
    (Isa::strongest() == Isa::Scalar).then(|| Problem {
        what: "the processor lacks AVX2 and FMA: training is many times slower".to_owned(),
        remedy:
            "take a machine that has them; in a virtual machine, have it show the host's processor"
                .to_owned(),
    })
}

/// A machine has a GPU or its driver, but the GPU cannot be used.
fn of_gpus(gpus: &Gpus) -> Option<Problem> {
    if !gpus.has_driver() {
        return gpus.has_card.then(|| Problem {
            what: "there is a card of NVIDIA, but no driver (libcuda.so.1) is found".to_owned(),
            remedy: "install the driver, or start the container with GPUs; or choose --device cpu"
                .to_owned(),
        });
    }
    let missing = gpus.libraries.iter().find(|library| library.is_needed && library.found.is_err());
    if let Some(GpuLibrary { title, found: Err(reason), .. }) = missing {
        return Some(Problem {
            what: format!("there is a driver for GPUs, but no {title}: {reason}"),
            remedy: "install it as docs/guide.md says under GPUs, or choose --device cpu"
                .to_owned(),
        });
    }
    let remedy = "see whether nvidia-smi lists it, and update the driver; or choose --device cpu";
    let reason = gpus.devices.as_ref().err().or(gpus.unusable.as_ref())?;
    let what = format!("there is a driver for GPUs, but no GPU can be used: {reason}");
    Some(Problem { what, remedy: remedy.to_owned() })
}

/// The library that the user has named cannot be opened.
fn of_named_library(findings: &Findings) -> Option<Problem> {
    let named = findings.named_library.as_ref().filter(|_| findings.ranks.problem.is_none())?;
    let tried = &findings.libraries.0;
    let found = tried.iter().any(|library| library.found.is_ok());
    (!found).then(|| Problem {
        what: format!("{LIBRARY_VARIABLE}={named}: no MPI library can be opened there"),
        remedy: "name the file of a library, such as /usr/lib/libmpi.so.40, or its folder; or unset the variable"
            .to_owned(),
    })
}

/// A program whose processes would not find each other. The user may have named a library.
fn of_program(program: &Program, is_named: bool) -> Option<Problem> {
    let mpiexec = &program.mpiexec;
    // A launcher that tells nothing of its MPI, as srun, takes whatever library there is.
    if mpiexec.family == Family::Unknown || program.fits() == Some(true) {
        return None;
    }
    let path = mpiexec.path.display();
    let what = match &program.library {
        None => format!("processes of {path} would open no MPI library"),
        Some(found) => {
            format!("processes of {path} would open {}, which is of another MPI", found.path)
        }
    };
    let remedy = match mpiexec.library() {
        Some(_) if is_named => {
            format!("unset {LIBRARY_VARIABLE}, and start with `bninception launch`")
        }
        Some(library) => format!(
            "start with `bninception launch`, or export {LIBRARY_VARIABLE}={}",
            quoted(&library)
        ),
        None => format!(
            "name the library of {} with {LIBRARY_VARIABLE}, or install it; without any, train in one process",
            mpiexec.family.name()
        ),
    };
    Some(Problem { what, remedy })
}

/// More ranks than cores.
fn of_host(host: &Host) -> Option<Problem> {
    let Host { name, n_ranks, cores } = host;
    (n_ranks > cores).then(|| Problem {
        what: format!("{n_ranks} ranks share {cores} cores on {name}: they hold each other up"),
        remedy: format!("start at most {cores} there"),
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn an_instruction_set_that_is_not_there_is_named() {
        let isa = Isa::chosen();
        assert_eq!(of_instruction_set(isa.name(), isa).is_some(), isa == Isa::Scalar);
        let problem = of_instruction_set("avx9000", isa).unwrap();
        assert!(problem.what.contains("avx9000") && problem.remedy.contains(isa.name()));
    }

    #[test]
    fn a_gpu_that_cannot_be_used_is_a_problem_where_there_is_a_card_or_a_driver() {
        let library = |title, is_there| GpuLibrary {
            title,
            is_needed: title != "NCCL",
            found: match is_there {
                true => Ok((PathBuf::from("/lib/it.so"), Some("1.2".to_owned()))),
                false => Err(format!("{title} is not found")),
            },
        };
        let no_gpu = || Err("no GPU".to_owned());
        // (driver, cuDNN, NCCL, devices, why the first cannot be used, part of what is said)
        for (libraries, devices, unusable, part) in [
            ([false, true, true], no_gpu(), None, Some("no driver")),
            ([true, true, false], Ok(vec![]), None, None),
            ([true, false, true], no_gpu(), None, Some("no cuDNN: cuDNN is not found")),
            ([true, true, true], no_gpu(), None, Some("no GPU can be used: no GPU")),
            ([true, true, true], Ok(vec![]), Some("too old"), Some("can be used: too old")),
        ] {
            let names = ["NVIDIA driver", "cuDNN", "NCCL"];
            let libraries = names.into_iter().zip(libraries);
            let gpus = Gpus {
                libraries: libraries.map(|(title, is_there)| library(title, is_there)).collect(),
                devices,
                unusable: unusable.map(str::to_owned),
                has_card: true,
            };
            // Without either there is nothing amiss.
            let nothing = Gpus { has_card: false, ..gpus.clone() };
            assert!(nothing.has_driver() || of_gpus(&nothing).is_none());
            let problem = of_gpus(&gpus).map(|problem| problem.what);
            match (&problem, part) {
                (None, None) => {}
                (Some(what), Some(part)) => assert!(what.contains(part), "{what}"),
                _ => panic!("{gpus:?}: {problem:?}"),
            }
        }
    }

    #[test]
    fn crowded_machines_are_named() {
        let host = |n_ranks| Host { name: "a".to_owned(), n_ranks, cores: 2 };
        assert_eq!(of_host(&host(2)), None);
        assert!(of_host(&host(3)).unwrap().what.contains("3 ranks share 2 cores"));
    }
}
