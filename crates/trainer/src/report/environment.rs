//! What a run was computed with, as its folder tells; and what is there now.

use std::fs;
use std::path::Path;

use crate::machine::processor::Processor;
use crate::run::metadata::{Metadata, PROGRAM};

/// What `train.log` tells of the machine and the program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunLogFacts {
    /// When a process began or went on with the run, and its command line, in their order.
    pub starts: Vec<(String, String)>,
    /// The engines that computed it, each once, in their order.
    pub engines: Vec<String>,
    /// Warnings, each once, in their order.
    pub warnings: Vec<String>,
}

impl RunLogFacts {
    /// What the file at `path` tells; nothing of one that cannot be read.
    pub fn read(path: &Path) -> RunLogFacts {
        let bytes = fs::read(path).unwrap_or_default();
        RunLogFacts::of_text(&String::from_utf8_lossy(&bytes))
    }

    fn of_text(text: &str) -> RunLogFacts {
        let mut facts = RunLogFacts::default();
        let add = |list: &mut Vec<String>, text: &str| {
            if !list.iter().any(|known| known == text) {
                list.push(text.to_owned());
            }
        };
        for line in text.lines() {
            let mut parts = line.splitn(2, ' ');
            let (time, rest) = (parts.next().unwrap_or(""), parts.next().unwrap_or("").trim());
            let Some((level, message)) = rest.split_once(' ') else { continue };
            let message = message.trim();
            let version = message.strip_prefix("bninception ").and_then(|m| m.split_once(": "));
            match (level, version) {
                ("INFO", Some((version, command)))
                    if version.starts_with(|c: char| c.is_ascii_digit()) =>
                {
                    facts.starts.push((time.to_owned(), format!("{version}: {command}")));
                }
                ("INFO", _) if is_engine(message) => add(&mut facts.engines, message),
                ("WARN", _) => add(&mut facts.warnings, message),
                _ => {}
            }
        }
        facts
    }
}

/// Whether a line is what an executor says of itself.
fn is_engine(message: &str) -> bool {
    ["fast engine, ", "reference engine (", "gpu engine, "].iter().any(|p| message.starts_with(p))
}

/// What the run was computed with, as pairs of a name and a value.
pub fn of_run(metadata: Option<&Metadata>, log: &RunLogFacts) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(metadata) = metadata {
        facts.push(("program", metadata.program.clone()));
        for since in &metadata.progress.devices {
            facts.push(("device", since_step(&since.device, since.step)));
        }
        for since in &metadata.progress.ranks {
            facts.push(("processes", since_step(&since.ranks.to_string(), since.step)));
        }
        facts.push(("number type", metadata.config.train.dtype.name().to_owned()));
    }
    facts.extend(log.engines.iter().map(|engine| ("engine", engine.clone())));
    facts
}

fn since_step(what: &str, step: u64) -> String {
    match step {
        0 => what.to_owned(),
        step => format!("{what}, from step {step} on"),
    }
}

/// The machine and the program that make the page.
pub fn now() -> Vec<(&'static str, String)> {
    let Processor { model, features, cores, usable_cores, .. } = Processor::of_machine();
    let mut facts = vec![("program", PROGRAM.to_owned())];
    facts.push(("system", format!("{} on {}", std::env::consts::OS, std::env::consts::ARCH)));
    facts.extend(model.map(|model| ("processor", model)));
    facts.push(("cores", format!("{usable_cores} of {cores} usable")));
    if !features.is_empty() {
        facts.push(("instructions", features.join(", ")));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_its_starts_and_its_engine() {
        let text = "2026-11-29T00:31:37.200603Z  INFO bninception 0.1.0: ./bn train --epochs 6\n\
                    2026-11-29T00:31:37.200834Z  INFO run folder checkpoints/a\n\
                    2026-11-29T00:31:37.200905Z  INFO fast engine, f32 on the CPU, avx2, 2 threads\n\
                    2026-11-29T00:31:37.200905Z  WARN a picture is odd\n\
                    2026-11-29T00:31:38.200905Z  WARN a picture is odd\n\
                    \n torn lin\n\
                    2026-11-30T00:31:37.200603Z  INFO bninception 0.1.0: ./bn resume checkpoints/a\n\
                    2026-11-30T00:31:37.200905Z  INFO fast engine, f32 on the CPU, avx2, 2 threads\n";
        let facts = RunLogFacts::of_text(text);
        assert_eq!(facts.starts.len(), 2);
        assert_eq!(facts.starts[1].1, "0.1.0: ./bn resume checkpoints/a");
        assert_eq!(facts.engines, ["fast engine, f32 on the CPU, avx2, 2 threads"]);
        assert_eq!(facts.warnings, ["a picture is odd"]);
        assert_eq!(RunLogFacts::read(Path::new("/nowhere/at/all")), RunLogFacts::default());
    }

    #[test]
    fn what_is_known_without_a_checkpoint_is_the_log() {
        let log = RunLogFacts { engines: vec!["fast engine, f32".into()], ..Default::default() };
        assert_eq!(of_run(None, &log), [("engine", "fast engine, f32".to_owned())]);
        assert!(now().iter().any(|(name, value)| *name == "program" && value == PROGRAM));
    }
}
