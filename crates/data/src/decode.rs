//! Bytes of an image file to RGB pixels of 8 bits.
//!
//! The format is found from the content, so a PNG named `.jpg` is read (ImageNet has one). What the
//! pixels become follows Pillow's `Image.convert("RGB")`, which most published networks saw:
//!
//! - grey is repeated in the three channels; palettes are looked up;
//! - alpha is discarded, not composited on a background;
//! - 16-bit samples keep their high byte (Pillow does so for colour, and clips 16-bit grey at 255,
//!   which turns most of such images white: not followed);
//! - CMYK and YCCK JPEGs are read as Adobe writes them, inverted;
//! - the first frame of an animation is used; colour profiles are ignored;
//! - 32-bit float samples are refused, because their range is anyone's guess.
//!
//! The EXIF orientation is applied, as Pillow's `ImageOps.exif_transpose` does and torchvision's
//! `ImageFolder` does not; [`DecodeOptions::exif`] turns it off.
//!
//! Differences to libjpeg, which Pillow uses, stay: the inverse DCT and the upsampling round
//! otherwise, by a few levels. `tests/decode.rs` holds the bounds.

use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::codecs::jpeg::JpegDecoder;
use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage,
};

use crate::{DataError, DecodeError, jpeg, scaled};

/// Settings of [`decode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Most pixels that an image may have; compared with the header, before memory is taken.
    pub max_pixels: u64,
    /// Most bytes that a file may have.
    pub max_bytes: u64,
    /// Whether the EXIF orientation is applied.
    pub exif: bool,
    /// Whether a JPEG may be decoded at a half, a quarter or an eighth of its sides where the caller
    /// has no use for more.
    pub scaled: bool,
}

impl Default for DecodeOptions {
    /// 200 million pixels are 600 MB decoded: above any camera, below what hurts. Pillow warns from
    /// 89 million on and refuses twice as many (`Image.MAX_IMAGE_PIXELS`).
    fn default() -> Self {
        DecodeOptions { max_pixels: 200_000_000, max_bytes: 1 << 30, exif: true, scaled: true }
    }
}

/// What a caller will look at of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// By how much at most the sides may be divided: 1 for an image as it is.
    pub divisor: u32,
    /// The number of rows, from the top, that are looked at, counted before the division. Those below
    /// may be left black, and damage there may go unseen.
    pub rows: u32,
}

impl Wanted {
    /// Every pixel.
    pub const ALL: Wanted = Wanted { divisor: 1, rows: u32::MAX };
}

/// Is told the width and height of an image before its pixels are decoded, once, and says what is
/// wanted of it.
pub type Want<'a> = &'a mut dyn FnMut(u32, u32) -> Wanted;

/// Memory that decoding image after image uses again.
#[derive(Debug, Default)]
pub struct DecodeBuffers {
    file: Vec<u8>,
    pixels: Vec<u8>,
}

impl DecodeBuffers {
    /// Takes the memory of an image that is no longer needed.
    pub fn recycle(&mut self, image: RgbImage) {
        self.pixels = image.into_raw();
    }

    /// The memory of an earlier image, to be taken.
    pub(crate) fn pixels(&mut self) -> &mut Vec<u8> {
        &mut self.pixels
    }

    /// Reads a file and returns its length.
    pub(crate) fn read(
        &mut self,
        path: &Path,
        options: &DecodeOptions,
    ) -> Result<usize, DecodeError> {
        read_file(path, options.max_bytes, &mut self.file)?;
        Ok(self.file.len())
    }
}

/// Reads and decodes the image file at `path`.
///
/// # Errors
/// [`DataError::Image`], with the path and the reason. No content makes it panic.
pub fn decode_file(path: &Path, options: &DecodeOptions) -> Result<RgbImage, DataError> {
    decode_file_with(path, options, &mut |_, _| Wanted::ALL, &mut DecodeBuffers::default())
}

