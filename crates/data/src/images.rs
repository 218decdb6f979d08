//! Images by paths that a person names, whatever their class.

use std::path::{Path, PathBuf};

use crate::class_folders::{IMAGE_EXTENSIONS, Walk};
use crate::error::DataError;
use crate::listing::Lister;
use crate::sample::Sample;
use crate::shard;

/// What [`find_images`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The images, in the order of the paths that were named; the label is 0 for all.
    pub samples: Vec<Sample>,
    /// Number of files in the folders that are not images by their extension.
    pub ignored: usize,
    /// Things that a person should know and that are no errors, one sentence each.
    pub notes: Vec<String>,
}

/// Finds the images that `paths` name. A folder gives all images in it and in the folders below, by
/// the rules of class folders (see [`crate::folder`]), and a shard those inside. Anything else is
/// taken as an image whatever its name, even if it is missing: loading it says what is wrong.
///
/// # Errors
/// A folder cannot be read, has no image, or is an unfinished or damaged packing; or
/// [`DataError::Stopped`].
pub fn find_images(lister: &Lister<'_>, paths: &[PathBuf]) -> Result<Found, DataError> {
    let mut found = Found::default();
    for path in paths {
        let images = if path.is_dir() {
            in_folder(lister, path, &mut found)?
        } else if shard::is_shard(path) && path.is_file() {
            shard::check_finished(path)?;
            let entries = shard::Index::open(path)?.entries;
            entries.into_iter().map(|entry| path.join(entry.name)).collect()
        } else {
            vec![path.clone()]
        };
        found.samples.extend(images.into_iter().map(|path| Sample { path, label: 0 }));
    }
    Ok(found)
}

/// The images in `dir`. What else is there goes to `found`.
fn in_folder(
    lister: &Lister<'_>,
    dir: &Path,
    found: &mut Found,
) -> Result<Vec<PathBuf>, DataError> {
    shard::check_finished(dir)?;
    let walk = Walk::of(lister, dir)?;
    let notes = walk.left_out.notes(walk.images.len());
    if walk.images.is_empty() {
        let mut problem = "no image in this folder or below it".to_owned();
        match walk.left_out.summary() {
            others if others.is_empty() => {}
            others => problem.push_str(&format!(" (other files: {others})")),
        }
        let expected = IMAGE_EXTENSIONS.join(", ");
        problem.push_str(&format!("; expected files with one of the extensions {expected}"));
        walk.notes.iter().chain(&notes).for_each(|note| problem.push_str(&format!("; {note}")));
        return Err(DataError::layout(dir, problem));
    }
    found.ignored += walk.left_out.total();
    found.notes.extend(walk.notes);
    found.notes.extend(notes);
    Ok(walk.images)
}
