//! Runs side by side. [`run_table`] has any runs; the [`Comparison`] here is figure 3 of the paper: the
//! steps that each model takes to the best accuracy of a baseline, and the best accuracy of its own.
//!
//! Nothing is interpolated. A model reaches a mark at the first evaluated step whose top-1 is the
//! mark or more, so steps are known to the interval of the evaluations.
//!
//! Runs whose settings are equal but for the seed, places and pace are the seeds of one model. Its
//! numbers are means over its seeds, with the least and the greatest. The mark is the mean of the best
//! top-1 of the baseline's seeds, and the baseline's own steps are those to the best of each seed. A
//! model has a mean of steps only if every seed reaches the mark.

pub mod curves;
pub mod epoch_rows;
pub mod files;
pub mod inventory;
pub mod pruning;
pub mod recorded_run;
pub mod run_search;
pub mod run_table;
pub mod tables;
pub mod watch_figure;

use std::collections::BTreeSet;
use std::path::Path;

use bninception_data::folder::is_same;
use serde::Serialize;
use serde_json::{Value, json};

use crate::comparison::recorded_run::{EvalRow, RecordedRun, is_recipe};
use crate::config::{Config, ConfigError, Sources, diff, preset_names, resolve};
use crate::error::Error;
use crate::figure::{Axis, Direction, Figure, Mark, Panel, Series, Style, Weight};
use crate::terminal::output::with_path;
use crate::terminal::text::percent;

/// Runs side by side.
#[derive(Debug)]
pub struct Comparison {
    /// The models, in the order of the presets, then by learning rate.
    pub models: Vec<ComparedModel>,
    /// Position of the baseline among them.
    pub baseline: usize,
    /// The mean of the best top-1 of the baseline's seeds.
    pub target: f64,
}

/// The runs of one recipe that differ in their seed.
#[derive(Debug)]
pub struct ComparedModel {
    /// The name of the run folder, without the seed where there are several.
    pub name: String,
    /// The preset, or the nearest one where it is not known.
    pub preset: &'static str,
    /// The runs, by seed.
    pub runs: Vec<RecordedRun>,
}

/// Mean, least and greatest of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// `None` without numbers.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let min = values.iter().copied().reduce(f64::min)?;
        let max = values.iter().copied().reduce(f64::max)?;
        Some(Spread { mean, min, max })
    }
}

impl ComparedModel {
    /// The learning rate at the start.
    pub fn lr(&self) -> f64 {
        self.config().optimizer.lr
    }

    /// The settings of the first seed; the others' differ in nothing that counts.
    fn config(&self) -> &Config {
        &self.runs[0].config
    }

    /// The best top-1 of each seed that was evaluated.
    pub fn best_top1(&self) -> Option<Spread> {
        Spread::of(&self.bests().map(|row| row.top1).collect::<Vec<_>>())
    }

    /// The steps at which each seed is best.
    pub fn best_step(&self) -> Option<Spread> {
        Spread::of(&self.bests().map(|row| row.step as f64).collect::<Vec<_>>())
    }

    fn bests(&self) -> impl Iterator<Item = &EvalRow> {
        self.runs.iter().filter_map(RecordedRun::most_right)
    }

    /// The most steps between two evaluations of a seed.
    pub fn longest_interval(&self) -> u64 {
        self.runs.iter().map(RecordedRun::longest_interval).max().unwrap_or(0)
    }

    /// The last evaluated step of the seed that is least far.
    pub fn last_step(&self) -> u64 {
        let last = |run: &RecordedRun| run.evaluations.last().map_or(0, |row| row.step);
        self.runs.iter().map(last).min().unwrap_or(0)
    }

    /// How many seeds ended with a loss that is not finite.
    pub fn n_diverged(&self) -> usize {
        self.runs.iter().filter(|run| run.diverged).count()
    }