/// [`decode_file`] with the memory of an earlier call, of the part of the image that is wanted.
///
/// # Errors
/// As [`decode_file`].
pub fn decode_file_with(
    path: &Path,
    options: &DecodeOptions,
    want: Want<'_>,
    buffers: &mut DecodeBuffers,
) -> Result<RgbImage, DataError> {
    let DecodeBuffers { file, pixels } = buffers;
    read_file(path, options.max_bytes, file)
        .and_then(|()| decode_into(file, options, want, std::mem::take(pixels)))
        .map_err(|source| DataError::image(path, source))
}

/// Decodes the image in `bytes` to RGB, height x width x 3.
///
/// # Errors
/// Says why `bytes` are no image that can be used. No content makes it panic.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, DecodeError> {
    decode_with(bytes, options, &mut |_, _| Wanted::ALL)
}

/// [`decode`] of the part of the image that is wanted.
///
/// # Errors
/// As [`decode`].
pub fn decode_with(
    bytes: &[u8],
    options: &DecodeOptions,
    want: Want<'_>,
) -> Result<RgbImage, DecodeError> {
    decode_into(bytes, options, want, Vec::new())
}

/// Reads a file of at most `max_bytes` into `bytes`.
pub(crate) fn read_file(
    path: &Path,
    max_bytes: u64,
    bytes: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    bytes.clear();
    let file = File::open(path)?;
    let found = file.metadata()?.len();
    if found > max_bytes {
        return Err(DecodeError::TooManyBytes { found, max: max_bytes });
    }
    bytes.reserve(found as usize);
    // A file that grows while it is read is cut off; the decoder then sees a truncated image.
    file.take(max_bytes).read_to_end(bytes)?;
    Ok(())
}

fn decode_into(
    bytes: &[u8],
    options: &DecodeOptions,
    want: Want<'_>,
    pixels: Vec<u8>,
) -> Result<RgbImage, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    if bytes.len() as u64 > options.max_bytes {
        let found = bytes.len() as u64;
        return Err(DecodeError::TooManyBytes { found, max: options.max_bytes });
    }
    // The decoders are large and meet hostile bytes: a panic of theirs condemns the image, not the
    // run. All that they could leave half-done is memory that is dropped here.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode_unguarded(bytes, options, want, pixels)));
    decoded.unwrap_or_else(|panic| {
        let message = panic_message(panic.as_ref());
        Err(DecodeError::Corrupt(format!("the decoder panicked: {message}")))
    })
}

fn decode_unguarded(
    bytes: &[u8],
    options: &DecodeOptions,
    want: Want<'_>,
    mut pixels: Vec<u8>,
) -> Result<RgbImage, DecodeError> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let format = reader.format().ok_or_else(|| unknown_format(bytes))?;
    let complete = match format {
        ImageFormat::Jpeg => jpeg::is_complete(bytes),
        ImageFormat::WebP => webp_is_complete(bytes),
        _ => true, // the decoders find out
    };
    if !complete {
        return Err(DecodeError::Truncated);
    }
    let mut limits = Limits::no_limits();
    // 8 bytes are a pixel of the widest kind that is read, RGBA of 16 bits.
    limits.max_alloc = Some(options.max_pixels.saturating_mul(8));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| decode_error(bytes, &error))?;

    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > options.max_pixels {
        return Err(DecodeError::TooManyPixels { width, height, max: options.max_pixels });
    }
    if width == 0 || height == 0 {
        return Err(DecodeError::NoPixels { width, height });
    }
    // A broken EXIF block is no reason to lose an image.
    let orientation = match options.exif {
        true => decoder.orientation().unwrap_or(Orientation::NoTransforms),
        false => Orientation::NoTransforms,
    };

    let wanted = match turns_sides(orientation) {
        true => want(height, width),
        false => want(width, height),
    };
    if format == ImageFormat::Jpeg {
        let wanted = Wanted {
            divisor: if options.scaled { wanted.divisor } else { 1 },
            // Rows of an image that is turned are columns of the file, or come in the other order.
            rows: if is_upright(orientation) { wanted.rows } else { height },
        };
        if let Some(rgb) = decode_part(bytes, width, height, wanted, &mut pixels) {
            return Ok(turn(rgb, orientation));
        }
    }
    Ok(turn(decode_whole(decoder, bytes, pixels)?, orientation))
}

