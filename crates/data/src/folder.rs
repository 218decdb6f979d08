//! Scanning a folder of images into lists of samples.
//!
//! Two layouts are read:
//!
//! ```text
//! DIR/train/CLASS/**/*.jpg      DIR/CLASS/**/*.jpg
//! DIR/val/CLASS/**/*.jpg        (a part of each class is held out for validation)
//! ```
//!
//! Rules, the same for both:
//! - Classes are the sub-folders, in the byte order of their names; a folder inside a class belongs
//!   to that class. Classes of different splits are matched by name, never by position.
//! - Names that begin with a dot are skipped. Files are taken by extension
//!   ([`IMAGE_EXTENSIONS`](crate::IMAGE_EXTENSIONS), any case); other files are counted as ignored,
//!   and so are files beside the class folders. Notes tell of those that may be images.
//! - Links to files and folders are followed. A folder that is one of its own ancestors (compared
//!   by canonical path) is skipped with a note, so a loop of links ends; a broken link gives a note.
//! - Samples of a class are in the order of their paths, compared component by component as
//!   bytes, so the list does not depend on the operating system.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rand::seq::SliceRandom;

use crate::class_folders::{ClassFolder, EXAMPLE, Folder, Scanner, subfolders};
use crate::error::DataError;
use crate::layout;
use crate::likeness::{alike_between, alike_in};
use crate::listing::Lister;
use crate::random::{Purpose, sample_rng};
use crate::sample::Sample;
use crate::split_folders::{ValFolder, find_train, find_val};
use crate::text::{counted, name_list};

pub use crate::split_folders::{TRAIN_NAMES, VAL_NAMES};

/// Settings of [`scan`].
#[derive(Clone, Debug, PartialEq)]
pub struct ScanOptions {
    /// A folder of class folders to validate on, wherever it lies. Nothing is held out then.
    pub val_dir: Option<PathBuf>,
    /// The fraction of each class that is held out when there is no validation folder; 0 for none.
    pub val_fraction: f64,
    /// Decides which samples are held out.
    pub seed: u64,
}

impl Default for ScanOptions {
    /// A tenth is held out: common practice for small data sets, and no number of the paper.
    fn default() -> Self {
        ScanOptions { val_dir: None, val_fraction: 0.1, seed: 0 }
    }
}

/// The training and validation samples of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splits {
    /// Names of the classes, in byte order; a label is a position in this list.
    pub classes: Vec<String>,
    /// Training samples, by class and path.
    pub train: Vec<Sample>,
    /// Validation samples, by class and path.
    pub val: Vec<Sample>,
    /// Number of files that are not images by their extension.
    pub ignored: usize,
    /// Things that a person should know and that are no errors, one sentence each.
    pub notes: Vec<String>,
}

/// Samples labelled by a given list of classes: the result of [`scan_classes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// Samples, by class and path.
    pub samples: Vec<Sample>,
    /// Number of files that are not images by their extension.
    pub ignored: usize,
    /// Things that a person should know and that are no errors, one sentence each.
    pub notes: Vec<String>,
}

/// Scans `dir` for training.
///
/// The training images are those of `DIR/train` (or a synonym, [`TRAIN_NAMES`]) if it is there and
/// holds folders, otherwise those of the class folders of `DIR` itself. The validation images are
/// those of `options.val_dir`, else of `DIR/val` (or the first synonym of [`VAL_NAMES`] that holds
/// folders), else a seeded fraction of each class, of which at least one image stays in training.
///
/// # Errors
/// A folder is missing, cannot be read or has no images; a training class is empty; fewer than two
/// classes; a validation class is unknown to training; a name is not UTF-8; the layout is ambiguous.
pub fn scan(dir: &Path, options: &ScanOptions) -> Result<Splits, DataError> {
    scan_with(&Lister::new(0), dir, options)
}

