//! The result of `eval` as a person reads it.

use bninception_data::Crops;

use crate::evaluation::ensemble::{Member, common_statistics};
use crate::evaluation::interval::Interval;
use crate::evaluation::outcomes::{ClassRow, ConfusedPair, Outcomes};
use crate::evaluation::statistics;
use crate::terminal::color::Accent;
use crate::terminal::loss::{is_far_above_guessing, loss_text};
use crate::terminal::text::{counted, has_top5, one_line, percent, shortened, table};

/// Up to so many classes all of them are shown, with the grid of confusion: what fits into a window of
/// 24 lines or a little more.
const MAX_SHOWN_CLASSES: usize = 20;

/// Columns of text that a grid of [`MAX_SHOWN_CLASSES`] may take.
const GRID_WIDTH: usize = 100;

/// Columns that the name of a class may take in front of a row.
const NAME_WIDTH: usize = 24;

/// The result, and lists of at most `top` lines behind it; 0 leaves out all that stands behind the result.
pub(in crate::commands) fn to_text(outcomes: &Outcomes, models: &[Member], top: usize) -> String {
    let mut text = headline(outcomes);
    if let Some(majority) = outcomes.majority() {
        let verdict = majority.verdict(&outcomes.classes, outcomes.evaluation.top1());
        text.push_str(&format!("{verdict}\n"));
    }
    if is_far_above_guessing(outcomes.evaluation.loss(), outcomes.classes.len()) {
        let reason = statistics::reason_for_loss(common_statistics(models).flatten());
        text.push_str(&format!("the loss is so far above guessing because {reason}\n"));
    }
    match models {
        [model] => {
            let statistics = statistics::name(model.statistics);
            text.push_str(&format!("batch norm statistics: {statistics}\n"));
        }
        models => {
            text.push_str(&format!(
                "mean of {} models, with batch norm statistics:\n",
                models.len()
            ));
            for model in models {
                let statistics = statistics::name(model.statistics);
                text.push_str(&format!("  {}: {statistics}\n", model.path.display()));
            }
        }
    }
    if top == 0 {
        return text;
    }
    let rows = outcomes.per_class();
    let is_short = outcomes.classes.len() <= MAX_SHOWN_CLASSES;
    for (title, lines) in [
        ("classes", if is_short { all_classes(outcomes, &rows) } else { String::new() }),
        (
            "worst classes",
            if is_short { String::new() } else { worst_classes(outcomes, &rows, top) },
        ),
        (
            "confusion, true classes by predicted ones",
            if is_short { grid(outcomes) } else { String::new() },
        ),
        ("most confused", confused_pairs(outcomes, &rows, top)),
        ("worst mistakes", mistakes(outcomes, top)),
    ] {
        if !lines.is_empty() {
            text.push_str(&format!("\n{}\n{lines}", Accent::Strong.paint(title)));
        }
    }
    text
}

fn headline(outcomes: &Outcomes) -> String {
    let evaluation = &outcomes.evaluation;
    let n_classes = outcomes.classes.len();
    let with_interval = |rate| {
        let interval = Interval::of_rate(rate, evaluation.images());
        let interval =
            interval.map_or(String::new(), |found| format!(" (95 %: {})", found.to_text()));
        format!("{}{interval}", percent(rate))
    };
    let top5 = match has_top5(n_classes) {
        true => format!(", top-5 {}", with_interval(evaluation.top5())),
        false => String::new(),
    };
    let ece = outcomes.ece().map_or(String::new(), |ece| format!(", ECE {ece:.4}"));
    let crops = match outcomes.crops {
        Crops::One => "one centre crop each".to_owned(),
        Crops::Mirrored => "the mean of one centre crop each and its mirror image".to_owned(),
        crops => format!("{} crops each", crops.count()),
    };
    let failed = match evaluation.failed.len() {
        0 => String::new(),
        n => format!("; {n} could not be read, counted as wrong"),
    };
    format!(
        "{}{top5}, balanced accuracy {}, loss {}{ece} on {}, {crops}{failed} ({:.1} img/s)\n",
        Accent::Strong.paint(&format!("top-1 {}", with_interval(evaluation.top1()))),
        percent(evaluation.balanced_accuracy()),
        loss_text(evaluation.loss(), n_classes),
        counted(evaluation.images(), "image"),
        evaluation.images_per_second(),
    )
}

