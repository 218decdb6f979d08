//! Which folders of a data set hold its training and its validation classes.

use std::path::{Path, PathBuf};

use crate::class_folders::{Folder, subfolders};
use crate::error::DataError;
use crate::listing::Lister;

/// Names of the training folder, compared without case; one at most may be present.
pub const TRAIN_NAMES: [&str; 2] = ["train", "training"];

/// Names of the validation folder, compared without case; the first that is present is used.
pub const VAL_NAMES: [&str; 6] = ["val", "valid", "validation", "eval", "evaluation", "test"];

/// The training folder among the `folders` of `dir`, if there is one.
///
/// A folder named `train` that holds no folder is no split: it may well be a class of trains.
pub(crate) fn find_train(
    lister: &Lister<'_>,
    dir: &Path,
    folders: &[Folder],
) -> Result<Option<PathBuf>, DataError> {
    let mut found = Vec::new();
    for folder in folders.iter().filter(|folder| folder.is_named_one_of(&TRAIN_NAMES)) {
        if !subfolders(lister, &folder.path)?.is_empty() {
            found.push(folder);
        }
    }
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.path.clone())),
        [first, second, ..] => Err(DataError::layout(
            dir,
            format!(
                "both `{}` and `{}` could be the training folder; rename or move one of them",
                first.lossy_name, second.lossy_name
            ),
        )),
    }
}

/// What lies under the names of a validation folder.
pub(crate) enum ValFolder {
    /// A folder that holds folders.
    OfClasses(PathBuf),
    /// A folder that holds none: images without labels, or a class that is called `test`.
    Flat(PathBuf),
    Missing,
}

/// The validation folder among `folders`: the first of [`VAL_NAMES`] that holds folders.
pub(crate) fn find_val(
    lister: &Lister<'_>,
    folders: &[Folder],
    notes: &mut Vec<String>,
) -> Result<ValFolder, DataError> {
    let (mut of_classes, mut flat) = (Vec::new(), Vec::new());
    for name in VAL_NAMES {
        for folder in folders.iter().filter(|folder| folder.is_named_one_of(&[name])) {
            let is_flat = subfolders(lister, &folder.path)?.is_empty();
            let found = if is_flat { &mut flat } else { &mut of_classes };
            found.push(&folder.path);
        }
    }
    match (of_classes.as_slice(), flat.first()) {
        ([first, others @ ..], _) => {
            notes.extend(others.iter().map(|other| {
                format!(
                    "{} is not used: {} is the validation folder",
                    other.display(),
                    first.display()
                )
            }));
            Ok(ValFolder::OfClasses(first.to_path_buf()))
        }
        ([], Some(flat)) => Ok(ValFolder::Flat(flat.to_path_buf())),
        ([], None) => Ok(ValFolder::Missing),
    }
}

/// The folder of the training classes if nothing but they is below `dir`; none if there is a folder
/// of validation classes beside them.
pub(crate) fn train_root(lister: &Lister<'_>, dir: &Path) -> Result<Option<PathBuf>, DataError> {
    let folders = subfolders(lister, dir)?;
    let Some(train_dir) = find_train(lister, dir, &folders)? else {
        return Ok(Some(dir.to_path_buf()));
    };
    match find_val(lister, &folders, &mut Vec::new())? {
        ValFolder::OfClasses(_) => Ok(None),
        ValFolder::Flat(_) | ValFolder::Missing => Ok(Some(train_dir)),
    }
}
