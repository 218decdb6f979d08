//! `compare`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::cli::CompareArgs;
use crate::commands::print;
use crate::comparison::recorded_run::{RecordedRun, find_runs};
use crate::comparison::{Comparison, tables};
use crate::error::Error;
use crate::images::own_images::check_outside_of_run;
use crate::terminal::text::table;

pub(super) fn compare(args: &CompareArgs) -> Result<(), Error> {
    let runs = read_runs(&args.runs)?;
    if let Some(dir) = &args.out {
        runs.iter().try_for_each(|run| check_outside_of_run(&run.folder, dir, "--out"))?;
    }
    let comparison = Comparison::new(runs, args.baseline.as_deref())?;
    warn_of_differences(&comparison);
    if let Some(dir) = &args.out {
        tables::write_files(&comparison, dir)?;
        tracing::info!(
            "wrote compare.svg, compare.png, compare.csv and compare.md, and watch.svg and watch.png if \
             layers were watched, to {}",
            dir.display()
        );
    }
    if args.json {
        return print::json(&comparison.to_json());
    }
    let (header, rows) = tables::table(&comparison);
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    print::text(&format!("{}\n{}", table(&header, &rows), tables::notes(&comparison)))
}

/// Reads every run once. One that is named itself must have been evaluated; one that was found in a
/// folder may have just begun.
fn read_runs(arguments: &[PathBuf]) -> Result<Vec<RecordedRun>, Error> {
    let mut runs = Vec::new();
    let mut seen = BTreeSet::new();
    let mut n_begun = 0;
    for argument in arguments {
        for path in find_runs(argument)? {
            if !seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
                continue;
            }
            let run = RecordedRun::read(&path)?;
            let is_empty = run.evaluations.is_empty() && !run.diverged;
            if is_empty && path == *argument {
                return Err(Error::Unusable(format!(
                    "{} has no evaluation yet: a run evaluates after every epoch, if there are \
                     validation images; wait for the first, or leave this run out",
                    path.display()
                )));
            }
            if is_empty {
                tracing::warn!("{} is left out: it has no evaluation yet", path.display());
                n_begun += 1;
                continue;
            }
            runs.push(run);
        }
    }
    if runs.is_empty() {
        return Err(Error::Unusable(format!(
            "no run found has an evaluation yet ({n_begun} begun); wait for the end of an epoch"
        )));
    }
    Ok(runs)
}

fn warn_of_differences(comparison: &Comparison) {
    let runs = || comparison.models.iter().flat_map(|model| &model.runs);
    let images: BTreeSet<u64> = runs()
        .flat_map(|run| run.evaluations.iter().map(|row| row.images))
        .filter(|&images| images > 0)
        .collect();
    if images.len() > 1 {
        let images: Vec<String> = images.iter().map(u64::to_string).collect();
        tracing::warn!(
            "not all evaluations are of the same images: they are of {} images",
            images.join(", ")
        );
    }
    let intervals: BTreeSet<u64> = comparison
        .models
        .iter()
        .map(|model| model.longest_interval())
        .filter(|&interval| interval > 0)
        .collect();
    if intervals.len() > 1 {
        tracing::warn!(
            "the runs were evaluated at different intervals: steps are known to the number in \
             the column `evaluated every`"
        );
    }
}
