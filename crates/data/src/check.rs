//! A look at every file of a data set: what would break a run, and what a person should know.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::RgbImage;
use image::metadata::Orientation;

use crate::decode::{decode, read_file};
use crate::decode_options::DecodeOptions;
use crate::error::{DataError, DecodeError};
use crate::folder::{ScanOptions, Trees, scan_with, trees};
use crate::format::Format;
use crate::listing::{Lister, pieces};
use crate::shard::Packed;
use crate::{entropy, exif};

/// Files of a piece of work.
const PIECE: usize = 64;

/// A short side below this is suspicious: less than the smallest input of the network.
const TINY: u32 = 32;

/// A long side of more than this many short sides is suspicious: a crop of the usual shapes shows
/// little of it.
const EXTREME: u32 = 5;

/// Files of a class that a person gets to see.
pub const MAX_EXAMPLES: usize = 10;

/// What [`check`] found. Lists are in the order of the data set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Why a run would refuse the folder's layout, if it would.
    pub layout: Option<String>,
    /// Things that scanning notes.
    pub notes: Vec<String>,
    /// Files that are not images by their extension, by extension, such as `.txt`.
    pub left_out: BTreeMap<String, usize>,
    /// The splits with their classes.
    pub splits: Vec<Split>,
    /// Files that cannot be decoded.
    pub unreadable: Vec<Finding>,
    /// Pictures of which parts are grey or wrong: the decoder conceals damage in their files.
    pub damaged: Vec<Finding>,
    /// Pictures of one colour, tiny ones, and those of an extreme shape.
    pub suspicious: Vec<Finding>,
    /// Files whose content is of another format than their extension says; they are read.
    pub misnamed: Vec<Finding>,
    /// Files with the same bytes.
    pub duplicates: Vec<Duplicate>,
    /// Files by format.
    pub formats: BTreeMap<&'static str, usize>,
    /// Pictures by pixels: the key is the upper end of a range, a power of four.
    pub sizes: BTreeMap<u64, usize>,
    /// Pictures that their EXIF orientation turns or mirrors.
    pub turned: usize,
}

/// A split and how many images each of its classes has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// `train`, `val`, or `all` where there is one tree of classes.
    pub name: &'static str,
    /// Classes in the order of their names.
    pub classes: Vec<(String, usize)>,
    /// Some files of each class, at most [`MAX_EXAMPLES`], spread evenly over its list.
    pub examples: Vec<Vec<PathBuf>>,
}

/// A file, and what is to be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// What was found.
    pub what: String,
}

/// Files with the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The files, two or more.
    pub paths: Vec<PathBuf>,
    /// Whether they stand under different classes.
    pub across_classes: bool,
    /// Whether they stand in different splits, so that evaluation sees training images.
    pub across_splits: bool,
}

impl Report {
    /// Whether a run on this folder would stop, or would meet files that it cannot read.
    pub fn breaks_a_run(&self) -> bool {
        self.layout.is_some() || !self.unreadable.is_empty()
    }

    /// Images of all splits.
    pub fn images(&self) -> usize {
        self.splits.iter().flat_map(|split| &split.classes).map(|(_, images)| images).sum()
    }
}

