//! `explain`: where in an image a network sees a class.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bninception_data::{Batch, Loader, Source};
use bninception_engine::metrics::{softmax, top_k};
use bninception_engine::{EvaluationWeights, Features, Images, Normaliser};
use serde_json::{Value, json};

use super::predict::{check_images, named_images};
use super::stored::use_config;
use crate::cli::ExplainArgs;
use crate::commands::print;
use crate::config::nearest;
use crate::error::Error;
use crate::evaluation::activation_map::{CentredClassifier, overlay};
use crate::evaluation::statistics;
use crate::figure::{Caption, Cell, ContactSheet, Group, Thumbnail, Tone};
use crate::file_error::FileError;
use crate::images::data_dirs::check_outside;
use crate::images::named;
use crate::run::checkpoint::{self, Checkpoint};
use crate::run::folder::RunFolder;
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
    check_images(&args.checkpoint, &args.images, "explain")?;
    let path = RunFolder::checkpoint_in(&args.checkpoint)?;
    let checkpoint = checkpoint::load(&path)?;
    let config = use_config(&checkpoint, &args.options)?;
    let max_bytes = setup::decode_options(&config).max_bytes;
    let named = named::named(&args.images, io::stdin().lock(), max_bytes)?;
    signals::listen()?;
    let asked = asked_classes(&args.class, &checkpoint.metadata.classes)?;
    let (weights, _) = statistics::weights(&checkpoint, args.statistics)?;
    let Checkpoint { metadata, network, .. } = checkpoint;
    let classifier = CentredClassifier::of(&network, &weights);
    let source = Arc::new(named_images(named, &config)?);
    let mut executor = setup::executor(&config, network)?;
    executor.prepare_evaluation(EvaluationWeights::Given(&weights))?;
    let normaliser = Normaliser::new(metadata.preprocessing.mean, metadata.preprocessing.std);
    for folder in args.images.iter().filter(|path| path.is_dir()) {
        check_outside(folder, &args.out, "--out")?;
    }
    fs::create_dir_all(&args.out).map_err(FileError::of("create", &args.out))?;

    let side = metadata.preprocessing.image_size;
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
        if !batch.labels.is_empty() {
            let images = Images::Levels { levels: &batch.images, normaliser: &normaliser };
            executor.evaluate_features(images, &mut logits, &mut features)?;
        }
        let maps = features.maps.as_deref().unwrap_or_default();
        for (row, explained) in explained_of(&batch, side, &logits, maps, &classifier, &asked) {
            let explained = Explained { path: source.path(row).to_owned(), ..explained };
            let explained = named_files(explained, &args.out, row, &metadata.classes);
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

/// The images of a batch, each with its place in the source, without path and files.
fn explained_of<'a>(
    batch: &'a Batch,
    side: usize,
    logits: &'a [f32],
    maps: &'a [f32],
    classifier: &'a CentredClassifier,
    asked: &'a [usize],
) -> impl Iterator<Item = (usize, Explained)> + 'a {
    let n = batch.labels.len().max(1);
    let (pixels, n_classes, n_map) = (side * side * 3, logits.len() / n, maps.len() / n);
    batch.indices.iter().enumerate().map(move |(at, &index)| {
        let levels = &batch.images[at * pixels..][..pixels];
        let probabilities = softmax(&logits[at * n_classes..][..n_classes]);
        let best = top_k(&probabilities, 1).first().copied();
        let others = asked.iter().copied().filter(|&class| Some(class) != best);
        let classes = best.into_iter().chain(others).map(|class| {
            let map = classifier.activation_map(class, &maps[at * n_map..][..n_map]);
            SeenClass {
                class,
                probability: probabilities[class],
                overlay: overlay(levels, side, &map),
                file: PathBuf::new(),
            }
        });
        let (width, height) = (side as u32, side as u32);
        let picture = Thumbnail { width, height, rgb: levels.to_vec() };
        let classes = classes.collect();
        (index as usize, Explained { path: PathBuf::new(), picture, classes })
    })
}

/// With names for the files: the number of the image, its name, and the class.
fn named_files(explained: Explained, out: &Path, row: usize, names: &[String]) -> Explained {
    let stem =
        explained.path.file_stem().map_or_else(String::new, |stem| stem.display().to_string());
    // Systems take 255 bytes for the name of a file.
    let short = |text: &str| text.chars().take(50).collect::<String>();
    let classes = explained.classes.into_iter().map(|seen| {
        let (stem, class) = (short(&stem), short(&names[seen.class]));
        let name = format!("{:04}-{stem}-{class}.png", row + 1);
        SeenClass { file: out.join(name.replace(['/', '\\'], "_")), ..seen }
    });
    Explained { classes: classes.collect(), ..explained }
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
