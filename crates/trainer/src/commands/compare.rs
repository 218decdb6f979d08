//! `compare`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cli::CompareArgs;
use crate::commands::print;
use crate::comparison::recorded_run::RecordedRun;
use crate::comparison::run_search::find_all_runs;
use crate::comparison::run_table::{DIVERGED, RunTable};
use crate::comparison::{Comparison, files, tables};
use crate::config::ConfigError;
use crate::error::Error;
use crate::images::own_images::check_outside_of_run;
use crate::terminal::color::Accent;
use crate::terminal::text::table;

/// The preset whose run brings the paper's figure 3.
const PAPER_PRESET: &str = "inception";

pub(super) fn compare(args: &CompareArgs) -> Result<(), Error> {
    let runs = read_runs(&args.runs)?;
    if let Some(dir) = &args.out {
        runs.iter().try_for_each(|run| check_outside_of_run(&run.folder, dir, "--out"))?;
    }
    let run_table = RunTable::new(&runs)?;
    let figure3 = figure3(&runs, args.baseline.as_deref())?;
    warn_of_differences(&runs, figure3.as_ref());
    if let Some(dir) = &args.out {
        let names = files::write(&runs, &run_table, figure3.as_ref(), dir)?;
        tracing::info!("wrote {} to {}", names.join(", "), dir.display());
    }
    if args.json {
        let mut all = json!({ "runs": run_table.to_json() });
        if let (Value::Object(all), Some(figure3)) = (&mut all, figure3)
            && let Value::Object(figure3) = figure3.to_json()
        {
            all.extend(figure3);
        }
        return print::json(&all);
    }
    let as_text = |(header, rows): (Vec<String>, Vec<Vec<String>>)| {
        table(&header.iter().map(String::as_str).collect::<Vec<_>>(), &rows)
    };
    let mut text = as_text(marked(&run_table));
    match run_table.settings() {
        Some(settings) => text.push_str(&format!("\n{}", as_text(settings))),
        None if runs.len() > 1 => text.push_str("\nThe runs differ in no setting that counts.\n"),
        None => {}
    }
    text.push_str(&format!("\n{}\n", run_table.notes()));
    if let Some(figure3) = figure3 {
        text.push_str(&format!(
            "\n{}\n{}",
            as_text(tables::table(&figure3)),
            tables::notes(&figure3)
        ));
    }
    print::text(&text)
}

/// The table of results, with the best top-1 and what diverged marked by colour.
fn marked(run_table: &RunTable<'_>) -> (Vec<String>, Vec<Vec<String>>) {
    let (header, mut rows) = run_table.results();
    let column = header.iter().position(|title| title == "best top-1");
    if let (Some(row), Some(column)) = (run_table.best(), column) {
        rows[row][column] = Accent::Good.paint(&rows[row][column]);
    }
    for row in &mut rows {
        if let Some(name) = row[0].strip_suffix(DIVERGED) {
            row[0] = format!("{name}{}", Accent::Bad.paint(DIVERGED));
        }
    }
    (header, rows)
}

/// The paper's figure 3, if a baseline is named or a run of the paper's Inception is there. Runs without an
/// evaluation have no part in it.
fn figure3(runs: &[RecordedRun], baseline: Option<&str>) -> Result<Option<Comparison>, Error> {
    let has_paper_run = || -> Result<bool, ConfigError> {
        for run in runs {
            if run.most_right().is_some() && run.preset()?.0 == PAPER_PRESET {
                return Ok(true);
            }
        }
        Ok(false)
    };
    if baseline.is_none() && !has_paper_run()? {
        return Ok(None);
    }
    let known = runs.iter().filter(|run| !run.evaluations.is_empty() || run.diverged);
    match (Comparison::new(known.cloned().collect(), baseline), baseline) {
        (Ok(comparison), _) => Ok(Some(comparison)),
        (Err(error), Some(_)) => Err(error),
        (Err(error), None) => {
            tracing::warn!("without the paper's figure 3: {error}");
            Ok(None)
        }
    }
}

/// Reads every run once. One that is named itself must have recorded something; one that was found in a
/// folder may have just begun.
fn read_runs(arguments: &[PathBuf]) -> Result<Vec<RecordedRun>, Error> {
    let mut runs = Vec::new();
    let mut n_begun = 0;
    for path in find_all_runs(arguments)? {
        let run = RecordedRun::read(&path)?;
        let is_empty = run.is_empty() && !run.diverged;
        if is_empty && arguments.contains(&path) {
            return Err(Error::Unusable(format!(
                "{} has recorded nothing yet; wait for the end of its first epoch, or leave this run out",
                path.display()
            )));
        }
        if is_empty {
            tracing::warn!("{} is left out: it has recorded nothing yet", path.display());
            n_begun += 1;
            continue;
        }
        runs.push(run);
    }
    if runs.is_empty() {
        return Err(Error::Unusable(format!(
            "no run found has recorded anything yet ({n_begun} begun); wait for the end of an epoch"
        )));
    }
    Ok(runs)
}

fn warn_of_differences(runs: &[RecordedRun], figure3: Option<&Comparison>) {
    let images: BTreeSet<u64> = runs
        .iter()
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
    let models = figure3.into_iter().flat_map(|comparison| &comparison.models);
    let intervals: BTreeSet<u64> =
        models.map(|model| model.longest_interval()).filter(|&interval| interval > 0).collect();
    if intervals.len() > 1 {
        tracing::warn!(
            "the runs were evaluated at different intervals: steps are known to the number in \
             the column `evaluated every`"
        );
    }
}
