//! The outcomes of an evaluation as pictures in a folder (`eval --out`).

use std::path::Path;
use std::sync::Arc;

use bninception_data::{FileSource, LoadOptions, Loader, Sample};
use bninception_engine::{Features, Images, Normaliser};

use crate::error::Error;
use crate::evaluation::activation_map::overlay;
use crate::evaluation::confusion::confusion_map;
use crate::evaluation::ensemble::Member;
use crate::evaluation::outcomes::{ImageOutcome, Outcomes};
use crate::figure::{Caption, Cell, ContactSheet, Group, Thumbnail, Tone};
use crate::setup;
use crate::terminal::signals;
use crate::terminal::text::{counted, percent};

/// Mistakes on the sheet. Each has two pictures.
const MOST_MISTAKES: usize = 48;
/// Pictures in a row.
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
    let confusion = confusion_map(&outcomes.classes, &outcomes.evaluation);
    confusion.write_png(&dir.join("confusion.png"))
}

/// The worst mistakes, the worst first.
fn mistakes(outcomes: &Outcomes, member: &Member) -> Result<ContactSheet, Error> {
    let all = outcomes.mistakes();
    let shown = &all[..all.len().min(MOST_MISTAKES)];
    let pairs = pairs(outcomes, shown, member)?;
    let cells_of = |(mistake, pair): (&&ImageOutcome, Option<[Thumbnail; 2]>)| {
        let [own, seen] = match pair {
            Some(pair) => pair.map(Some),
            None => [None, None],
        };
        let captions = captions(outcomes, mistake);
        let predicted = mistake.predicted().map(|(class, _)| Caption {
            before: "what looks like ".to_owned(),
            name: outcomes.classes[class as usize].clone(),
            number: Some(class as usize + 1),
            tone: Tone::Quiet,
            ..Caption::default()
        });
        let why = Cell { picture: seen, captions: predicted.into_iter().collect() };
        [Cell { picture: own, captions }, why]
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
            "Beside it, in colours, what speaks for the class that it was taken for; red the most."
                .to_owned(),
        ],
    };
    let cells = shown.iter().zip(pairs).flat_map(cells_of).collect();
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

/// The centres of these images as `member` sees them, and where in them it sees the class that was answered;
/// none for an image that can no longer be read.
///
/// # Errors
/// An executor or loader that fails, or a signal that asks to stop.
pub fn pairs(
    outcomes: &Outcomes,
    images: &[&ImageOutcome],
    member: &Member,
) -> Result<Vec<Option<[Thumbnail; 2]>>, Error> {
    let sample = |image: &&ImageOutcome| outcomes.samples[image.index as usize].clone();
    let samples: Vec<Sample> = images.iter().map(sample).collect();
    let mut pairs = vec![None; samples.len()];
    if samples.is_empty() {
        return Ok(pairs);
    }
    let (mut executor, classifier) = member.explainer()?;
    let normaliser = Normaliser::new(member.preprocessing.mean, member.preprocessing.std);
    let (mut logits, mut features) = (Vec::new(), Features::default());
    features.maps = Some(Vec::new());
    let source = FileSource::new(samples, setup::decode_options(&member.config))?;
    let options = LoadOptions { batch_size: COLUMNS, ..LoadOptions::default() };
    let side = member.preprocessing.image_size;
    for batch in Loader::eval(Arc::new(source), &member.preprocessing, &options)? {
        let batch = batch?;
        signals::check()?;
        if batch.labels.is_empty() {
            continue;
        }
        let seen = Images::Levels { levels: &batch.images, normaliser: &normaliser };
        executor.evaluate_features(seen, &mut logits, &mut features)?;
        let maps = features.maps.as_deref().unwrap_or_default();
        let maps = maps.chunks_exact(maps.len() / batch.labels.len());
        let pixels = batch.images.chunks_exact(member.preprocessing.n_values());
        for ((&index, levels), maps) in batch.indices.iter().zip(pixels).zip(maps) {
            let predicted = images[index as usize].predicted();
            let class = predicted.and_then(|(class, _)| member.own_class(class));
            let map = class.map_or(Vec::new(), |class| classifier.activation_map(class, maps));
            let (width, height) = (side as u32, side as u32);
            let own = Thumbnail { width, height, rgb: levels.to_vec() };
            pairs[index as usize] = Some([own, overlay(levels, side, &map)]);
        }
    }
    Ok(pairs)
}
