//! `lr-find`: a learning rate for a run, by a range test.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bninception_data::FileSource;
use serde_json::json;

use super::plan::{Drawing, RunPlan};
use super::run;
use crate::cli::LrFindArgs;
use crate::commands::print;
use crate::distributed::Ranks;
use crate::error::Error;
use crate::figure::{Axis, Direction, Figure, Mark, Panel, Series, Weight};
use crate::file_error::FileError;
use crate::setup;
use crate::terminal::csv_file;
use crate::terminal::output::with_path;
use crate::terminal::signals;
use crate::terminal::text::counted;
use crate::training::lr_choice::{LrSuggestion, NoSuggestion, smoothed, suggest};
use crate::training::range_test::{RangePoint, RateRange, range_test};
use crate::training::resources::Room;
use crate::training::trial::Trial;

/// Name of the folder inside `checkpoint.dir` that gets figure and table.
const FOLDER: &str = "lr-find";

/// A test that was made, and what comes of it.
struct LrTest {
    points: Vec<RangePoint>,
    suggestion: Result<LrSuggestion, NoSuggestion>,
    /// The command that trains at the suggested rate.
    command: Option<String>,
}

pub(super) fn lr_find(args: &LrFindArgs) -> Result<(), Error> {
    if !(args.from.is_finite() && args.to.is_finite() && 0.0 < args.from && args.from < args.to) {
        return Err(Error::Usage(format!(
            "--from {} --to {}: expected two rates above 0, the first below the last",
            args.from, args.to
        )));
    }
    signals::listen()?;
    let mut plan = RunPlan::of(&args.config, Drawing::Dropped, &mut Ranks::alone())?;
    let out = args.out.clone();
    let out = out.unwrap_or_else(|| Path::new(&plan.config.checkpoint.dir).join(FOLDER));
    plan.dirs.check_apart(&out, "--out")?;
    let n_images = plan.splits.train.len();
    Room::of_memory(&plan.config, &plan.table, plan.placed.executor.as_mut(), n_images)?;

    let (steps_per_epoch, _) = setup::steps(&plan.config, n_images);
    let n_steps = steps_per_epoch.min(args.most_steps);
    let range = RateRange { from: args.from, to: args.to, n_steps };
    tracing::info!("recipe {}", plan.recipe);
    tracing::info!(
        "trying rates from {} to {} in {} at most, on {} of {}",
        range.from,
        range.to,
        counted(n_steps, "update"),
        n_steps * plan.config.train.images_per_update() as u64,
        counted(n_images as u64, "training image")
    );
    let decode = setup::decode_options(&plan.config);
    let source = Arc::new(FileSource::new(plan.splits.train.clone(), decode)?);
    let n_batches = n_steps * plan.config.train.accumulate as u64;
    let weights = run::class_weights(&plan.config, &plan.splits)?;
    let state = plan.first_state(false);
    let executor = plan.placed.executor.as_mut();
    let mut trial = Trial::start(&plan.config, executor, state, source, weights, n_batches)?;
    let points = range_test(&mut trial, &range, &plan.config.train)?;

    let suggestion = suggest(&points);
    let command = suggestion.as_ref().ok().map(|found| {
        let words = args.config.to_words(found.lr, plan.config.train.batch_size);
        format!("bninception train {words}")
    });
    let test = LrTest { points, suggestion, command };
    test.write_files(&out)?;
    test.print(&out, args.json)
}

impl LrTest {
    fn print(&self, out: &Path, as_json: bool) -> Result<(), Error> {
        let reason = match &self.suggestion {
            Ok(found) => found.to_string(),
            Err(none) => none.to_string(),
        };
        if as_json {
            let means = smoothed(&self.points);
            let finite = |value: f64| Some(value).filter(|value| value.is_finite());
            let points = self.points.iter().zip(means).map(|(point, mean)| {
                json!({ "lr": point.lr, "loss": finite(point.loss), "smoothed": finite(mean) })
            });
            let result = json!({
                "lr": self.suggestion.as_ref().ok().map(|found| found.lr),
                "reason": reason,
                "command": self.command,
                "points": points.collect::<Vec<_>>(),
            });
            return print::json(&with_path("out", out, result));
        }
        let files = format!("figure and table: {}", out.display());
        match (&self.suggestion, &self.command) {
            (Ok(found), Some(command)) => {
                print::text(&format!("lr {}: {reason}\n{files}\n{command}", found.lr))
            }
            _ => print::text(&format!("no rate can be told: {reason}\n{files}")),
        }
    }

    /// Writes figure and table into `dir`, which is made if it is missing.
    fn write_files(&self, dir: &Path) -> Result<(), Error> {
        fs::create_dir_all(dir).map_err(FileError::of("create", dir))?;
        let means = smoothed(&self.points);
        csv_file::write(&dir.join("lr-find.csv"), |table| {
            table.write_record(["step", "lr", "loss", "smoothed"])?;
            for (step, (point, mean)) in self.points.iter().zip(&means).enumerate() {
                let numbers = [point.lr, point.loss, *mean].map(|number| number.to_string());
                table.write_record([vec![(step + 1).to_string()], numbers.to_vec()].concat())?;
            }
            Ok(())
        })?;
        if !self.points.iter().any(|point| point.loss.is_finite()) {
            return Ok(());
        }
        let figure = self.figure(&means);
        figure.write_svg(&dir.join("lr-find.svg"))?;
        figure.write_png(&dir.join("lr-find.png"))
    }

    fn figure(&self, means: &[f64]) -> Figure {
        let losses = self.points.iter().map(|point| point.loss).collect::<Vec<_>>();
        let at = |values: &[f64]| {
            self.points.iter().map(|point| point.lr).zip(values.iter().copied()).collect()
        };
        // A loss that has run away would press all others to the floor.
        let finite = || means.iter().copied().filter(|mean| mean.is_finite());
        let lowest = finite().fold(f64::INFINITY, f64::min);
        let highest = finite().fold(lowest, f64::max).min(3.0 * lowest);
        let margin = 0.1 * (highest - lowest).max(0.1);
        let mark = self.suggestion.as_ref().ok().map(|found| Mark {
            direction: Direction::Vertical,
            at: found.lr,
            label: format!("suggested: {}", found.lr),
        });
        let series = |name: &str, values: &[f64], weight, colour| Series {
            name: name.to_owned(),
            points: at(values),
            weight,
            colour,
            ..Series::default()
        };
        let y =
            Axis { range: Some((lowest - margin, highest + margin)), ..Axis::new("loss in nats") };
        let panel = Panel {
            x: Axis::new("learning rate (logarithmic)").log(),
            y,
            series: vec![
                series("update", &losses, Weight::Thin, 5),
                series("smoothed", means, Weight::Normal, 1),
            ],
            marks: mark.into_iter().collect(),
            ..Panel::default()
        };
        Figure { title: "Training loss at rising learning rates".to_owned(), panels: vec![panel] }
    }
}
