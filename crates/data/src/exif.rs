//! How a picture is to be turned, by its metadata.
//!
//! The rules are Pillow's, of `ImageOps.exif_transpose`. EXIF counts, wherever the file keeps it:
//!
//! | format | EXIF | XMP |
//! |---|---|---|
//! | JPEG | APP1 segments before the first scan, joined | APP1 |
//! | PNG | `eXIf`, before the pixels or behind; else the text `Raw profile type exif` | text |
//! | WebP | `EXIF`, if the header announces it | `XMP `, likewise |
//! | TIFF | its own tags | tag 700 |
//! | BMP, GIF | none | none |
//!
//! `Exif\0\0` in front of a block is passed over. The orientation may be of 16 bits or of 32. XMP counts
//! where EXIF says nothing. What is broken or out of range turns nothing.

use std::borrow::Cow;
use std::io::Read;

use image::metadata::Orientation;

use crate::format::Format;
use crate::ifd::Ifd;
use crate::jpeg;

/// Tag of the orientation (CIPA DC-008, 4.6.5.1).
const ORIENTATION: u16 = 0x0112;

/// Tag of XMP in TIFF (XMP specification, part 3).
const XMP: u16 = 700;

/// Most bytes of a compressed text that are looked at; Pillow's `MAX_TEXT_CHUNK`.
const TEXT_BYTES: u64 = 1 << 20;

/// How the picture in `bytes` is to be turned.
pub(crate) fn orientation(bytes: &[u8], format: Format) -> Orientation {
    let found = match format {
        Format::Jpeg => in_jpeg(bytes),
        Format::Png => in_png(bytes),
        Format::WebP => in_webp(bytes),
        Format::Tiff => Blocks {
            exif: Some(Cow::Borrowed(bytes)),
            xmp: Ifd::first(bytes).and_then(|ifd| ifd.value(XMP)).map(Cow::Borrowed),
        },
        Format::Bmp | Format::Gif => Blocks::default(),
    };
    let number = found.exif.and_then(|block| in_exif(&block));
    let number = number.or_else(|| in_xmp(&found.xmp?));
    let orientation = number.and_then(|number| Orientation::from_exif(u8::try_from(number).ok()?));
    orientation.unwrap_or(Orientation::NoTransforms)
}

/// The metadata of a file.
#[derive(Default)]
struct Blocks<'a> {
    exif: Option<Cow<'a, [u8]>>,
    xmp: Option<Cow<'a, [u8]>>,
}

/// The number of the orientation in an EXIF block.
fn in_exif(mut block: &[u8]) -> Option<u64> {
    for _ in 0..2 {
        block = block.strip_prefix(b"Exif\0\0").unwrap_or(block);
    }
    Ifd::first(block)?.number(ORIENTATION)
}

/// The number of the orientation in XMP, as an attribute or as an element.
fn in_xmp(text: &[u8]) -> Option<u64> {
    let name = b"tiff:Orientation";
    memchr::memmem::find_iter(text, name).find_map(|at| {
        let rest = &text[at + name.len()..];
        let digit = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?.first()?;
        digit.is_ascii_digit().then(|| u64::from(digit - b'0'))
    })
}

fn in_jpeg(bytes: &[u8]) -> Blocks<'_> {
    let mut blocks = Blocks::default();
    for (marker, segment) in jpeg::segments(bytes) {
        if marker != 0xE1 {
            continue;
        }
        if let Some(part) = segment.strip_prefix(b"Exif\0\0") {
            // A block of more than 64 KiB continues in the next segment.
            match &mut blocks.exif {
                Some(block) => block.to_mut().extend(part),
                None => blocks.exif = Some(Cow::Borrowed(part)),
            }
        } else if let Some(part) = segment.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
            blocks.xmp = Some(Cow::Borrowed(part));
        }
    }
    blocks
}

/// A chunk is a length, a name, as many bytes and a checksum, behind 8 bytes (PNG, section 5.3).
fn in_png(bytes: &[u8]) -> Blocks<'_> {
    let mut blocks = Blocks::default();
    let mut profile = None;
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((header, body)) = rest.split_first_chunk::<8>() {
        let (length, name) = header.split_at(4);
        let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let Some(body) = body.get(..length) else { break };
        match name {
            b"IEND" => break,
            b"eXIf" => blocks.exif = Some(Cow::Borrowed(body)),
            b"tEXt" | b"zTXt" | b"iTXt" => {
                if let Some(text) = text(name, body, b"Raw profile type exif\0") {
                    profile = raw_profile(&text);
                } else if let Some(text) = text(name, body, b"XML:com.adobe.xmp\0") {
                    blocks.xmp = Some(text);
                }
            }
            _ => {}
        }
        rest = rest.get(length.saturating_add(12)..).unwrap_or_default();
    }
    blocks.exif = blocks.exif.or(profile.map(Cow::Owned));
    blocks
}

