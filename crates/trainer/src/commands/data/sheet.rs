//! The picture of a data set: some images of each class (`data check --sheet`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bninception_data::check::{MAX_EXAMPLES, Report};
use bninception_data::decode::{DecodeBuffers, Wanted};
use bninception_data::{DecodeOptions, FileSource, Sample, Source, thumbnail};

use crate::error::Error;
use crate::figure::{Caption, Cell, ContactSheet, Group, PIXELS_PER_UNIT, Thumbnail, Tone};
use crate::terminal::signals;
use crate::terminal::text::counted;

/// Most classes on a sheet; a sheet of so many is still opened by common viewers.
const MOST_CLASSES: usize = 40;

/// Side of a picture.
const SIDE: f64 = 88.0;

/// The classes of a data set in the order of their names, with the images of each split and some files,
/// of training where there are any.
#[derive(Default)]
struct Class<'a> {
    counts: Vec<(&'static str, usize)>,
    files: &'a [PathBuf],
}

/// A sheet with some images of each class.
///
/// # Errors
/// A shard that is damaged, or a signal that asks to stop.
pub(super) fn sheet(dir: &Path, report: &Report) -> Result<ContactSheet, Error> {
    let mut classes: BTreeMap<&str, Class<'_>> = BTreeMap::new();
    for split in &report.splits {
        for ((name, images), files) in split.classes.iter().zip(&split.examples) {
            let class = classes.entry(name).or_default();
            class.counts.push((split.name, *images));
            if class.files.is_empty() {
                class.files = files;
            }
        }
    }
    let n_shown = classes.len().min(MOST_CLASSES);
    let is_shown =
        |index: &usize| index * n_shown / classes.len() != (index + 1) * n_shown / classes.len();
    let mut groups = Vec::new();
    for (index, (name, class)) in classes.iter().enumerate().filter(|(index, _)| is_shown(index)) {
        let heading = Caption { number: Some(index + 1), ..Caption::plain(name) };
        groups.push(group(heading, class)?);
    }
    let counts = report.splits.iter().map(|split| {
        let images: usize = split.classes.iter().map(|(_, images)| images).sum();
        in_split(images, split.name)
    });
    let shown = match n_shown < classes.len() {
        true => format!("{n_shown} of {}", counted(classes.len() as u64, "class")),
        false => counted(classes.len() as u64, "class"),
    };
    let note = format!(
        "{shown}: up to {MAX_EXAMPLES} images of each, spread evenly over its files, whole and in their own shape"
    );
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let name = dir
        .file_name()
        .map_or_else(|| dir.display().to_string(), |name| name.display().to_string());
    Ok(ContactSheet {
        title: format!("{name}: {}", counts.collect::<Vec<_>>().join(", ")),
        notes: vec![note],
        groups,
        columns: MAX_EXAMPLES,
        side: SIDE,
    })
}

/// The files of a class below its name, to which the counts are added.
fn group(name: Caption, class: &Class<'_>) -> Result<Group, Error> {
    let counts: Vec<String> =
        class.counts.iter().map(|&(split, images)| in_split(images, split)).collect();
    let heading = Caption { after: format!("  {}", counts.join(", ")), ..name };
    let sample = |path: &PathBuf| Sample { path: path.clone(), label: 0 };
    let samples = class.files.iter().map(sample).collect();
    let source = FileSource::new(samples, DecodeOptions::default())?;
    let mut buffers = DecodeBuffers::default();
    let mut cells = Vec::new();
    for (index, path) in class.files.iter().enumerate() {
        signals::check()?;
        // A file that cannot be read is named in the report.
        let image = source.load(index, &mut |_, _| Wanted::ALL, &mut buffers).ok();
        let picture = image.map(|image| {
            let small = thumbnail(&image, (SIDE * PIXELS_PER_UNIT) as u32);
            let (width, height) = small.dimensions();
            Thumbnail { width, height, rgb: small.into_raw() }
        });
        let file = path.file_name().map_or_else(String::new, |name| name.display().to_string());
        let caption =
            Caption { name: file, keeps_end: true, tone: Tone::Quiet, ..Caption::default() };
        cells.push(Cell { picture, captions: vec![caption] });
    }
    Ok(Group { heading, cells })
}

/// Such as `244 images in train`.
fn in_split(images: usize, split: &str) -> String {
    let images = counted(images as u64, "image");
    match split {
        "all" => images,
        split => format!("{images} in {split}"),
    }
}
