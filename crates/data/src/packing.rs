//! A folder of images decoded once, into shards.
//!
//! `OUT` has the class folders of `DIR`, each with shards (see `shard.rs`) of up to
//! `SHARD_IMAGES` images, whose short side is at most the one that was asked for. Training and
//! evaluation read it like `DIR`: the same classes, the same order, the same images held out.
//!
//! Every shard is written under another name, synced and renamed, so that one with its own name is
//! whole. Packing again keeps the shards whose files have not changed, which is how a packing that
//! was stopped, by whatever, goes on. While it lasts, `OUT/.packing` stands there, locked; as long as
//! it does, `OUT` is refused as a folder of images.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::class_folders::ClassFolder;
use crate::decode::{DecodeBuffers, Wanted, decode_file_with};
use crate::decode_options::DecodeOptions;
use crate::error::DataError;
use crate::folder::{Trees, trees};
use crate::listing::{Lister, changed};
use crate::loader::Failure;
use crate::resize::{Filter, Resizer};
use crate::shard::{self, Index, IndexEntry, MAGIC, MARKER, Record, Stamp};

/// Most images of a shard: 250 MB at 256 pixels, written in seconds, so that little is done twice.
const SHARD_IMAGES: usize = 1024;

/// What [`pack`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackOptions {
    /// Pixels of the short side. Images are shrunk to it as evaluation shrinks them, never enlarged.
    pub short_side: u32,
    /// Limits of decoding, and whether EXIF orientations are applied.
    pub decode: DecodeOptions,
}

/// What [`pack`] made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackSummary {
    /// Images, with those that cannot be read.
    pub images: usize,
    /// Shards that were written.
    pub made: usize,
    /// Shards that were there and whole.
    pub kept: usize,
    /// Bytes of all shards.
    pub bytes: u64,
    /// Images without pixels; they keep their place in the order, and fail when they are asked for.
    pub failed: Vec<Failure>,
    /// Things that a person should know and that are no errors, one sentence each.
    pub notes: Vec<String>,
}

/// Packs the images of `dir` into `out`, on the threads of `lister`. `start` is told how many there
/// are and what a person should know, `advance` of each that is done.
///
/// # Errors
/// `dir` cannot be listed or is packed already, `out` lies in it, is being packed by another process
/// or has classes that `dir` has not; a name is not UTF-8; a file cannot be written; or
/// [`DataError::Stopped`]. The shards that are done stay.
pub fn pack(
    lister: &Lister<'_>,
    dir: &Path,
    out: &Path,
    options: &PackOptions,
    start: impl FnOnce(usize, &[String]),
    advance: &(dyn Fn(usize) + Sync),
) -> Result<PackSummary, DataError> {
    if options.short_side == 0 {
        return Err(DataError::setting("short_side", 0, "at least 1 pixel"));
    }
    let Trees { trees, notes, .. } = trees(lister, dir)?;
    if trees.iter().flat_map(|(_, classes)| classes).all(|class| class.images.is_empty()) {
        let mut problem = "no image found in class folders".to_owned();
        notes.iter().for_each(|note| problem.push_str(&format!("; {note}")));
        return Err(DataError::layout(dir, problem));
    }
    fs::create_dir_all(out).map_err(DataError::io("create", out))?;
    check_apart(dir, out)?;
    let marker = lock(out)?;
    let mut jobs = Vec::new();
    let mut expected = BTreeSet::new();
    for (split, classes) in &trees {
        let parent = if *split == "all" { out.to_path_buf() } else { out.join(split) };
        for class in classes {
            let folder = parent.join(&class.name);
            fs::create_dir_all(&folder).map_err(DataError::io("create", &folder))?;
            clear(&folder, class.images.len().div_ceil(SHARD_IMAGES))?;
            jobs.extend(jobs_of(class, &folder)?);
            expected.insert(folder);
        }
        check_classes(&parent, &expected)?;
    }
    start(jobs.iter().map(|job| job.images.len()).sum(), &notes);
    let done = lister.each(&jobs, |job| job.run(lister, options, advance))?;

    let mut summary = PackSummary { notes, ..PackSummary::default() };
    for done in done {
        let first = summary.images as u32;
        let failed = done.failed.into_iter();
        summary.failed.extend(failed.map(|f| Failure { index: first + f.index, ..f }));
        summary.images += done.images;
        summary.bytes += done.bytes;
        let count = if done.is_new { &mut summary.made } else { &mut summary.kept };
        *count += 1;
    }
    drop(marker);
    let marker = out.join(MARKER);
    fs::remove_file(&marker).map_err(DataError::io("remove", &marker))?;
    Ok(summary)
}

