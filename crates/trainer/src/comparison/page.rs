//! A page on one run, with its curves.

use std::fs;
use std::path::{Path, PathBuf};

use crate::comparison::epoch_rows::EpochRow;
use crate::comparison::recorded_run::{EvalRow, RecordedRun, TrainingRow};
use crate::comparison::watch_figure::watch_figure;
use crate::error::Error;
use crate::evaluation::interval::Interval;
use crate::figure::{Axis, Figure, Panel, Series, Weight};
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
    if let Some(figure) = watch_figure(&[(folder_name(folder), run)]) {
        figure.write_svg(&folder.join("watch.svg"))?;
        figure.write_png(&folder.join("watch.png"))?;
    }
    let path = folder.join("report.md");
    fs::write(&path, to_text(run)?).map_err(FileError::of("write", &path))?;
    Ok(path)
}

/// Loss, top-1 and learning rate against steps. Of training, the means of the epochs lie above the lines
/// of the log, which are thin then.
pub fn curves(run: &RecordedRun) -> Figure {
    let training = |value: fn(&TrainingRow) -> f64| {
        run.training.iter().map(|row| (row.step as f64, value(row))).collect()
    };
    let epochs = |value: fn(&EpochRow) -> f64| {
        run.epochs.iter().map(|row| (row.step as f64, value(row))).collect()
    };
    let validation = |value: fn(&EvalRow) -> f64| {
        run.evaluations.iter().map(|row| (row.step as f64, value(row))).collect()
    };
    let series = |name: &str, points: Vec<(f64, f64)>, colour: usize| Series {
        name: name.to_owned(),
        points,
        colour,
        ..Series::default()
    };
    let panel = |title: &str, y: Axis, series: Vec<Series>| Panel {
        title: title.to_owned(),
        x: Axis::new("training steps"),
        y,
        series,
        ..Panel::default()
    };
    let (train, val) = ("training", "validation");
    let of_training = |lines: Vec<(f64, f64)>, means: Vec<(f64, f64)>| match means.len() {
        // One mean is a dot, and no line to follow.
        0 | 1 => vec![series(train, if lines.is_empty() { means } else { lines }, 5)],
        _ => vec![Series { weight: Weight::Thin, ..series("", lines, 5) }, series(train, means, 5)],
    };
    let losses = run.evaluations.iter().map(|row| row.loss);
    let losses = losses.chain(run.training.iter().map(|row| row.loss));
    let panels = vec![
        panel(
            "loss",
            loss_axis("loss in nats", losses),
            [
                of_training(training(|row| row.loss), epochs(|row| row.train_loss)),
                vec![series(val, validation(|row| row.loss), 1)],
            ]
            .concat(),
        ),
        panel(
            "accuracy",
            Axis::new("top-1").percent(),
            [
                of_training(training(|row| row.top1), epochs(|row| row.train_top1)),
                vec![series(val, validation(|row| row.top1), 1)],
            ]
            .concat(),
        ),
        panel(
            "learning rate",
            Axis::new("learning rate"),
            // The axis says what it is.
            vec![series(
                "",
                match run.epochs.len() > run.training.len() {
                    true => epochs(|row| row.lr),
                    false => training(|row| row.lr),
                },
                0,
            )],
        ),
    ];
    Figure { title: folder_name(run.folder.path()), panels }
}

/// How many classes a run has, if its folder says so.
fn n_classes(run: &RecordedRun) -> Option<usize> {
    let names = fs::read_to_string(run.folder.classes()).ok()?;
    Some(names.lines().count())
}

/// The axis of losses: logarithmic where one is more than ten times another, so that a few that ran away do
/// not press all others to the floor.
pub fn loss_axis(label: &str, losses: impl Iterator<Item = f64>) -> Axis {
    let losses = losses.filter(|loss| loss.is_finite() && *loss > 0.0);
    let (least, most) = losses
        .fold((f64::INFINITY, 0.0_f64), |(least, most), loss| (least.min(loss), most.max(loss)));
    match most > 10.0 * least {
        true => Axis::new(&format!("{label} (logarithmic)")).log(),
        false => Axis::new(label),
    }
}

fn to_text(run: &RecordedRun) -> Result<String, Error> {
    let folder = run.folder.path();
    let (preset, changes) = run.preset()?;
    let config = &run.config;
    let mut text = format!("# {}\n\n", folder_name(folder));

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

/// The name of a folder, of `.` too.
pub fn folder_name(folder: &Path) -> String {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    match whole.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => whole.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Scale;

    #[test]
    fn losses_far_apart_get_a_logarithmic_axis() {
        for (losses, scale) in [
            (&[][..], Scale::Linear),
            (&[0.5, 5.0], Scale::Linear),
            (&[0.5, 5.1], Scale::Log),
            (&[2.0, f64::NAN, 1e20], Scale::Log),
            (&[0.0, f64::INFINITY, 2.0], Scale::Linear),
        ] {
            assert_eq!(loss_axis("loss", losses.iter().copied()).scale, scale, "{losses:?}");
        }
    }
}