/// Decodes what is `wanted` of a JPEG of `width` x `height` pixels, `None` if that is all of it or if
/// it does not come off.
fn decode_part(
    bytes: &[u8],
    width: u32,
    height: u32,
    wanted: Wanted,
    pixels: &mut Vec<u8>,
) -> Option<RgbImage> {
    let cut = jpeg::first_rows(bytes, wanted.rows);
    let (bytes, rows) = match &cut {
        Some(cut) if scaled::STOPS_EARLY => (&cut.bytes[..], cut.rows),
        _ => (bytes, height),
    };
    if let Some((divisor, rgb)) = scaled::decode(bytes, width, rows, wanted.divisor) {
        return with_height(rgb, height.div_ceil(divisor));
    }
    let bytes = &cut?.bytes;
    let decoder = JpegDecoder::new(Cursor::new(bytes)).ok()?;
    with_height(decode_whole(decoder, bytes, std::mem::take(pixels)).ok()?, height)
}

/// Adds black rows below.
fn with_height(rgb: RgbImage, height: u32) -> Option<RgbImage> {
    let width = rgb.width();
    let mut levels = rgb.into_raw();
    levels.resize(width as usize * height as usize * 3, 0);
    RgbImage::from_raw(width, height, levels)
}

/// Decodes all that `decoder` makes of `bytes` into the memory of `pixels`.
fn decode_whole(
    decoder: impl ImageDecoder,
    bytes: &[u8],
    mut pixels: Vec<u8>,
) -> Result<RgbImage, DecodeError> {
    let (width, height) = decoder.dimensions();
    let colour_type = decoder.color_type();
    // Zeroed first: a decoder that leaves a part unwritten must not show an earlier image.
    pixels.clear();
    pixels.resize(decoder.total_bytes() as usize, 0);
    decoder.read_image(&mut pixels).map_err(|error| decode_error(bytes, &error))?;
    let rgb = to_rgb(pixels, colour_type)?;
    RgbImage::from_raw(width, height, rgb)
        .ok_or_else(|| DecodeError::Corrupt("the decoder returned too few pixels".into()))
}

/// Whether the file begins with the row at the top.
fn is_upright(orientation: Orientation) -> bool {
    matches!(orientation, Orientation::NoTransforms | Orientation::FlipHorizontal)
}

