//! What kind of file bytes are, by the first of them.
//!
//! The extension counts for nothing. Six formats are read; some others are known by name, so that an
//! error can say what the file is and what to do about it.

use std::path::Path;

use crate::error::DecodeError;

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Jpeg,
    Png,
    WebP,
    Bmp,
    Gif,
    Tiff,
}

/// Bytes of a file that are enough to tell its format: a page may have comments before its first tag.
pub(crate) const ENOUGH: usize = 512;

impl Format {
    /// Tells the format of a file by its first [`ENOUGH`] bytes, or by all of them if it has fewer.
    ///
    /// # Errors
    /// It is none that is read; [`DecodeError::ForeignFormat`] if it is known what it is.
    pub(crate) fn of(bytes: &[u8]) -> Result<Format, DecodeError> {
        let known = FORMATS.iter().find(|(start, _)| bytes.starts_with(start));
        if let Some((_, format)) = known {
            return Ok(*format);
        }
        if is_riff(bytes, b"WEBP") {
            return Ok(Format::WebP);
        }
        Err(match foreign(&bytes[..bytes.len().min(ENOUGH)]) {
            Some((found, advice)) => DecodeError::ForeignFormat { found, advice },
            None => {
                let begins = bytes[..bytes.len().min(16)].escape_ascii().to_string();
                DecodeError::UnknownFormat { begins }
            }
        })
    }

    /// The format that a file should have by its extension; none if that is no image's.
    pub(crate) fn named(path: &Path) -> Option<Format> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match extension.as_str() {
            "jpg" | "jpeg" | "jpe" | "jfif" => Format::Jpeg,
            "png" => Format::Png,
            "webp" => Format::WebP,
            "bmp" | "dib" => Format::Bmp,
            "gif" => Format::Gif,
            "tif" | "tiff" => Format::Tiff,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::WebP => "WebP",
            Format::Bmp => "BMP",
            Format::Gif => "GIF",
            Format::Tiff => "TIFF",
        }
    }
}

/// Whether bytes that came without a name begin as an image does, and not as a text such as a list of
/// paths. Two letters are little to tell a BMP by; the upper bytes of the size of its second header, which
/// has at most 124, are 0.
pub fn begins_as_image(bytes: &[u8]) -> bool {
    match Format::of(bytes) {
        Ok(Format::Bmp) => bytes.get(15..18) == Some(&[0; 3]),
        Ok(_) => true,
        Err(DecodeError::ForeignFormat { .. }) => {
            // A character that is cut off at the end is none that is wrong.
            std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_some())
        }
        Err(_) => false,
    }
}

/// First bytes of the formats that are read; WebP has its name at the eighth byte.
const FORMATS: [(&[u8], Format); 9] = [
    (b"\xFF\xD8\xFF", Format::Jpeg),
    (b"\x89PNG\r\n\x1a\n", Format::Png),
    (b"GIF87a", Format::Gif),
    (b"GIF89a", Format::Gif),
    (b"BM", Format::Bmp),
    (b"II*\0", Format::Tiff),
    (b"MM\0*", Format::Tiff),
    (b"II+\0", Format::Tiff), // BigTIFF
    (b"MM\0+", Format::Tiff),
];

const CONVERT: &str = "convert it to JPEG or PNG";
const DOWNLOAD: &str = "the download failed; fetch the picture again or remove the file";
const UNPACK: &str = "unpack it";
const REMOVE: &str = "remove it";

/// First bytes of other formats, what has them, and what to do.
const FOREIGN: [(&[u8], &str, &str); 30] = [
    (b"\0\0\x01\0", "an ICO icon", CONVERT),
    (b"\0\0\x02\0", "a CUR cursor", CONVERT),
    (b"8BPS", "a Photoshop file (PSD)", CONVERT),
    (b"%PDF", "a PDF document", "convert its pages to JPEG or PNG"),
    (b"%!PS", "a PostScript document", CONVERT),
    (b"\xFF\x0A", "a JPEG XL image", CONVERT),
    (b"\0\0\0\x0CJXL \r\n\x87\n", "a JPEG XL image", CONVERT),
    (b"\0\0\0\x0CjP  \r\n\x87\n", "a JPEG 2000 image", CONVERT),
    (b"\xFF\x4F\xFF\x51", "a JPEG 2000 image", CONVERT),
    (b"II\xBC\x01", "a JPEG XR image", CONVERT),
    (b"DDS ", "a DirectDraw texture (DDS)", CONVERT),
    (b"\x76\x2F\x31\x01", "an OpenEXR image", CONVERT),
    (b"#?RADIANCE", "a Radiance HDR image", CONVERT),
    (b"qoif", "a QOI image", CONVERT),
    (b"farbfeld", "a farbfeld image", CONVERT),
    (b"P1\n", "a PNM image", CONVERT),
    (b"P2\n", "a PNM image", CONVERT),
    (b"P3\n", "a PNM image", CONVERT),
    (b"P4\n", "a PNM image", CONVERT),
    (b"P5\n", "a PNM image", CONVERT),
    (b"P6\n", "a PNM image", CONVERT),
    (b"P7\n", "a PNM image", CONVERT),
    (b"\x0A\x05\x01\x08", "a PCX image", CONVERT),
    (b"\0\x05\x16\x07", "an AppleDouble file that macOS leaves beside a picture", REMOVE),
    (b"\0\0\0\x01Bud1", "a .DS_Store file of macOS", REMOVE),
    (b"\x1A\x45\xDF\xA3", "a Matroska or WebM video", "take pictures from it"),
    (b"PK\x03\x04", "a ZIP archive", UNPACK),
    (b"\x1F\x8B", "a gzip archive", UNPACK),
    (b"Rar!", "a RAR archive", UNPACK),
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer to the picture",
        "run `git lfs pull` where it was cloned",
    ),
];