/// Packing into the images that are packed would never end well.
fn check_apart(dir: &Path, out: &Path) -> Result<(), DataError> {
    let resolve = |path: &Path| fs::canonicalize(path).map_err(DataError::io("resolve", path));
    if resolve(out)?.starts_with(resolve(dir)?) {
        return Err(DataError::layout(out, "it lies in the folder to pack; name another place"));
    }
    Ok(())
}

/// Makes the marker of `out` and locks it as long as the file is open.
fn lock(out: &Path) -> Result<File, DataError> {
    let path = out.join(MARKER);
    let marker = File::create(&path).map_err(DataError::io("create", &path))?;
    match marker.try_lock() {
        Ok(()) => Ok(marker),
        Err(TryLockError::WouldBlock) => {
            Err(DataError::layout(out, "another process is packing into it; wait for its end"))
        }
        Err(TryLockError::Error(error)) => Err(DataError::io("lock", &path)(error)),
    }
}

/// Removes from a class folder what a process that was killed left half-written, and shards beyond
/// the first `count`.
fn clear(folder: &Path, count: usize) -> Result<(), DataError> {
    for entry in fs::read_dir(folder).map_err(DataError::io("list", folder))? {
        let path = entry.map_err(DataError::io("list", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_partial = name.starts_with(".images-") && name.ends_with(".partial");
        let is_beyond = shard::is_shard(&path)
            && !(0..count).any(|number| name == shard::shard_name(number as u32));
        if is_partial || is_beyond {
            fs::remove_file(&path).map_err(DataError::io("remove", &path))?;
        }
    }
    Ok(())
}

/// A class that is only in `parent` would become a class of the pack.
fn check_classes(parent: &Path, expected: &BTreeSet<PathBuf>) -> Result<(), DataError> {
    for entry in fs::read_dir(parent).map_err(DataError::io("list", parent))? {
        let path = entry.map_err(DataError::io("list", parent))?.path();
        let is_known = expected.iter().any(|known| known.starts_with(&path));
        if path.is_dir() && !is_known {
            let problem = "it is no class of the folder to pack; remove it, or name another place";
            return Err(DataError::layout(&path, problem));
        }
    }
    Ok(())
}

/// The shards of a class.
fn jobs_of<'a>(class: &'a ClassFolder, folder: &Path) -> Result<Vec<Job<'a>>, DataError> {
    let count = class.images.len().div_ceil(SHARD_IMAGES) as u32;
    let pieces = (0..count).zip(class.images.chunks(SHARD_IMAGES));
    let job = |(number, images): (u32, &'a [PathBuf])| {
        let name = |path: &PathBuf| {
            let inner = path.strip_prefix(&class.dir).unwrap_or(path);
            if inner.iter().any(|part| shard::is_shard(Path::new(part))) {
                return Err(DataError::layout(&class.dir, "it is packed already"));
            }
            shard::inner_name(inner)
                .ok_or_else(|| DataError::layout(path, "its name is not UTF-8 text; rename it"))
        };
        let names = images.iter().map(name).collect::<Result<_, _>>()?;
        Ok(Job { images, names, number, count, path: folder.join(shard::shard_name(number)) })
    };
    pieces.map(job).collect()
}

/// A shard to make.
struct Job<'a> {
    images: &'a [PathBuf],
    names: Vec<String>,
    number: u32,
    count: u32,
    path: PathBuf,
}

/// A shard that is there.
struct Done {
    images: usize,
    bytes: u64,
    is_new: bool,
    /// The images without pixels, by their position in the shard.
    failed: Vec<Failure>,
}

