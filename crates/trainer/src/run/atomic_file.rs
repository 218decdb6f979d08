//! Files that are replaced in one step: at every moment there is the old one or the new one, whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, IntoInnerError, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// How the temporary files begin that stand beside a file while it is written.
const PREFIX: &str = ".new-";

/// Bytes gathered for one write to the system.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes a file beside `path` by `content`, flushes it to the disk, renames it and flushes the
/// folder, which is made if it is missing.
///
/// # Errors
/// The system's; an old file at `path` is then as it was.
pub fn write(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = Replacement::begin(path)?;
    content(&mut file)?;
    file.finish()
}

/// A file that is written piece by piece, beside the one that it replaces in the end. If it is dropped before
/// that, it goes, and the old one is as it was.
#[derive(Debug)]
pub struct Replacement {
    path: PathBuf,
    writer: BufWriter<NamedTempFile>,
}

impl Replacement {
    /// Begins a new file for `path`, in its folder, which is made if it is missing.
    ///
    /// # Errors
    /// The system's.
    pub fn begin(path: &Path) -> io::Result<Replacement> {
        let folder = folder_of(path);
        fs::create_dir_all(folder)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // As any new file: what the umask leaves of read and write for all.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        let writer = BufWriter::with_capacity(BUFFER_BYTES, builder.tempfile_in(folder)?);
        Ok(Replacement { path: path.to_owned(), writer })
    }

    /// Flushes the file to the disk, renames it and flushes the folder.
    ///
    /// # Errors
    /// The system's; an old file is then as it was.
    pub fn finish(self) -> io::Result<()> {
        let Replacement { path, writer } = self;
        let file = writer.into_inner().map_err(IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        sync_folder(folder_of(&path))
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Seek for Replacement {
    fn seek(&mut self, place: SeekFrom) -> io::Result<u64> {
        self.writer.seek(place)
    }
}

/// Removes the file at `path`, if there is one.
///
/// # Errors
/// The system's.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Gives `path` the content of `from` in the same folder, in one step: as a second name of the same
/// file where the file system can, as a copy otherwise.
///
/// # Errors
/// The system's; an old file at `path` is then as it was.
pub fn duplicate(from: &Path, path: &Path) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(PREFIX);
    name.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(name);
    let _ = fs::remove_file(&temporary); // left behind by a killed process
    if fs::hard_link(from, &temporary).is_err() {
        let mut from = File::open(from)?;
        return write(path, |file| io::copy(&mut from, file).map(|_| ()));
    }
    fs::rename(&temporary, path)?;
    // A link onto another name of the same file is renamed to nothing: POSIX leaves both.
    let _ = fs::remove_file(&temporary);
    sync_folder(folder_of(path))
}

/// Removes what killed processes left in `folder` while they wrote, and gives the files' paths. No
/// other process may be writing there.
///
/// # Errors
/// The folder cannot be read, or a file not removed.
pub fn remove_orphans(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && entry.file_type()?.is_file()
        {
            fs::remove_file(entry.path())?;
            removed.push(entry.path());
        }
    }
    Ok(removed)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Flushes a folder, without which a rename may be lost when the power fails.
fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder; // folders cannot be flushed there
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write(&path, |file| file.write_all(b"old")).unwrap();
        let failed = write(&path, |file| {
            file.write_all(b"half of the n")?;
            Err(io::Error::other("the disk is full"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        write(&path, |file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_duplicate_keeps_its_content_when_the_first_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (last, best) = (dir.path().join("last"), dir.path().join("best"));
        write(&last, |file| file.write_all(b"1")).unwrap();
        duplicate(&last, &best).unwrap();
        // Again, onto a name that the same file has already.
        duplicate(&last, &best).unwrap();
        write(&last, |file| file.write_all(b"2")).unwrap();
        assert_eq!(fs::read(&best).unwrap(), b"1");
        duplicate(&last, &best).unwrap();
        assert_eq!(fs::read(&best).unwrap(), b"2");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn orphans_go_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".new-a1b2c3", ".new-best.safetensors", "last.safetensors", ".newer"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::create_dir(dir.path().join(".new-folder")).unwrap();
        assert_eq!(remove_orphans(dir.path()).unwrap().len(), 2);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[cfg(unix)]
    #[test]
    fn a_missing_folder_is_made_and_permissions_are_those_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone/file");
        write(&path, |file| file.write_all(b"x")).unwrap();
        let plain = dir.path().join("plain");
        fs::write(&plain, "x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
    }
}
