//! Shards: decoded images behind one another in a file.
//!
//! ```text
//! magic                                24 bytes
//! pixels of each image                 RGB, row by row, 8 bits
//! index                                settings, then one entry an image
//! offset of the index, its CRC-32C     8 + 4 bytes
//! ```
//!
//! Numbers are little endian, texts have their length (4 bytes) in front. A shard stands in its
//! class folder, `CLASS/images-0003.pack`; its images have paths as if it were a folder. So a folder
//! of shards is scanned, split and labelled by the rules of any other.
//!
//! Images are read, not mapped into memory: a file that shrinks under a map kills the process, and
//! the copy of a checked record costs less than its checksum.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::RgbImage;

use crate::error::{DataError, DecodeError};
use crate::fields::{Reader, put_text};

/// First bytes of a shard; the number is the version of the format.
pub(crate) const MAGIC: &[u8; 24] = b"bninception images v1\n\0\0";

/// Bytes behind the index.
const TAIL: usize = 12;

/// Name of the file that stands in a folder while it is being packed.
pub(crate) const MARKER: &str = ".packing";

/// What a shard holds beside pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    /// Short side of the images in pixels; a smaller image is as it was.
    pub short_side: u32,
    /// Whether EXIF orientations were applied.
    pub exif: bool,
    /// Position of the shard in its class, and the number of shards there.
    pub number: u32,
    pub count: u32,
    pub entries: Vec<IndexEntry>,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// The path of its file inside the class folder, with `/` between folders.
    pub name: String,
    pub stamp: Stamp,
    /// Where its pixels are, or why there are none.
    pub stored: Result<Record, String>,
}

/// What tells whether a file is the one that was packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub bytes: u64,
    /// Time of the last change since 1970.
    pub modified: Duration,
}

/// The pixels of an image in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub offset: u64,
    pub width: u32,
    pub height: u32,
    pub crc: u32,
}

/// The name of shard `number` of a class.
pub(crate) fn shard_name(number: u32) -> String {
    format!("images-{number:04}.pack")
}

/// Whether a file is a shard by its name.
pub(crate) fn is_shard(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_prefix("images-")?.strip_suffix(".pack"))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Refuses `path` if it lies in a folder that is being packed or was left unfinished, at most two
/// folders deep: a class folder lies in `OUT` or in `OUT/train`, and a shard one deeper.
pub(crate) fn check_finished(path: &Path) -> Result<(), DataError> {
    let canonical = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mut places = canonical.ancestors().take(if path.is_dir() { 3 } else { 4 });
    match places.find(|place| place.join(MARKER).exists()) {
        None => Ok(()),
        Some(place) => Err(DataError::layout(
            place,
            "it is being packed, or its packing was stopped; run `data pack` with it to the end",
        )),
    }
}

impl Index {
    /// Reads the index of the shard at `path`.
    ///
    /// # Errors
    /// No file, or none that is whole.
    pub(crate) fn open(path: &Path) -> Result<Index, DataError> {
        let bytes = read_index(path).map_err(DataError::io("read", path))?;
        bytes.and_then(|(start, bytes)| Index::parse(&bytes, start)).ok_or_else(|| {
            let problem = "it is damaged or no shard of this version; remove it and pack again";
            DataError::layout(path, problem)
        })
    }

    /// The index and what stands behind it, for an index at `offset` of the file.
    pub(crate) fn serialise(&self, offset: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [self.short_side, self.exif.into(), self.number, self.count] {
            bytes.extend(number.to_le_bytes());
        }
        for IndexEntry { name, stamp, stored } in &self.entries {
            put_text(&mut bytes, name);
            bytes.extend(stamp.bytes.to_le_bytes());
            bytes.extend(stamp.modified.as_secs().to_le_bytes());
            bytes.extend(stamp.modified.subsec_nanos().to_le_bytes());
            match stored {
                Ok(Record { offset, width, height, crc }) => {
                    bytes.push(1);
                    bytes.extend(offset.to_le_bytes());
                    for number in [width, height, crc] {
                        bytes.extend(number.to_le_bytes());
                    }
                }
                Err(reason) => {
                    bytes.push(0);
                    put_text(&mut bytes, reason);
                }
            }
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(offset.to_le_bytes());
        bytes.extend(crc.to_le_bytes());
        bytes
    }

    /// `None` if the bytes are not what [`Index::serialise`] wrote for pixels that end at `start`.
    fn parse(bytes: &[u8], start: u64) -> Option<Index> {
        let mut rest = Reader(bytes);
        let [short_side, exif, number, count] =
            [rest.u32()?, rest.u32()?, rest.u32()?, rest.u32()?];
        let mut entries = Vec::new();
        while !rest.0.is_empty() {
            let name = rest.text()?;
            let (bytes, seconds, nanos) = (rest.u64()?, rest.u64()?, rest.u32()?);
            let modified =
                Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanos.into()))?;
            let stored = match rest.u8()? {
                1 => {
                    let offset = rest.u64()?;
                    let (width, height, crc) = (rest.u32()?, rest.u32()?, rest.u32()?);
                    let record = Record { offset, width, height, crc };
                    let is_inside = record.len().and_then(|len| offset.checked_add(len))? <= start;
                    (is_inside && width > 0 && height > 0).then_some(Ok(record))?
                }
                0 => Err(rest.text()?),
                _ => return None,
            };
            entries.push(IndexEntry { name, stamp: Stamp { bytes, modified }, stored });
        }
        Some(Index { short_side, exif: exif == 1, number, count, entries })
    }
}

