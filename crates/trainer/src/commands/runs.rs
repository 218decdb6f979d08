//! `runs`: what lies in a folder of runs; `runs prune`: less of it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::cli::{RunsArgs, RunsCommand, RunsPruneArgs};
use crate::commands::print;
use crate::comparison::inventory::{RunEntry, RunStatus};
use crate::comparison::pruning::{Pruning, file_name};
use crate::comparison::run_search::find_runs;
use crate::config::{Sources, resolve};
use crate::error::Error;
use crate::terminal::color::{Accent, mark_commands};
use crate::terminal::output::with_path;
use crate::terminal::text::{bytes, counted, percent, quoted, table};

pub(super) fn runs(args: &RunsArgs) -> Result<(), Error> {
    match &args.command {
        Some(RunsCommand::Prune(args)) => prune(args),
        None => list(args),
    }
}

/// The folder named, or the one in which runs are by default.
fn folder(named: Option<&PathBuf>) -> Result<PathBuf, Error> {
    match named {
        Some(dir) => Ok(dir.clone()),
        None => Ok(PathBuf::from(resolve(&Sources::default())?.config.checkpoint.dir)),
    }
}

fn entries(dir: &Path) -> Result<Vec<RunEntry>, Error> {
    Ok(find_runs(dir)?.iter().map(|path| RunEntry::of(path)).collect())
}

fn list(args: &RunsArgs) -> Result<(), Error> {
    let dir = folder(args.dir.as_ref())?;
    let entries = entries(&dir)?;
    if args.json {
        let runs: Vec<Value> = entries.iter().map(to_json).collect();
        return print::json(&json!({ "runs": runs }));
    }
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|run| {
            vec![
                run.folder.path().display().to_string(),
                or_dash(Some(run.preset.clone()).filter(|preset| !preset.is_empty())),
                painted(&run.status),
                or_dash(run.best_top1.map(percent)),
                or_dash(run.steps.map(|(step, total)| format!("{step}/{total}"))),
                or_dash(run.date.map(date)),
                bytes(run.bytes),
            ]
        })
        .collect();
    let header = ["run", "preset", "state", "best top-1", "step", "date (UTC)", "size"];
    let mut text = table(&header, &rows);
    for run in &entries {
        if let RunStatus::Damaged(reason) = &run.status {
            text.push_str(&format!("{}: {reason}\n", Accent::Bad.paint("damaged")));
        }
    }
    let all: u64 = entries.iter().map(|run| run.bytes).sum();
    text.push_str(&format!("{}, {}", counted(entries.len() as u64, "run"), bytes(all)));
    let free: u64 = removable(&entries)?.iter().map(|pruning| pruning.bytes).sum();
    if free > 0 {
        let free = bytes(free);
        text.push_str(&format!(
            "; {free} are earlier checkpoints: bninception runs prune {}",
            quoted(&dir)
        ));
    }
    print::text(&mark_commands(&text, |command| Accent::Command.paint(command)))
}

/// How a run stands, for stdout.
fn painted(status: &RunStatus) -> String {
    let tone = match status {
        RunStatus::Training => Accent::Active,
        RunStatus::Finished => Accent::Good,
        RunStatus::Stopped => Accent::Caution,
        RunStatus::Diverged | RunStatus::Damaged(_) => Accent::Bad,
    };
    tone.paint(status.name())
}

fn to_json(run: &RunEntry) -> Value {
    let reason = match &run.status {
        RunStatus::Damaged(reason) => Some(reason),
        _ => None,
    };
    let about = json!({
        "preset": Some(&run.preset).filter(|preset| !preset.is_empty()),
        "state": run.status.name(),
        "reason": reason,
        "best_top1": run.best_top1,
        "step": run.steps.map(|(step, _)| step),
        "steps": run.steps.map(|(_, total)| total),
        "date": run.date.map(|date| humantime::format_rfc3339_seconds(date).to_string()),
        "bytes": run.bytes,
    });
    with_path("run", run.folder.path(), about)
}

/// `2026-11-28 00:40`
fn date(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.chars().take(16).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// What can go of all runs.
fn removable(entries: &[RunEntry]) -> Result<Vec<Pruning>, Error> {
    let mut all = found(entries)?;
    all.retain(|pruning| pruning.kept.is_none());
    Ok(all)
}

fn found(entries: &[RunEntry]) -> Result<Vec<Pruning>, Error> {
    let mut all = Vec::new();
    for run in entries {
        all.extend(Pruning::of(run)?);
    }
    Ok(all)
}

fn prune(args: &RunsPruneArgs) -> Result<(), Error> {
    let dir = folder(args.dir.as_ref())?;
    let mut all = found(&entries(&dir)?)?;
    if args.yes {
        for pruning in all.iter_mut().filter(|pruning| pruning.kept.is_none()) {
            if let Err(error) = pruning.carry_out() {
                pruning.kept = Some(error.to_string());
            }
        }
    }
    let (gone, kept): (Vec<&Pruning>, Vec<&Pruning>) =
        all.iter().partition(|pruning| pruning.kept.is_none());
    let free: u64 = gone.iter().map(|pruning| pruning.bytes).sum();
    if args.json {
        let one = |pruning: &&Pruning| {
            let files: Vec<String> = pruning.files.iter().map(|path| file_name(path)).collect();
            let about = json!({ "files": files, "bytes": pruning.bytes, "kept": pruning.kept });
            with_path("run", pruning.folder.path(), about)
        };
        let runs: Vec<Value> = all.iter().map(|pruning| one(&pruning)).collect();
        return print::json(&json!({ "removed": args.yes, "bytes": free, "runs": runs }));
    }
    let mut text = String::new();
    for pruning in &gone {
        for path in &pruning.files {
            text.push_str(&format!("{}\n", path.display()));
        }
    }
    for pruning in &kept {
        let run = pruning.folder.path().display();
        let reason = pruning.kept.as_deref().unwrap_or_default();
        text.push_str(&format!("{run} is left as it is: {reason}\n"));
    }
    let n_files: usize = gone.iter().map(|pruning| pruning.files.len()).sum();
    let files = counted(n_files as u64, "file");
    text.push_str(&match (n_files, args.yes) {
        (0, _) => "there is no checkpoint of an epoch to remove".to_owned(),
        (_, true) => format!("removed {files}, which took {}", bytes(free)),
        (_, false) => format!(
            "{files} would go, which take {}; each run keeps its last and its best checkpoint. Remove \
             them with: bninception runs prune {} --yes",
            bytes(free),
            quoted(&dir)
        ),
    });
    print::text(&mark_commands(&text, |command| Accent::Command.paint(command)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_short() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_826_459);
        assert_eq!(date(time), "2026-11-28 00:40");
    }
}
