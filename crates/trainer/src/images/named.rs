//! The images that a command line names: files, folders, patterns, and what comes on standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use bninception_data::decode::{DecodeBuffers, Want, decode_with};
use bninception_data::{
    DataError, DecodeError, DecodeOptions, FileSource, Lister, RgbImage, Sample, Source,
    begins_as_image, find_images,
};

use crate::error::Error;

/// Stands for standard input, as in most programs; a file of that name is `./-`.
pub const STANDARD_INPUT: &str = "-";

/// What the arguments name, in their order, before folders are searched.
#[derive(Debug, PartialEq, Eq)]
pub enum Named {
    /// A file or folder.
    Path(PathBuf),
    /// The bytes of one image, from standard input.
    Bytes(Vec<u8>),
}

/// What `arguments` name. A pattern with `*`, `?`, `[..]` or `**` is replaced by what it matches, for
/// shells that leave it as it is; a file of exactly that name comes first. [`STANDARD_INPUT`] stands for
/// what `input` holds: the bytes of one image, or else paths, one a line. One word does for both, because
/// an image tells itself by its first bytes. Paths are separated by NUL if there is one, and are no
/// patterns. At most `max_bytes` of an image are taken.
///
/// # Errors
/// A pattern that is none or that matches nothing, standard input that is empty, named twice, or cannot
/// be read.
pub fn named(
    arguments: &[PathBuf],
    mut input: impl Read,
    max_bytes: u64,
) -> Result<Vec<Named>, Error> {
    let is_input = |argument: &PathBuf| argument.as_os_str() == STANDARD_INPUT;
    if arguments.iter().filter(|argument| is_input(argument)).count() > 1 {
        let message = "`-`, standard input, is named twice: it can be read once";
        return Err(Error::Usage(message.to_owned()));
    }
    let mut all = Vec::new();
    for argument in arguments {
        match is_input(argument) {
            true => all.extend(piped(&mut input, max_bytes)?),
            false => all.extend(expanded(argument)?.into_iter().map(Named::Path)),
        }
    }
    Ok(all)
}

/// What stands on standard input.
fn piped(input: &mut impl Read, max_bytes: u64) -> Result<Vec<Named>, Error> {
    let failed =
        |error: std::io::Error| Error::Unusable(format!("cannot read standard input: {error}"));
    let mut bytes = Vec::new();
    // Enough to tell an image, of which no more is taken than of a file.
    input.take(512).read_to_end(&mut bytes).map_err(failed)?;
    if begins_as_image(&bytes) {
        let more = max_bytes.saturating_sub(bytes.len() as u64).saturating_add(1);
        input.take(more).read_to_end(&mut bytes).map_err(failed)?;
        return Ok(vec![Named::Bytes(bytes)]);
    }
    input.read_to_end(&mut bytes).map_err(failed)?;
    let paths = listed(&bytes);
    if paths.is_empty() {
        return Err(Error::Unusable(
            "standard input names nothing: expected paths, one a line, or the bytes of an image"
                .to_owned(),
        ));
    }
    Ok(paths.into_iter().map(Named::Path).collect())
}

/// The paths of a list, without empty ones. The carriage return of a list from Windows is no part of
/// the last name of its line.
fn listed(bytes: &[u8]) -> Vec<PathBuf> {
    let by_nul = bytes.contains(&0);
    let separator = if by_nul { 0 } else { b'\n' };
    bytes
        .split(|&byte| byte == separator)
        .map(|line| if by_nul { line } else { line.strip_suffix(b"\r").unwrap_or(line) })
        .filter(|line| !line.is_empty())
        .map(path_of)
        .collect()
}

#[cfg(unix)]
fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(not(unix))]
fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

/// The paths that a pattern matches, sorted, or the argument itself if it is none. As in a shell, `*` and
/// `?` match no leading dot and no `/`.
fn expanded(argument: &Path) -> Result<Vec<PathBuf>, Error> {
    let itself = || Ok(vec![argument.to_owned()]);
    let Some(pattern) = argument.to_str().filter(|text| text.contains(['*', '?', '['])) else {
        return itself();
    };
    // Of an image inside a shard the folder is a file.
    let is_in_file = || argument.ancestors().skip(1).any(Path::is_file);
    if argument.symlink_metadata().is_ok() || is_in_file() {
        return itself();
    }
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let found = glob::glob_with(pattern, options).map_err(|error| {
        Error::Usage(format!(
            "{pattern}: {}, and no file has that name; put a bracket into brackets to mean itself: \
             [[]",
            error.msg
        ))
    })?;
    let mut paths = Vec::new();
    for path in found {
        paths.push(path.map_err(|error| {
            let path = error.path().display().to_string();
            Error::Unusable(format!(
                "{pattern}: cannot list {path}: {}",
                std::io::Error::from(error)
            ))
        })?);
    }
    match paths.is_empty() {
        true => Err(Error::Unusable(format!("no file or folder matches {pattern}"))),
        false => Ok(paths),
    }
}

/// Images that were named, in their order: files, images of shards, and one that came as bytes.
#[derive(Debug)]
pub struct NamedImages {
    files: FileSource,
    /// Place, path and bytes of the image from standard input.
    piped: Option<(usize, PathBuf, Vec<u8>)>,
    options: DecodeOptions,
    /// Things that a person should know of the folders.
    pub notes: Vec<String>,
}

