//! The images that a checkpoint's run was trained and validated on, found again: exactly those, or an
//! error.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bninception_data::folder::is_same;
use bninception_data::{Sample, Splits};

use crate::config::Config;
use crate::error::Error;
use crate::images::data_dirs::{DataDirs, places, stored_data_dir};
use crate::images::scan;
use crate::run::checkpoint;
use crate::run::classes;
use crate::run::folder::RunFolder;
use crate::run::image_lists::ImageLists;
use crate::run::metadata::{Metadata, StoredDirs};

/// What a checkpoint tells of its run's images.
#[derive(Clone, Debug)]
pub struct OwnImages {
    /// The checkpoint.
    path: PathBuf,
    classes: Vec<String>,
    lists: ImageLists,
    /// The folders as the run's settings call them.
    given: StoredDirs,
    /// Where they were.
    stored: StoredDirs,
    /// What the weights are where no run led to them, in words.
    origin_without_run: Option<String>,
}

/// A part of a run's images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What it is trained on.
    Training,
    /// What it is evaluated on.
    Validation,
}

impl OwnImages {
    /// What the checkpoint at `path` tells.
    pub fn of(metadata: &Metadata, path: &Path) -> OwnImages {
        let data = &metadata.config.data;
        OwnImages {
            path: path.to_owned(),
            classes: metadata.classes.clone(),
            lists: metadata.images.clone(),
            given: StoredDirs { dir: data.dir.clone(), val_dir: data.val_dir.clone() },
            stored: metadata.data_dirs.clone(),
            origin_without_run: metadata.origin_without_run(),
        }
    }

    /// Where the images may be, of which there is one place at least: a folder that `config` names anew
    /// is taken as it is. `val_flag` names another folder of validation images.
    ///
    /// # Errors
    /// There is no folder where the run says, nor where it was, or there was no run.
    pub fn candidates(&self, config: &Config, val_flag: &str) -> Result<Vec<DataDirs>, Error> {
        let StoredDirs { dir, val_dir } = &self.given;
        let data = &config.data;
        if let Some(origin) = &self.origin_without_run
            && self.lists == ImageLists::default()
            && data.dir.is_empty()
        {
            return Err(Error::Usage(format!(
                "{} {origin}, so it has no images of its own; name a folder with --data-dir",
                self.path.display()
            )));
        }
        let dirs = match data.dir.as_str() {
            "" => {
                vec![stored_data_dir(config, self.path.parent().unwrap_or(Path::new("")))?]
            }
            now if now != dir => vec![PathBuf::from(now)],
            now => places(now, &self.stored.dir, "--data-dir")?,
        };
        let val_dirs = match data.val_dir.as_str() {
            "" => Vec::new(),
            now if now != val_dir => vec![PathBuf::from(now)],
            now => places(now, &self.stored.val_dir, val_flag)?,
        };
        let pair = |i: usize| DataDirs {
            dir: dirs[i.min(dirs.len() - 1)].clone(),
            val_dir: val_dirs.get(i).or(val_dirs.last()).cloned(),
        };
        Ok((0..dirs.len().max(val_dirs.len())).map(pair).collect())
    }

    /// The folders of the images: of several places the first that has the run's images, or else the
    /// first.
    ///
    /// # Errors
    /// As [`OwnImages::candidates`].
    pub fn dirs(&self, config: &Config, val_flag: &str) -> Result<DataDirs, Error> {
        let mut found = self.candidates(config, val_flag)?;
        if found.len() > 1
            && let Some(place) = found.iter().position(|dirs| {
                scan::find(config, dirs).is_ok_and(|splits| self.are_of_run(&splits, dirs))
            })
        {
            found.swap(0, place);
        }
        Ok(found.swap_remove(0))
    }

    /// The folders of the images, and those of `part`. Images that are held out of the training images
    /// are found again by the seed: an image more or less moves others from one part to the other.
    ///
    /// # Errors
    /// The images of that part are not those of the run.
    pub fn find(&self, config: &Config, part: Part) -> Result<(DataDirs, Vec<Sample>), Error> {
        let dirs = self.dirs(config, "--data-dir")?;
        let splits = scan::scan(config, &dirs)?;
        let samples = self.part_of(&dirs, splits, part)?;
        Ok((dirs, samples))
    }

