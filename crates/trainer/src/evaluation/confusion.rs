//! How many images of each class were taken for each class, as a picture.

use crate::evaluation::evaluate::Evaluation;
use crate::figure::HeatMap;
use crate::terminal::text::{counted, percent};

/// The confusion matrix of an evaluation as a picture.
pub fn confusion_map(classes: &[String], evaluation: &Evaluation) -> HeatMap {
    let answered = evaluation.metrics.images() - evaluation.metrics.not_finite();
    let cells = evaluation.confusion.iter();
    HeatMap {
        title: format!(
            "{} of {}, top-1 {}",
            counted(answered, "image"),
            counted(classes.len() as u64, "class"),
            percent(evaluation.top1())
        ),
        classes: classes.to_vec(),
        cells: cells.map(|(&(label, predicted), &count)| (label, predicted, count)).collect(),
    }
}