/// [`scan`] with folders listed by `lister`, which changes nothing in the result.
///
/// # Errors
/// As [`scan`]; [`DataError::Stopped`] if the lister was asked to stop.
pub fn scan_with(
    lister: &Lister<'_>,
    dir: &Path,
    options: &ScanOptions,
) -> Result<Splits, DataError> {
    if !(0.0..1.0).contains(&options.val_fraction) {
        return Err(DataError::setting(
            "val_fraction",
            options.val_fraction,
            "a fraction of at least 0 and less than 1",
        ));
    }
    let mut scanner = Scanner::new(lister);
    let folders = subfolders(lister, dir)?;
    let train_dir = find_train(lister, dir, &folders)?;
    let val_dir = match (&options.val_dir, find_val(lister, &folders, &mut scanner.notes)?) {
        (Some(val_dir), _) => Some(val_dir.clone()),
        (None, ValFolder::OfClasses(val_dir)) if train_dir.is_some() => Some(val_dir),
        (None, ValFolder::Flat(val_dir)) if train_dir.is_some() => return Err(flat_val(&val_dir)),
        (None, ValFolder::OfClasses(val_dir)) => {
            if let Some(unsorted) = layout::unsorted_train(&folders, &[]) {
                return Err(layout::no_images(&scanner, unsorted));
            }
            return Err(DataError::layout(
                dir,
                format!(
                    "found the validation folder {} and no training folder ({}); {EXAMPLE}",
                    val_dir.display(),
                    TRAIN_NAMES.join(", ")
                ),
            ));
        }
        (None, ValFolder::Flat(_) | ValFolder::Missing) => None,
    };

    let is_split = train_dir.is_some();
    let train_dir = train_dir.unwrap_or_else(|| dir.to_path_buf());
    let class_folders = scanner.class_folders(&train_dir)?;
    if !is_split && let Some(unsorted) = layout::unsorted_train(&folders, &class_folders) {
        return Err(layout::no_images(&scanner, unsorted));
    }
    if class_folders.iter().all(|folder| folder.images.is_empty()) {
        return Err(layout::no_images(&scanner, &train_dir));
    }
    if let Some(error) = layout::empty_classes(&scanner, &train_dir, &class_folders) {
        return Err(error);
    }
    if let [only] = class_folders.as_slice() {
        return Err(layout::one_class(&scanner, &train_dir, only));
    }
    if let Some(val_dir) = &val_dir
        && let Some(class) = class_folders.iter().find(|class| is_same(&class.dir, val_dir))
    {
        return Err(DataError::layout(
            &class.dir,
            "it would be a class and the validation folder too; move it out of the folder of \
             classes",
        ));
    }
    scanner.notes.extend(layout::note_nested_classes(&train_dir, &class_folders));
    if is_split {
        let used = [&train_dir].into_iter().chain(&val_dir).map(PathBuf::as_path);
        note_unused(&mut scanner, dir, &folders, &used.collect::<Vec<_>>())?;
    }
    let classes: Vec<String> = class_folders.iter().map(|folder| folder.name.clone()).collect();
    let alike = alike_in(&classes);
    scanner
        .notes
        .extend(alike.map(|alike| format!("{}: the classes {alike}", train_dir.display())));

    let (train, val) = match &val_dir {
        Some(val_dir) => {
            let val = label_by_name(&mut scanner, val_dir, &classes)?;
            (samples(class_folders), val)
        }
        None => {
            let (train, val) = hold_out(class_folders, options.val_fraction, options.seed);
            note_classes_without_val(&classes, &val, options.val_fraction, &mut scanner.notes);
            (train, val)
        }
    };
    check_count(dir, train.len().max(val.len()))?;
    let (ignored, notes) = scanner.finish(train.len() + val.len());
    Ok(Splits { classes, train, val, ignored, notes })
}

/// Scans `dir` for an evaluation against the classes of a trained network.
///
/// The images are those of `DIR/val` (or a synonym, [`VAL_NAMES`]) if it is there and holds folders,
/// otherwise those of the class folders of `DIR` itself. Labels are positions in `classes`, matched
/// by name; classes without images give a note.
///
/// # Errors
/// A folder is missing, cannot be read or has no images; a class is not in `classes`; `dir` holds
/// only a training folder.
pub fn scan_classes(dir: &Path, classes: &[String]) -> Result<Labelled, DataError> {
    scan_classes_with(&Lister::new(0), dir, classes)
}