    /// The mean top-1 of the seeds at every step at which all of them were evaluated, as
    /// (step, top-1). Seeds without any evaluation are left out.
    pub fn mean_curve(&self) -> Vec<(f64, f64)> {
        let mut runs = self.runs.iter().filter(|run| !run.evaluations.is_empty());
        let Some(first) = runs.next() else { return Vec::new() };
        let others: Vec<&RecordedRun> = runs.collect();
        let top1_at = |run: &RecordedRun, step: u64| {
            run.evaluations.iter().find(|row| row.step == step).map(|row| row.top1)
        };
        let mean_at = |row: &EvalRow| {
            let mut sum = row.top1;
            for run in &others {
                sum += top1_at(run, row.step)?;
            }
            Some((row.step as f64, sum / (others.len() + 1) as f64))
        };
        first.evaluations.iter().filter_map(mean_at).collect()
    }
}

impl Comparison {
    /// Compares runs, with the baseline that `baseline` names (a run's path, its folder's name or a
    /// model's name) or, without it, the paper's Inception: the model with the network of the preset
    /// `inception`, of several that with the lowest learning rate; otherwise the only one without
    /// batch norm; otherwise the first, which is said in the log.
    ///
    /// # Errors
    /// There is no run, none of that name, or the baseline has no evaluation.
    pub fn new(runs: Vec<RecordedRun>, baseline: Option<&str>) -> Result<Comparison, Error> {
        let models = group(runs)?;
        if models.is_empty() {
            return Err(Error::Usage("there is no run to compare".to_owned()));
        }
        let chosen = match baseline {
            Some(name) => named_baseline(&models, name)?,
            None => choose_baseline(&models)?,
        };
        let Some(best) = models[chosen].best_top1() else {
            return Err(Error::Unusable(format!(
                "the baseline {} has no evaluation yet; wait for its first one, or name another \
                 baseline with --baseline RUN",
                models[chosen].name
            )));
        };
        let mut order: Vec<usize> = (0..models.len()).collect();
        let preset_place = |model: &ComparedModel| {
            preset_names().position(|name| name == model.preset).unwrap_or(0)
        };
        order.sort_by(|&a, &b| {
            let (a, b) = (&models[a], &models[b]);
            preset_place(a).cmp(&preset_place(b)).then(a.lr().total_cmp(&b.lr()))
        });
        let baseline = order.iter().position(|&index| index == chosen).unwrap_or(0);
        let mut models: Vec<Option<ComparedModel>> = models.into_iter().map(Some).collect();
        let models = order.into_iter().filter_map(|index| models[index].take()).collect();
        Ok(Comparison { models, baseline, target: best.mean })
    }

    /// For each seed of a model, the first evaluated step at which it reaches the mark; of the
    /// baseline, the step of its best.
    pub fn steps_of_seeds(&self, model: usize) -> Vec<Option<u64>> {
        let steps = |run: &RecordedRun| match model == self.baseline {
            true => run.most_right().map(|row| row.step),
            false => run.first_step_at(self.target),
        };
        self.models[model].runs.iter().map(steps).collect()
    }

    /// The steps to the mark, if every seed reaches it.
    pub fn steps_to_target(&self, model: usize) -> Option<Spread> {
        let steps: Option<Vec<f64>> = self
            .steps_of_seeds(model)
            .into_iter()
            .map(|step| step.map(|step| step as f64))
            .collect();
        Spread::of(&steps?)
    }

    /// The baseline's steps divided by the model's: how many times fewer it takes.
    pub fn ratio(&self, model: usize) -> Option<f64> {
        let baseline = self.steps_to_target(self.baseline)?;
        Some(baseline.mean / self.steps_to_target(model)?.mean)
    }

    /// Whether a step of one model is other work than that of another: its image size or the images of its
    /// updates differ.
    pub fn has_other_steps(&self) -> bool {
        let work = |model: &ComparedModel| {
            let config = model.config();
            (config.data.image_size, config.train.images_per_update())
        };
        self.models.iter().map(work).collect::<BTreeSet<_>>().len() > 1
    }

