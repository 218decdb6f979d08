//! Runs side by side as a table: what they are, what they reached, and what that took.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::names;
use crate::comparison::curves::loss_axis;
use crate::comparison::epoch_rows::EpochRow;
use crate::comparison::recorded_run::{EvalRow, RecordedRun};
use crate::config::{Config, ConfigError, diff};
use crate::evaluation::interval::Interval;
use crate::figure::{Axis, Figure, Panel, Series};
use crate::terminal::loss::loss_number;
use crate::terminal::output::with_path;
use crate::terminal::text::{grouped, percent};

/// Settings that have a column of their own.
const IN_COLUMNS: [&str; 3] = ["data.image_size", "train.batch_size", "train.accumulate"];

/// Settings that change neither a result nor its pace.
const BOOKKEEPING: [&str; 4] =
    ["data.cache_listings", "data.check_headers", "data.max_bad", "data.prefetch"];

/// Stands behind the name of a run that has diverged.
pub const DIVERGED: &str = " (diverged)";

/// Runs side by side.
#[derive(Debug)]
pub struct RunTable<'a> {
    rows: Vec<RunRow<'a>>,
    /// The keys in which the runs differ, each with the value of every run.
    settings: BTreeMap<String, Vec<toml::Value>>,
}

#[derive(Debug)]
struct RunRow<'a> {
    name: String,
    preset: &'static str,
    run: &'a RecordedRun,
}

