//! A look at the first bytes of every image before a run begins.

use std::borrow::Borrow;
use std::io::Read;
use std::path::Path;

use crate::decode::open_file;
use crate::decode_options::DecodeOptions;
use crate::error::{DataError, DecodeError};
use crate::listing::{Lister, pieces};
use crate::loader::Failure;
use crate::open;
use crate::sample::Sample;
use crate::shard::Packed;

/// Files of a piece of work.
const PIECE: usize = 512;

/// How many bytes are read first, and how many in all if they do not decide. Headers of photos without
/// metadata end within the former, and most thumbnails and colour profiles within the latter.
pub(crate) const FIRST_BYTES: [usize; 2] = [4096, 65536];

/// What the first bytes of a file say.
#[derive(Debug)]
pub enum Look {
    /// The header is sound.
    Sound,
    /// The header lies behind these bytes, or they are damaged. The decoder decides.
    Unknown,
    /// The decoder refuses the file, for this reason.
    Bad(DecodeError),
}

/// Reads the headers of `samples`, on the threads of `lister`, and returns those that cannot be
/// used: no image by its first bytes, no pixels, or more of them than `options` allows. Folders that
/// the lister knows to be sound are passed over. `advance` is told of each piece that is done.
///
/// The errors are those of decoding. A sound header does not make a sound file; one that breaks off
/// later, or whose first bytes decide nothing, is met when it is decoded.
///
/// # Errors
/// [`DataError::Stopped`]; a shard that is damaged.
pub fn check_headers(
    lister: &Lister<'_>,
    samples: &[impl Borrow<Sample> + Sync],
    options: &DecodeOptions,
    advance: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Failure>, DataError> {
    let packed = Packed::find(samples.iter().map(|sample| sample.borrow().path.as_path()))?;
    let sound = lister.sound_folders(samples, options);
    let found = lister.each(&pieces(samples, PIECE), |&(first, piece)| {
        lister.check_stop()?;
        let (mut failures, mut first_bytes) = (Vec::new(), Vec::new());
        // Samples of a folder stand together, so that one look serves many.
        let mut folder: Option<(&Path, bool)> = None;
        let failure = |index: usize, sample: &Sample, source| {
            let path = sample.path.clone();
            let error = DataError::image(&path, source).to_string();
            Failure { index: index as u32, path, error }
        };
        for (index, sample) in (first..).zip(piece) {
            let sample = sample.borrow();
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
            if !is_sound && let Err(source) = check_header(&sample.path, options, &mut first_bytes)
            {
                failures.push(failure(index, sample, source));
            }
        }
        advance(piece.len());
        Ok(failures)
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// Looks at the first bytes of a file, or at all of them if it `is_whole`. No content makes it panic.
pub fn look(first: &[u8], is_whole: bool, options: &DecodeOptions) -> Look {
    let found = match is_whole {
        true => open::open(first, options).map(|_| true),
        false => open::peek(first, options).map(|size| size.is_some()),
    };
    match found {
        Ok(true) => Look::Sound,
        Ok(false) => Look::Unknown,
        Err(error) => Look::Bad(error),
    }
}

fn check_header(
    path: &Path,
    options: &DecodeOptions,
    first: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let (mut file, n_bytes) = open_file(path, options.max_bytes)?;
    first.clear();
    for most in FIRST_BYTES {
        let wanted = most - first.len();
        let read = file.by_ref().take(wanted as u64).read_to_end(first)?;
        let is_whole = read < wanted || first.len() as u64 == n_bytes;
        match look(first, is_whole, options) {
            Look::Bad(error) => return Err(error),
            Look::Sound => return Ok(()),
            Look::Unknown => {}
        }
    }
    Ok(())
}
