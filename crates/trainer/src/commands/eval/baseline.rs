//! What `eval --baseline` adds to the result.

use serde_json::{Value, json};

use super::json::{finite, interval_to_json};
use crate::evaluation::changes::{ChangedImage, Changes};
use crate::evaluation::ensemble::Member;
use crate::evaluation::outcomes::ImageOutcome;
use crate::evaluation::statistics;
use crate::terminal::color::Accent;
use crate::terminal::output::with_path;
use crate::terminal::text::{counted, one_line, percent, table};

/// The four counts, the difference with its interval, the test, and at most `top` images of each kind of
/// change.
pub(super) fn to_text(changes: &Changes<'_>, baseline: &Member, top: usize) -> String {
    let counts = &changes.counts;
    let rates = [changes.this, changes.baseline].map(|found| percent(found.evaluation.top1()));
    let difference = counts.difference().map_or(String::new(), |difference| {
        let interval = counts.interval().map_or(String::new(), |interval| {
            format!(" (95 %: {:+.2} to {:+.2})", 100.0 * interval.low, 100.0 * interval.high)
        });
        format!(", difference {:+.2} points{interval}", 100.0 * difference)
    });
    let cells = |name: &str, right: u64, wrong: u64| {
        vec![name.to_owned(), right.to_string(), wrong.to_string()]
    };
    let grid = table(
        &["", "baseline right", "baseline wrong"],
        &[
            cells("this right", counts.both, counts.only_this),
            cells("this wrong", counts.only_baseline, counts.neither),
        ],
    );
    let mut text = format!(
        "\nbeside the baseline {}, batch norm statistics {}\n{grid}top-1 {}, baseline {}{difference}\n{}\n",
        baseline.path.display(),
        statistics::name(baseline.statistics),
        rates[0],
        rates[1],
        counts.verdict()
    );
    for (is_gain, title) in [(true, "right here alone"), (false, "right in the baseline alone")] {
        let images = changes.largest(is_gain);
        if top == 0 || images.is_empty() {
            continue;
        }
        let shown = match images.len() <= top {
            true => counted(images.len() as u64, "image"),
            false => format!("{top} of {}", counted(images.len() as u64, "image")),
        };
        text.push_str(&format!("\n{}\n", Accent::Strong.paint(&format!("{title}, {shown}"))));
        text.extend(images.into_iter().take(top).map(|image| line(changes, image)));
    }
    text
}

/// `val/ants/1.jpg: ants, here ants at 71.00 %, baseline bees at 60.00 %`
fn line(changes: &Changes<'_>, image: &ChangedImage<'_>) -> String {
    let name = |class: u32| one_line(&changes.this.classes[class as usize]);
    let answer = |outcome: Option<&ImageOutcome>| match outcome.map(ImageOutcome::predicted) {
        None => "not read".to_owned(),
        Some(None) => "no answer".to_owned(),
        Some(Some((class, probability))) => format!("{} at {}", name(class), percent(probability)),
    };
    format!(
        "{}: {}, here {}, baseline {}\n",
        one_line(&changes.path(image).display().to_string()),
        name(image.label),
        answer(image.this),
        answer(image.baseline)
    )
}

/// The same, with all images that changed.
pub(super) fn to_json(changes: &Changes<'_>, baseline: &Member) -> Value {
    let counts = &changes.counts;
    let name = |class: u32| &changes.this.classes[class as usize];
    let answer = |outcome: Option<&ImageOutcome>| {
        let predicted = outcome.and_then(ImageOutcome::predicted);
        json!({
            "predicted": predicted.map(|(class, _)| name(class)),
            "probability_of_predicted": predicted.and_then(|(_, probability)| finite(probability)),
            "probability_of_true": outcome.and_then(|outcome| finite(outcome.probability)),
        })
    };
    let image = |image: &ChangedImage<'_>| {
        let about = json!({
            "true": name(image.label),
            "right": if image.is_gain { "this" } else { "baseline" },
            "this": answer(image.this),
            "baseline": answer(image.baseline),
        });
        with_path("path", changes.path(image), about)
    };
    let about = json!({
        "step": baseline.step,
        "image_size": baseline.preprocessing.image_size,
        "ema": baseline.ema,
        "statistics": statistics::name(baseline.statistics),
        "top1": changes.baseline.evaluation.top1(),
        "both": counts.both,
        "only_this": counts.only_this,
        "only_baseline": counts.only_baseline,
        "neither": counts.neither,
        "difference": counts.difference(),
        "difference_interval": counts.interval().map(interval_to_json),
        "p_value": counts.p_value(),
        "verdict": counts.verdict(),
        "changes": changes.images.iter().map(image).collect::<Vec<Value>>(),
    });
    with_path("path", &baseline.path, about)
}
