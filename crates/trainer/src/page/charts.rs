//! The curves of runs, as a page draws them.

use serde::Serialize;

use crate::comparison::curves::loss_axis;
use crate::comparison::recorded_run::{EvalRow, RecordedRun, TrainingRow, Watched};
use crate::figure::Scale;
use crate::page::thin::thin;

/// Watched layers of a run that are drawn: as many as stand in a row of a figure.
const MOST_LAYERS: usize = 3;

/// One quantity of all runs against steps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chart {
    /// What a page calls it.
    pub id: String,
    /// Stands above it.
    pub title: String,
    /// What the numbers are.
    pub label: &'static str,
    /// How numbers are written.
    pub format: NumberFormat,
    /// Whether the axis of the numbers is logarithmic at first.
    pub log: bool,
    /// The curves, those of a run together.
    pub curves: Vec<Curve>,
}

/// How the numbers of a chart are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NumberFormat {
    /// As they are, to four digits.
    Number,
    /// A fraction, 0.5, as 50 %.
    Percent,
}

/// What a curve tells of its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A line of the log each, which jumps about.
    Training,
    /// Means of whole epochs.
    Epochs,
    /// Evaluations.
    Validation,
    /// The only curve of its run, or the middle one.
    Value,
    /// The edge of a band about it.
    Edge,
}

/// A curve. The three lists are equally long.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// The place of its run in the list of runs.
    pub run: usize,
    /// What of it.
    pub role: Role,
    /// What it tells, for a legend.
    pub name: &'static str,
    /// Updates done.
    pub step: Vec<u64>,
    /// Passes over the training images done; null where it is not known.
    pub epoch: Vec<Option<f64>>,
    /// The numbers; null where one was not finite.
    pub y: Vec<Option<f64>>,
}

/// All charts of `runs`, with at most `most_points` points a curve; a chart without a number is left out.
/// Points are rows of `metrics.jsonl` and `summary.csv` as they are.
pub fn charts(runs: &[&RecordedRun], most_points: usize) -> Vec<Chart> {
    let curves = Curves { runs, most_points };
    let losses = runs.iter().flat_map(|of| {
        let validation = of.evaluations.iter().map(|row| row.loss);
        validation.chain(of.training.iter().map(|row| row.loss))
    });
    let is_log = loss_axis("", losses).scale == Scale::Log;
    let chart = |id: &str, title: &str, label, format, curves| Chart {
        id: id.to_owned(),
        title: title.to_owned(),
        label,
        format,
        log: false,
        curves,
    };
    let number = NumberFormat::Number;
    let mut charts = vec![
        Chart {
            log: is_log,
            ..chart(
                "loss",
                "Loss",
                "nats",
                number,
                curves.learnt(|r| r.loss, |e| e.train_loss, |v| v.loss),
            )
        },
        chart(
            "top1",
            "Top-1",
            "of images",
            NumberFormat::Percent,
            curves.learnt(|r| r.top1, |e| e.train_top1, |v| v.top1),
        ),
        chart("lr", "Learning rate", "learning rate", number, curves.of_log(|row| row.lr)),
        chart(
            "grad_norm",
            "Gradient norm",
            "before clipping",
            number,
            curves.of_log(|row| row.grad_norm),
        ),
        chart(
            "images_per_second",
            "Speed",
            "images/s",
            number,
            curves.of_log(|row| row.images_per_second),
        ),
        chart(
            "data_wait",
            "Waiting for data",
            "of the time",
            NumberFormat::Percent,
            curves.of_log(|row| row.data_wait),
        ),
    ];
    for layer in watched_layers(runs) {
        let title = format!("What enters {layer}");
        let of_layer = curves.watched(&layer);
        charts.push(chart(&format!("watch-{layer}"), &title, "percentiles", number, of_layer));
    }
    charts.retain(|chart| !chart.curves.is_empty());
    charts
}

/// The layers that are drawn, in the order of the runs.
fn watched_layers(runs: &[&RecordedRun]) -> Vec<String> {
    let mut layers: Vec<String> = Vec::new();
    for of in runs {
        for layer in of.config.log.watch.iter().take(MOST_LAYERS) {
            if !layers.contains(layer) {
                layers.push(layer.clone());
            }
        }
    }
    layers
}

/// A point before it is thinned: step, epoch, number.
type Point = (u64, f64, f64);

struct Curves<'a> {
    runs: &'a [&'a RecordedRun],
    most_points: usize,
}

