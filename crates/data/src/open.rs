//! The bytes of a file to a decoder that knows the size of the image, by one way for all who look.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{ColorType, ImageDecoder, ImageError, Limits, RgbImage};

use crate::decode_options::DecodeOptions;
use crate::error::DecodeError;
use crate::format::Format;
use crate::gif::Gif;
use crate::guard::guarded;
use crate::jpeg;
use crate::tiff::Tiff;

/// An image whose header was read.
pub(crate) struct Opened<'a> {
    pub(crate) format: Format,
    pub(crate) width: u32,
    pub(crate) height: u32,
    decoder: AnyDecoder<'a>,
}

enum AnyDecoder<'a> {
    Gif(Box<Gif<'a>>),
    Tiff(Box<Tiff>),
    Other(Box<dyn ImageDecoder + 'a>),
}

/// Reads the header of the image in `bytes`, and compares it with the limits.
///
/// # Errors
/// Says why `bytes` are no image that can be used.
pub(crate) fn open<'a>(
    bytes: &'a [u8],
    options: &DecodeOptions,
) -> Result<Opened<'a>, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    if bytes.len() as u64 > options.max_bytes {
        let found = bytes.len() as u64;
        return Err(DecodeError::TooManyBytes { found, max: options.max_bytes });
    }
    let format = Format::of(bytes)?;
    let is_complete = match format {
        Format::Jpeg => jpeg::is_complete(bytes),
        Format::WebP => webp_is_complete(bytes),
        _ => true, // the decoders find out
    };
    if !is_complete && format == Format::WebP {
        return Err(DecodeError::Truncated); // its decoder must not see it
    }
    let opened = match Opened::new(bytes, format, options) {
        Err(_) if !is_complete => return Err(DecodeError::Truncated),
        opened => opened?,
    };
    let (width, height) = (opened.width, opened.height);
    check_pixels(width, height, options)?;
    if width == 0 || height == 0 {
        return Err(DecodeError::NoPixels { width, height });
    }
    if !is_complete {
        return Err(DecodeError::Truncated);
    }
    Ok(opened)
}

/// Looks at the first bytes of a file that has more, [`crate::format::ENOUGH`] of them at least.
/// Returns the width and the height in its header, if that was found.
///
/// # Errors
/// That of [`open`] of the whole file. Where the first bytes decide nothing there is none.
pub(crate) fn peek(bytes: &[u8], options: &DecodeOptions) -> Result<Option<[u32; 2]>, DecodeError> {
    let format = Format::of(bytes)?;
    if format == Format::WebP && !webp_is_complete(bytes) {
        return Ok(None);
    }
    match Opened::new(bytes, format, options) {
        Ok(Opened { width, height, .. }) => {
            check_pixels(width, height, options).map(|()| Some([width, height]))
        }
        Err(_) => Ok(None),
    }
}

fn check_pixels(width: u32, height: u32, options: &DecodeOptions) -> Result<(), DecodeError> {
    match u64::from(width) * u64::from(height) > options.max_pixels {
        true => Err(DecodeError::TooManyPixels { width, height, max: options.max_pixels }),
        false => Ok(()),
    }
}

impl<'a> Opened<'a> {
    fn new(
        bytes: &'a [u8],
        format: Format,
        options: &DecodeOptions,
    ) -> Result<Opened<'a>, DecodeError> {
        guarded(|| {
            let decoder = match format {
                Format::Gif => AnyDecoder::Gif(Box::new(Gif::open(bytes)?)),
                Format::Tiff => AnyDecoder::Tiff(Box::new(Tiff::open(bytes, options)?)),
                _ => {
                    let decoder = other_decoder(bytes, format, options);
                    AnyDecoder::Other(decoder.map_err(|error| decode_error(&error))?)
                }
            };
            let (width, height) = match &decoder {
                AnyDecoder::Gif(gif) => gif.dimensions(),
                AnyDecoder::Tiff(tiff) => tiff.dimensions(),
                AnyDecoder::Other(decoder) => decoder.dimensions(),
            };
            Ok(Opened { format, width, height, decoder })
        })
    }

    /// Decodes all of it into the memory of `pixels`.
    pub(crate) fn decode(self, pixels: Vec<u8>) -> Result<RgbImage, DecodeError> {
        let Opened { width, height, decoder, .. } = self;
        guarded(|| {
            let rgb = match decoder {
                AnyDecoder::Gif(gif) => gif.into_rgb(pixels)?,
                AnyDecoder::Tiff(tiff) => tiff.into_rgb(pixels)?,
                AnyDecoder::Other(decoder) => return read(decoder, pixels),
            };
            from_raw(width, height, rgb)
        })
    }
}

/// Decodes all that `decoder` has into the memory of `pixels`.
pub(crate) fn read(
    decoder: impl ImageDecoder,
    mut pixels: Vec<u8>,
) -> Result<RgbImage, DecodeError> {
    let (width, height) = decoder.dimensions();
    let colour_type = decoder.color_type();
    // Zeroed first: a decoder that leaves a part unwritten must not show an earlier image.
    pixels.clear();
    pixels.resize(decoder.total_bytes() as usize, 0);
    decoder.read_image(&mut pixels).map_err(|error| decode_error(&error))?;
    from_raw(width, height, to_rgb(pixels, colour_type)?)
}

fn from_raw(width: u32, height: u32, rgb: Vec<u8>) -> Result<RgbImage, DecodeError> {
    RgbImage::from_raw(width, height, rgb)
        .ok_or_else(|| DecodeError::Corrupt("the decoder returned too few pixels".into()))
}

/// The decoder of a format that is neither GIF nor TIFF.
fn other_decoder<'a>(
    bytes: &'a [u8],
    format: Format,
    options: &DecodeOptions,
) -> Result<Box<dyn ImageDecoder + 'a>, ImageError> {
    let mut limits = Limits::no_limits();
    // 8 bytes are a pixel of the widest kind that is read, RGBA of 16 bits.
    limits.max_alloc = Some(options.max_pixels.saturating_mul(8));
    let reader = Cursor::new(bytes);
    let mut decoder: Box<dyn ImageDecoder + 'a> = match format {
        Format::Png => Box::new(PngDecoder::with_limits(reader, limits.clone())?),
        Format::WebP => Box::new(WebPDecoder::new(reader)?),
        Format::Bmp => Box::new(BmpDecoder::new(reader)?),
        _ => Box::new(JpegDecoder::new(reader)?),
    };
    decoder.set_limits(limits)?;
    Ok(decoder)
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

fn decode_error(error: &ImageError) -> DecodeError {
    match error {
        ImageError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
            DecodeError::Truncated
        }
        other => DecodeError::Corrupt(other.to_string()),
    }
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