impl<'a> RunTable<'a> {
    /// The table of `runs`, in their order.
    ///
    /// # Errors
    /// None for settings that came from runs.
    pub fn new(
        runs: impl IntoIterator<Item = &'a RecordedRun>,
    ) -> Result<RunTable<'a>, ConfigError> {
        let runs: Vec<&RecordedRun> = runs.into_iter().collect();
        let paths: Vec<&Path> = runs.iter().map(|run| run.folder.path()).collect();
        let mut rows = Vec::new();
        for (&run, name) in runs.iter().zip(names(&paths, str::to_owned)) {
            rows.push(RunRow { name, preset: run.preset()?.0, run });
        }
        let configs: Vec<&Config> = runs.iter().map(|run| &run.config).collect();
        Ok(RunTable { rows, settings: differing_settings(&configs)? })
    }

    /// The header and a row for each run.
    pub fn results(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let header = [
            "run",
            "preset",
            "px",
            "batch",
            "last top-1",
            "95 %",
            "best top-1",
            "95 %",
            "loss",
            "minutes",
            "images seen",
        ];
        let rows = self.rows.iter().map(|RunRow { name, preset, run }| {
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let top1 = |row: Option<&EvalRow>| or_dash(row.map(|row| percent(row.top1)));
            let ends = |row: Option<&EvalRow>| {
                or_dash(row.and_then(interval).map(|interval| interval.to_text()))
            };
            let (last, best) = (run.evaluations.last(), run.best());
            vec![
                format!("{name}{}", if run.diverged { DIVERGED } else { "" }),
                (*preset).to_owned(),
                run.config.data.image_size.to_string(),
                batch(&run.config),
                top1(last),
                ends(last),
                top1(best),
                ends(best),
                or_dash(last.map(|row| loss_number(row.loss))),
                or_dash(seconds(run).map(|seconds| format!("{:.1}", seconds / 60.0))),
                or_dash(images_seen(run).map(grouped)),
            ]
        });
        (header.map(str::to_owned).to_vec(), rows.collect())
    }

    /// The run with the best top-1 of all, if there are several to choose from; the first of equal ones.
    pub fn best(&self) -> Option<usize> {
        let best = |index: &usize| self.rows[*index].run.best().map(|row| row.top1);
        let indices = (0..self.rows.len()).rev().filter(|index| best(index).is_some());
        let several = self.rows.len() > 1;
        indices
            .max_by(|a, b| best(a).partial_cmp(&best(b)).unwrap_or(Ordering::Equal))
            .filter(|_| several)
    }

    /// The settings in which the runs differ: as many rows as there are runs, or as there are settings if
    /// those are more. `None` if they differ in none.
    pub fn settings(&self) -> Option<(Vec<String>, Vec<Vec<String>>)> {
        if self.settings.is_empty() {
            return None;
        }
        let names = self.rows.iter().map(|row| row.name.clone());
        if self.settings.len() <= self.rows.len() {
            let header = std::iter::once("run".to_owned()).chain(self.settings.keys().cloned());
            let rows = names.enumerate().map(|(index, name)| {
                let values = self.settings.values().map(|values| text_of(&values[index]));
                std::iter::once(name).chain(values).collect()
            });
            return Some((header.collect(), rows.collect()));
        }
        let header = std::iter::once("setting".to_owned()).chain(names);
        let rows = self.settings.iter().map(|(key, values)| {
            std::iter::once(key.clone()).chain(values.iter().map(text_of)).collect()
        });
        Some((header.collect(), rows.collect()))
    }

    /// What the numbers are, and what they do not tell.
    pub fn notes(&self) -> String {
        let mut text = "Last and best: validation top-1 of the last evaluation and of the best one (by \
                        `checkpoint.best_by`), with Wilson's 95 % interval for so many images; the best of many is flattered by \
                        chance. Loss: of the last evaluation."
            .to_owned();
        if self.has_other_steps() {
            text.push_str(
                " The runs differ in image size or batch size, so that equal steps are not equal work: \
                 images seen and minutes are there to compare.",
            );
        }
        text
    }

    /// Whether steps of one run are other work than those of another.
    pub fn has_other_steps(&self) -> bool {
        let sizes = self
            .rows
            .iter()
            .map(|row| (row.run.config.data.image_size, row.run.config.train.images_per_update()));
        sizes.collect::<BTreeSet<_>>().len() > 1
    }

    /// The runs as a JSON array. Of each: `run` (its path), `preset`, `image_size`, `batch_size`,
    /// `accumulate`, `validation_images`, `last_top1` and `best_top1` with `last_interval` and
    /// `best_interval` (95 %, both ends), `best_step`, `last_step`, `loss`, `seconds`, `images_seen`,
    /// `diverged`, and `settings`, those in which the runs differ. What is not known is null.
    pub fn to_json(&self) -> Value {
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        let ends = |row: Option<&EvalRow>| {
            row.and_then(interval).map(|interval| [interval.low, interval.high])
        };
        let runs = self.rows.iter().enumerate().map(|(index, RunRow { preset, run, .. })| {
            let (last, best) = (run.evaluations.last(), run.best());
            let settings: Map<String, Value> = self
                .settings
                .iter()
                .map(|(key, values)| (key.clone(), json!(values[index])))
                .collect();
            let about = json!({
                "preset": preset,
                "image_size": run.config.data.image_size,
                "batch_size": run.config.train.batch_size,
                "accumulate": run.config.train.accumulate,
                "validation_images": last.map(|row| row.images).filter(|&images| images > 0),
                "last_top1": last.map(|row| row.top1),
                "last_interval": ends(last),
                "best_top1": best.map(|row| row.top1),
                "best_interval": ends(best),
                "best_step": best.map(|row| row.step),
                "last_step": last_step(run),
                "loss": last.and_then(|row| finite(row.loss)),
                "seconds": seconds(run),
                "images_seen": images_seen(run),
                "diverged": run.diverged,
                "settings": settings,
            });
            with_path("run", run.folder.path(), about)
        });
        runs.collect()
    }

    /// Writes a row for each run, with the settings in which they differ as the last columns.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn csv(&self, table: &mut csv::Writer<File>) -> csv::Result<()> {
        let columns = [
            "run",
            "preset",
            "image_size",
            "batch_size",
            "accumulate",
            "validation_images",
            "last_top1",
            "last_low",
            "last_high",
            "best_top1",
            "best_low",
            "best_high",
            "best_step",
            "last_step",
            "loss",
            "seconds",
            "images_seen",
            "diverged",
        ];
        table.write_record(
            columns.iter().copied().chain(self.settings.keys().map(String::as_str)),
        )?;
        for (index, RunRow { preset, run, .. }) in self.rows.iter().enumerate() {
            let (last, best) = (run.evaluations.last(), run.best());
            let cell =
                |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
            let count =
                |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
            let low = |row: Option<&EvalRow>| cell(row.and_then(interval).map(|ends| ends.low));
            let high = |row: Option<&EvalRow>| cell(row.and_then(interval).map(|ends| ends.high));
            let mut cells = vec![
                run.folder.path().display().to_string(),
                (*preset).to_owned(),
                run.config.data.image_size.to_string(),
                run.config.train.batch_size.to_string(),
                run.config.train.accumulate.to_string(),
                count(last.map(|row| row.images).filter(|&images| images > 0)),
                cell(last.map(|row| row.top1)),
                low(last),
                high(last),
                cell(best.map(|row| row.top1)),
                low(best),
                high(best),
                count(best.map(|row| row.step)),
                count(last_step(run)),
                cell(last.map(|row| row.loss)),
                cell(seconds(run)),
                count(images_seen(run)),
                run.diverged.to_string(),
            ];
            cells.extend(self.settings.values().map(|values| text_of(&values[index])));
            table.write_record(cells)?;
        }
        Ok(())
    }

    /// Validation top-1 against images seen and against minutes, validation loss and training top-1 against
    /// images seen. `None` if there is nothing to draw.
    pub fn figure(&self) -> Option<Figure> {
        let panel = |x: &str, y: Axis, points: &dyn Fn(&RecordedRun) -> Vec<(f64, f64)>| Panel {
            x: Axis::new(x),
            y,
            series: self
                .rows
                .iter()
                .enumerate()
                .map(|(colour, row)| Series {
                    name: row.name.clone(),
                    points: points(row.run),
                    colour,
                    ..Series::default()
                })
                .collect(),
            ..Panel::default()
        };
        let images = |run: &RecordedRun, step: u64| {
            (step * run.config.train.images_per_update() as u64) as f64
        };
        let evaluations = |run: &RecordedRun, value: fn(&EvalRow) -> f64| {
            run.evaluations.iter().map(|row| (images(run, row.step), value(row))).collect()
        };
        let epochs = |run: &RecordedRun, value: fn(&EpochRow) -> f64| {
            run.epochs.iter().map(|row| (images(run, row.step), value(row))).collect()
        };
        let seen = "training images seen";
        let losses = self.rows.iter().flat_map(|row| &row.run.evaluations).map(|row| row.loss);
        let top1 = || Axis::new("validation top-1").percent();
        let panels = vec![
            panel(seen, top1(), &|run| evaluations(run, |row| row.top1)),
            panel("minutes", top1(), &top1_by_minutes),
            panel(seen, loss_axis("validation loss in nats", losses), &|run| {
                evaluations(run, |row| row.loss)
            }),
            panel(seen, Axis::new("training top-1").percent(), &|run| {
                epochs(run, |row| row.train_top1)
            }),
        ];
        let is_drawn = |&(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
        let mut series = panels.iter().flat_map(|panel| &panel.series);
        let has_points = series.any(|series| series.points.iter().any(is_drawn));
        has_points.then(|| Figure { title: "Runs side by side".to_owned(), panels })
    }
}

