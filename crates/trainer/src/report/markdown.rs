//! A page on one run as Markdown, with its curves as figures beside it.

use std::fs;
use std::path::PathBuf;

use crate::comparison::curves::curves;
use crate::comparison::recorded_run::RecordedRun;
use crate::comparison::watch_figure::watch_figure;
use crate::error::Error;
use crate::evaluation::interval::Interval;
use crate::file_error::FileError;
use crate::images::own_images::check_outside_of_run;
use crate::terminal::loss::{loss_number, loss_text};
use crate::terminal::text::{has_top5, percent, quoted};

/// Writes `report.md`, and the figures that it shows: `curves`, and `watch` where layers were watched.
/// Gives the page's path.
pub fn write(run: &RecordedRun) -> Result<PathBuf, Error> {
    let folder = run.folder.path();
    check_outside_of_run(&run.folder, folder, &format!("mv {}", quoted(folder)))?;
    if run.is_empty() {
        return Err(Error::Unusable(format!(
            "{} has recorded nothing yet; wait for its first log line, a fifth of an epoch at most",
            folder.display()
        )));
    }
    let figure = curves(run);
    figure.write_svg(&folder.join("curves.svg"))?;
    figure.write_png(&folder.join("curves.png"))?;
    if let Some(figure) = watch_figure(&[(run.folder.name(), run)]) {
        figure.write_svg(&folder.join("watch.svg"))?;
        figure.write_png(&folder.join("watch.png"))?;
    }
    let path = folder.join("report.md");
    fs::write(&path, to_text(run)?).map_err(FileError::of("write", &path))?;
    Ok(path)
}

/// How many classes a run has, if its folder says so.
fn n_classes(run: &RecordedRun) -> Option<usize> {
    let names = fs::read_to_string(run.folder.classes()).ok()?;
    Some(names.lines().count())
}

fn to_text(run: &RecordedRun) -> Result<String, Error> {
    let folder = run.folder.path();
    let (preset, changes) = run.preset()?;
    let config = &run.config;
    let mut text = format!("# {}\n\n", run.folder.name());

    text.push_str(&format!(
        "{}: `{preset}`. Images of {} px from {}, batches of {}, seed {}.\n",
        if run.recipe.is_unknown() { "Nearest preset" } else { "Preset" },
        config.data.image_size,
        match config.data.dir.as_str() {
            "" => "the embedded pictures".to_owned(),
            dir => format!("`{dir}`"),
        },
        config.train.batch_size,
        config.train.seed,
    ));
    if run.diverged {
        text.push_str("\n**The run has diverged**: its loss ceased to be a finite number.\n");
    }

    text.push_str("\n## Result\n\n");
    match (run.best(), run.evaluations.last()) {
        (Some(best), Some(last)) => {
            let n_classes = n_classes(run);
            let shows_top5 = n_classes.is_none_or(has_top5);
            let (title, line) = if shows_top5 { (" top-5 |", "---:|") } else { ("", "") };
            text.push_str(&format!(
                "| evaluation | step | epoch | images | top-1 | 95 % |{title} loss |\n\
                 |---|---:|---:|---:|---:|---:|{line}---:|\n"
            ));
            for (which, row) in [("best", best), ("last", last)] {
                let interval = Interval::of_rate(row.top1, row.images);
                let top5 = match shows_top5 {
                    true => format!(" {} |", percent(row.top5)),
                    false => String::new(),
                };
                text.push_str(&format!(
                    "| {which} | {} | {:.2} | {} | {} | {} |{top5} {} |\n",
                    row.step,
                    row.epoch,
                    row.images,
                    percent(row.top1),
                    interval.map_or_else(String::new, |found| found.to_text()),
                    loss_text(row.loss, n_classes.unwrap_or(0)),
                ));
            }
        }
        _ => text.push_str("Nothing has been evaluated yet.\n"),
    }
    if let Some(row) = run.training.last() {
        text.push_str(&format!(
            "\nTraining is at step {}: loss {}, top-1 {} of the latest training images, learning \
             rate {:.3e}.\n",
            row.step,
            loss_number(row.loss),
            percent(row.top1),
            row.lr
        ));
    }
    text.push_str("\n![loss, accuracy and learning rate](curves.svg)\n");
    if !run.watched.is_empty() {
        text.push_str("\n![inputs of the watched nonlinearities](watch.svg)\n");
    }

    text.push_str(&format!("\n## Settings that differ from `{preset}`\n\n"));
    match changes.is_empty() {
        true => text.push_str("None.\n"),
        false => {
            text.push_str("| setting | preset | this run |\n|---|---|---|\n");
            for change in changes {
                let (key, old, new) = (change.key, change.old, change.new);
                text.push_str(&format!("| `{key}` | `{old}` | `{new}` |\n"));
            }
        }
    }
    text.push_str("\nAll settings stand in [config.toml](config.toml).\n");

    let checkpoint = run.folder.best_or_last().unwrap_or_else(|| run.folder.last());
    text.push_str(&format!(
        "\n## Go on\n\n```\nbninception resume {}\nbninception eval {}\n\
         bninception predict {} IMAGE...\n```\n",
        quoted(folder),
        quoted(&checkpoint),
        quoted(&checkpoint)
    ));
    Ok(text)
}
