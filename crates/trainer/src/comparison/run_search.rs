//! Where the runs are that the arguments of a command name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::file_error::FileError;
use crate::run::folder::RunFolder;

/// Folders between the one that is named and a run, at the most.
pub const MOST_LEVELS: usize = 3;

/// Whether `path` is the folder of a run.
pub fn holds_run(path: &Path) -> bool {
    let folder = RunFolder::at(path);
    // A file of settings alone may be anyone's.
    folder.metrics().is_file() || folder.last().is_file() || folder.diverged().is_file()
}

/// The folders of all runs in `path` and in its folders, in the order of their names; `path` itself if it is one. Of a
/// run nothing below is looked at.
///
/// # Errors
/// There is no such folder, no run in it, or a folder cannot be read.
pub fn find_runs(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        let path = path.display();
        return Err(Error::Usage(format!(
            "{path} is no folder; give the folder of a run, or a folder of such folders"
        )));
    }
    let mut runs = Vec::new();
    let mut level = vec![path.to_owned()];
    for depth in 0..=MOST_LEVELS {
        let mut below = Vec::new();
        for folder in level {
            match holds_run(&folder) {
                true => runs.push(folder),
                false if depth < MOST_LEVELS => below.extend(folders_in(&folder)?),
                false => {}
            }
        }
        level = below;
    }
    if runs.is_empty() {
        return Err(Error::Unusable(format!(
            "there is no run in {} or in the folders {MOST_LEVELS} levels down: expected a folder with config.toml and \
             metrics.jsonl; `bninception train` makes one in `checkpoints`, or in the folder that --run-dir names",
            path.display()
        )));
    }
    runs.sort();
    Ok(runs)
}

/// [`find_runs`] of several arguments: each run once, by the first path that leads to it.
///
/// # Errors
/// As there.
pub fn find_all_runs(arguments: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut seen = BTreeSet::new();
    let mut runs = Vec::new();
    for argument in arguments {
        for path in find_runs(argument)? {
            if seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
                runs.push(path);
            }
        }
    }
    Ok(runs)
}

fn folders_in(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(path).map_err(FileError::of("list", path))? {
        let path = entry.map_err(FileError::of("list", path))?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_on_every_level_and_not_in_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("metrics.jsonl"), "").unwrap();
        };
        for name in ["b", "a", "paper/c-seed-1", "paper/search/lr-1", "b/inner", "1/2/3/4"] {
            make(name);
        }
        fs::create_dir_all(dir.path().join("demo-pictures/train/circle")).unwrap();
        let found = find_runs(dir.path()).unwrap();
        let names: Vec<String> = found
            .iter()
            .map(|run| run.strip_prefix(dir.path()).unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["a", "b", "paper/c-seed-1", "paper/search/lr-1"]);
        assert_eq!(find_runs(&dir.path().join("b")).unwrap().len(), 1);
        let twice = ["paper/search", "b", "paper", "b/../b"].map(|name| dir.path().join(name));
        assert_eq!(find_all_runs(&twice).unwrap().len(), 3);
        let error = find_runs(&dir.path().join("demo-pictures")).unwrap_err().to_string();
        assert!(error.contains("there is no run in") && error.contains("metrics.jsonl"), "{error}");
        let error = find_runs(&dir.path().join("nowhere")).unwrap_err().to_string();
        assert!(error.contains("nowhere is no folder"), "{error}");
    }
}
