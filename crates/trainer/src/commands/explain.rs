//! `explain`: where in an image a network sees a class.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bninception_data::{Loader, Source};
use bninception_engine::metrics::{softmax, top_k};
use bninception_engine::{EvaluationWeights, Features, Images, Normaliser};
use serde_json::{Value, json};

use super::used_images::UsedImages;
use crate::cli::ExplainArgs;
use crate::commands::print;
use crate::config::nearest;
use crate::error::Error;
use crate::evaluation::activation_map::{CentredClassifier, overlay};
use crate::evaluation::statistics;
use crate::figure::{Caption, Cell, ContactSheet, Group, Thumbnail, Tone};
use crate::file_error::FileError;
use crate::images::data_dirs::check_outside;
use crate::run::checkpoint::Checkpoint;
use crate::setup;
use crate::terminal::output::with_path;
use crate::terminal::signals;
use crate::terminal::text::{counted, percent};

/// Images on the sheet; each has a picture of its own as well.
const MOST_ON_SHEET: usize = 48;

/// Side of a picture on the sheet.
const SIDE: f64 = 112.0;

/// An image, and where a class is seen in it.
struct Explained {
    path: PathBuf,
    picture: Thumbnail,
    /// Classes with their probabilities, where they are seen, and what they add.
    classes: Vec<SeenClass>,
}

struct SeenClass {
    class: usize,
    probability: f64,
    overlay: Thumbnail,
    file: PathBuf,
}

pub(super) fn explain(args: &ExplainArgs) -> Result<(), Error> {
    let UsedImages { checkpoint, config, images } =
        UsedImages::of(&args.checkpoint, &args.images, &args.options, "explain")?;
    let source = Arc::new(images);
    let asked = asked_classes(&args.class, &checkpoint.metadata.classes)?;
    let (weights, found) = statistics::weights(&checkpoint, args.statistics)?;
    if let Some(note) = statistics::size_note(&checkpoint, found) {
        tracing::warn!("{note}");
    }
    let Checkpoint { metadata, network, .. } = checkpoint;
    let explainer = Explainer {
        classifier: CentredClassifier::of(&network, &weights),
        asked: &asked,
        names: &metadata.classes,
        side: metadata.preprocessing.image_size,
        out: &args.out,
    };
    let mut executor = setup::executor(&config, network)?;
    executor.prepare_evaluation(EvaluationWeights::Given(&weights))?;
    let normaliser = Normaliser::new(metadata.preprocessing.mean, metadata.preprocessing.std);
    for folder in args.images.iter().filter(|path| path.is_dir()) {
        check_outside(folder, &args.out, "--out")?;
    }
    fs::create_dir_all(&args.out).map_err(FileError::of("create", &args.out))?;

    let options = setup::load_options(&config, setup::val_batch_size(&config));
    let mut loader = Loader::eval(source.clone(), &metadata.preprocessing, &options)?;
    let (mut logits, mut features) = (Vec::new(), Features::default());
    features.maps = Some(Vec::new());
    let (mut shown, mut n_explained, mut n_failed) = (Vec::new(), 0, 0);
    let mut results = Vec::new();
    while let Some(batch) = loader.next() {
        let batch = batch?;
        signals::check()?;
        for failure in &batch.failed {
            tracing::warn!("{}", failure.error);
        }
        n_failed += batch.failed.len();
        let n = batch.labels.len();
        if n > 0 {
            let images = Images::Levels { levels: &batch.images, normaliser: &normaliser };
            executor.evaluate_features(images, &mut logits, &mut features)?;
        }
        let maps = features.maps.as_deref().unwrap_or_default();
        for (at, &index) in batch.indices.iter().enumerate() {
            let (row, of_image) = (index as usize, |len: usize| at * len / n..(at + 1) * len / n);
            let explained = explainer.explained(
                source.path(row),
                row,
                &batch.images[of_image(batch.images.len())],
                &logits[of_image(logits.len())],
                &maps[of_image(maps.len())],
            );
            for seen in &explained.classes {
                seen.overlay.write_png(&seen.file)?;
            }
            results.push(to_json(&explained, &metadata.classes));
            n_explained += 1;
            if shown.len() < MOST_ON_SHEET {
                shown.push(explained);
            }
        }
        loader.recycle(batch);
    }
    let sheet = args.out.join("explained.png");
    sheet_of(&shown, n_explained, &asked, &metadata.classes).write_png(&sheet)?;
    match args.options.json {
        true => print::json(&Value::from(results))?,
        false => print::text(&format!(
            "{}: where the network sees the likeliest class of {}{}",
            sheet.display(),
            counted(n_explained as u64, "image"),
            match asked.len() {
                0 => String::new(),
                _ => format!(", and {}", args.class.join(", ")),
            }
        ))?,
    }
    match n_failed {
        0 => Ok(()),
        n => Err(Error::Unusable(format!("{n} of {} images could not be read", source.len()))),
    }
}