impl Record {
    /// Bytes of the pixels; none if they cannot be counted.
    fn len(self) -> Option<u64> {
        u64::from(self.width).checked_mul(u64::from(self.height))?.checked_mul(3)
    }

    /// Reads the pixels from the shard at `path` into `pixels`.
    pub(crate) fn read(self, path: &Path, mut pixels: Vec<u8>) -> Result<RgbImage, DecodeError> {
        let len = self.len().and_then(|len| usize::try_from(len).ok());
        let damaged = || {
            let path = path.display();
            DecodeError::Corrupt(format!("its pixels in {path} are damaged; pack again"))
        };
        let len = len.ok_or_else(damaged)?;
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        pixels.clear();
        pixels.reserve_exact(len);
        file.take(len as u64).read_to_end(&mut pixels)?;
        if pixels.len() != len || crc32c::crc32c(&pixels) != self.crc {
            return Err(damaged());
        }
        RgbImage::from_raw(self.width, self.height, pixels).ok_or_else(damaged)
    }
}

/// The place of the index in the file and its bytes; `None` if they are not those that were written.
fn read_index(path: &Path) -> io::Result<Option<(u64, Vec<u8>)>> {
    if !fs::metadata(path)?.is_file() {
        return Ok(None); // to open a pipe would wait for its writer
    }
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut magic = [0; MAGIC.len()];
    let mut tail = [0; TAIL];
    if len < (MAGIC.len() + TAIL) as u64 {
        return Ok(None);
    }
    file.read_exact(&mut magic)?;
    let end = file.seek(SeekFrom::End(-(TAIL as i64)))?;
    file.read_exact(&mut tail)?;
    let mut tail = Reader(&tail);
    let (Some(start), Some(crc)) = (tail.u64(), tail.u32()) else { return Ok(None) };
    if &magic != MAGIC || !(MAGIC.len() as u64..=end).contains(&start) {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(end - start).read_to_end(&mut bytes)?;
    let is_whole = bytes.len() as u64 == end - start && crc32c::crc32c(&bytes) == crc;
    Ok(is_whole.then_some((start, bytes)))
}

// --- Images by path ----------------------------------------------------------------------------

/// Where an image is.
#[derive(Clone, Debug)]
enum Location {
    /// In a file of its own.
    File,
    /// In a shard, by its position in [`Packed::shards`].
    Shard(u32, Record),
    /// Nowhere: it could not be packed, for this reason.
    Missing(Box<str>),
}

/// Which of a list of images are in shards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packed {
    shards: Vec<PathBuf>,
    /// A location for each image; empty if all are files.
    locations: Vec<Location>,
    /// Whether EXIF orientations were applied in all shards, or in none.
    pub exif: Option<bool>,
}