/// Every class, in the order of the classes.
fn all_classes(outcomes: &Outcomes, rows: &[ClassRow]) -> String {
    class_table(outcomes, &outcomes.classes.iter().zip(rows).collect::<Vec<_>>())
}

/// The classes with the lowest recall, of those that have mistakes.
fn worst_classes(outcomes: &Outcomes, rows: &[ClassRow], top: usize) -> String {
    let has_mistakes = |(_, row): &(&String, &ClassRow)| row.count.right < row.count.images;
    let mut classes: Vec<(&String, &ClassRow)> =
        outcomes.classes.iter().zip(rows).filter(has_mistakes).collect();
    let recall = |row: &ClassRow| row.count.recall().unwrap_or(1.0);
    classes.sort_by(|(_, a), (_, b)| recall(a).total_cmp(&recall(b)));
    classes.truncate(top);
    match classes.is_empty() {
        true => String::new(),
        false => class_table(outcomes, &classes),
    }
}

fn class_table(outcomes: &Outcomes, classes: &[(&String, &ClassRow)]) -> String {
    let or_dash = |rate: Option<f64>| rate.map_or("-".to_owned(), percent);
    let has_top5 = has_top5(outcomes.classes.len());
    let mut header = vec!["class", "images", "recall", "95 %", "precision", "F1"];
    header.extend(has_top5.then_some("top-5"));
    header.push("mean probability");
    let line = |(name, row): &(&String, &ClassRow)| {
        let interval = Interval::wilson(row.count.right, row.count.images);
        let mut cells = vec![
            one_line(name),
            row.count.images.to_string(),
            or_dash(row.count.recall()),
            interval.map_or("-".to_owned(), |found| found.to_text()),
            or_dash(row.precision()),
            or_dash(row.f1()),
        ];
        cells.extend(has_top5.then(|| or_dash(row.top5_rate())));
        cells.push(or_dash(row.mean_probability()));
        cells
    };
    table(&header, &classes.iter().map(line).collect::<Vec<_>>())
}

/// How many images of each class were taken for each class. A dot is none.
fn grid(outcomes: &Outcomes) -> String {
    let n = outcomes.classes.len();
    let cells = &outcomes.evaluation.confusion;
    let names: Vec<String> =
        outcomes.classes.iter().map(|name| shortened(&one_line(name), NAME_WIDTH)).collect();
    // Two spaces stand between columns. What is cut off can be told from the rows, in the same order.
    let room = ((GRID_WIDTH - NAME_WIDTH) / n.max(1)).saturating_sub(2).clamp(3, NAME_WIDTH);
    let titles: Vec<String> = names.iter().map(|name| shortened(name, room)).collect();
    let header: Vec<&str> = std::iter::once("").chain(titles.iter().map(String::as_str)).collect();
    let line = |(label, name): (usize, &String)| {
        let cell = |predicted| match cells.get(&(label as u32, predicted)) {
            Some(count) if label as u32 == predicted => Accent::Good.paint(&count.to_string()),
            Some(count) => count.to_string(),
            None => Accent::Faint.paint("."),
        };
        std::iter::once(name.clone()).chain((0..n as u32).map(cell)).collect()
    };
    table(&header, &names.iter().enumerate().map(line).collect::<Vec<Vec<String>>>())
}

fn confused_pairs(outcomes: &Outcomes, rows: &[ClassRow], top: usize) -> String {
    let line = |pair: &ConfusedPair| {
        let [label, predicted] =
            [pair.label, pair.predicted].map(|class| one_line(&outcomes.classes[class as usize]));
        let images = rows[pair.label as usize].count.images;
        format!("{label} taken for {predicted}: {} of {images}\n", pair.count)
    };
    outcomes.confused_pairs().iter().take(top).map(line).collect()
}

fn mistakes(outcomes: &Outcomes, top: usize) -> String {
    let mut text = String::new();
    for mistake in outcomes.mistakes().into_iter().take(top) {
        let Some((predicted, probability)) = mistake.predicted() else { continue };
        text.push_str(&format!(
            "{}: {} at {}, taken for {} at {}\n",
            one_line(&outcomes.samples[mistake.index as usize].path.display().to_string()),
            one_line(&outcomes.classes[mistake.label as usize]),
            percent(mistake.probability),
            one_line(&outcomes.classes[predicted as usize]),
            percent(probability),
        ));
    }
    text
}
