//! The result of `eval` as JSON.

use bninception_data::Crops;
use serde_json::{Value, json};

use crate::commands::print;
use crate::evaluation::ensemble::{Member, common_statistics};
use crate::evaluation::interval::Interval;
use crate::evaluation::majority::Majority;
use crate::evaluation::outcomes::{ClassRow, ImageOutcome, Outcomes};
use crate::evaluation::statistics;
use crate::evaluation::tables::MAX_ROWS;
use crate::terminal::output::with_path;

pub(in crate::commands) fn to_json(outcomes: &Outcomes, models: &[Member]) -> Value {
    let evaluation = &outcomes.evaluation;
    let model = |model: &Member| {
        let about = json!({
            "step": model.step,
            "image_size": model.preprocessing.image_size,
            "ema": model.ema,
            "statistics": statistics::name(model.statistics),
        });
        with_path("path", &model.path, about)
    };
    let rows = outcomes.per_class();
    let is_flipped = outcomes.crops == Crops::Mirrored;
    let name = |class: u32| &outcomes.classes[class as usize];
    let pairs = outcomes.confused_pairs().into_iter().take(MAX_ROWS).map(|pair| {
        json!({
            "true": name(pair.label),
            "predicted": name(pair.predicted),
            "count": pair.count,
        })
    });
    let mistake = |outcome: &ImageOutcome| {
        let (predicted, probability) = outcome.predicted()?;
        let about = json!({
            "true": name(outcome.label),
            "predicted": name(predicted),
            "probability_of_predicted": finite(probability),
            "probability_of_true": finite(outcome.probability),
        });
        Some(with_path("path", &outcomes.samples[outcome.index as usize].path, about))
    };
    let majority =
        |majority: Majority| json!({ "class": name(majority.class), "top1": majority.top1() });
    let interval = |rate| Interval::of_rate(rate, evaluation.images()).map(interval_to_json);
    json!({
        "images": evaluation.images(),
        "top1": evaluation.top1(),
        "top5": evaluation.top5(),
        "loss": finite(evaluation.loss()),
        "crops": if is_flipped { 1 } else { outcomes.crops.count() },
        "failed": print::failures_to_json(&evaluation.failed),
        "images_per_second": evaluation.images_per_second(),
        "flip": is_flipped,
        "statistics": common_statistics(models).map_or("mixed", statistics::name),
        "models": models.iter().map(model).collect::<Vec<Value>>(),
        "ece": outcomes.ece(),
        "top1_interval": interval(evaluation.top1()),
        "top5_interval": interval(evaluation.top5()),
        "balanced_accuracy": evaluation.balanced_accuracy(),
        "majority": outcomes.majority().map(majority),
        "per_class": outcomes.classes.iter().zip(&rows).map(class_to_json).collect::<Vec<Value>>(),
        "confused_pairs": pairs.collect::<Vec<Value>>(),
        "mistakes":
            outcomes.mistakes().into_iter().take(MAX_ROWS).filter_map(mistake).collect::<Vec<Value>>(),
    })
}

fn class_to_json((name, row): (&String, &ClassRow)) -> Value {
    json!({
        "class": name,
        "images": row.count.images,
        "top1": row.count.recall(),
        "top5": row.top5_rate(),
        "mean_probability": row.mean_probability().and_then(finite),
        "right": row.count.right,
        "predicted": row.predicted,
        "recall": row.count.recall(),
        "recall_interval": Interval::wilson(row.count.right, row.count.images).map(interval_to_json),
        "precision": row.precision(),
        "f1": row.f1(),
    })
}

pub(super) fn interval_to_json(interval: Interval) -> Value {
    json!([interval.low, interval.high])
}

/// JSON has no not-a-number: nothing stands for it.
pub(super) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