    /// The comparison as one JSON object.
    ///
    /// Keys: `baseline` (a model's name), `target_top1`, and `models`, each with `model`, `preset`,
    /// `lr`, `best_top1` and `best_step` (`mean`, `min`, `max`, or null without evaluations),
    /// `steps_to_target` (the same, null if a seed does not reach it), `n_reached`, `ratio` (null
    /// likewise), `evaluated_every` (the most steps between two evaluations), `last_step`, and `runs`,
    /// each with `run`, `seed`, `best_top1`, `best_step`, `steps_to_target`, `last_step`, `diverged`.
    pub fn to_json(&self) -> Value {
        let models = self.models.iter().enumerate().map(|(index, model)| {
            let steps = self.steps_of_seeds(index);
            let runs = model.runs.iter().zip(&steps).map(|(run, steps)| {
                let about = json!({
                    "seed": run.config.train.seed,
                    "best_top1": run.most_right().map(|row| row.top1),
                    "best_step": run.most_right().map(|row| row.step),
                    "steps_to_target": steps,
                    "last_step": run.evaluations.last().map(|row| row.step),
                    "diverged": run.diverged,
                });
                with_path("run", run.folder.path(), about)
            });
            json!({
                "model": model.name,
                "preset": model.preset,
                "lr": model.lr(),
                "best_top1": model.best_top1(),
                "best_step": model.best_step(),
                "steps_to_target": self.steps_to_target(index),
                "n_reached": steps.iter().flatten().count(),
                "ratio": self.ratio(index),
                "evaluated_every": model.longest_interval(),
                "last_step": model.last_step(),
                "runs": runs.collect::<Vec<_>>(),
            })
        });
        json!({
            "baseline": self.models[self.baseline].name,
            "target_top1": self.target,
            "models": models.collect::<Vec<_>>(),
        })
    }

    /// Validation accuracy against steps, once on a linear and once on a logarithmic axis. Several
    /// seeds of a model are thin lines below their mean.
    pub fn figure(&self) -> Figure {
        let mut series = Vec::new();
        for (colour, model) in self.models.iter().enumerate() {
            // The paper, too, draws the network without batch norm dashed.
            let style =
                if model.config().network.batch_norm { Style::Solid } else { Style::Dashed };
            if model.runs.len() > 1 {
                for run in &model.runs {
                    let points =
                        run.evaluations.iter().map(|row| (row.step as f64, row.top1)).collect();
                    let weight = Weight::Thin;
                    series.push(Series { points, weight, colour, ..Series::default() });
                }
            }
            let points = model.mean_curve();
            if !points.is_empty() {
                let name = format!("{} (lr {})", model.name, model.lr());
                series.push(Series { name, points, style, colour, ..Series::default() });
            }
        }
        let baseline = &self.models[self.baseline].name;
        let marks = vec![Mark {
            direction: Direction::Horizontal,
            at: self.target,
            label: format!("best of {baseline}, {}", percent(self.target)),
        }];
        let panel = |x: Axis| Panel {
            x,
            y: Axis::new("validation accuracy (top-1)").percent(),
            series: series.clone(),
            marks: marks.clone(),
            ..Panel::default()
        };
        let panels = vec![
            panel(Axis::new("training steps")),
            panel(Axis::new("training steps (logarithmic)").log()),
        ];
        Figure { title: "Validation accuracy against training steps".to_owned(), panels }
    }
}