/// The places of the classes that were asked for.
fn asked_classes(asked: &[String], classes: &[String]) -> Result<Vec<usize>, Error> {
    let place = |name: &String| {
        classes.iter().position(|class| class == name).ok_or_else(|| {
            let nearest = nearest(name, classes.iter().map(String::as_str));
            Error::Usage(format!("--class {name}: no such class; did you mean `{nearest}`?"))
        })
    };
    asked.iter().map(place).collect()
}

/// What turns answers of the network into pictures.
struct Explainer<'a> {
    classifier: CentredClassifier,
    /// Places of the classes that are shown beside the likeliest.
    asked: &'a [usize],
    /// The names of all classes.
    names: &'a [String],
    /// Rows and columns of a picture.
    side: usize,
    /// Where files go.
    out: &'a Path,
}

impl Explainer<'_> {
    /// Image number `row` of those that were named, as the network saw it: its levels, logits and maps.
    fn explained(
        &self,
        path: &Path,
        row: usize,
        levels: &[u8],
        logits: &[f32],
        maps: &[f32],
    ) -> Explained {
        let probabilities = softmax(logits);
        let best = top_k(&probabilities, 1).first().copied();
        let others = self.asked.iter().copied().filter(|&class| Some(class) != best);
        let classes = best.into_iter().chain(others).map(|class| SeenClass {
            class,
            probability: probabilities[class],
            overlay: overlay(levels, self.side, &self.classifier.activation_map(class, maps)),
            file: self.file(path, row, class),
        });
        let (width, height) = (self.side as u32, self.side as u32);
        let picture = Thumbnail { width, height, rgb: levels.to_vec() };
        Explained { path: path.to_owned(), picture, classes: classes.collect() }
    }

    /// The file of an image and a class: the number of the image, its name, and the class.
    fn file(&self, path: &Path, row: usize, class: usize) -> PathBuf {
        // Systems take 255 bytes for the name of a file.
        let short = |text: &str| text.chars().take(50).collect::<String>();
        let stem = path.file_stem().map_or_else(String::new, |stem| stem.display().to_string());
        let name = format!("{:04}-{}-{}.png", row + 1, short(&stem), short(&self.names[class]));
        self.out.join(name.replace(['/', '\\'], "_"))
    }
}

fn to_json(explained: &Explained, names: &[String]) -> Value {
    let classes = explained.classes.iter().map(|seen| {
        let about = json!({ "class": names[seen.class], "probability": seen.probability });
        with_path("file", &seen.file, about)
    });
    let about = json!({ "classes": classes.collect::<Vec<_>>() });
    with_path("path", &explained.path, about)
}

/// Each image with its overlays beside it: that of the likeliest class, and those of the classes asked for.
fn sheet_of(
    shown: &[Explained],
    n_explained: usize,
    asked: &[usize],
    names: &[String],
) -> ContactSheet {
    let of_image = 2 + asked.len();
    let columns = of_image * (8 / of_image).max(1);
    let cells = shown.iter().flat_map(|explained| {
        let file = explained.path.file_name().map_or_else(String::new, |f| f.display().to_string());
        let caption =
            Caption { name: file, keeps_end: true, tone: Tone::Quiet, ..Caption::default() };
        let own = Cell { picture: Some(explained.picture.clone()), captions: vec![caption] };
        let of_class = |class: &usize| explained.classes.iter().find(|seen| seen.class == *class);
        let seen = explained.classes.iter().take(1).chain(asked.iter().filter_map(of_class));
        let seen = seen.map(|seen| Cell {
            picture: Some(seen.overlay.clone()),
            captions: vec![Caption {
                name: names[seen.class].clone(),
                after: format!("  {}", percent(seen.probability)),
                number: Some(seen.class + 1),
                ..Caption::default()
            }],
        });
        std::iter::once(own).chain(seen)
    });
    let title = match n_explained == shown.len() {
        true => "What speaks for a class, place by place".to_owned(),
        false => {
            format!(
                "What speaks for a class, place by place: {} of {n_explained} images",
                shown.len()
            )
        }
    };
    let notes = vec![
        "Colours show what speaks for the class, red the most, on a scale of each picture's own.".to_owned(),
        "A network that has learnt little, or sees few places, may prefer some of them whatever they show."
            .to_owned(),
    ];
    let groups = vec![Group { heading: Caption::default(), cells: cells.collect() }];
    ContactSheet { title, notes, groups, columns, side: SIDE }
}