impl Packed {
    /// Looks up the images at `paths`.
    ///
    /// # Errors
    /// A shard is damaged, or lost an image since it was scanned.
    pub(crate) fn find<'a>(
        paths: impl Iterator<Item = &'a Path> + Clone,
    ) -> Result<Packed, DataError> {
        let mut packed = Packed::default();
        let mut open: HashMap<&Path, OpenShard> = HashMap::new();
        // Images of a folder stand together, so that most are passed over by one comparison.
        let mut last = None;
        for path in paths.clone() {
            let parent = path.parent().unwrap_or(path);
            if last.replace(parent.as_os_str()) == Some(parent.as_os_str()) {
                continue;
            }
            // A folder may have the name of a shard.
            let mut shards = parent.ancestors().filter(|ancestor| is_shard(ancestor));
            if let Some(shard) = shards.find(|shard| shard.is_file())
                && !open.contains_key(shard)
            {
                let opened = packed.open(shard)?;
                open.insert(shard, opened);
            }
        }
        if open.is_empty() {
            return Ok(packed);
        }
        for path in paths {
            let opened = path.ancestors().skip(1).find_map(|ancestor| open.get(ancestor));
            let location = match opened {
                Some(opened) => opened.location(&packed.shards, path)?,
                None => Location::File,
            };
            packed.locations.push(location);
        }
        Ok(packed)
    }

    fn open(&mut self, shard: &Path) -> Result<OpenShard, DataError> {
        let index = Index::open(shard)?;
        if self.exif.is_some_and(|exif| exif != index.exif) {
            let problem = "it was packed with another treatment of EXIF than others; pack again";
            return Err(DataError::layout(shard, problem));
        }
        self.exif = Some(index.exif);
        let number = self.shards.len() as u32;
        self.shards.push(shard.to_path_buf());
        let entries = index.entries.into_iter().map(|entry| (entry.name, entry.stored)).collect();
        Ok(OpenShard { number, entries })
    }

    /// Whether image `index` is in a shard, with or without pixels.
    pub(crate) fn has(&self, index: usize) -> bool {
        !matches!(self.location(index), Location::File)
    }

    /// Width and height of image `index`, if it is in a shard and has pixels.
    pub(crate) fn size(&self, index: usize) -> Option<[u32; 2]> {
        match self.location(index) {
            Location::Shard(_, record) => Some([record.width, record.height]),
            Location::File | Location::Missing(_) => None,
        }
    }

    /// Why image `index` of a shard has no pixels, if it has none.
    pub(crate) fn missing(&self, index: usize) -> Option<DecodeError> {
        match self.location(index) {
            Location::Missing(reason) => Some(DecodeError::Corrupt(reason.to_string())),
            Location::File | Location::Shard(..) => None,
        }
    }

    /// Reads image `index` into the memory of `pixels`; `None` if it is in a file of its own.
    pub(crate) fn load(
        &self,
        index: usize,
        pixels: &mut Vec<u8>,
    ) -> Option<Result<RgbImage, DecodeError>> {
        match self.location(index) {
            Location::Shard(shard, record) => {
                Some(record.read(&self.shards[*shard as usize], std::mem::take(pixels)))
            }
            Location::File | Location::Missing(_) => self.missing(index).map(Err),
        }
    }

    fn location(&self, index: usize) -> &Location {
        self.locations.get(index).unwrap_or(&Location::File)
    }
}

/// A shard while images are looked up.
struct OpenShard {
    number: u32,
    entries: HashMap<String, Result<Record, String>>,
}

impl OpenShard {
    fn location(&self, shards: &[PathBuf], path: &Path) -> Result<Location, DataError> {
        let shard = &shards[self.number as usize];
        let name = path.strip_prefix(shard).ok().and_then(inner_name);
        match name.and_then(|name| self.entries.get(&name)) {
            Some(Ok(record)) => Ok(Location::Shard(self.number, *record)),
            Some(Err(reason)) => Ok(Location::Missing(reason.as_str().into())),
            None => {
                let problem = format!("it no longer holds {}; scan again", path.display());
                Err(DataError::layout(shard, problem))
            }
        }
    }
}

/// A path inside a class folder as the name of an entry; none if it is not UTF-8.
pub(crate) fn inner_name(path: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> = path.iter().map(|part| part.to_str()).collect();
    Some(parts?.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let stamp = Stamp { bytes: 5, modified: Duration::new(7, 9) };
        let record = Record { offset: 24, width: 2, height: 3, crc: 11 };
        let entry = |name: &str, stored| IndexEntry { name: name.to_owned(), stamp, stored };
        Index {
            short_side: 256,
            exif: true,
            number: 1,
            count: 2,
            entries: vec![entry("ü/x.jpg", Ok(record)), entry("y", Err("broken".to_owned()))],
        }
    }

    #[test]
    fn an_index_survives_the_disk_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images-0001.pack");
        let whole = [&MAGIC[..], &[7; 18], &index().serialise(42)].concat();
        let open = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            Index::open(&path)
        };
        assert_eq!(open(&whole).unwrap(), index());
        for cut in 0..whole.len() {
            assert!(open(&whole[..cut]).is_err(), "cut at {cut}");
        }
        for at in (0..whole.len()).filter(|at| !(24..42).contains(at)) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(open(&damaged).is_err(), "damaged at {at}");
        }
        // An honest checksum over a record that reaches into the index.
        let mut index = index();
        index.entries[0].stored = Ok(Record { offset: 25, width: 2, height: 3, crc: 11 });
        assert!(open(&[&MAGIC[..], &[7; 18], &index.serialise(42)].concat()).is_err());
    }

    #[test]
    fn shards_are_told_by_their_names() {
        for (name, expected) in [
            ("images-0000.pack", true),
            ("images-12345.pack", true),
            ("images-.pack", false),
            ("images-1.packed", false),
            ("images-1a.pack", false),
            (".images-0001.pack", false),
        ] {
            assert_eq!(is_shard(Path::new(name)), expected, "{name}");
        }
        assert!(is_shard(Path::new(&shard_name(3))));
    }
}