impl Job<'_> {
    fn run(
        &self,
        lister: &Lister<'_>,
        options: &PackOptions,
        advance: &(dyn Fn(usize) + Sync),
    ) -> Result<Done, DataError> {
        let mut index = Index {
            short_side: options.short_side,
            exif: options.decode.exif,
            number: self.number,
            count: self.count,
            entries: Vec::with_capacity(self.images.len()),
        };
        for (path, name) in self.images.iter().zip(&self.names) {
            lister.check_stop()?;
            // A file that cannot be looked at cannot be decoded either, and says why then.
            let stamp = stamp(path).unwrap_or(Stamp { bytes: 0, modified: Default::default() });
            let stored = Err(String::new());
            index.entries.push(IndexEntry { name: name.clone(), stamp, stored });
        }
        let known = Index::open(&self.path).ok().filter(|known| known.is_of(&index));
        let is_new = known.is_none();
        if let Some(known) = known {
            index = known;
            advance(self.images.len());
        } else {
            let name = shard::shard_name(self.number);
            let partial = self.path.with_file_name(format!(".{name}.partial"));
            let written = self.write(&partial, &mut index, lister, options, advance);
            if let Err(error) = written.and_then(|()| put_in_place(&partial, &self.path)) {
                let _ = fs::remove_file(&partial); // the error says what counts
                return Err(error);
            }
        }
        let entries = (0..).zip(self.images).zip(index.entries);
        let failed = entries.filter_map(|((index, path), entry)| {
            Some(Failure { index, path: path.clone(), error: entry.stored.err()? })
        });
        let failed = failed.collect();
        let bytes = fs::metadata(&self.path).map_err(DataError::io("read", &self.path))?.len();
        Ok(Done { images: self.images.len(), bytes, is_new, failed })
    }

    fn write(
        &self,
        partial: &Path,
        index: &mut Index,
        lister: &Lister<'_>,
        options: &PackOptions,
        advance: &(dyn Fn(usize) + Sync),
    ) -> Result<(), DataError> {
        let io = || DataError::io("write", partial);
        let mut buffers = DecodeBuffers::default();
        let mut resizer = Resizer::default();
        let file = File::create(partial).map_err(io())?;
        let mut file = BufWriter::new(file);
        file.write_all(MAGIC).map_err(io())?;
        let mut offset = MAGIC.len() as u64;
        for (path, entry) in self.images.iter().zip(&mut index.entries) {
            lister.check_stop()?;
            let image =
                decode_file_with(path, &options.decode, &mut |_, _| Wanted::ALL, &mut buffers);
            entry.stored = match image {
                Err(DataError::Image { source, .. }) => Err(source.to_string()),
                Err(error) => return Err(error),
                Ok(image) => {
                    let (width, height) = fitted(image.dimensions(), options.short_side);
                    let pixels = match (width, height) == image.dimensions() {
                        true => image.as_raw(),
                        false => resizer.fit(&image, Filter::Bilinear, width, height),
                    };
                    file.write_all(pixels).map_err(io())?;
                    let record = Record { offset, width, height, crc: crc32c::crc32c(pixels) };
                    offset += pixels.len() as u64;
                    buffers.recycle(image);
                    Ok(record)
                }
            };
            advance(1);
        }
        file.write_all(&index.serialise(offset)).map_err(io())?;
        let file = file.into_inner().map_err(|error| io()(error.into_error()))?;
        file.sync_all().map_err(io())
    }
}

impl Index {
    /// Whether this shard was made as `wanted` would be, from the same files.
    fn is_of(&self, wanted: &Index) -> bool {
        let settings = |index: &Index| (index.short_side, index.exif, index.number, index.count);
        let file = |entry: &IndexEntry| (entry.name.clone(), entry.stamp);
        settings(self) == settings(wanted)
            && self.entries.iter().map(file).eq(wanted.entries.iter().map(file))
    }
}

/// Renames `partial` to `path` and makes that last.
fn put_in_place(partial: &Path, path: &Path) -> Result<(), DataError> {
    fs::rename(partial, path).map_err(DataError::io("write", path))?;
    #[cfg(unix)] // elsewhere folders cannot be opened
    if let Some(folder) = path.parent() {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(DataError::io("sync", folder))?;
    }
    Ok(())
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp { bytes: metadata.len(), modified: changed(&metadata)? })
}

/// Width and height with a short side of at most `short_side`, the long one rounded down, as
/// evaluation resizes ([`crate::crop::centre_crop`]).
fn fitted((width, height): (u32, u32), short_side: u32) -> (u32, u32) {
    let short = width.min(height);
    if short <= short_side {
        return (width, height);
    }
    let side = |side: u32| (f64::from(short_side) * f64::from(side) / f64::from(short)) as u32;
    (side(width), side(height))
}

#[cfg(test)]
mod tests {
    use super::fitted;

    #[test]
    fn images_shrink_to_the_short_side_and_never_grow() {
        for (from, short_side, expected) in [
            ((500, 375), 256, (341, 256)),
            ((375, 500), 256, (256, 341)),
            ((256, 300), 256, (256, 300)),
            ((10, 20), 256, (10, 20)),
            ((4000, 1), 256, (4000, 1)),
            ((1000, 1000), 1, (1, 1)),
        ] {
            assert_eq!(fitted(from, short_side), expected, "{from:?} to {short_side}");
        }
    }
}
