//! The training and validation images in the folders of a run, found and looked at.

use std::path::Path;

use bninception_data as data;
use bninception_data::{DataError, Failure, Lister, Sample, ScanOptions, Splits};

use crate::config::Config;
use crate::error::Error;
use crate::images::data_dirs::DataDirs;
use crate::setup::{decode_options, threads};
use crate::terminal::progress::SharedProgress;
use crate::terminal::signals;
use crate::terminal::text::counted;

/// Finds the images to train and validate on, and looks at their headers if the settings ask for it.
///
/// # Errors
/// As [`scan`]; an image that cannot be read.
pub fn scan_to_train(config: &Config, dirs: &DataDirs) -> Result<Splits, Error> {
    let stop = || signals::received().is_some();
    let mut lister = lister(config).with_stop(&stop);
    let splits = scan_with(config, dirs, &mut lister)?;
    warn(&splits.notes);
    if config.data.check_headers {
        let options = decode_options(config);
        let samples: Vec<&Sample> = splits.train.iter().chain(&splits.val).collect();
        tracing::debug!("looking at headers of {}", counted(samples.len() as u64, "image"));
        let progress = SharedProgress::new("looking at headers");
        progress.start(samples.len());
        let advance = |done| progress.advance(done);
        let bad = data::check_headers(&lister, &samples, &options, &advance);
        drop(progress);
        let bad = stopped_by_signal(bad)?;
        let n_train = splits.train.len();
        let (train, val): (Vec<Failure>, Vec<Failure>) =
            bad.into_iter().partition(|failure| (failure.index as usize) < n_train);
        for (what, bad, n_images) in
            [("training", train, n_train), ("validation", val, splits.val.len())]
        {
            if !bad.is_empty() {
                return Err(unreadable(&bad, what, n_images));
            }
        }
        lister.mark_sound(&samples, &options);
    }
    keep_listings(&mut lister, &dirs.dir);
    Ok(splits)
}

/// Names the first of the images that cannot be read.
fn unreadable(bad: &[Failure], what: &str, n_images: usize) -> Error {
    const SHOWN: usize = 10;
    let mut lines: Vec<String> =
        bad.iter().take(SHOWN).map(|failure| format!("  {}", failure.error)).collect();
    if bad.len() > SHOWN {
        lines.push(format!("  and {} more", bad.len() - SHOWN));
    }
    let otherwise = match what {
        "training" => "leave them out as they come, up to data.max_bad,",
        _ => "count them as wrong",
    };
    Error::Unusable(format!(
        "{} of {} cannot be read:\n{}\nmend or remove them, or {otherwise} with \
         --set data.check_headers=false",
        bad.len(),
        counted(n_images as u64, &format!("{what} image")),
        lines.join("\n")
    ))
}

/// Finds the training and validation images.
///
/// # Errors
/// The folder is not laid out as class folders of images.
pub fn scan(config: &Config, dirs: &DataDirs) -> Result<Splits, Error> {
    let splits = find(config, dirs)?;
    warn(&splits.notes);
    Ok(splits)
}

/// [`scan`] whose notes are not told.
///
/// # Errors
/// As [`scan`].
pub fn find(config: &Config, dirs: &DataDirs) -> Result<Splits, Error> {
    let stop = || signals::received().is_some();
    let mut lister = lister(config).with_stop(&stop);
    let splits = scan_with(config, dirs, &mut lister)?;
    keep_listings(&mut lister, &dirs.dir);
    Ok(splits)
}

fn scan_with(config: &Config, dirs: &DataDirs, lister: &mut Lister<'_>) -> Result<Splits, Error> {
    let DataDirs { dir, val_dir } = dirs;
    if !dir.is_dir() {
        return Err(Error::Unusable(format!(
            "{} is not a folder; --data-dir expects one with train/CLASS/* and val/CLASS/*, or \
             with CLASS/* alone",
            dir.display()
        )));
    }
    tracing::debug!("looking for images in {}", dir.display());
    lister.load(dir);
    let options = ScanOptions {
        val_dir: val_dir.clone(),
        val_fraction: config.data.val_fraction,
        seed: config.train.seed,
    };
    stopped_by_signal(data::scan_with(lister, dir, &options))
}

/// Tells what a person should know of a folder of images.
pub fn warn(notes: &[String]) {
    for note in notes {
        tracing::warn!("{note}");
    }
}

/// How folders are listed.
pub fn lister<'a>(config: &Config) -> Lister<'a> {
    let cache_dir = if config.data.cache_listings { Lister::default_cache_dir() } else { None };
    Lister::new(threads(config.data.workers)).with_cache(cache_dir)
}

/// What a scan found; a scan that a signal stopped becomes that signal's error.
///
/// # Errors
/// The scan's.
pub fn stopped_by_signal<T>(scanned: Result<T, DataError>) -> Result<T, Error> {
    if let Err(DataError::Stopped) = scanned {
        signals::check()?;
    }
    Ok(scanned?)
}

/// Writes the cache of listings of a large tree. A run goes on without.
pub fn keep_listings(lister: &mut Lister<'_>, dir: &Path) {
    match lister.save(dir, false) {
        Ok(Some(file)) => tracing::debug!("wrote {}", file.display()),
        Ok(None) => {}
        Err(error) => tracing::debug!("no cache of folder listings: {error}"),
    }
}