/// The settings in which the configs differ and that have no column, with the value of each.
fn differing_settings(
    configs: &[&Config],
) -> Result<BTreeMap<String, Vec<toml::Value>>, ConfigError> {
    let mut settings: BTreeMap<String, Vec<toml::Value>> = BTreeMap::new();
    let Some(first) = configs.first() else { return Ok(settings) };
    for (index, config) in configs.iter().enumerate() {
        for change in diff(first, config)? {
            if is_shown(&change.key) {
                let values =
                    settings.entry(change.key).or_insert_with(|| vec![change.old; configs.len()]);
                values[index] = change.new;
            }
        }
    }
    Ok(settings)
}

fn is_shown(key: &str) -> bool {
    let section = key.split('.').next().unwrap_or_default();
    !IN_COLUMNS.contains(&key)
        && !BOOKKEEPING.contains(&key)
        && !["checkpoint", "log"].contains(&section)
}

/// A value as a person writes it.
fn text_of(value: &toml::Value) -> String {
    match value.as_str() {
        Some(text) if !text.is_empty() => text.to_owned(),
        _ => value.to_string(),
    }
}

/// Images in an update: `32`, or `4 x 8` for several micro-batches.
fn batch(config: &Config) -> String {
    match config.train.accumulate {
        1 => config.train.batch_size.to_string(),
        n => format!("{n} x {}", config.train.batch_size),
    }
}

fn interval(row: &EvalRow) -> Option<Interval> {
    Interval::of_rate(row.top1, row.images)
}

/// The last step that is recorded.
fn last_step(run: &RecordedRun) -> Option<u64> {
    let training = run.training.last().map(|row| row.step);
    let evaluation = run.evaluations.last().map(|row| row.step);
    let epoch = run.epochs.last().map(|row| row.step);
    [training, evaluation, epoch].into_iter().flatten().max()
}

/// Training images up to the last step, counted as often as they were seen.
fn images_seen(run: &RecordedRun) -> Option<u64> {
    Some(last_step(run)?.saturating_mul(run.config.train.images_per_update() as u64))
}

/// Seconds of the whole epochs; `None` without any.
fn seconds(run: &RecordedRun) -> Option<f64> {
    let all: f64 = run.epochs.iter().map(|row| row.seconds).sum();
    (!run.epochs.is_empty() && all.is_finite()).then_some(all)
}