/// Puts the seeds of one model together. Two runs of the same seed are two models.
fn group(runs: Vec<RecordedRun>) -> Result<Vec<ComparedModel>, ConfigError> {
    let mut models: Vec<ComparedModel> = Vec::new();
    for run in runs {
        let mut home = None;
        for (index, model) in models.iter().enumerate() {
            let is_new_seed =
                model.runs.iter().all(|known| known.config.train.seed != run.config.train.seed);
            if is_new_seed && same_recipe(model.config(), &run.config)? {
                home = Some(index);
                break;
            }
        }
        match home {
            Some(index) => models[index].runs.push(run),
            None => {
                let (preset, _) = run.preset()?;
                models.push(ComparedModel { name: String::new(), preset, runs: vec![run] });
            }
        }
    }
    for model in &mut models {
        model.runs.sort_by_key(|run| run.config.train.seed);
    }
    let paths: Vec<&Path> = models.iter().map(|model| model.runs[0].folder.path()).collect();
    let names = names(&paths, |name| without_seed(name).to_owned());
    models.iter_mut().zip(names).for_each(|(model, name)| model.name = name);
    Ok(models)
}

fn same_recipe(a: &Config, b: &Config) -> Result<bool, ConfigError> {
    Ok(!diff(a, b)?.iter().any(|change| is_recipe(&change.key)))
}

/// A name for each folder, all different: its own, made shorter by `shorten`; where two would be equal, the
/// path.
pub fn names(folders: &[&Path], shorten: impl Fn(&str) -> String) -> Vec<String> {
    let short = |folder: &&Path| {
        // `.` has no name of its own.
        let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
        let name = whole.file_name().map(|name| name.to_string_lossy().into_owned());
        shorten(&name.unwrap_or_else(|| whole.display().to_string()))
    };
    let short: Vec<String> = folders.iter().map(short).collect();
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<&String> = short.iter().filter(|name| !seen.insert(*name)).collect();
    let name = |(folder, short): (&&Path, &String)| match twice.contains(short) {
        true => folder.display().to_string(),
        false => short.clone(),
    };
    folders.iter().zip(&short).map(name).collect()
}

/// `bn-x5` for `bn-x5-seed-2`.
fn without_seed(name: &str) -> &str {
    match name.rsplit_once("-seed-") {
        Some((model, seed)) if !model.is_empty() && seed.parse::<u64>().is_ok() => model,
        _ => name,
    }
}

fn named_baseline(models: &[ComparedModel], name: &str) -> Result<usize, Error> {
    let wanted = Path::new(name);
    let is_it = |model: &ComparedModel| {
        let is_run = |run: &RecordedRun| {
            let path = run.folder.path();
            path.file_name().is_some_and(|file| file == wanted.as_os_str()) || is_same(path, wanted)
        };
        model.name == name || model.runs.iter().any(is_run)
    };
    models.iter().position(is_it).ok_or_else(|| {
        let known: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
        Error::Usage(format!(
            "--baseline {name}: no run of that path or name is compared; there are {}",
            known.join(", ")
        ))
    })
}

/// The paper's starting point among the models, see [`Comparison::new`].
fn choose_baseline(models: &[ComparedModel]) -> Result<usize, Error> {
    let inception = resolve(&Sources { preset: Some("inception"), ..Sources::default() })?.config;
    let indices = || 0..models.len();
    let network = |model: &ComparedModel| {
        let mut network = model.config().network.clone();
        network.classes = inception.network.classes;
        network
    };
    let alike: Vec<usize> =
        indices().filter(|&index| network(&models[index]) == inception.network).collect();
    let least = alike.iter().map(|&index| models[index].lr()).fold(f64::INFINITY, f64::min);
    let slowest: Vec<usize> =
        alike.into_iter().filter(|&index| models[index].lr() == least).collect();
    let plain: Vec<usize> =
        indices().filter(|&index| !models[index].config().network.batch_norm).collect();
    for candidates in [slowest, plain] {
        if let &[only] = candidates.as_slice() {
            return Ok(only);
        }
    }
    tracing::warn!(
        "no single run is the paper's Inception (no batch norm), so the first, {}, is the baseline; \
         name another with --baseline RUN",
        models[0].name
    );
    Ok(0)
}

#[cfg(test)]
mod tests;
