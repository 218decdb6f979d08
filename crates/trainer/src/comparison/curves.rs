//! The curves of one run as a figure.

use crate::comparison::epoch_rows::EpochRow;
use crate::comparison::recorded_run::{EvalRow, RecordedRun, TrainingRow};
use crate::figure::{Axis, Figure, Panel, Series, Weight};

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
    Figure { title: run.folder.name(), panels }
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
