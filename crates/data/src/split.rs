//! A validation split of a folder of images, without a copy of any.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::folder::{ScanOptions, scan_with};
use crate::listing::Lister;
use crate::sample::Sample;
use crate::split_folders::train_root;

/// What [`split`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitSummary {
    /// Classes.
    pub classes: usize,
    /// Training images.
    pub train: usize,
    /// Validation images.
    pub val: usize,
    /// Images that are symbolic links, because hard links were impossible.
    pub symbolic: usize,
    /// Things that a person should know and that are no errors, one sentence each.
    pub notes: Vec<String>,
}

/// Makes `out` with `train/CLASS` and `val/CLASS`, whose files are hard links to those of `dir`, or
/// symbolic links where the file system allows no hard link. The images held out are those that
/// training on `dir` would hold out with the same fraction and seed.
///
/// The tree is built beside `out` under another name and then renamed, so that `out` is whole or
/// absent.
///
/// # Errors
/// `dir` has a validation folder already or cannot be scanned, `out` exists, a link cannot be made,
/// or [`DataError::Stopped`]; nothing is left behind.
pub fn split(
    lister: &Lister<'_>,
    dir: &Path,
    out: &Path,
    val_fraction: f64,
    seed: u64,
) -> Result<SplitSummary, DataError> {
    let Some(root) = train_root(lister, dir)? else {
        let problem = "it has a validation folder already, and needs no other split";
        return Err(DataError::layout(dir, problem));
    };
    if out.symlink_metadata().is_ok() {
        return Err(DataError::layout(out, "it exists; name a folder that does not"));
    }
    let options = ScanOptions { val_dir: None, val_fraction, seed };
    let splits = scan_with(lister, dir, &options)?;
    let root = fs::canonicalize(&root).map_err(DataError::io("resolve", &root))?;
    let name = out.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let partial = out.with_file_name(format!(".{name}.{}.partial", std::process::id()));
    let mut summary = SplitSummary {
        classes: splits.classes.len(),
        train: splits.train.len(),
        val: splits.val.len(),
        symbolic: 0,
        notes: splits.notes,
    };
    let made = [("train", &splits.train), ("val", &splits.val)]
        .into_iter()
        .try_for_each(|(part, samples)| {
            let symbolic = link(lister, &root, samples, &partial.join(part))?;
            summary.symbolic += symbolic;
            Ok(())
        })
        .and_then(|()| fs::rename(&partial, out).map_err(DataError::io("create", out)));
    if made.is_err() {
        let _ = fs::remove_dir_all(&partial); // the error says what counts
    }
    made.map(|()| summary)
}

/// Links `samples`, which lie below `root`, to the same places below `to`; returns how many of the
/// links are symbolic.
fn link(
    lister: &Lister<'_>,
    root: &Path,
    samples: &[Sample],
    to: &Path,
) -> Result<usize, DataError> {
    let mut symbolic = 0;
    let mut folder: Option<PathBuf> = None;
    for sample in samples {
        lister.check_stop()?;
        // The folder may be reached through links; the file's own name stays.
        let parent = sample.path.parent().unwrap_or(root);
        let parent = fs::canonicalize(parent).map_err(DataError::io("resolve", parent))?;
        let file = parent.join(sample.path.file_name().unwrap_or_default());
        let place = sample.path.iter().rev().collect::<Vec<_>>();
        let relative = match file.strip_prefix(root) {
            Ok(relative) => relative.to_path_buf(),
            // Behind a link out of the tree: class and name are what counts.
            Err(_) => place.iter().take(2).rev().collect(),
        };
        let target = to.join(relative);
        let parent = target.parent().unwrap_or(to).to_path_buf();
        if folder.as_ref() != Some(&parent) {
            fs::create_dir_all(&parent).map_err(DataError::io("create", &parent))?;
            folder = Some(parent);
        }
        let source = fs::canonicalize(&file).map_err(DataError::io("resolve", &file))?;
        if fs::hard_link(&source, &target).is_err() {
            symbolic_link(&source, &target).map_err(DataError::io("link", &target))?;
            symbolic += 1;
        }
    }
    Ok(symbolic)
}

#[cfg(unix)]
fn symbolic_link(source: &Path, target: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(source, target)
}

#[cfg(windows)]
fn symbolic_link(source: &Path, target: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(source, target)
}