    /// The training images, in `dir` if it is named. What else is to be said of the folder is not told.
    ///
    /// # Errors
    /// They are not there, or not those of the run.
    pub fn training_images(
        &self,
        config: &Config,
        dir: Option<&Path>,
    ) -> Result<Vec<Sample>, Error> {
        match dir {
            None => {
                let dirs = self.dirs(config, "--data-dir")?;
                let splits = scan::find(config, &dirs)?;
                self.part_of(&dirs, splits, Part::Training)
            }
            Some(dir) => match self.look_in(config, dir) {
                Some(look) if look.is_of_run => Ok(look.splits.train),
                _ => Err(Error::Unusable(format!(
                    "{} does not have the images that the run of {} was trained on",
                    dir.display(),
                    self.path.display()
                ))),
            },
        }
    }

    /// Those of `splits`, which were found in `dirs`, that are of a part.
    fn part_of(&self, dirs: &DataDirs, splits: Splits, part: Part) -> Result<Vec<Sample>, Error> {
        if splits.classes != self.classes {
            return Err(Error::Unusable(format!(
                "{} no longer has the classes of the run of {}: {}; name a folder with --data-dir",
                dirs.dir.display(),
                self.path.display(),
                classes::difference(&self.classes, &splits.classes)
            )));
        }
        let found = dirs.lists(&splits);
        let (difference, unknown) = match part {
            Part::Training => {
                (self.lists.train_difference(&found, &self.classes), self.lists.train.is_empty())
            }
            Part::Validation => {
                (self.lists.val_difference(&found, &self.classes), self.lists.val.is_empty())
            }
        };
        if unknown {
            tracing::warn!(
                "{} does not say which images its run was on: if any were added or removed since, \
                 training and validation images are mixed",
                self.path.display()
            );
        }
        if let Some(difference) = difference {
            return Err(Error::Unusable(format!(
                "{} no longer has the images of the run of {}: {difference}\nwhat was trained on and \
                 what was set aside can no longer be told apart; put the images back, or name a folder \
                 with --data-dir",
                dirs.dir.display(),
                self.path.display()
            )));
        }
        Ok(match part {
            Part::Training => splits.train,
            Part::Validation => splits.val,
        })
    }

    /// What a run of `config` would be on with `dir` in the place of its folder; `None` if that holds no
    /// data set.
    pub fn look_in(&self, config: &Config, dir: &Path) -> Option<Look> {
        let own = self.candidates(config, "--data-dir").unwrap_or_default();
        let is_own_folder = own.iter().any(|own| is_same(&own.dir, dir));
        let val_dir = own.into_iter().find_map(|own| own.val_dir);
        let dirs = DataDirs { dir: dir.to_owned(), val_dir };
        let splits = scan::find(config, &dirs).ok()?;
        Some(Look { is_of_run: self.are_of_run(&splits, &dirs), is_own_folder, splits })
    }

    /// Whether the images found in `dirs` are exactly those of the run.
    fn are_of_run(&self, splits: &Splits, dirs: &DataDirs) -> bool {
        splits.classes == self.classes && dirs.lists(splits) == self.lists
    }
}

/// A folder that was named in the place of a run's own.
pub struct Look {
    /// The images in it, parted as the run would.
    pub splits: Splits,
    /// Whether they are exactly those of the run.
    pub is_of_run: bool,
    /// Whether it is the run's own folder, whatever is in it now.
    pub is_own_folder: bool,
}

impl Look {
    /// How many of `samples` a run on these images is trained on.
    pub fn count_trained_on(&self, samples: &[Sample]) -> usize {
        let train = self.splits.train.iter();
        let trained: BTreeSet<&Path> = train.map(|sample| sample.path.as_path()).collect();
        samples.iter().filter(|sample| trained.contains(sample.path.as_path())).count()
    }
}

/// [`DataDirs::check_outside`] for the images of the run in `folder`, as far as they can be found.
///
/// # Errors
/// As there.
pub fn check_outside_of_run(folder: &RunFolder, out: &Path, command: &str) -> Result<(), Error> {
    // Whatever is wrong with the checkpoint is for others to say.
    let Ok(metadata) = checkpoint::load_metadata(&folder.last()) else { return Ok(()) };
    check_outside_of_images(&metadata, &folder.last(), out, command)
}

/// [`DataDirs::check_outside`] for the images of the run that the checkpoint at `path` is of, as far as they
/// can be found.
///
/// # Errors
/// As there.
pub fn check_outside_of_images(
    metadata: &Metadata,
    path: &Path,
    out: &Path,
    command: &str,
) -> Result<(), Error> {
    if metadata.config.data.dir.is_empty() {
        return Ok(());
    }
    let own = OwnImages::of(metadata, path);
    let found = own.candidates(&metadata.config, "--val-dir").unwrap_or_default();
    found.iter().try_for_each(|dirs| dirs.check_outside(out, command))
}