/// What the file is that begins with `bytes`, and what to do; none if it is not known.
fn foreign(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    if let Some((_, found, advice)) = FOREIGN.iter().find(|(start, ..)| bytes.starts_with(start)) {
        return Some((found, advice));
    }
    // ISO/IEC 14496-12: the length of the first box, its name, and the brand of the file.
    if bytes.get(4..8) == Some(b"ftyp") {
        return Some(match bytes.get(8..12)? {
            b"avif" | b"avis" => ("an AVIF image", CONVERT),
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => {
                ("a HEIC or HEIF photo", CONVERT)
            }
            b"crx " => ("a raw photo (CR3)", CONVERT),
            _ => ("an MP4 or QuickTime video", "take pictures from it"),
        });
    }
    if is_riff(bytes, b"AVI ") {
        return Some(("an AVI video", "take pictures from it"));
    }
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes); // the mark of UTF-8
    let text = text.trim_ascii_start().to_ascii_lowercase();
    let has = |part: &[u8]| memchr::memmem::find(&text, part).is_some();
    let starts = |starts: &[&[u8]]| starts.iter().any(|start| text.starts_with(start));
    if starts(&[b"<svg"]) || (starts(&[b"<?xml", b"<!--", b"<!doctype svg"]) && has(b"<svg")) {
        Some(("an SVG drawing", CONVERT))
    } else if starts(&[b"<!doctype html", b"<html", b"<head", b"<body", b"<script"])
        || (starts(&[b"<?xml", b"<!--"]) && has(b"<html"))
    {
        Some(("an HTML page", DOWNLOAD))
    } else if starts(&[b"<?xml"]) {
        Some(("an XML document", DOWNLOAD))
    } else if starts(&[b"{\"", b"{\n", b"{\r\n", b"{ "]) {
        Some(("JSON text", DOWNLOAD))
    } else {
        None
    }
}

/// Whether the bytes begin a RIFF file of that kind.
fn is_riff(bytes: &[u8], kind: &[u8; 4]) -> bool {
    bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        let found = |bytes: &[u8]| match Format::of(bytes) {
            Ok(format) => format.name().to_owned(),
            Err(DecodeError::ForeignFormat { found, .. }) => found.to_owned(),
            Err(_) => "unknown".to_owned(),
        };
        let cases: [(&[u8], &str); 18] = [
            (b"\xFF\xD8\xFF", "JPEG"),
            (b"RIFF\x10\0\0\0WEBPVP8 ", "WebP"),
            (b"RIFF\x10\0\0\0AVI LIST", "an AVI video"),
            (b"II+\0\x08\0\0\0", "TIFF"),
            (b"\0\0\0\x1cftypheic", "a HEIC or HEIF photo"),
            (b"\0\0\0\x1cftypmif1", "a HEIC or HEIF photo"),
            (b"\0\0\0\x1cftypavif", "an AVIF image"),
            (b"\0\0\0\x1cftypisom", "an MP4 or QuickTime video"),
            (b"\0\0\0\x1cftyp", "unknown"),
            (b"\0\0\x01\0\x01\0", "an ICO icon"),
            (b"8BPS\0\x01", "a Photoshop file (PSD)"),
            (b"\xEF\xBB\xBF\r\n <!DOCTYPE HTML PUBLIC", "an HTML page"),
            (b"<?xml version=\"1.0\"?>\n<svg xmlns=", "an SVG drawing"),
            (b"<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied", "an XML document"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid",
                "a Git LFS pointer to the picture",
            ),
            (b"{\"error\": 404}", "JSON text"),
            (&[0; 64], "unknown"),
            (b"", "unknown"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(found(bytes), expected, "{}", bytes.escape_ascii());
        }
    }
}