/// (minutes, validation top-1) behind each epoch.
fn top1_by_minutes(run: &RecordedRun) -> Vec<(f64, f64)> {
    let mut minutes = 0.0;
    let mut points = Vec::new();
    for row in &run.epochs {
        minutes += row.seconds / 60.0;
        points.extend(row.val_top1.map(|top1| (minutes, top1)));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, resolve};
    use crate::run::folder::RunFolder;

    fn run(name: &str, sets: &[&str], rows: &[(u64, f64, f64)]) -> RecordedRun {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let sources = Sources { preset: Some("bn-x5"), sets: &sets, ..Sources::default() };
        let config = resolve(&sources).unwrap().config;
        let evaluation = |&(step, top1, loss): &(u64, f64, f64)| EvalRow {
            step,
            epoch: 1.0,
            images: 100,
            loss,
            top1,
            top5: 1.0,
            balanced: f64::NAN,
            seconds: f64::NAN,
        };
        let epoch = |&(step, top1, _): &(u64, f64, f64)| EpochRow {
            epoch: step,
            step,
            lr: 0.1,
            train_loss: 1.0,
            train_top1: 0.5,
            val_loss: None,
            val_top1: Some(top1),
            val_top5: None,
            seconds: 30.0,
        };
        RecordedRun {
            folder: RunFolder::at(&Path::new("out").join(name)),
            config,
            recipe: Default::default(),
            training: Vec::new(),
            evaluations: rows.iter().map(evaluation).collect(),
            epochs: rows.iter().map(epoch).collect(),
            watched: Vec::new(),
            diverged: false,
        }
    }

    #[test]
    fn a_row_tells_of_a_run() {
        let runs = [
            run("a", &["train.batch_size=8"], &[(10, 0.5, 1.5), (20, 0.4, 1.25)]),
            run("b", &["train.batch_size=4", "train.accumulate=2"], &[(10, 0.6, f64::NAN)]),
            run("c", &["train.batch_size=8"], &[]),
        ];
        let table = RunTable::new(&runs).unwrap();
        let (header, rows) = table.results();
        assert!(rows.iter().all(|row| row.len() == header.len()));
        let row = |index: usize| rows[index].join("|");
        assert_eq!(
            row(0),
            "a|bn-x5|224|8|40.00 %|30.9 to 49.8|50.00 %|40.4 to 59.6|1.2500|1.0|160"
        );
        // A loss that is not finite is never the best.
        assert_eq!(row(1), "b|bn-x5|224|2 x 4|60.00 %|50.2 to 69.1|-|-|not finite|0.5|80");
        assert_eq!(row(2), "c|bn-x5|224|8|-|-|-|-|-|-|-");
        assert_eq!(table.settings(), None);
        assert!(!table.has_other_steps(), "updates of eight images are of eight images");
        let json = table.to_json();
        assert_eq!((&json[0]["seconds"], &json[0]["images_seen"]), (&60.0.into(), &160.into()));
        assert_eq!((&json[1]["loss"], &json[2]["last_top1"]), (&Value::Null, &Value::Null));
        // Four panels, of which the last is the training's.
        let figure = table.figure().unwrap();
        assert_eq!(figure.panels.len(), 4);
        assert_eq!(figure.panels[1].series[0].points, [(0.5, 0.5), (1.0, 0.4)]);
        assert!(RunTable::new(&runs[2..]).unwrap().figure().is_none());
    }

    #[test]
    fn only_settings_that_differ_are_shown() {
        let runs = [
            run("a", &["optimizer.lr=0.1", "log.every_steps=3"], &[]),
            run("b", &["optimizer.lr=0.1", "schedule.kind=cosine", "train.seed=7"], &[]),
            run("c", &["optimizer.lr=0.2", "data.image_size=64", "checkpoint.keep=9"], &[]),
        ];
        let table = RunTable::new(&runs).unwrap();
        let (header, rows) = table.settings().unwrap();
        assert_eq!(header, ["run", "optimizer.lr", "schedule.kind", "train.seed"]);
        assert_eq!(rows[1], ["b", "0.1", "cosine", "7"]);
        assert_eq!(rows[2], ["c", "0.2", "exponential", "42"]);
        assert!(
            table.has_other_steps() && table.notes().contains("equal steps are not equal work")
        );
        assert_eq!(table.to_json()[2]["settings"]["optimizer.lr"], 0.2);
        // More settings than runs: a row for each setting.
        let table = RunTable::new(&runs[..2]).unwrap();
        assert_eq!(table.settings().unwrap().0.len(), 3);
        let two = [
            run("a", &["optimizer.lr=0.1", "train.seed=1", "train.ema=0.5"], &[]),
            run("b", &[], &[]),
        ];
        let (header, rows) = RunTable::new(&two).unwrap().settings().unwrap();
        assert_eq!(header, ["setting", "a", "b"]);
        assert_eq!(rows[0], ["optimizer.lr", "0.1", "0.0075"]);
    }
}
