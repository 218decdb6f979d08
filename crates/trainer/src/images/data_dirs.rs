//! The folders of images of a run: found again from anywhere, and never written into.

use std::fs;
use std::path::{Component, Path, PathBuf};

use bninception_data::demo::{DemoOutcome, write_demo};
use bninception_data::folder::{TRAIN_NAMES, is_same};
use bninception_data::{DemoOptions, Splits, is_image_path};

use crate::config::{Config, Sources, resolve};
use crate::error::Error;
use crate::run::image_lists::ImageLists;
use crate::run::metadata::StoredDirs;
use crate::terminal::text::quoted;

/// Name of the folder inside `checkpoint.dir` that gets the embedded pictures.
const DEMO_FOLDER: &str = "demo-pictures";

/// Where the images of a run are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDirs {
    /// The folder that `data.dir` means.
    pub dir: PathBuf,
    /// The folder that `data.val_dir` means, if it names one.
    pub val_dir: Option<PathBuf>,
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
            dir: data_dir(config, parent)?,
            val_dir: (!val_dir.is_empty()).then(|| PathBuf::from(val_dir)),
        })
    }

    /// The folder that holds the validation images.
    pub fn of_val(&self) -> &Path {
        self.val_dir.as_deref().unwrap_or(&self.dir)
    }

    /// What a run remembers of the images found in them.
    pub fn lists(&self, splits: &Splits) -> ImageLists {
        ImageLists::of(splits, &self.dir, self.of_val())
    }

    /// What a checkpoint keeps of them.
    pub fn to_stored(&self) -> StoredDirs {
        let absolute = |path: &Path| -> String {
            // What a path climbs out of may go; links stay, since they may be meant to lead elsewhere.
            let climbs = path.components().any(|part| part == Component::ParentDir);
            let absolute = if climbs { path.canonicalize() } else { std::path::absolute(path) };
            absolute.ok().and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_default()
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

/// The folder of images; where `data.dir` is empty that of the embedded pictures inside `parent`, in
/// which they are drawn if they are not there.
///
/// # Errors
/// The pictures cannot be written.
pub fn data_dir(config: &Config, parent: &Path) -> Result<PathBuf, Error> {
    if !config.data.dir.is_empty() {
        return Ok(PathBuf::from(&config.data.dir));
    }
    let dir = parent.join(DEMO_FOLDER);
    let outcome = write_demo(&dir, &DemoOptions::default())?;
    if outcome == DemoOutcome::Written {
        tracing::info!("drew the embedded pictures: {}", dir.display());
    }
    Ok(dir)
}

/// [`data_dir`] for settings that came with a checkpoint in `run`, which may be a stranger's: the
/// embedded pictures are taken from beside that folder or drawn where this program draws them by
/// default, but never where the checkpoint says.
///
/// # Errors
/// As [`data_dir`].
pub fn stored_data_dir(config: &Config, run: &Path) -> Result<PathBuf, Error> {
    let beside = run.parent().filter(|parent| parent.join(DEMO_FOLDER).is_dir());
    match beside {
        Some(parent) => data_dir(config, parent),
        None => {
            let default = resolve(&Sources::default())?.config;
            data_dir(config, Path::new(&default.checkpoint.dir))
        }
    }
}

/// The folders that may be the one that the run calls `given` and that was at `stored`: as it calls it,
/// seen from the working directory, and where it was.
///
/// # Errors
/// There is none at either place; `flag` says where they are now.
pub fn places(given: &str, stored: &str, flag: &str) -> Result<Vec<PathBuf>, Error> {
    let (given, stored) = (Path::new(given), Path::new(stored));
    let mut places: Vec<PathBuf> = Vec::new();
    for place in [given, stored] {
        if place.is_dir() && !places.iter().any(|known| is_same(known, place)) {
            places.push(place.to_owned());
        }
    }
    if !places.is_empty() {
        return Ok(places);
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
    // Beside the folder of images, under both names.
    let (dir, whole) = (resolved(data), resolved(out));
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let own = if whole == dir { "out".to_owned() } else { name(&whole) };
    let mut beside = dir.with_file_name(format!("{}-{own}", name(&dir)));
    for number in 2.. {
        if !beside.exists() {
            break;
        }
        beside = dir.with_file_name(format!("{}-{number}-{own}", name(&dir)));
    }
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
                let beside = root.path().canonicalize().unwrap().join("photos-");
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
    fn the_place_that_is_advised_is_free() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("photos/cat")).unwrap();
        let advised = |out: &str| {
            let (data, out) = (root.path().join("photos"), root.path().join(out));
            let message = check_outside(&data, &out, "mv x").unwrap_err().to_string();
            message.rsplit_once('/').unwrap().1.to_owned()
        };
        assert_eq!(advised("photos/cat/run"), "photos-run");
        fs::write(root.path().join("photos-run"), "").unwrap();
        assert_eq!(advised("photos/cat/run"), "photos-2-run");
        assert_eq!(advised("photos/x.safetensors"), "photos-x.safetensors");
        assert_eq!(advised("photos"), "photos-out");
    }

    #[test]
    fn images_are_looked_for_where_the_run_says_and_where_they_were() {
        let root = tempfile::tempdir().unwrap();
        let [here, there] = ["here", "there"].map(|name| root.path().join(name));
        fs::create_dir(&here).unwrap();
        fs::create_dir(&there).unwrap();
        let (here, there) = (here.to_str().unwrap(), there.to_str().unwrap());
        let gone = root.path().join("gone").display().to_string();
        let table: [(&str, &str, &[&str]); 5] = [
            ("photos", here, &[here]),
            (here, "", &[here]),
            (here, &gone, &[here]),
            (here, here, &[here]),
            (here, there, &[here, there]),
        ];
        for (given, stored, expected) in table {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(places(given, stored, "--data-dir").unwrap(), expected, "{given}, {stored}");
        }
        for (given, stored) in [("photos", gone.as_str()), ("photos", ""), (&gone, &gone)] {
            let error = places(given, stored, "--data-dir").unwrap_err().to_string();
            assert!(error.contains(&format!("{given} is not a folder")), "{error}");
            assert!(error.contains("--data-dir DIR"), "{error}");
            let was = given != stored && !stored.is_empty();
            assert_eq!(error.contains("where it was"), was, "{error}");
        }
    }
}
