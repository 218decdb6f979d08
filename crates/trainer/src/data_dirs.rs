//! The folders of images of a run: found again from anywhere, and never written into.

use std::fs;
use std::path::{Path, PathBuf};

use bninception_data::folder::TRAIN_NAMES;
use bninception_data::is_image_path;
use serde::{Deserialize, Serialize};

use crate::checkpoint;
use crate::cli::ConfigArgs;
use crate::config::Config;
use crate::error::Error;
use crate::run_folder::RunFolder;
use crate::setup;
use crate::text::quoted;

/// Where the images of a run are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDirs {
    /// The folder that `data.dir` means.
    pub dir: PathBuf,
    /// The folder that `data.val_dir` means, if it names one.
    pub val_dir: Option<PathBuf>,
}

/// The absolute paths of [`DataDirs`] as a checkpoint holds them: empty where there is no such folder, or
/// its path is not UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredDirs {
    /// The folder that `data.dir` means.
    pub dir: String,
    /// The folder that `data.val_dir` means.
    pub val_dir: String,
}

impl DataDirs {
    /// The folders that `config` names, seen from the working directory; the embedded pictures are drawn
    /// inside `parent` if they are asked for and not there.
    ///
    /// # Errors
    /// The pictures cannot be written.
    pub fn of_config(config: &Config, parent: &Path) -> Result<DataDirs, Error> {
        let val_dir = config.data.val_dir.as_str();
        Ok(DataDirs {
            dir: setup::data_dir(config, parent)?,
            val_dir: (!val_dir.is_empty()).then(|| PathBuf::from(val_dir)),
        })
    }

    /// The folders of the run in the folder `run`, whose settings are `config`: where they were
    /// (`stored`), or where the settings say, seen from the working directory. A folder that `args` name
    /// is taken as it is.
    ///
    /// # Errors
    /// There is no such folder at either place.
    pub fn of_run(
        config: &Config,
        stored: &StoredDirs,
        run: &Path,
        args: Option<&ConfigArgs>,
    ) -> Result<DataDirs, Error> {
        let place = |given: &str, stored: &str, key: &str, flag: &str| match args
            .is_some_and(|args| args.names(key))
        {
            true => Ok(PathBuf::from(given)),
            false => found(given, stored, flag),
        };
        let dir = match config.data.dir.as_str() {
            "" => setup::stored_data_dir(config, run)?,
            given => place(given, &stored.dir, "data.dir", "--data-dir")?,
        };
        let val_dir = match config.data.val_dir.as_str() {
            "" => None,
            given => Some(place(given, &stored.val_dir, "data.val_dir", "--val-dir")?),
        };
        Ok(DataDirs { dir, val_dir })
    }

    /// The folder that holds the validation images.
    pub fn of_val(&self) -> &Path {
        self.val_dir.as_deref().unwrap_or(&self.dir)
    }

    /// What a checkpoint keeps of them.
    pub fn to_stored(&self) -> StoredDirs {
        let absolute = |path: &Path| -> String {
            let absolute = std::path::absolute(path).ok();
            absolute.and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_default()
        };
        StoredDirs {
            dir: absolute(&self.dir),
            val_dir: self.val_dir.as_deref().map(absolute).unwrap_or_default(),
        }
    }

    /// [`check_apart`] of each folder.
    ///
    /// # Errors
    /// As there.
    pub fn check_apart(&self, out: &Path, command: &str) -> Result<(), Error> {
        self.each().try_for_each(|dir| check_apart(dir, out, command))
    }

    /// [`check_outside`] of each folder.
    ///
    /// # Errors
    /// As there.
    pub fn check_outside(&self, out: &Path, command: &str) -> Result<(), Error> {
        self.each().try_for_each(|dir| check_outside(dir, out, command))
    }

    fn each(&self) -> impl Iterator<Item = &Path> {
        [Some(self.dir.as_path()), self.val_dir.as_deref()].into_iter().flatten()
    }
}

/// The folder that was at `stored` and that the run calls `given`.
fn found(given: &str, stored: &str, flag: &str) -> Result<PathBuf, Error> {
    let (given, stored) = (Path::new(given), Path::new(stored));
    // As the run calls it, where that leads to the same place.
    let places = if is_same(given, stored) { [given, stored] } else { [stored, given] };
    if let Some(place) = places.into_iter().find(|place| place.is_dir()) {
        return Ok(place.to_owned());
    }
    let place = match stored == given || stored.as_os_str().is_empty() {
        true => String::new(),
        false => format!(", nor is {}, where it was", stored.display()),
    };
    Err(Error::Unusable(format!(
        "{} is not a folder{place}: the run is on its images; if they have moved, say where they are \
         with {flag} DIR",
        given.display()
    )))
}

