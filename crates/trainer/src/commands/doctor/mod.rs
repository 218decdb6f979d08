//! `doctor`.

mod diagnosis;
mod findings;
mod gpu;
mod libraries;
mod problem;
mod ranks;
mod report;
mod starters;

use std::env;

use bninception_collective::{LIBRARY_VARIABLE, Launcher};

use self::findings::Findings;
use self::libraries::Libraries;
use self::ranks::Ranks;
use self::starters::Starter;
use crate::cli::DoctorArgs;
use crate::commands::print;
use crate::error::Error;
use crate::machine::control_group::GroupLimits;
use crate::machine::gpu::Gpus;
use crate::machine::processor::Processor;
use crate::training::memory_limit::{free_memory, total_memory};

pub(super) fn doctor(args: &DoctorArgs) -> Result<(), Error> {
    if let Some(library) = &args.open {
        return libraries::open(library);
    }
    let processor = Processor::of_machine();
    let mut libraries = Libraries::default();
    let ranks = Ranks::join(&mut libraries, processor.cores);
    if !ranks.is_first {
        return Ok(());
    }
    for name in Launcher::library_names(ranks.launcher) {
        libraries.library(&name);
    }
    let findings = Findings {
        processor,
        limits: GroupLimits::of_process(),
        total_memory: total_memory(),
        free_memory: free_memory(),
        gpus: Gpus::of_machine(),
        ranks,
        named_library: env::var(LIBRARY_VARIABLE).ok().filter(|name| !name.is_empty()),
        starters: Starter::on_path(&mut libraries),
        libraries,
    };
    let problems = diagnosis::problems(&findings);
    if args.json {
        print::json(&report::to_json(&findings, &problems))?;
    } else {
        print::text(&report::to_text(&findings, &problems))?;
    }
    match &findings.ranks.problem {
        None => Ok(()),
        Some(problem) => Err(Error::Unusable(format!("{}; {}", problem.what, problem.remedy))),
    }
}
