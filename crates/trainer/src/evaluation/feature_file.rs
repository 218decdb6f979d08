//! The features of images as a file of NumPy, with the paths of the images beside it.
//!
//! The format is that of `numpy.lib.format`, version 1.0
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>): eight bytes that name it, the
//! length of a header, the header as the text of a Python dictionary, and the values. The number of rows stands
//! in the header and is known only behind the last image, because those that cannot be read have no row.
//! So the header has a fixed length and is written twice. candle's writer of the format takes whole tensors.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::file_error::FileError;
use crate::run::atomic_file::{self, Replacement};
use crate::terminal::output::with_path;

/// What a file of this format begins with: its name and its version.
const MAGIC: &[u8; 8] = b"\x93NUMPY\x01\x00";

/// Bytes in front of the values. The format asks for a multiple of 64; this holds any two numbers.
const HEADER_BYTES: usize = 128;

/// A file of features that is being written, and the one with the paths. Dropped before its end, it leaves
/// what was there before.
pub struct FeatureFile {
    channels: usize,
    rows: usize,
    values: Open,
    paths: Open,
}

/// One of the two files.
struct Open {
    path: PathBuf,
    file: Replacement,
}

impl Open {
    fn begin(path: PathBuf) -> Result<Open, FileError> {
        let file = Replacement::begin(&path).map_err(FileError::of("create", &path))?;
        Ok(Open { path, file })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(FileError::of("write", &self.path))
    }

    fn finish(self) -> Result<(), FileError> {
        self.file.finish().map_err(FileError::of("write", &self.path))
    }
}

impl FeatureFile {
    /// The file of the paths of the rows in `path`: `features.paths.jsonl` for `features.npy`.
    pub fn paths_of(path: &Path) -> PathBuf {
        path.with_extension("paths.jsonl")
    }

    /// Begins a file at `path` whose rows have `channels` values.
    ///
    /// # Errors
    /// A file cannot be created.
    pub fn begin(path: &Path, channels: usize) -> Result<FeatureFile, FileError> {
        let mut values = Open::begin(path.to_owned())?;
        values.write(&header(0, channels))?;
        let paths = Open::begin(FeatureFile::paths_of(path))?;
        Ok(FeatureFile { channels, rows: 0, values, paths })
    }

    /// Adds the row of the image at `path`, as little-endian f32. The path becomes a line of JSON, so that
    /// line breaks and bytes that are no text do no harm.
    ///
    /// # Errors
    /// A file cannot be written.
    ///
    /// # Panics
    /// The row has another number of values than the file.
    pub fn add(&mut self, path: &Path, row: &[f32]) -> Result<(), FileError> {
        assert_eq!(row.len(), self.channels, "values of a row");
        let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.values.write(&bytes)?;
        self.paths.write(format!("{}\n", with_path("path", path, json!({}))).as_bytes())?;
        self.rows += 1;
        Ok(())
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Writes the number of rows, and puts both files in their places. Old paths go first: whenever the
    /// program ends, no paths stand beside the features of others.
    ///
    /// # Errors
    /// A file cannot be written or replaced.
    pub fn finish(mut self) -> Result<(), FileError> {
        let again = self.values.file.seek(SeekFrom::Start(0)).map(|_| ());
        again.map_err(FileError::of("write", &self.values.path))?;
        self.values.write(&header(self.rows, self.channels))?;
        let paths = &self.paths.path;
        atomic_file::remove(paths).map_err(FileError::of("replace", paths))?;
        self.values.finish()?;
        self.paths.finish()
    }
}

/// The header of a table of little-endian f32, row by row.
fn header(rows: usize, channels: usize) -> Vec<u8> {
    let about =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {channels}), }}");
    let room = HEADER_BYTES - MAGIC.len() - size_of::<u16>();
    let mut bytes = MAGIC.to_vec();
    bytes.extend((room as u16).to_le_bytes());
    bytes.extend(format!("{about:<width$}\n", width = room - 1).bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_header_has_one_length_whatever_the_numbers() {
        for (rows, channels) in [(0, 1), (3, 1024), (usize::MAX, usize::MAX)] {
            let header = header(rows, channels);
            assert_eq!((header.len(), header.last()), (HEADER_BYTES, Some(&b'\n')));
            let text = String::from_utf8_lossy(&header);
            assert!(text.contains(&format!("'shape': ({rows}, {channels}), }}")), "{text}");
        }
        assert_eq!(u16::from_le_bytes([header(1, 1)[8], header(1, 1)[9]]), 118);
    }

    #[test]
    fn a_file_that_is_given_up_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        let write = |rows: &[[f32; 2]], ends: bool| {
            let mut file = FeatureFile::begin(&path, 2).unwrap();
            for row in rows {
                file.add(Path::new("a\nb.jpg"), row).unwrap();
            }
            if ends {
                file.finish().unwrap();
            }
        };
        write(&[[1.0, 2.0], [3.0, 4.0]], true);
        let (old, paths) = (fs::read(&path).unwrap(), FeatureFile::paths_of(&path));
        assert_eq!(old.len(), HEADER_BYTES + 16);
        assert_eq!(&old[..HEADER_BYTES], header(2, 2));
        assert_eq!(fs::read_to_string(&paths).unwrap(), "{\"path\":\"a\\nb.jpg\"}\n".repeat(2));
        write(&[[5.0, 6.0]], false);
        assert_eq!(fs::read(&path).unwrap(), old);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        write(&[[5.0, 6.0]], true);
        assert_eq!(fs::read(&path).unwrap().len(), HEADER_BYTES + 8);
        assert_eq!(fs::read_to_string(&paths).unwrap().lines().count(), 1);
    }
}