/// [`scan_classes`] with folders listed by `lister`, which changes nothing in the result.
///
/// # Errors
/// As [`scan_classes`]; [`DataError::Stopped`] if the lister was asked to stop.
pub fn scan_classes_with(
    lister: &Lister<'_>,
    dir: &Path,
    classes: &[String],
) -> Result<Labelled, DataError> {
    let mut scanner = Scanner::new(lister);
    let folders = subfolders(lister, dir)?;
    let train_dir = find_train(lister, dir, &folders)?;
    let val_dir = match (find_val(lister, &folders, &mut scanner.notes)?, train_dir) {
        (ValFolder::OfClasses(val_dir), _) => val_dir,
        (ValFolder::Flat(val_dir), Some(_)) => return Err(flat_val(&val_dir)),
        (ValFolder::Missing, Some(train_dir)) => {
            return Err(DataError::layout(
                dir,
                format!(
                    "found a training folder and no validation folder ({}); to evaluate a run on the \
                     images that it set aside, name no folder; on the training images, name {}",
                    VAL_NAMES.join(", "),
                    train_dir.display()
                ),
            ));
        }
        (ValFolder::Flat(_) | ValFolder::Missing, None) => dir.to_path_buf(),
    };
    let samples = label_by_name(&mut scanner, &val_dir, classes)?;
    check_count(dir, samples.len())?;
    let (ignored, notes) = scanner.finish(samples.len());
    Ok(Labelled { samples, ignored, notes })
}

