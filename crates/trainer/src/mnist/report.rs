//! What is left of an experiment: tables, figures, and how many fewer steps batch norm needs.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::experiment::{Curve, Point};
use super::images::{Digits, THRESHOLD};
use super::network::Model;
use crate::error::Error;
use crate::figure::{Axis, Band, Figure, Panel, Series, Style};
use crate::file_error::FileError;
use crate::terminal::text;

/// What the two networks of one model came to.
#[derive(Debug)]
pub struct CurvePair<'a> {
    /// Without batch norm.
    pub plain: &'a Curve,
    /// With batch norm.
    pub normalised: &'a Curve,
    /// The best evaluation without batch norm.
    pub plain_best: &'a Point,
    /// The best evaluation with batch norm.
    pub normalised_best: &'a Point,
    /// The last evaluations, without batch norm and with.
    pub last: [&'a Point; 2],
    /// The first evaluation with batch norm that is as good as `plain_best`.
    pub reached: Option<usize>,
}

impl<'a> CurvePair<'a> {
    /// None where a network was stopped before its first evaluation.
    pub fn new(curves: &'a [Curve; 2]) -> Option<CurvePair<'a>> {
        let [plain, normalised] = curves;
        let plain_best = plain.best()?;
        Some(CurvePair {
            plain,
            normalised,
            plain_best,
            normalised_best: normalised.best()?,
            last: [plain.points.last()?, normalised.points.last()?],
            reached: normalised.first_step_with(plain_best.test_accuracy),
        })
    }

    /// How many times fewer steps the network with batch norm needs for the best of the other.
    pub fn times_fewer(&self) -> Option<f64> {
        self.reached.map(|reached| self.plain_best.step as f64 / reached as f64)
    }

    /// In one sentence.
    pub fn sentence(&self) -> String {
        let name = self.plain.model.name();
        let plain = self.plain_best;
        let best = format!("{:.2} %", 100.0 * plain.test_accuracy);
        let own = self.normalised_best;
        let own =
            format!("its own best is {:.2} % at step {}", 100.0 * own.test_accuracy, own.step);
        match (self.reached, self.times_fewer()) {
            (Some(reached), Some(times)) => format!(
                "{name}: without batch norm the best test accuracy is {best} at step {}; with batch \
                 norm step {reached} reaches it, {times:.1} times fewer steps, and {own}",
                plain.step
            ),
            _ => format!(
                "{name}: without batch norm the best test accuracy is {best} at step {}; with batch \
                 norm it is not reached in {} steps, and {own}",
                plain.step, self.last[1].step
            ),
        }
    }

    fn json(&self) -> Value {
        let one = |curve: &Curve, best: &Point, last: &Point| {
            json!({
                "steps": last.step,
                "best_top1": best.test_accuracy,
                "best_step": best.step,
                "top1": last.test_accuracy,
                "seconds": curve.seconds,
            })
        };
        let settings = self.plain.settings;
        json!({
            "model": self.plain.model.name(),
            "seed": settings.seed,
            "batch_size": settings.batch_size,
            "lr": settings.lr,
            "sigma": settings.sigma,
            "without_batch_norm": one(self.plain, self.plain_best, self.last[0]),
            "with_batch_norm": one(self.normalised, self.normalised_best, self.last[1]),
            "step_with_best_of_other": self.reached,
            "times_fewer_steps": self.times_fewer(),
        })
    }
}

/// The result as JSON; rates are fractions from 0 to 1.
pub fn result(digits: &Digits, pairs: &[[Curve; 2]], done: bool) -> Value {
    let models: Vec<Value> =
        pairs.iter().filter_map(CurvePair::new).map(|comparison| comparison.json()).collect();
    json!({
        "complete": done,
        "threshold": THRESHOLD,
        "train_images": digits.train.len(),
        "test_images": digits.test.len(),
        "models": models,
    })
}

/// Writes `curves.csv`, `percentiles.csv`, `result.json`, and a figure of each model to `out`.
///
/// # Errors
/// A file that cannot be written.
pub fn write(out: &Path, pairs: &[[Curve; 2]], result: &Value) -> Result<(), Error> {
    fs::create_dir_all(out).map_err(FileError::of("create", out))?;
    let mut curves = "step,model,test_accuracy,train_loss\n".to_owned();
    let mut percentiles = "step,model,p15,p50,p85\n".to_owned();
    for curve in pairs.iter().flatten() {
        let name = curve.name();
        for &Point { step, test_accuracy, train_loss, percentiles: [p15, p50, p85] } in
            &curve.points
        {
            curves.push_str(&format!("{step},{name},{test_accuracy},{train_loss:.6}\n"));
            percentiles.push_str(&format!("{step},{name},{p15:.6},{p50:.6},{p85:.6}\n"));
        }
    }
    let files = [
        ("curves.csv", curves),
        ("percentiles.csv", percentiles),
        ("result.json", format!("{result:#}\n")),
    ];
    for (name, text) in files {
        let path = out.join(name);
        fs::write(&path, text).map_err(FileError::of("write", &path))?;
    }
    for pair in pairs {
        // One evaluation is a point and no curve.
        if pair.iter().any(|curve| curve.points.len() < 2) {
            continue;
        }
        let name = match pair[0].model {
            Model::Mlp => "mnist",
            Model::Lenet => "lenet",
        };
        let figure = figure(pair);
        figure.write_svg(&out.join(format!("{name}.svg")))?;
        figure.write_png(&out.join(format!("{name}.png")))?;
    }
    Ok(())
}

/// The paper's figure 1: test accuracy, and the percentiles without and with batch norm, whose axes
/// are the same so that they can be compared.
fn figure(pair: &[Curve; 2]) -> Figure {
    let accuracy = |curve: &Curve, name: &str, style, colour| Series {
        name: name.to_owned(),
        points: curve.points.iter().map(|point| (point.step as f64, point.test_accuracy)).collect(),
        style,
        colour,
        ..Series::default()
    };
    // The first steps lie far below all that is to be compared.
    let is_good = |curve: &Curve| curve.best().is_some_and(|best| best.test_accuracy > 0.9);
    let bottom = if pair.iter().all(is_good) { 0.8 } else { 0.0 };
    let steps = || Axis::new("steps");
    let mut panels = vec![Panel {
        title: "a: test accuracy".to_owned(),
        x: steps(),
        y: Axis { range: Some((bottom, 1.0)), ..Axis::new("").percent() },
        series: vec![
            accuracy(&pair[0], "without batch norm", Style::Dashed, WITHOUT),
            accuracy(&pair[1], "with batch norm", Style::Solid, WITH),
        ],
        ..Panel::default()
    }];
    let inputs = pair.iter().flat_map(|curve| &curve.points).flat_map(|point| point.percentiles);
    let (low, high) =
        inputs.fold((0.0, 0.0), |(low, high): (f64, f64), input| (low.min(input), high.max(input)));
    let margin = 0.05 * (high - low);
    let titles = ["b: sigmoid's input, without batch norm", "c: sigmoid's input, with batch norm"];
    for ((curve, title), colour) in pair.iter().zip(titles).zip([WITHOUT, WITH]) {
        let line = |index: usize| -> Vec<(f64, f64)> {
            let points = curve.points.iter();
            points.map(|point| (point.step as f64, point.percentiles[index])).collect()
        };
        let band = curve.points.iter().map(|point| {
            let [low, _, high] = point.percentiles;
            (point.step as f64, low, high)
        });
        let series = ["15th percentile", "median", "85th percentile"];
        panels.push(Panel {
            title: title.to_owned(),
            x: steps(),
            y: Axis {
                range: Some((low - margin, high + margin)),
                ..Axis::new("15th, 50th, 85th percentile")
            },
            bands: vec![Band { points: band.collect(), colour }],
            series: (0..series.len())
                .map(|index| Series { points: line(index), colour, ..Series::default() })
                .collect(),
            ..Panel::default()
        });
    }
    Figure { title: String::new(), panels }
}

/// Colours of the networks without and with batch norm, places in the palette of figures.
const WITHOUT: usize = 2;
const WITH: usize = 1;

/// Test accuracies at some of the steps, in percent: a row a step.
pub fn table(pairs: &[[Curve; 2]]) -> String {
    const SHOWN: [usize; 11] =
        [100, 250, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 40_000, 50_000];
    let mut header = vec!["step".to_owned()];
    let mut rows: Vec<Vec<String>> = Vec::new();
    let curves: Vec<&Curve> = pairs.iter().flatten().collect();
    header.extend(curves.iter().map(|curve| curve.name()));
    let last = curves.iter().filter_map(|curve| curve.points.last()).map(|point| point.step).max();
    let mut steps: Vec<usize> = SHOWN.into_iter().chain(last).collect();
    steps.sort_unstable();
    steps.dedup();
    for step in steps {
        let cells = curves.iter().map(|curve| {
            let point = curve.points.iter().find(|point| point.step == step)?;
            Some(format!("{:.2}", 100.0 * point.test_accuracy))
        });
        let cells: Vec<Option<String>> = cells.collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".to_owned()));
            rows.push([step.to_string()].into_iter().chain(cells).collect());
        }
    }
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    text::table(&header, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mnist::experiment::Settings;

    fn curve(normalised: bool, accuracies: &[(usize, f64)]) -> Curve {
        let point = |&(step, test_accuracy): &(usize, f64)| Point {
            step,
            test_accuracy,
            train_loss: 1.0,
            percentiles: [-1.0, 0.0, 1.0],
        };
        let points = accuracies.iter().map(point).collect();
        let settings = Settings { steps: 200, batch_size: 60, lr: 0.1, sigma: 0.1, seed: 0 };
        Curve { model: Model::Mlp, normalised, settings, points, seconds: 1.0 }
    }

    #[test]
    fn fewer_steps_are_counted_up_to_the_best_of_the_other() {
        let plain = [(10, 0.1), (100, 0.9), (200, 0.8)];
        type Case = (&'static [(usize, f64)], Option<usize>, Option<f64>);
        let cases: [Case; 3] = [
            (&[(10, 0.5), (20, 0.9), (200, 0.95)], Some(20), Some(5.0)),
            (&[(10, 0.5), (20, 0.6), (200, 0.9)], Some(200), Some(0.5)),
            (&[(10, 0.5), (20, 0.6), (200, 0.7)], None, None),
        ];
        for (normalised, reached, times) in cases {
            let pair = [curve(false, &plain), curve(true, normalised)];
            let comparison = CurvePair::new(&pair).unwrap();
            assert_eq!((comparison.reached, comparison.times_fewer()), (reached, times));
            let is_named = comparison.sentence().contains("times fewer");
            assert_eq!(is_named, reached.is_some(), "{}", comparison.sentence());
        }
        assert!(CurvePair::new(&[curve(false, &plain), curve(true, &[])]).is_none());
    }

    #[test]
    fn the_table_has_a_row_for_every_shown_step_that_was_evaluated() {
        let pair =
            [curve(false, &[(100, 0.5), (130, 0.625)]), curve(true, &[(100, 0.75), (110, 0.8)])];
        let text = table(&[pair]);
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows,
            [
                vec!["step", "mlp", "mlp-bn"],
                vec!["100", "50.00", "75.00"],
                vec!["130", "62.50", "-"]
            ]
        );
    }
}