/// Whether two paths lead to the same place.
pub fn is_same(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// Refuses the folder `out`, which need not exist, if it lies in the folder of images `data`, or that in
/// it: what is written among classes becomes one. `command`, with another place behind it, is what to do.
///
/// # Errors
/// One lies in the other.
pub fn check_apart(data: &Path, out: &Path, command: &str) -> Result<(), Error> {
    check_outside(data, out, command)?;
    match resolved(data).starts_with(resolved(out)) {
        true => Err(entangled(data, out, "holds", command)),
        false => Ok(()),
    }
}

/// [`check_apart`] for the images of the run in `folder`, as far as they can be found.
///
/// # Errors
/// As there.
pub fn check_apart_from_run(folder: &RunFolder, out: &Path, command: &str) -> Result<(), Error> {
    // Whatever is wrong with the checkpoint is for others to say.
    let Ok(metadata) = checkpoint::load_metadata(&folder.last()) else { return Ok(()) };
    if metadata.config.data.dir.is_empty() {
        return Ok(());
    }
    match DataDirs::of_run(&metadata.config, &metadata.data_dirs, folder.path(), None) {
        Ok(dirs) => dirs.check_apart(out, command),
        Err(_) => Ok(()),
    }
}

/// [`check_apart`] where no folder of images is known: refuses `out` inside of what looks like one, a
/// folder of nothing but folders with pictures.
///
/// # Errors
/// It lies in one.
pub fn check_apart_from_any(out: &Path, command: &str) -> Result<(), Error> {
    let out_dir = resolved(out);
    // The deepest data set is DATA/train/CLASS.
    for dir in out_dir.ancestors().skip(1).take(3) {
        let split = TRAIN_NAMES.iter().map(|name| dir.join(name)).find(|split| split.is_dir());
        if looks_like_classes(&split.unwrap_or_else(|| dir.to_owned()), &out_dir) {
            return check_outside(dir, out, command);
        }
    }
    Ok(())
}

/// Whether pictures lie in every folder of `dir`, two or more, apart from the one on the way to `out`.
fn looks_like_classes(dir: &Path, out: &Path) -> bool {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    let has_pictures = |dir: &Path| entries(dir).any(|entry| is_image_path(&entry.path()));
    let mut n_classes = 0;
    for entry in entries(dir) {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") || !path.is_dir() {
            continue;
        }
        if has_pictures(&path) {
            n_classes += 1;
        } else if !out.starts_with(&path) {
            return false;
        }
    }
    n_classes >= 2
}

/// Refuses the file or folder `out` if it lies in the folder of images `data`.
///
/// # Errors
/// It does.
pub fn check_outside(data: &Path, out: &Path, command: &str) -> Result<(), Error> {
    match resolved(out).starts_with(resolved(data)) {
        true => Err(entangled(data, out, "lies in", command)),
        false => Ok(()),
    }
}

fn entangled(data: &Path, out: &Path, how: &str, command: &str) -> Error {
    // Beside the folder of images, under its name.
    let dir = resolved(data);
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned());
    let beside = dir.with_file_name(format!("{}-out", name.unwrap_or_default()));
    Error::Usage(format!(
        "{} {how} the folder of images {}: what is written there could be taken for a class; use \
         another place, such as: {command} {}",
        out.display(),
        data.display(),
        quoted(&beside)
    ))
}

/// The path without links and `..`, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let known = path.ancestors().find_map(|known| Some((known, known.canonicalize().ok()?)));
    let Some((known, mut whole)) = known else { return path };
    for part in path.strip_prefix(known).unwrap_or(Path::new("")) {
        match part == ".." {
            true => _ = whole.pop(),
            false => whole.push(part),
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_and_images_stay_apart() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("photos/train/cat")).unwrap();
        fs::create_dir_all(at("runs")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(at("photos"), at("link")).unwrap();
        // (out, what is said)
        let mut table = vec![
            ("photos", "lies in"),
            ("photos/checkpoints/demo", "lies in"),
            ("photos/train/cat/x", "lies in"),
            ("runs/../photos/x", "lies in"),
            ("not/there/../../photos/x", "lies in"),
            (".", "holds"),
            ("runs", ""),
            ("photos-2", ""),
            ("photos/../runs/x", ""),
        ];
        if cfg!(unix) {
            table.push(("link/x", "lies in"));
        }
        for (out, how) in table {
            let outcome = check_apart(&at("photos"), &at(out), "--run-dir");
            let message = outcome.err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(message.is_empty(), how.is_empty(), "{out}: {message}");
            assert!(message.contains(how), "{out}: {message}");
            if !how.is_empty() {
                let beside = root.path().canonicalize().unwrap().join("photos-out");
                let place = format!("--run-dir {}", quoted(&beside));
                assert!(message.contains(&place), "{out}: {message}");
            }
        }
    }

    #[test]
    fn what_looks_like_images_is_kept_clean() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for file in [
            "flat/cat/1.jpg",
            "flat/dog/1.jpg",
            "split/train/cat/1.jpg",
            "split/train/dog/1.jpg",
            "home/Pictures/1.jpg",
            "home/Downloads/1.png",
            "home/Documents/1.txt",
            "one/cat/1.jpg",
        ] {
            fs::create_dir_all(at(file).parent().unwrap()).unwrap();
            fs::write(at(file), "").unwrap();
        }
        for (out, refused) in [
            ("flat/new", true),
            ("flat/cat", true),
            ("flat/cat/new", true),
            ("split/new", true),
            ("split/train/new", true),
            ("home/new", false),
            ("one/new", false),
            ("new", false),
        ] {
            let outcome = check_apart_from_any(&at(out), "bninception data demo");
            assert_eq!(outcome.is_err(), refused, "{out}");
        }
    }

    #[test]
    fn images_are_found_where_they_were_or_where_the_run_says() {
        let root = tempfile::tempdir().unwrap();
        let here = root.path().join("here");
        fs::create_dir(&here).unwrap();
        let (here, gone) = (here.to_str().unwrap(), root.path().join("gone"));
        let gone = gone.to_str().unwrap();
        for (given, stored) in [("photos", here), (here, ""), (here, gone), (here, here)] {
            assert_eq!(
                found(given, stored, "--data-dir").unwrap(),
                Path::new(here),
                "{given}, {stored}"
            );
        }
        for (given, stored) in [("photos", gone), ("photos", ""), (gone, gone)] {
            let error = found(given, stored, "--data-dir").unwrap_err().to_string();
            assert!(error.contains(&format!("{given} is not a folder")), "{error}");
            assert!(error.contains("--data-dir DIR"), "{error}");
            assert_eq!(
                error.contains("where it was"),
                given != stored && !stored.is_empty(),
                "{error}"
            );
        }
    }
}
