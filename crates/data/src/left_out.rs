//! Files that are left out because their names are not those of images.
//!
//! What a person should hear of them depends on the extension:
//!
//! - Pictures of a format that is not read, and archives, are told of from the first file on.
//! - Texts, tables and what systems put into folders are counted and not told of.
//! - Any other extension, and none, is told of when such files are many: [`MANY`] of them, or a
//!   tenth of the images.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::text::counted;

/// Formats of pictures that are not read (<https://en.wikipedia.org/wiki/Image_file_format>, and the
/// raw formats of cameras, <https://en.wikipedia.org/wiki/Raw_image_format>), in lower case.
const PICTURES: [&str; 49] = [
    "heic", "heif", "hif", "avif", "jxl", "jp2", "j2k", "jpf", "jpx", "jxr", "jls", "psd", "psb",
    "xcf", "svg", "svgz", "eps", "ai", "ico", "icns", "cur", "tga", "exr", "hdr", "pbm", "pgm",
    "ppm", "pnm", "pam", "pcx", "dds", "qoi", "apng", "mng", "dcm", "cr2", "cr3", "crw", "nef",
    "nrw", "arw", "sr2", "srf", "dng", "raf", "orf", "rw2", "pef", "raw",
];

/// What files are packed in; images may be inside.
const ARCHIVES: [&str; 12] =
    ["zip", "tar", "tgz", "gz", "bz2", "tbz2", "xz", "txz", "zst", "7z", "rar", "lz4"];

/// What lies beside images in most data sets: texts, tables, notes of systems (`Thumbs.db`,
/// `desktop.ini`).
const OTHERS: [&str; 30] = [
    "txt", "csv", "tsv", "json", "jsonl", "xml", "yaml", "yml", "toml", "md", "rst", "html", "htm",
    "log", "ini", "cfg", "db", "lst", "names", "py", "ipynb", "sh", "pdf", "doc", "docx", "xls",
    "xlsx", "md5", "sha256", "url",
];

/// Files of an extension that says nothing are told of from this number on: so few may be forgotten
/// notes, and no class is made of fewer.
const MANY: usize = 10;

/// Extensions that a message names.
const MAX_EXTENSIONS: usize = 5;

/// Longest extension that is counted by itself; a longer one is a part of a name with a dot.
const MAX_EXTENSION: usize = 12;

/// The files that were left out, by extension.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    extensions: BTreeMap<String, Files>,
    /// Sockets, devices and the like.
    special: usize,
}

/// The files of one extension.
#[derive(Debug)]
struct Files {
    count: usize,
    /// The first that was met.
    example: PathBuf,
}

/// What an extension says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Picture,
    Archive,
    Other,
    Unknown,
}

impl LeftOut {
    /// Counts the file at `path`.
    pub(crate) fn add(&mut self, path: PathBuf) {
        let files = Files { count: 1, example: path };
        self.count(extension(&files.example), files);
    }

    /// Counts what is neither a file nor a folder.
    pub(crate) fn add_special(&mut self) {
        self.special += 1;
    }

    /// Adds what `other` counted.
    pub(crate) fn extend(&mut self, other: LeftOut) {
        self.special += other.special;
        for (extension, files) in other.extensions {
            self.count(extension, files);
        }
    }

    fn count(&mut self, extension: String, files: Files) {
        let entry = self.extensions.entry(extension);
        entry.and_modify(|known| known.count += files.count).or_insert(files);
    }

    /// Files that were left out.
    pub(crate) fn total(&self) -> usize {
        self.special + self.extensions.values().map(|files| files.count).sum::<usize>()
    }

    /// The counts by extension, such as `.txt`; that of files without one is `no extension`.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let counts = self.extensions.iter();
        counts.map(|(extension, files)| (shown(extension), files.count)).collect()
    }

    /// The counts in words: `2 .txt, 1 without extension`; the most frequent come first.
    pub(crate) fn summary(&self) -> String {
        list(self.extensions.iter().collect())
    }

    /// What a person should know of them, beside a number of images.
    pub(crate) fn notes(&self, images: usize) -> Vec<String> {
        let mut notes = Vec::new();
        for (content, what) in [
            (
                Content::Picture,
                "pictures of a format that is not read: convert them to JPEG or PNG",
            ),
            (Content::Archive, "archives: unpack them, if there are images inside"),
            (
                Content::Unknown,
                "the name does not say what they are: if they are images, give them the extension \
                 of their format, such as .jpg",
            ),
        ] {
            let found = self.extensions.iter().filter(|(ext, _)| content_of(ext) == content);
            let found: Vec<(&String, &Files)> = found.collect();
            let count: usize = found.iter().map(|(_, files)| files.count).sum();
            let is_few = count < MANY && count * 10 < images;
            if let Some(&(_, files)) = found.first()
                && !(content == Content::Unknown && is_few)
            {
                let (files_are, example) = (files_are(count), files.example.display());
                let extensions = list(found);
                notes.push(format!(
                    "{files_are} left out: {extensions} ({what}), such as {example}"
                ));
            }
        }
        if self.special > 0 {
            let files_are = files_are(self.special);
            notes.push(format!("{files_are} left out: sockets, devices or pipes"));
        }
        notes
    }
}

