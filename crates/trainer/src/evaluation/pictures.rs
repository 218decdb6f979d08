//! The outcomes of an evaluation as pictures in a folder (`eval --out`).

use std::path::Path;
use std::sync::Arc;

use bninception_data::{FileSource, LoadOptions, Loader, Sample};

use crate::error::Error;
use crate::evaluation::ensemble::Member;
use crate::evaluation::outcomes::{ImageOutcome, Outcomes};
use crate::figure::{Caption, Cell, ContactSheet, Group, HeatMap, Thumbnail, Tone};
use crate::setup;
use crate::terminal::signals;
use crate::terminal::text::{counted, percent};

/// Pictures on the sheet of mistakes: six rows of eight, what fits on a screen.
const MOST_MISTAKES: usize = 48;
const COLUMNS: usize = 8;

/// Side of a picture: 224 pixels, those of the paper's networks.
const SIDE: f64 = 112.0;

/// Writes `mistakes.png` and `confusion.png` into `dir`, in the place of those of an earlier evaluation.
/// Pictures are shown as `member` sees the centre of each.
///
/// # Errors
/// A file cannot be written, or a signal that asks to stop.
pub fn write(dir: &Path, outcomes: &Outcomes, member: &Member) -> Result<(), Error> {
    mistakes(outcomes, member)?.write_png(&dir.join("mistakes.png"))?;
    confusion(outcomes).write_png(&dir.join("confusion.png"))
}

/// The worst mistakes, the worst first.
fn mistakes(outcomes: &Outcomes, member: &Member) -> Result<ContactSheet, Error> {
    let all = outcomes.mistakes();
    let shown = &all[..all.len().min(MOST_MISTAKES)];
    let thumbnails = thumbnails(outcomes, shown, member)?;
    let cell = |(mistake, picture): (&&ImageOutcome, Option<Thumbnail>)| Cell {
        picture,
        captions: captions(outcomes, mistake),
    };
    let images = counted(outcomes.evaluation.images(), "image");
    let title = match (all.len(), shown.len()) {
        (0, _) => format!("No mistake on {images}"),
        (n, shown) if n == shown => format!("All {} on {images}", counted(n as u64, "mistake")),
        (n, shown) => format!("The worst {shown} of {n} mistakes on {images}"),
    };
    let notes = match shown.is_empty() {
        true => vec![],
        false => vec![
            "Each as the network sees it, with its class and the one it was taken for, the \
             probabilities of both, and its file. The lowest probability of the true class comes first."
                .to_owned(),
        ],
    };
    let cells = shown.iter().zip(thumbnails).map(cell).collect();
    let groups = vec![Group { heading: Caption::default(), cells }];
    Ok(ContactSheet { title, notes, groups, columns: COLUMNS, side: SIDE })
}

fn captions(outcomes: &Outcomes, mistake: &ImageOutcome) -> Vec<Caption> {
    let name = |class: u32| outcomes.classes[class as usize].clone();
    let after = |probability: f64| format!("  {}", percent(probability));
    let path = &outcomes.samples[mistake.index as usize].path;
    let file = path.file_name().map_or_else(String::new, |name| name.display().to_string());
    let mut captions = vec![Caption {
        name: name(mistake.label),
        after: after(mistake.probability),
        number: Some(mistake.label as usize + 1),
        ..Caption::default()
    }];
    captions.extend(mistake.predicted().map(|(predicted, probability)| Caption {
        before: "→ ".to_owned(),
        name: name(predicted),
        after: after(probability),
        number: Some(predicted as usize + 1),
        tone: Tone::Alarm,
        ..Caption::default()
    }));
    captions.push(Caption { name: file, keeps_end: true, tone: Tone::Quiet, ..Caption::default() });
    captions
}

/// The centres of these images as `member` sees them; none for one that can no longer be read.
fn thumbnails(
    outcomes: &Outcomes,
    images: &[&ImageOutcome],
    member: &Member,
) -> Result<Vec<Option<Thumbnail>>, Error> {
    let sample = |image: &&ImageOutcome| outcomes.samples[image.index as usize].clone();
    let samples: Vec<Sample> = images.iter().map(sample).collect();
    let mut thumbnails = vec![None; samples.len()];
    let source = FileSource::new(samples, setup::decode_options(&member.config))?;
    let options = LoadOptions { batch_size: COLUMNS, ..LoadOptions::default() };
    let size = member.preprocessing.image_size as u32;
    for batch in Loader::eval(Arc::new(source), &member.preprocessing, &options)? {
        let batch = batch?;
        signals::check()?;
        let pixels = batch.images.chunks_exact(member.preprocessing.n_values());
        for (&index, levels) in batch.indices.iter().zip(pixels) {
            let rgb = levels.to_vec();
            thumbnails[index as usize] = Some(Thumbnail { width: size, height: size, rgb });
        }
    }
    Ok(thumbnails)
}

/// How many images of each class were taken for each class.
fn confusion(outcomes: &Outcomes) -> HeatMap {
    let answered = outcomes.evaluation.metrics.images() - outcomes.evaluation.metrics.not_finite();
    let cells = outcomes.confusion().into_iter();
    HeatMap {
        title: format!(
            "{} of {}, top-1 {}",
            counted(answered, "image"),
            counted(outcomes.classes.len() as u64, "class"),
            percent(outcomes.evaluation.top1())
        ),
        classes: outcomes.classes.clone(),
        cells: cells.map(|((label, predicted), count)| (label, predicted, count)).collect(),
    }
}
