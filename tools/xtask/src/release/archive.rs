//! An archive whose bytes follow from its files alone, and checksums as `sha256sum` writes and reads them.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::source_date::SourceDate;

/// A file of an archive.
pub(crate) struct Entry {
    /// Its path in the archive, below the one folder.
    pub(crate) path: String,
    pub(crate) content: Vec<u8>,
    pub(crate) is_executable: bool,
}

/// Writes `entries` as a tar packed by gzip: below the folder `top`, sorted, of nobody, with one date.
///
/// # Errors
/// The system's.
pub(crate) fn write(
    to: &Path,
    top: &str,
    mut entries: Vec<Entry>,
    date: SourceDate,
) -> Result<(), String> {
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    let write = || -> io::Result<()> {
        // gzip's own header has no name and no time.
        let packed = GzEncoder::new(File::create(to)?, Compression::best());
        let mut archive = tar::Builder::new(packed);
        for entry in &entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(entry.content.len() as u64);
            header.set_mode(if entry.is_executable { 0o755 } else { 0o644 });
            header.set_mtime(date.seconds());
            header.set_uid(0);
            header.set_gid(0);
            archive.append_data(
                &mut header,
                format!("{top}/{}", entry.path),
                &entry.content[..],
            )?;
        }
        archive.into_inner()?.finish()?.flush()
    };
    write().map_err(|error| format!("cannot write {}: {error}", to.display()))
}

/// Unpacks an archive into a folder.
///
/// # Errors
/// The system's; a damaged archive.
pub(crate) fn unpack(archive: &Path, to: &Path) -> Result<(), String> {
    let unpack = || tar::Archive::new(GzDecoder::new(File::open(archive)?)).unpack(to);
    unpack().map_err(|error| format!("cannot unpack {}: {error}", archive.display()))
}

/// The SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// The system's.
pub(crate) fn sha256(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The line of `sha256sum` for a file, by its name alone.
fn checksum_line(path: &Path) -> Result<String, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("{}  {name}\n", sha256(path)?))
}

/// Writes `SHA256SUMS` of files of one folder into it, and gives its path.
///
/// # Errors
/// The system's.
pub(crate) fn write_checksums(dir: &Path, files: &[PathBuf]) -> Result<PathBuf, String> {
    let lines: Result<String, String> = files.iter().map(|file| checksum_line(file)).collect();
    let path = dir.join("SHA256SUMS");
    std::fs::write(&path, lines?).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let entry = |path: &str, content: &[u8], is_executable| Entry {
            path: path.to_owned(),
            content: content.to_owned(),
            is_executable,
        };
        vec![entry("man/a.1", b"page", false), entry("bninception", b"#!/bin/sh\n", true)]
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let date = SourceDate::from_seconds(1_000_000_000);
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        write(&one, "top", entries(), date).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let mut turned = entries();
        turned.reverse();
        write(&two, "top", turned, date).unwrap();
        assert!(std::fs::read(&one).unwrap() == std::fs::read(&two).unwrap());

        let into = dir.path().join("into");
        unpack(&one, &into).unwrap();
        assert_eq!(std::fs::read(into.join("top/man/a.1")).unwrap(), b"page");
        let metadata = std::fs::metadata(into.join("top/bninception")).unwrap();
        let age = metadata.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(age.as_secs(), 1_000_000_000);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(metadata.permissions().mode() & 0o777, 0o755);
        }
        std::fs::write(&two, b"no archive").unwrap();
        assert!(unpack(&two, &into).unwrap_err().contains("two"));
    }

    #[test]
    fn a_checksum_is_that_of_the_standard() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("abc.txt");
        std::fs::write(&file, "abc").unwrap();
        // FIPS 180-4, the example of one block.
        let expected =
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  abc.txt\n";
        assert_eq!(checksum_line(&file).unwrap(), expected);
        let sums = write_checksums(dir.path(), std::slice::from_ref(&file)).unwrap();
        assert_eq!(std::fs::read_to_string(sums).unwrap(), expected);
    }
}
