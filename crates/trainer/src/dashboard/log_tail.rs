//! The end of a run's log, and what is new in it.

use std::io;
use std::path::Path;

use serde::Serialize;

use crate::dashboard::run_files::Stamp;
use crate::dashboard::tail::{last_lines, read_from, whole_lines};

/// Bytes of an answer at the most.
const MOST_BYTES: u64 = 64 << 10;

/// Lines of a log, as JSON has them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LogPart {
    /// The file that they are of, for [`Place`]; `0` without a log.
    pub file: u64,
    /// Where they begin, in bytes.
    pub from: u64,
    /// Where the next part begins.
    pub to: u64,
    /// Whole lines, with their ends. Bytes that are no text are replaced.
    pub text: String,
    /// Whether they go on behind the place that was asked for; otherwise they are the last lines.
    pub goes_on: bool,
}

/// Up to where a log is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// [`LogPart::file`].
    pub file: u64,
    /// [`LogPart::to`].
    pub from: u64,
}

/// The lines of the log at `path` behind `place`; the last lines where there is no place, or where the file is
/// another by now, or so much was added that not all of it is given. `stamp` is that of the file; without one
/// there is no log.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path, stamp: Option<Stamp>, place: Option<Place>) -> io::Result<LogPart> {
    let Some(stamp) = stamp else { return Ok(LogPart::default()) };
    // Numbers that a browser keeps to the last digit.
    let file = stamp.identity() & ((1 << 53) - 1);
    let behind = |from: u64| stamp.length.checked_sub(from).is_some_and(|new| new <= MOST_BYTES);
    let (from, bytes, goes_on) = match place {
        Some(place) if place.file == file && behind(place.from) => {
            let mut bytes = read_from(path, place.from, MOST_BYTES)?;
            bytes.truncate(whole_lines(&bytes));
            (place.from, bytes, true)
        }
        _ => {
            let (from, bytes) = last_lines(path, MOST_BYTES)?;
            (from, bytes, false)
        }
    };
    let (to, text) = (from + bytes.len() as u64, String::from_utf8_lossy(&bytes).into_owned());
    Ok(LogPart { file, from, to, text, goes_on })
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_new_follows_what_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.log");
        let stamp = || Some(Stamp::of(&path.metadata().unwrap()));
        let part = |place| read(&path, stamp(), place).unwrap();
        assert_eq!(read(&path, None, None).unwrap(), LogPart::default());
        fs::write(&path, "one\ntwo\nth").unwrap();
        let first = part(None);
        assert_eq!((first.from, first.to, first.goes_on), (0, 8, false));
        assert_eq!(first.text, "one\ntwo\n");
        let place = Some(Place { file: first.file, from: first.to });
        assert_eq!((part(place).text.as_str(), part(place).to), ("", 8));
        let add = |text: &str| {
            use std::io::Write;
            fs::File::options()
                .append(true)
                .open(&path)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        };
        add("ree\nfour");
        let second = part(place);
        assert_eq!((second.from, second.text.as_str(), second.goes_on), (8, "three\n", true));
        // More than an answer holds: the last of it, in whole lines.
        add(&format!("\n{}", "x\n".repeat(40_000)));
        let third = part(place);
        assert!(!third.goes_on && third.text.starts_with("x\n") && third.text.len() <= 1 << 16);
        // Shorter than known, and another file of any length.
        fs::write(&path, "new\n").unwrap();
        assert_eq!((part(place).text.as_str(), part(place).goes_on), ("new\n", false));
        fs::write(dir.path().join("other"), "another\nand more\n").unwrap();
        fs::rename(dir.path().join("other"), &path).unwrap();
        assert_eq!((part(place).from, part(place).goes_on), (0, false));
        // Bytes that are no text.
        fs::write(&path, b"caf\xe9\n").unwrap();
        assert_eq!(part(None).text, "caf\u{fffd}\n");
    }
}