impl NamedImages {
    /// Searches the folders and shards among `named`.
    ///
    /// # Errors
    /// As [`find_images`] and [`FileSource::new`].
    pub fn find(
        lister: &Lister<'_>,
        named: Vec<Named>,
        options: DecodeOptions,
    ) -> Result<NamedImages, DataError> {
        let mut samples = Vec::new();
        let mut piped = None;
        let mut notes = Vec::new();
        for one in named {
            match one {
                Named::Path(path) => {
                    let found = find_images(lister, &[path])?;
                    samples.extend(found.samples);
                    notes.extend(found.notes);
                }
                Named::Bytes(bytes) => {
                    let path = PathBuf::from(STANDARD_INPUT);
                    piped = Some((samples.len(), path.clone(), bytes));
                    samples.push(Sample { path, label: 0 });
                }
            }
        }
        let files = FileSource::new(samples, options)?;
        Ok(NamedImages { files, piped, options, notes })
    }

    fn piped_at(&self, index: usize) -> Option<(&Path, &[u8])> {
        let (place, path, bytes) = self.piped.as_ref()?;
        (*place == index).then_some((path.as_path(), bytes.as_slice()))
    }
}

impl Source for NamedImages {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn label(&self, index: usize) -> u32 {
        self.files.label(index)
    }

    fn path(&self, index: usize) -> &Path {
        self.files.path(index)
    }

    fn load(
        &self,
        index: usize,
        want: Want<'_>,
        buffers: &mut DecodeBuffers,
    ) -> Result<RgbImage, DataError> {
        let Some((path, bytes)) = self.piped_at(index) else {
            return self.files.load(index, want, buffers);
        };
        let (found, max) = (bytes.len() as u64, self.options.max_bytes);
        let decoded = match found > max {
            true => Err(DecodeError::TooManyBytes { found, max }),
            false => decode_with(bytes, &self.options, want),
        };
        decoded.map_err(|source| DataError::Image { path: path.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn paths(named: Vec<Named>) -> Vec<String> {
        let text = |one| match one {
            Named::Path(path) => path.to_str().unwrap().to_owned(),
            Named::Bytes(bytes) => format!("{} bytes", bytes.len()),
        };
        named.into_iter().map(text).collect()
    }

    fn piped(input: &[u8]) -> Vec<String> {
        paths(named(&[PathBuf::from("-")], input, 1000).unwrap())
    }

    #[test]
    fn standard_input_is_a_list_or_an_image() {
        for (input, expected) in [
            (b"a.jpg\nb c.png\n".as_slice(), ["a.jpg", "b c.png"].as_slice()),
            (b"a.jpg\r\n\r\nb.jpg", &["a.jpg", "b.jpg"]),
            (b"two\nlines.jpg\0b\r\0", &["two\nlines.jpg", "b\r"]),
            (b"BMW/1.jpg\nGIF\n", &["BMW/1.jpg", "GIF"]),
            (b"a*.jpg\n", &["a*.jpg"]),
            (b"\xff\xd8\xff\xe0 and more", &["13 bytes"]),
            (b"BM____________\x28\0\0\0__", &["20 bytes"]),
            // Known, though not read: decoding says so.
            (b"\xff\x0a....\xfe\n", &["8 bytes"]),
            // One byte more than is permitted tells that there is too much.
            (&[b"\x89PNG\r\n\x1a\n".as_slice(), &[7; 2000]].concat(), &["1001 bytes"]),
        ] {
            assert_eq!(piped(input), expected, "{}", input.escape_ascii());
        }
        for nothing in ["", "\n\n", "\0"] {
            let error = named(&[PathBuf::from("-")], nothing.as_bytes(), 9).unwrap_err();
            assert!(error.to_string().contains("expected paths"), "{error}");
        }
        let twice = [PathBuf::from("-"), PathBuf::from("-")];
        let error = named(&twice, b"a\n".as_slice(), 9).unwrap_err();
        assert!(error.to_string().contains("twice"), "{error}");
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["a1.jpg", "a2.jpg", "b.png", ".hidden.jpg", "x/a3.jpg", "x/y/a4.jpg", "[a].jpg"]
        {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let matched = |pattern: &str| -> Result<Vec<String>, Error> {
            let named = named(&[dir.path().join(pattern)], std::io::empty(), 9)?;
            let root = format!("{}/", dir.path().display());
            Ok(paths(named).iter().map(|path| path.replace(&root, "")).collect())
        };
        for (pattern, expected) in [
            ("a*.jpg", ["a1.jpg", "a2.jpg"].as_slice()),
            ("*.jpg", &["[a].jpg", "a1.jpg", "a2.jpg"]),
            ("a?.jpg", &["a1.jpg", "a2.jpg"]),
            ("a[2-9].jpg", &["a2.jpg"]),
            ("**/a*.jpg", &["a1.jpg", "a2.jpg", "x/a3.jpg", "x/y/a4.jpg"]),
            ("x/*", &["x/a3.jpg", "x/y"]),
            // A file of that name is meant, not the pattern.
            ("[a].jpg", &["[a].jpg"]),
            ("missing.jpg", &["missing.jpg"]),
            // The name of an image inside a shard.
            ("b.png/a[1].jpg", &["b.png/a[1].jpg"]),
        ] {
            assert_eq!(matched(pattern).unwrap(), expected, "{pattern}");
        }
        assert!(matched("c*.jpg").unwrap_err().to_string().contains("no file or folder matches"));
        assert!(matched("c[.jpg").unwrap_err().to_string().contains("[[]"));
    }
}
