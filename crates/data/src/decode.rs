//! Bytes of an image file to RGB pixels of 8 bits.
//!
//! JPEG, PNG, WebP, BMP, GIF and TIFF are read. The format is found from the content, so a PNG named
//! `.jpg` is read (ImageNet has one). What the pixels become follows Pillow's `Image.convert("RGB")`,
//! which most published networks saw:
//!
//! - grey is repeated in the three channels; palettes are looked up;
//! - alpha is discarded, not composited on a background; premultiplied colours are divided by it first;
//! - 16-bit samples keep their high byte (Pillow does so for colour, and clips 16-bit grey at 255,
//!   which turns most of such images white: not followed);
//! - CMYK and YCCK JPEGs are read as Adobe writes them, inverted;
//! - the first frame of an animation, or the first page, is used; what the frame of a GIF leaves
//!   uncovered has its transparent colour, or the first one; colour profiles are ignored;
//! - the kinds of TIFF that are read, and those that are refused by name, stand in `tiff.rs`. Float
//!   samples are refused, because their range is anyone's guess.
//!
//! The EXIF orientation is applied, wherever the file keeps it (`exif.rs`), as Pillow's
//! `ImageOps.exif_transpose` does and torchvision's `ImageFolder` does not; [`DecodeOptions::exif`]
//! turns it off.
//!
//! A panic of a decoder becomes an error, and is not printed (`guard.rs`). Pipes and devices are refused
//! before they are opened.
//!
//! Differences to libjpeg, which Pillow uses, stay: the inverse DCT and the upsampling round
//! otherwise, by a few levels. `tests/decode.rs` holds the bounds.

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::Path;

use image::codecs::jpeg::JpegDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};

use crate::error::{DataError, DecodeError};
use crate::format::Format;
use crate::guard::guarded;
use crate::{exif, jpeg, open, scaled};

pub use crate::decode_options::DecodeOptions;

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

/// Opens an image file of at most `max_bytes`, and says how many it has.
pub(crate) fn open_file(path: &Path, max_bytes: u64) -> Result<(File, u64), DecodeError> {
    // Before it is opened: that of a pipe would wait for a writer, and no signal would end it.
    if !fs::metadata(path)?.is_file() {
        return Err(DecodeError::NotAFile);
    }
    let file = File::open(path)?;
    let found = file.metadata()?.len();
    if found > max_bytes {
        return Err(DecodeError::TooManyBytes { found, max: max_bytes });
    }
    Ok((file, found))
}

/// Reads a file of at most `max_bytes` into `bytes`.
pub(crate) fn read_file(
    path: &Path,
    max_bytes: u64,
    bytes: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    bytes.clear();
    let (file, n_bytes) = open_file(path, max_bytes)?;
    bytes.reserve(n_bytes as usize);
    // A file that grows while it is read is cut off; the decoder then sees a truncated image.
    file.take(max_bytes).read_to_end(bytes)?;
    Ok(())
}

fn decode_into(
    bytes: &[u8],
    options: &DecodeOptions,
    want: Want<'_>,
    mut pixels: Vec<u8>,
) -> Result<RgbImage, DecodeError> {
    let opened = open::open(bytes, options)?;
    let (width, height) = (opened.width, opened.height);
    let orientation = match options.exif {
        true => exif::orientation(bytes, opened.format),
        false => Orientation::NoTransforms,
    };
    let wanted = match turns_sides(orientation) {
        true => want(height, width),
        false => want(width, height),
    };
    if opened.format == Format::Jpeg {
        let wanted = Wanted {
            divisor: if options.scaled { wanted.divisor } else { 1 },
            // Rows of an image that is turned are columns of the file, or come in the other order.
            rows: if is_upright(orientation) { wanted.rows } else { height },
        };
        let part = guarded(|| Ok(decode_part(bytes, width, height, wanted, &mut pixels)));
        if let Ok(Some(rgb)) = part {
            return Ok(turn(rgb, orientation));
        }
    }
    Ok(turn(opened.decode(pixels)?, orientation))
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
    with_height(open::read(decoder, std::mem::take(pixels)).ok()?, height)
}

/// Adds black rows below.
fn with_height(rgb: RgbImage, height: u32) -> Option<RgbImage> {
    let width = rgb.width();
    let mut levels = rgb.into_raw();
    levels.resize(width as usize * height as usize * 3, 0);
    RgbImage::from_raw(width, height, levels)
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
