//! The last lines of a file, however long that is.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// The bytes of the file at `path` from `from` on, at most `most` of them.
///
/// # Errors
/// The file cannot be read.
pub fn read_from(path: &Path, from: u64, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The whole lines in the last `most` bytes of the file at `path`, and the place of the first. What follows
/// the last end of line is being written, or torn, and is left out; so is what a line has before these bytes.
///
/// # Errors
/// The file cannot be read.
pub fn last_lines(path: &Path, most: u64) -> io::Result<(u64, Vec<u8>)> {
    let length = path.metadata()?.len();
    let from = length.saturating_sub(most);
    // The byte before tells whether a line begins there.
    let before = u64::from(from > 0);
    let mut bytes = read_from(path, from - before, most + before)?;
    let mut place = from - before;
    if before > 0 {
        let cut = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |end| end + 1);
        bytes.drain(..cut);
        place += cut as u64;
    }
    bytes.truncate(whole_lines(&bytes));
    Ok((place, bytes))
}

/// How many of `bytes` are whole lines.
pub fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_whole_lines_are_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for (text, most, place, lines) in [
            ("", 8, 0, ""),
            ("torn", 8, 0, ""),
            ("a\nb\n", 8, 0, "a\nb\n"),
            ("a\nb\nto", 8, 0, "a\nb\n"),
            ("abc\ndef\ng", 6, 4, "def\n"),
            // Exactly at the beginning of a line.
            ("abc\ndef\n", 4, 4, "def\n"),
            ("abc\ndef\n", 3, 8, ""),
            ("abcdefghi", 4, 9, ""),
        ] {
            fs::write(&path, text).unwrap();
            let found = last_lines(&path, most).unwrap();
            assert_eq!(found, (place, lines.as_bytes().to_vec()), "{text:?}, {most}");
        }
        assert!(last_lines(&dir.path().join("nowhere"), 8).is_err());
    }
}