/// `1 file is`, `2 files are`.
fn files_are(n: usize) -> String {
    format!("{} {}", counted(n, "file"), if n == 1 { "is" } else { "are" })
}

/// The extension in lower case; empty where there is none, or none that is one.
fn extension(path: &Path) -> String {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_plain = |c: char| c.is_alphanumeric() || "_-~".contains(c);
    match extension.chars().count() <= MAX_EXTENSION && extension.chars().all(is_plain) {
        true => extension.to_lowercase(),
        false => String::new(),
    }
}

fn shown(extension: &str) -> String {
    match extension {
        "" => "no extension".to_owned(),
        extension => format!(".{extension}"),
    }
}

fn content_of(extension: &str) -> Content {
    match extension {
        found if PICTURES.contains(&found) => Content::Picture,
        found if ARCHIVES.contains(&found) => Content::Archive,
        found if OTHERS.contains(&found) => Content::Other,
        _ => Content::Unknown,
    }
}

fn list(mut found: Vec<(&String, &Files)>) -> String {
    found.sort_by_key(|(_, files)| std::cmp::Reverse(files.count));
    let text = |(extension, files): &(&String, &Files)| match extension.as_str() {
        "" => format!("{} without extension", files.count),
        extension => format!("{} .{extension}", files.count),
    };
    let mut parts: Vec<String> = found.iter().take(MAX_EXTENSIONS).map(text).collect();
    if found.len() > MAX_EXTENSIONS {
        let rest = &found[MAX_EXTENSIONS..];
        let count: usize = rest.iter().map(|(_, files)| files.count).sum();
        parts.push(format!("{count} of {} more extensions", rest.len()));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(files: &[(&str, usize)]) -> LeftOut {
        let mut left_out = LeftOut::default();
        for (name, count) in files {
            (0..*count).for_each(|_| left_out.add(PathBuf::from(name)));
        }
        left_out
    }

    #[test]
    fn pictures_and_archives_are_told_of_and_texts_are_not() {
        for (files, images, expected) in [
            (&[("a.txt", 900), ("Thumbs.db", 1), ("desktop.ini", 3)][..], 5, &[][..]),
            (&[("a.HEIC", 1)], 900, &["1 file is left out: 1 .heic (pictures of a format"]),
            (
                &[("a.heic", 20), ("b.avif", 100)],
                900,
                &["120 files are left out: 100 .avif, 20 .heic (pictures of a format"],
            ),
            (&[("n01440764.tar", 3)], 900, &["3 files are left out: 3 .tar (archives: unpack"]),
            (&[("LICENSE", 1), ("a.odd", 1)], 21, &[]),
            (&[("LICENSE", 1), ("a.odd", 1)], 20, &["2 files are left out: 1 without extension"]),
            (&[("a", 9)], 900, &[]),
            (&[("a", 10)], 900, &["10 files are left out: 10 without extension"]),
            (&[("a.jpg?width=3&b=4", 10)], 900, &["10 files are left out: 10 without extension"]),
        ] {
            let notes = left_out(files).notes(images);
            assert_eq!(notes.len(), expected.len(), "{files:?}: {notes:?}");
            for (note, part) in notes.iter().zip(expected) {
                assert!(note.starts_with(part), "{files:?}: {note}");
            }
        }
    }

    #[test]
    fn long_lists_are_cut() {
        let files = [("a.a", 9), ("a.b", 8), ("a.c", 7), ("a.d", 6), ("a.e", 5), ("a.f", 1)];
        let many = left_out(&[&files[..], &[("a.g", 1)]].concat());
        assert_eq!(many.summary(), "9 .a, 8 .b, 7 .c, 6 .d, 5 .e, 2 of 2 more extensions");
        assert_eq!(many.total(), 37);
    }
}
