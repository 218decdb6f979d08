//! A look at the first bytes of every image before a run begins.

use std::panic::catch_unwind;
use std::path::Path;

use crate::decode::DecodeOptions;
use crate::folder::Sample;
use crate::listing::{Lister, pieces};
use crate::pack::Packed;
use crate::{DataError, DecodeError, Failure};

/// Files of a piece of work.
const PIECE: usize = 512;

/// Reads the headers of `samples`, on the threads of `lister`, and returns those that cannot be
/// used: no image by its first bytes, no pixels, or more of them than `options` allows. Folders that
/// the lister knows to be sound are passed over. `advance` is told of each piece that is done.
///
/// A sound header does not make a sound file; one that breaks off later is met when it is decoded.
///
/// # Errors
/// [`DataError::Stopped`]; a shard that is damaged.
pub fn check_headers(
    lister: &Lister<'_>,
    samples: &[Sample],
    options: &DecodeOptions,
    advance: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Failure>, DataError> {
    let packed = Packed::find(samples.iter().map(|sample| sample.path.as_path()))?;
    let sound = lister.sound_folders(samples, options);
    let found = lister.each(&pieces(samples, PIECE), |&(first, piece)| {
        lister.check_stop()?;
        let mut failures = Vec::new();
        // Samples of a folder stand together, so that one look serves many.
        let mut folder: Option<(&Path, bool)> = None;
        let failure = |index: usize, sample: &Sample, source| {
            let path = sample.path.clone();
            let error = DataError::image(&path, source).to_string();
            Failure { index: index as u32, path, error }
        };
        for (index, sample) in (first..).zip(piece) {
            if packed.has(index) {
                // What has pixels was decoded once.
                failures.extend(packed.missing(index).map(|reason| failure(index, sample, reason)));
                continue;
            }
            let parent = sample.path.parent().unwrap_or(Path::new(""));
            let is_sound = match folder {
                Some((known, is_sound)) if known == parent => is_sound,
                _ => folder.insert((parent, sound.contains(parent))).1,
            };
            if !is_sound && let Err(source) = check_header(&sample.path, options) {
                failures.push(failure(index, sample, source));
            }
        }
        advance(piece.len());
        Ok(failures)
    })?;
    Ok(found.into_iter().flatten().collect())
}

fn check_header(path: &Path, options: &DecodeOptions) -> Result<(), DecodeError> {
    // The bytes are anyone's: a panic of the reader condemns the file, not the run.
    let size = catch_unwind(|| imagesize::size(path))
        .map_err(|_| DecodeError::Corrupt("reading its header panicked".to_owned()))?;
    let size = match size {
        Ok(size) => size,
        Err(imagesize::ImageError::IoError(error)) => {
            return match error.kind() {
                std::io::ErrorKind::UnexpectedEof if is_empty(path) => Err(DecodeError::Empty),
                std::io::ErrorKind::UnexpectedEof => Err(DecodeError::Truncated),
                _ => Err(DecodeError::Io(error)),
            };
        }
        Err(error) => return Err(DecodeError::Corrupt(format!("no readable header: {error}"))),
    };
    let (width, height) = (size.width as u32, size.height as u32);
    if width == 0 || height == 0 {
        return Err(DecodeError::NoPixels { width, height });
    }
    if u64::from(width) * u64::from(height) > options.max_pixels {
        return Err(DecodeError::TooManyPixels { width, height, max: options.max_pixels });
    }
    Ok(())
}

fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0)
}
