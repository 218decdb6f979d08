//! A comparison as tables: text, Markdown and CSV, with its figures beside them.

use std::fs;
use std::path::Path;

use super::{Comparison, Spread};
use crate::comparison::watch_figure::watch_figure;
use crate::error::Error;
use crate::file_error::FileError;
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

/// Writes figures, CSV and Markdown into `dir`, which is made if it is missing.
///
/// # Errors
/// A figure without a point, or a file that cannot be written.
pub fn write_files(comparison: &Comparison, dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(FileError::of("create", dir))?;
    let figure = comparison.figure();
    figure.write_svg(&dir.join("compare.svg"))?;
    figure.write_png(&dir.join("compare.png"))?;
    // One run of each model that watched layers.
    let watched = comparison.models.iter().filter_map(|model| {
        let run = model.runs.iter().find(|run| !run.watched.is_empty())?;
        Some((model.name.clone(), run))
    });
    if let Some(figure) = watch_figure(&watched.collect::<Vec<_>>()) {
        figure.write_svg(&dir.join("watch.svg"))?;
        figure.write_png(&dir.join("watch.png"))?;
    }
    for (name, text) in [("compare.csv", csv(comparison)), ("compare.md", markdown(comparison))] {
        let path = dir.join(name);
        fs::write(&path, text).map_err(FileError::of("write", &path))?;
    }
    Ok(())
}

fn markdown(comparison: &Comparison) -> String {
    let (header, rows) = table(comparison);
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = format!("|---{}|\n", "|---:".repeat(header.len() - 1));
    let rows: String = rows.iter().map(|row| line(row)).collect();
    format!(
        "{}{rule}{rows}\n{}\n\n![validation accuracy against training steps](compare.svg)\n",
        line(&header),
        notes(comparison)
    )
}

/// A row for each run; a model's numbers are means over its rows.
fn csv(comparison: &Comparison) -> String {
    let mut text = "model,preset,run,seed,lr,is_baseline,target_top1,steps_to_target,best_top1,\
                    best_step,evaluated_every,last_step,diverged\n"
        .to_owned();
    for (index, model) in comparison.models.iter().enumerate() {
        for (run, steps) in model.runs.iter().zip(comparison.steps_of_seeds(index)) {
            let best = run.best();
            let cell = |value: Option<String>| value.unwrap_or_default();
            let cells = [
                quoted(&model.name),
                model.preset.to_owned(),
                quoted(&run.folder.path().display().to_string()),
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
            ];
            text.push_str(&cells.join(","));
            text.push('\n');
        }
    }
    text
}

/// A cell of CSV (RFC 4180).
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_with_commas_are_quoted() {
        for (text, cell) in [("a-b", "a-b"), ("a,b", "\"a,b\""), ("a\"b", "\"a\"\"b\"")] {
            assert_eq!(quoted(text), cell);
        }
    }
}