/// The text of a chunk that has that key (PNG, section 11.3.3).
fn text<'a>(name: &[u8], body: &'a [u8], key: &[u8]) -> Option<Cow<'a, [u8]>> {
    let body = body.strip_prefix(key)?;
    let (is_compressed, body) = match name {
        b"zTXt" => (true, body.get(1..)?),
        b"iTXt" => {
            let is_compressed = *body.first()? != 0;
            // Behind the two flags stand a language and the key in that language.
            let mut parts = body.get(2..)?.splitn(3, |byte| *byte == 0);
            (is_compressed, parts.nth(2)?)
        }
        _ => (false, body),
    };
    if !is_compressed {
        return Some(Cow::Borrowed(body));
    }
    let mut text = Vec::new();
    flate2::read::ZlibDecoder::new(body).take(TEXT_BYTES).read_to_end(&mut text).ok()?;
    Some(Cow::Owned(text))
}

/// The bytes of ImageMagick's text of a profile: an empty line, a name, a length, then hexadecimal
/// digits in lines.
fn raw_profile(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.splitn(4, |byte| *byte == b'\n').nth(3)?;
    let digits = digits.iter().filter(|byte| !byte.is_ascii_whitespace());
    let digits: Option<Vec<u8>> =
        digits.map(|digit| Some(char::from(*digit).to_digit(16)? as u8)).collect();
    Some(digits?.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// A chunk is a name, a length and as many bytes, padded to an even number, behind 12 bytes. The first
/// one announces the others (RFC 9649, section 2.7).
fn in_webp(bytes: &[u8]) -> Blocks<'_> {
    const HAS_EXIF: u8 = 0x08;
    const HAS_XMP: u8 = 0x04;
    let mut blocks = Blocks::default();
    let mut rest = bytes.get(12..).unwrap_or_default();
    let mut flags = 0;
    while let Some((header, body)) = rest.split_first_chunk::<8>() {
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let Some(body) = body.get(..length) else { break };
        match &header[..4] {
            b"VP8X" => flags = body.first().copied().unwrap_or(0),
            b"EXIF" if flags & HAS_EXIF != 0 && blocks.exif.is_none() => {
                blocks.exif = Some(Cow::Borrowed(body));
            }
            b"XMP " if flags & HAS_XMP != 0 && blocks.xmp.is_none() => {
                blocks.xmp = Some(Cow::Borrowed(body));
            }
            _ => {}
        }
        rest = rest.get(length.saturating_add(8 + length % 2)..).unwrap_or_default();
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of one entry: the orientation, as `kind`, in either byte order.
    fn block(is_big_endian: bool, kind: u16, number: u32) -> Vec<u8> {
        let order = |bytes: &[u8]| -> Vec<u8> {
            let mut bytes = bytes.to_vec();
            if is_big_endian {
                bytes.reverse();
            }
            bytes
        };
        let mut block = if is_big_endian { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
        block.extend(order(&8_u32.to_le_bytes()));
        for short in [1, ORIENTATION, kind] {
            block.extend(order(&short.to_le_bytes()));
        }
        block.extend(order(&1_u32.to_le_bytes()));
        match kind {
            3 => {
                block.extend(order(&(number as u16).to_le_bytes()));
                block.extend([0; 2]);
            }
            _ => block.extend(order(&number.to_le_bytes())),
        }
        block.extend([0; 4]);
        block
    }

    #[test]
    fn the_orientation_is_found_in_any_order_and_kind_and_behind_prefixes() {
        for is_big_endian in [false, true] {
            for kind in [3, 4] {
                for number in 0..=9 {
                    let block = block(is_big_endian, kind, number);
                    for prefix in [&b""[..], b"Exif\0\0", b"Exif\0\0Exif\0\0"] {
                        let found = in_exif(&[prefix, &block].concat());
                        assert_eq!(found, Some(u64::from(number)), "{is_big_endian} {kind}");
                    }
                    let turned = orientation(&block, Format::Tiff);
                    let expected = Orientation::from_exif(number as u8);
                    assert_eq!(turned, expected.unwrap_or(Orientation::NoTransforms));
                }
            }
            let long = block(is_big_endian, 4, 0x0001_0006);
            assert_eq!(orientation(&long, Format::Tiff), Orientation::NoTransforms);
        }
        let whole = block(true, 4, 6);
        for cut in 0..whole.len() {
            let _ = in_exif(&whole[..cut]); // ends
        }
    }

    #[test]
    fn xmp_counts_where_exif_is_silent() {
        for (text, expected) in [
            (&b"<rdf tiff:Orientation=\"6\"/>"[..], Some(6)),
            (b"<tiff:Orientation>3</tiff:Orientation>", Some(3)),
            (b"tiff:Orientation tiff:Orientation>8", Some(8)),
            (b"<tiff:Orientation>x", None),
            (b"tiff:Orientation", None),
        ] {
            assert_eq!(in_xmp(text), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_raw_profile_is_hexadecimal_in_lines() {
        assert_eq!(raw_profile(b"\nexif\n      3\n4578\n69\n"), Some(b"Exi".to_vec()));
        assert_eq!(raw_profile(b"\nexif\n      3\n45xx"), None);
        assert_eq!(raw_profile(b"\nexif"), None);
    }
}