/// Reads and decodes every image below `dir`, on the threads of `lister`. `start` is told how many
/// there are, `advance` of each piece that is done. The report does not depend on the threads.
///
/// # Errors
/// `dir` cannot be listed, holds no class folder at all, or [`DataError::Stopped`].
pub fn check(
    lister: &Lister<'_>,
    dir: &Path,
    options: &DecodeOptions,
    start: impl FnOnce(usize),
    advance: &(dyn Fn(usize) + Sync),
) -> Result<Report, DataError> {
    let mut report = Report::default();
    match scan_with(lister, dir, &ScanOptions::default()) {
        Ok(splits) => report.notes = splits.notes,
        Err(DataError::Stopped) => return Err(DataError::Stopped),
        Err(error) => report.layout = Some(error.to_string()),
    }
    let Trees { trees, left_out, notes } = trees(lister, dir)?;
    report.left_out = left_out;
    if report.layout.is_some() {
        report.notes = notes;
    }
    let mut files: Vec<File<'_>> = Vec::new();
    for (name, classes) in &trees {
        let counts = classes.iter().map(|class| (class.name.clone(), class.images.len()));
        let examples = classes.iter().map(|class| examples(&class.images));
        report.splits.push(Split { name, classes: counts.collect(), examples: examples.collect() });
        for class in classes {
            let file = |path| File { split: name, class: &class.name, path };
            files.extend(class.images.iter().map(file));
        }
    }
    start(files.len());
    let packed = Packed::find(files.iter().map(|file| file.path.as_path()))?;
    let inspected = lister.each(&pieces(&files, PIECE), |&(first, piece)| {
        let mut inspected = Vec::with_capacity(piece.len());
        for (index, file) in (first..).zip(piece) {
            lister.check_stop()?;
            inspected.push(match packed.load(index, &mut Vec::new()) {
                Some(image) => inspect_packed(image),
                None => inspect(file.path, options),
            });
        }
        advance(piece.len());
        Ok(inspected)
    })?;

    let mut by_hash: BTreeMap<[u8; 32], Vec<usize>> = BTreeMap::new();
    for (index, inspected) in inspected.into_iter().flatten().enumerate() {
        let path = files[index].path;
        let finding = |what| Finding { path: path.clone(), what };
        if let Some(hash) = inspected.hash {
            by_hash.entry(hash).or_default().push(index);
        }
        if let Some(format) = inspected.format {
            *report.formats.entry(format.name()).or_default() += 1;
            if Format::named(path).is_some_and(|named| named != format) {
                report.misnamed.push(finding(format!("its content is {}", format.name())));
            }
        }
        match inspected.outcome {
            Err(error) => report.unreadable.push(finding(error.to_string())),
            Ok(picture) => {
                let pixels = u64::from(picture.width) * u64::from(picture.height);
                *report.sizes.entry(range_of(pixels)).or_default() += 1;
                report.turned += usize::from(picture.is_turned);
                report.suspicious.extend(picture.suspicion().map(finding));
                report.damaged.extend(inspected.damage.map(finding));
            }
        }
    }
    let mut groups: Vec<Vec<usize>> =
        by_hash.into_values().filter(|group| group.len() > 1).collect();
    groups.sort_unstable();
    report.duplicates = groups
        .into_iter()
        .map(|group| {
            let first = &files[group[0]];
            let others = || group.iter().map(|&index| &files[index]);
            Duplicate {
                across_classes: others().any(|file| file.class != first.class),
                across_splits: others().any(|file| file.split != first.split),
                paths: group.iter().map(|&index| files[index].path.clone()).collect(),
            }
        })
        .collect();
    Ok(report)
}

/// At most [`MAX_EXAMPLES`] of `files`, from first to last at equal distances.
fn examples(files: &[PathBuf]) -> Vec<PathBuf> {
    let n = files.len().min(MAX_EXAMPLES);
    (0..n).map(|index| files[index * files.len() / n].clone()).collect()
}

/// An image file and where it stands.
struct File<'a> {
    split: &'static str,
    class: &'a str,
    path: &'a PathBuf,
}

/// What one file is.
struct Inspected {
    hash: Option<[u8; 32]>,
    format: Option<Format>,
    outcome: Result<Picture, DecodeError>,
    /// What the decoder concealed.
    damage: Option<String>,
}

/// What a decoded picture is.
struct Picture {
    width: u32,
    height: u32,
    is_turned: bool,
    has_one_colour: bool,
}

impl Picture {
    fn new(image: &RgbImage, is_turned: bool) -> Picture {
        let (width, height) = image.dimensions();
        Picture { width, height, is_turned, has_one_colour: has_one_colour(image) }
    }

    fn suspicion(&self) -> Option<String> {
        let (width, height) = (self.width, self.height);
        let (short, long) = (width.min(height), width.max(height));
        if short < TINY {
            Some(format!("tiny: {width} x {height} pixels"))
        } else if long / short > EXTREME {
            Some(format!("extreme shape: {width} x {height} pixels"))
        } else {
            self.has_one_colour.then(|| "one colour all over".to_owned())
        }
    }
}

fn inspect(path: &Path, options: &DecodeOptions) -> Inspected {
    let mut bytes = Vec::new();
    if let Err(error) = read_file(path, options.max_bytes, &mut bytes) {
        return Inspected { hash: None, format: None, outcome: Err(error), damage: None };
    }
    let format = Format::of(&bytes).ok();
    let decoded = decode(&bytes, options);
    let damage = match (&decoded, format) {
        (Ok(_), Some(Format::Jpeg)) => entropy::damage(&bytes),
        _ => None,
    };
    let is_turned =
        format.is_some_and(|f| exif::orientation(&bytes, f) != Orientation::NoTransforms);
    let outcome = decoded.map(|image| Picture::new(&image, is_turned));
    let hash = (!bytes.is_empty()).then(|| *blake3::hash(&bytes).as_bytes());
    Inspected { hash, format, outcome, damage }
}

/// What an image of a shard is; it has no format, and is turned already.
fn inspect_packed(image: Result<RgbImage, DecodeError>) -> Inspected {
    let hash = image.as_ref().ok().map(|image| *blake3::hash(image.as_raw()).as_bytes());
    let outcome = image.map(|image| Picture::new(&image, false));
    Inspected { hash, format: None, outcome, damage: None }
}

fn has_one_colour(image: &RgbImage) -> bool {
    let mut pixels = image.as_raw().chunks_exact(3);
    let first = pixels.next();
    pixels.all(|pixel| Some(pixel) == first)
}

/// The least power of four that is at least `pixels`; its root doubles from range to range.
fn range_of(pixels: u64) -> u64 {
    let mut end = 1;
    while end < pixels {
        end *= 4;
    }
    end
}
