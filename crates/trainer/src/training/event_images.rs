//! What a run shows in TensorBoard beside its curves: the first images, and what classes are taken for.

use std::path::Path;

use bninception_data::Batch;

use crate::error::Error;
use crate::evaluation::confusion::confusion_map;
use crate::evaluation::evaluate::Evaluation;
use crate::figure::{Caption, Cell, ContactSheet, Group, Thumbnail, Tone};
use crate::run::tensorboard::EventImage;
use crate::terminal::text::{counted, percent};
use crate::training::job::Job;
use crate::training::session::{Files, Session};

/// Pictures on the sheet, and in a row of it.
const MOST_IMAGES: usize = 16;
const COLUMNS: usize = 4;

/// Side of a picture: 224 pixels, those of the paper's networks.
const SIDE: f64 = 112.0;

/// Shows the first images of the first batch of a run. They are those that the network is about to see: nothing is
/// drawn or decoded for them.
pub(super) fn show_first_images(run: &mut Session<'_>, batch: &Batch) {
    let Some(Files { journal, .. }) = &mut run.files else { return };
    if batch.labels.is_empty() || !journal.takes_first_images() {
        return;
    }
    let (tag, description) = (
        "train/images",
        "The first training images of the run as the network sees them, behind crop, mirror, colours and mixup.",
    );
    if let Some(png) = painted(tag, first_images(run.job, batch).to_png()) {
        journal.image(0, &EventImage { tag, description, png: &png });
    }
}

/// Shows how an evaluation came out, and writes down how good the best so far is. Every evaluation has its picture: of
/// up to 50 classes, with names and counts, one takes up to 0.4 MB, of more classes up to 0.2 MB, which is little beside
/// a checkpoint of 123 MB; TensorBoard chooses ten of them.
pub(super) fn show_evaluation(run: &mut Session<'_>, evaluation: &Evaluation) {
    let (step, best) = (run.progress.step, run.progress.best);
    let Some(Files { journal, .. }) = &mut run.files else { return };
    if !journal.takes_images() {
        return;
    }
    if let Some(best) = best {
        journal.best_top1(step, best.top1);
    }
    let (tag, description) = (
        "val/confusion",
        "The validation images by their class (rows) and the class that came first (columns).",
    );
    if let Some(png) = painted(tag, confusion_map(&run.job.classes, evaluation).to_png()) {
        journal.image(step, &EventImage { tag, description, png: &png });
    }
}

/// A picture, unless it cannot be painted, which ends no run.
fn painted(tag: &str, png: Result<Vec<u8>, Error>) -> Option<Vec<u8>> {
    png.inspect_err(|error| tracing::warn!("TensorBoard goes without {tag}: {error}")).ok()
}

fn first_images(job: &Job, batch: &Batch) -> ContactSheet {
    let side = job.preprocessing.image_size as u32;
    let pixels = batch.images.chunks_exact(job.preprocessing.n_values());
    let images = pixels.zip(&batch.labels).zip(&batch.indices).take(MOST_IMAGES);
    let cell = |((levels, &label), &index): ((&[u8], &u32), &u32)| {
        let class = label as usize;
        let path = job.train.path(index as usize);
        Cell {
            picture: Some(Thumbnail { width: side, height: side, rgb: levels.to_vec() }),
            captions: vec![
                Caption { number: Some(class + 1), ..Caption::plain(&job.classes[class]) },
                Caption { keeps_end: true, tone: Tone::Quiet, ..Caption::plain(&file_name(path)) },
            ],
        }
    };
    let cells: Vec<Cell> = images.map(cell).collect();
    let mixed = batch.own_share.map(|share| {
        format!(
            "Each is mixed with another image of the batch and keeps {} of itself.",
            percent(share)
        )
    });
    ContactSheet {
        title: format!("The first {} of training", counted(cells.len() as u64, "image")),
        notes: ["As the network sees them.".to_owned()].into_iter().chain(mixed).collect(),
        groups: vec![Group { heading: Caption::default(), cells }],
        columns: COLUMNS,
        side: SIDE,
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.display().to_string())
}