/// Whether width and height change places.
fn turns_sides(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

fn turn(rgb: RgbImage, orientation: Orientation) -> RgbImage {
    if orientation == Orientation::NoTransforms {
        return rgb;
    }
    let mut image = DynamicImage::ImageRgb8(rgb);
    image.apply_orientation(orientation);
    image.into_rgb8()
}

/// Turns samples as the decoder wrote them (16-bit ones in the byte order of the machine) to RGB.
fn to_rgb(samples: Vec<u8>, colour_type: ColorType) -> Result<Vec<u8>, DecodeError> {
    const HIGH: usize = if cfg!(target_endian = "little") { 1 } else { 0 };
    // The positions of red, green and blue in the bytes of a pixel.
    let (n_bytes, positions) = match colour_type {
        ColorType::Rgb8 => return Ok(samples),
        ColorType::L8 => (1, [0, 0, 0]),
        ColorType::La8 => (2, [0, 0, 0]),
        ColorType::Rgba8 => (4, [0, 1, 2]),
        ColorType::L16 => (2, [HIGH; 3]),
        ColorType::La16 => (4, [HIGH; 3]),
        ColorType::Rgb16 => (6, [HIGH, 2 + HIGH, 4 + HIGH]),
        ColorType::Rgba16 => (8, [HIGH, 2 + HIGH, 4 + HIGH]),
        other => return Err(DecodeError::Unsupported { found: format!("{other:?}") }),
    };
    let mut rgb = vec![0; samples.len() / n_bytes * 3];
    for (out, pixel) in rgb.chunks_exact_mut(3).zip(samples.chunks_exact(n_bytes)) {
        for c in 0..3 {
            out[c] = pixel[positions[c]];
        }
    }
    Ok(rgb)
}

/// Returns whether every chunk of a WebP file lies inside the file.
///
/// The decoder takes memory for a chunk of metadata by its length alone, up to 4 GiB. A chunk is a
/// name, a length and as many bytes, padded to an even number, behind the 12 bytes `RIFF....WEBP`
/// (RFC 9649, section 2.3).
fn webp_is_complete(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(12..).unwrap_or_default();
    while let Some((header, body)) = rest.split_first_chunk::<8>() {
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if length > body.len() {
            return false;
        }
        rest = body.get(length + length % 2..).unwrap_or_default();
    }
    true
}

fn unknown_format(bytes: &[u8]) -> DecodeError {
    let begins = bytes[..bytes.len().min(16)].escape_ascii().to_string();
    DecodeError::UnknownFormat { begins }
}

fn decode_error(bytes: &[u8], error: &ImageError) -> DecodeError {
    match error {
        ImageError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
            DecodeError::Truncated
        }
        // A format that is recognised and whose decoder is not built in.
        ImageError::Unsupported(unsupported) if is_unknown_format(unsupported) => {
            unknown_format(bytes)
        }
        other => DecodeError::Corrupt(other.to_string()),
    }
}

fn is_unknown_format(error: &image::error::UnsupportedError) -> bool {
    matches!(error.kind(), image::error::UnsupportedErrorKind::Format(_))
}

/// The text of a panic, which is a string in all but odd cases.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webp_is_complete_only_with_all_of_its_chunks() {
        let riff = b"RIFF\0\0\0\0WEBP";
        let cases: [(&[&[u8]], bool); 6] = [
            (&[riff, b"VP8L\x02\0\0\0ab"], true),
            (&[riff, b"VP8L\x03\0\0\0abc\0", b"EXIF\x01\0\0\0a"], true),
            (&[riff, b"VP8L\x02\0\0\0ab", b"EXIF\xff\xff\xff\xff"], false),
            (&[riff, b"VP8L\x02\0\0\0a"], false),
            (&[riff, b"VP8L\x02\0\0\0ab", b"EXI"], true), // no chunk, only bytes behind
            (&[riff], true),
        ];
        for (i, (parts, complete)) in cases.into_iter().enumerate() {
            assert_eq!(webp_is_complete(&parts.concat()), complete, "case {i}");
        }
    }

    #[test]
    fn samples_become_rgb() {
        let wide: Vec<u8> =
            [0x1234_u16, 0x5678, 0x9abc, 0xffff].iter().flat_map(|v| v.to_ne_bytes()).collect();
        let cases = [
            (vec![7, 9], ColorType::L8, vec![7, 7, 7, 9, 9, 9]),
            (vec![7, 200], ColorType::La8, vec![7, 7, 7]),
            (vec![1, 2, 3, 200], ColorType::Rgba8, vec![1, 2, 3]),
            (wide.clone(), ColorType::Rgba16, vec![0x12, 0x56, 0x9a]),
            (wide[..6].to_vec(), ColorType::Rgb16, vec![0x12, 0x56, 0x9a]),
            (wide[..4].to_vec(), ColorType::La16, vec![0x12, 0x12, 0x12]),
            (wide[..2].to_vec(), ColorType::L16, vec![0x12, 0x12, 0x12]),
        ];
        for (samples, colour_type, expected) in cases {
            assert_eq!(to_rgb(samples, colour_type).unwrap(), expected, "{colour_type:?}");
        }
        assert!(to_rgb(vec![0; 12], ColorType::Rgb32F).is_err());
    }
}
