//! Figure 3 of the paper as tables: text and CSV.

use std::fs::File;

use super::{Comparison, Spread};
use crate::terminal::text::{percent, whole};

/// The table's header and rows, a row for each model.
pub fn table(comparison: &Comparison) -> (Vec<String>, Vec<Vec<String>>) {
    let header = [
        "model",
        "learning rate",
        "seeds",
        &format!("steps to {}", percent(comparison.target)),
        "times fewer",
        "best top-1",
        "at step",
        "evaluated every",
        "until step",
    ];
    let rows = comparison.models.iter().enumerate().map(|(index, model)| {
        let steps = match comparison.steps_to_target(index) {
            Some(steps) => spread(steps, whole),
            None => match comparison.steps_of_seeds(index).iter().flatten().count() {
                0 => "-".to_owned(),
                n_reached => format!("- ({n_reached} of {} seeds)", model.runs.len()),
            },
        };
        let diverged = match (model.n_diverged(), model.runs.len()) {
            (0, _) => String::new(),
            (n, all) if n == all => " (diverged)".to_owned(),
            (n, all) => format!(" ({n} of {all} diverged)"),
        };
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        vec![
            format!("{}{diverged}", model.name),
            model.lr().to_string(),
            model.runs.len().to_string(),
            steps,
            or_dash(comparison.ratio(index).map(|ratio| format!("{ratio:.1}"))),
            or_dash(model.best_top1().map(|top1| spread(top1, percent))),
            or_dash(model.best_step().map(|step| spread(step, whole))),
            whole(model.longest_interval() as f64),
            whole(model.last_step() as f64),
        ]
    });
    (header.map(str::to_owned).to_vec(), rows.collect())
}

/// What the numbers of the table are.
pub fn notes(comparison: &Comparison) -> String {
    let baseline = &comparison.models[comparison.baseline];
    let several = comparison.models.iter().any(|model| model.runs.len() > 1);
    let of_seeds = match baseline.runs.len() {
        1 => String::new(),
        n => format!(", the mean over its {n} seeds"),
    };
    let mut text = format!(
        "Baseline: {}, whose best top-1 is {}{of_seeds}. Steps are those of the first evaluation with \
         that top-1 or more; for the baseline, those to its best. Times fewer: the baseline's steps \
         divided by the model's.",
        baseline.name,
        percent(comparison.target),
    );
    if several {
        text.push_str(" Several seeds: mean (least to greatest).");
    }
    if comparison.has_other_steps() {
        text.push_str(
            " Not all models have one image size and batch size: their steps are not equal work, and times \
             fewer tells of steps alone.",
        );
    }
    text
}

/// The mean, with the least and the greatest where they differ.
fn spread(spread: Spread, write: impl Fn(f64) -> String) -> String {
    match spread.min == spread.max {
        true => write(spread.mean),
        false => {
            let (mean, min, max) = (write(spread.mean), write(spread.min), write(spread.max));
            format!("{mean} ({min} to {max})")
        }
    }
}

/// A row for each run; a model's numbers are means over its rows.
///
/// # Errors
/// The file cannot be written.
pub fn csv(comparison: &Comparison, table: &mut csv::Writer<File>) -> csv::Result<()> {
    table.write_record([
        "model",
        "preset",
        "run",
        "seed",
        "lr",
        "is_baseline",
        "target_top1",
        "steps_to_target",
        "best_top1",
        "best_step",
        "evaluated_every",
        "last_step",
        "diverged",
    ])?;
    for (index, model) in comparison.models.iter().enumerate() {
        for (run, steps) in model.runs.iter().zip(comparison.steps_of_seeds(index)) {
            let best = run.most_right();
            let cell = |value: Option<String>| value.unwrap_or_default();
            table.write_record([
                model.name.clone(),
                model.preset.to_owned(),
                run.folder.path().display().to_string(),
                run.config.train.seed.to_string(),
                model.lr().to_string(),
                (index == comparison.baseline).to_string(),
                comparison.target.to_string(),
                cell(steps.map(|steps| steps.to_string())),
                cell(best.map(|row| row.top1.to_string())),
                cell(best.map(|row| row.step.to_string())),
                run.longest_interval().to_string(),
                cell(run.evaluations.last().map(|row| row.step.to_string())),
                run.diverged.to_string(),
            ])?;
        }
    }
    Ok(())
}