impl Curves<'_> {
    /// A curve of some points; `None` if none of them has a number.
    fn curve(&self, run: usize, role: Role, name: &'static str, points: &[Point]) -> Option<Curve> {
        let values: Vec<f64> = points.iter().map(|&(_, _, value)| value).collect();
        if !values.iter().any(|value| value.is_finite()) {
            return None;
        }
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        let mut curve = Curve { run, role, name, step: vec![], epoch: vec![], y: vec![] };
        for place in thin(&values, self.most_points) {
            let (step, epoch, value) = points[place];
            curve.step.push(step);
            curve.epoch.push(finite(epoch));
            curve.y.push(finite(value));
        }
        Some(curve)
    }

    /// Training, its means over epochs, and validation.
    fn learnt(
        &self,
        of_training: fn(&TrainingRow) -> f64,
        of_epoch: fn(&crate::comparison::epoch_rows::EpochRow) -> f64,
        of_validation: fn(&EvalRow) -> f64,
    ) -> Vec<Curve> {
        let mut curves = Vec::new();
        for (place, run) in self.runs.iter().enumerate() {
            let training: Vec<Point> =
                run.training.iter().map(|row| (row.step, row.epoch, of_training(row))).collect();
            let epochs: Vec<Point> =
                run.epochs.iter().map(|row| (row.step, row.epoch as f64, of_epoch(row))).collect();
            let validation: Vec<Point> = run
                .evaluations
                .iter()
                .map(|row| (row.step, row.epoch, of_validation(row)))
                .collect();
            curves.extend(self.curve(place, Role::Training, "training", &training));
            // One mean is a dot, and no line to follow.
            if epochs.len() > 1 || training.is_empty() {
                curves.extend(self.curve(
                    place,
                    Role::Epochs,
                    "training, mean of an epoch",
                    &epochs,
                ));
            }
            curves.extend(self.curve(place, Role::Validation, "validation", &validation));
        }
        curves
    }

    /// A number of each line of the log.
    fn of_log(&self, value: fn(&TrainingRow) -> f64) -> Vec<Curve> {
        let of_run = |(place, of): (usize, &&RecordedRun)| {
            let rows = of.training.iter();
            let points: Vec<Point> = rows.map(|row| (row.step, row.epoch, value(row))).collect();
            self.curve(place, Role::Value, "value", &points)
        };
        self.runs.iter().enumerate().filter_map(of_run).collect()
    }

    /// The median of what enters a layer's nonlinearity, and of a single run the band about it.
    fn watched(&self, layer: &str) -> Vec<Curve> {
        let mut curves = Vec::new();
        for (place, run) in self.runs.iter().enumerate() {
            let rows: Vec<&Watched> = run.watched.iter().filter(|row| row.layer == layer).collect();
            let points = |percentile: usize| -> Vec<Point> {
                let point = |row: &&Watched| {
                    (row.step, epoch_at(run, row.step), row.percentiles[percentile])
                };
                rows.iter().map(point).collect()
            };
            curves.extend(self.curve(place, Role::Value, "median", &points(1)));
            if self.runs.len() == 1 {
                curves.extend(self.curve(place, Role::Edge, "15th percentile", &points(0)));
                curves.extend(self.curve(place, Role::Edge, "85th percentile", &points(2)));
            }
        }
        curves
    }
}

/// The passes over the training images behind an update: between two lines of the log it goes evenly. NaN without any.
fn epoch_at(run: &RecordedRun, step: u64) -> f64 {
    let place = |row: &TrainingRow| (row.step as f64, row.epoch);
    let next = run.training.partition_point(|row| row.step < step);
    // Behind the last line it goes on as before it.
    let next = next.min(run.training.len().saturating_sub(1));
    let Some((to, end)) = run.training.get(next).map(place) else { return f64::NAN };
    let before = next.checked_sub(1).and_then(|before| run.training.get(before));
    let (from, start) = before.map_or((0.0, 0.0), place);
    start + (end - start) * (step as f64 - from) / (to - from)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Sources, resolve};
    use crate::run::folder::RunFolder;

    fn row(step: u64, loss: f64) -> TrainingRow {
        TrainingRow {
            step,
            epoch: step as f64 / 10.0,
            loss,
            top1: 0.5,
            lr: 0.1,
            grad_norm: f64::NAN,
            images_per_second: 7.0,
            data_wait: 0.0,
        }
    }

    fn run(training: Vec<TrainingRow>) -> RecordedRun {
        RecordedRun {
            folder: RunFolder::at(Path::new("run")),
            config: resolve(&Sources::default()).unwrap().config,
            recipe: Default::default(),
            training,
            evaluations: Vec::new(),
            epochs: Vec::new(),
            watched: Vec::new(),
            diverged: false,
        }
    }

    #[test]
    fn points_are_the_rows_and_a_number_that_is_none_is_a_gap() {
        let run = run(vec![row(1, 2.0), row(2, f64::NAN), row(3, 1.0)]);
        let charts = charts(&[&run], 100);
        let ids: Vec<&str> = charts.iter().map(|chart| chart.id.as_str()).collect();
        // No row has a gradient norm.
        assert_eq!(ids, ["loss", "top1", "lr", "images_per_second", "data_wait"]);
        let loss = &charts[0].curves[0];
        assert_eq!((&loss.step[..], loss.role), (&[1, 2, 3][..], Role::Training));
        assert_eq!(loss.y, [Some(2.0), None, Some(1.0)]);
        assert_eq!(loss.epoch, [Some(0.1), Some(0.2), Some(0.3)]);
        assert!(!charts[0].log);
    }

    #[test]
    fn curves_name_their_run_and_losses_far_apart_are_logarithmic() {
        let (first, second) = (run(vec![row(1, 2.0)]), run(vec![row(1, 90.0)]));
        let charts = charts(&[&first, &second], 100);
        let of: Vec<usize> = charts[0].curves.iter().map(|curve| curve.run).collect();
        assert_eq!((of, charts[0].log), (vec![0, 1], true));
    }

    #[test]
    fn what_is_watched_has_epochs_by_the_log() {
        let mut run = run(vec![row(10, 2.0), row(20, 1.0)]);
        run.config.log.watch = vec!["stem".to_owned()];
        let watched =
            |step| Watched { step, layer: "stem".to_owned(), percentiles: [0.1, 0.2, 0.3] };
        run.watched = [5, 10, 15, 30].map(watched).to_vec();
        let charts = charts(&[&run], 100);
        let curve = &charts.last().unwrap().curves[0];
        assert_eq!(curve.epoch, [Some(0.5), Some(1.0), Some(1.5), Some(3.0)]);
    }

    #[test]
    fn nothing_recorded_gives_no_chart() {
        let run = run(Vec::new());
        assert_eq!(charts(&[&run], 100), []);
        assert_eq!(charts(&[], 100), []);
    }
}