/// What [`trees`] found.
pub(crate) struct Trees {
    /// The trees with what each is for: `train` and `val`, or `all`.
    pub(crate) trees: Vec<(&'static str, Vec<ClassFolder>)>,
    /// Files that are not images, by extension.
    pub(crate) left_out: BTreeMap<String, usize>,
    /// Things that a person should know, one sentence each.
    pub(crate) notes: Vec<String>,
}

/// The trees of class folders below `dir`. Unlike [`scan`] it takes empty, unknown and single classes
/// as they are.
///
/// # Errors
/// A folder cannot be read; there is no class folder.
pub(crate) fn trees(lister: &Lister<'_>, dir: &Path) -> Result<Trees, DataError> {
    let mut scanner = Scanner::new(lister);
    let folders = subfolders(lister, dir)?;
    let mut trees = Vec::new();
    match find_train(lister, dir, &folders)? {
        None => trees.push(("all", scanner.class_folders(dir)?)),
        Some(train_dir) => {
            trees.push(("train", scanner.class_folders(&train_dir)?));
            let mut used = vec![train_dir];
            if let ValFolder::OfClasses(val_dir) = find_val(lister, &folders, &mut scanner.notes)? {
                trees.push(("val", scanner.class_folders(&val_dir)?));
                used.push(val_dir);
            }
            let used: Vec<&Path> = used.iter().map(PathBuf::as_path).collect();
            note_unused(&mut scanner, dir, &folders, &used)?;
        }
    }
    if trees.iter().all(|(_, classes)| classes.is_empty()) {
        return Err(layout::no_images(&scanner, dir));
    }
    let images =
        trees.iter().flat_map(|(_, classes)| classes).map(|class| class.images.len()).sum();
    let left_out = scanner.left_out.counts();
    let (_, notes) = scanner.finish(images);
    Ok(Trees { trees, left_out, notes })
}

/// Notes pictures in `dir` that are not in the folders that are `used`.
fn note_unused(
    scanner: &mut Scanner<'_>,
    dir: &Path,
    folders: &[Folder],
    used: &[&Path],
) -> Result<(), DataError> {
    scanner.note_pictures_in(dir)?;
    scanner.notes.extend(layout::note_unused(dir, folders, used));
    Ok(())
}

/// Holding out training images beside an unsorted validation folder would quietly answer another
/// question than the one that was asked.
fn flat_val(dir: &Path) -> DataError {
    DataError::layout(
        dir,
        "this validation folder has no class folders; sort its images into folders named as those \
         of the training folder, name another validation folder, or move it away so that a part \
         of the training images is held out",
    )
}

// --- Held-out images --------------------------------------------------------------------------------

/// Holds out `fraction` of each class for validation.
///
/// A class of n images gives `round(n * fraction)` of them, and keeps at least one.
fn hold_out(classes: Vec<ClassFolder>, fraction: f64, seed: u64) -> (Vec<Sample>, Vec<Sample>) {
    let (mut train, mut val) = (Vec::new(), Vec::new());
    for (class_idx, class) in classes.into_iter().enumerate() {
        let n = class.images.len();
        let n_val = ((n as f64 * fraction).round() as usize).min(n.saturating_sub(1));
        let mut held_out: Vec<bool> = (0..n).map(|i| i < n_val).collect();
        held_out.shuffle(&mut sample_rng(seed, 0, class_idx as u64, Purpose::Split));
        for (path, held_out) in class.images.into_iter().zip(held_out) {
            let part = if held_out { &mut val } else { &mut train };
            part.push(Sample { path, label: class_idx as u32 });
        }
    }
    (train, val)
}

fn note_classes_without_val(
    classes: &[String],
    val: &[Sample],
    fraction: f64,
    notes: &mut Vec<String>,
) {
    if fraction == 0.0 {
        return;
    }
    let missing = classes_without_samples(classes, val);
    if !missing.is_empty() {
        notes.push(format!(
            "too few images to hold out {fraction} of each class: no validation image of {}",
            name_list(&missing)
        ));
    }
}

// --- Labels -------------------------------------------------------------------------------------

/// Reads the class folders of `dir` and labels them by their position in `classes`.
fn label_by_name(
    scanner: &mut Scanner<'_>,
    dir: &Path,
    classes: &[String],
) -> Result<Vec<Sample>, DataError> {
    let folders = scanner.class_folders(dir)?;
    if folders.iter().all(|folder| folder.images.is_empty()) {
        return Err(layout::no_images(scanner, dir));
    }
    let label = |name: &str| classes.iter().position(|class| class == name);
    let unknown: Vec<&ClassFolder> =
        folders.iter().filter(|folder| label(&folder.name).is_none()).collect();
    if !unknown.is_empty() {
        let names: Vec<String> = unknown.iter().map(|folder| folder.name.clone()).collect();
        let known: Vec<&str> = classes.iter().map(String::as_str).collect();
        let mut problem = format!(
            "{} of {} {} unknown to the training classes: {}; known are {}",
            unknown.len(),
            counted(folders.len(), "class folder"),
            if unknown.len() == 1 { "is" } else { "are" },
            name_list(&names.iter().map(String::as_str).collect::<Vec<_>>()),
            name_list(&known)
        );
        let hints =
            [alike_between(classes, &names), layout::known_inside(scanner, &unknown, classes)];
        hints.iter().flatten().for_each(|hint| problem.push_str(&format!("; {hint}")));
        return Err(DataError::layout(dir, problem));
    }
    let mut labelled = Vec::new();
    for folder in folders {
        let class_idx = label(&folder.name).expect("unknown names returned above") as u32;
        labelled.extend(folder.images.into_iter().map(|path| Sample { path, label: class_idx }));
    }
    labelled.sort_by_key(|sample| sample.label);
    let missing = classes_without_samples(classes, &labelled);
    if !missing.is_empty() {
        scanner.notes.push(format!(
            "{}: no image of {} of {} classes: {}",
            dir.display(),
            missing.len(),
            classes.len(),
            name_list(&missing)
        ));
    }
    Ok(labelled)
}

/// Whether two paths lead to the same folder.
pub fn is_same(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

fn samples(classes: Vec<ClassFolder>) -> Vec<Sample> {
    let labelled = classes.into_iter().enumerate();
    labelled
        .flat_map(|(i, class)| {
            class.images.into_iter().map(move |path| Sample { path, label: i as u32 })
        })
        .collect()
}

fn classes_without_samples<'a>(classes: &'a [String], samples: &[Sample]) -> Vec<&'a str> {
    let mut present = vec![false; classes.len()];
    for sample in samples {
        present[sample.label as usize] = true;
    }
    classes.iter().zip(present).filter(|(_, present)| !present).map(|(c, _)| c.as_str()).collect()
}

/// Refuses more samples than an index of 32 bits can count.
fn check_count(dir: &Path, n: usize) -> Result<(), DataError> {
    match u32::try_from(n) {
        Ok(_) => Ok(()),
        Err(_) => Err(DataError::layout(dir, format!("{n} images, the limit is {}", u32::MAX))),
    }
}
