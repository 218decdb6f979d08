//! JPEGs at a half, a quarter or an eighth of their sides.
//!
//! A block of 8x8 pixels is stored as cosines; an inverse transform of its lowest 4x4, 2x2 or 1x1
//! gives a smaller picture for less work, as libjpeg's `scale_denom` does. What is left out is finer
//! than the pixels of the result, so that it is an antialiased reduction already.

use image::RgbImage;
use jpeg_decoder::{Decoder, PixelFormat};

/// Decodes a JPEG of `width` x `height` pixels at the smallest of the scales that divides its sides
/// by `allowed` at most.
///
/// `None` where no scale fits, or for what only the full decoder reads: four colours, 16 bits, damage
/// that this decoder refuses. The caller then decodes in full, and reports what is wrong.
pub(crate) fn decode(bytes: &[u8], width: u32, height: u32, allowed: u32) -> Option<RgbImage> {
    let divisor = [8, 4, 2].into_iter().find(|divisor| *divisor <= allowed)?;
    let mut decoder = Decoder::new(bytes);
    let wanted = [width, height].map(|side| side.div_ceil(divisor));
    // A JPEG has 65,535 pixels a side at most.
    let [wanted_width, wanted_height] = wanted.map(|side| u16::try_from(side).unwrap_or(u16::MAX));
    let (found_width, found_height) = decoder.scale(wanted_width, wanted_height).ok()?;
    let found = [u32::from(found_width), u32::from(found_height)];
    let pixels = decoder.decode().ok()?;
    let rgb = match decoder.info()?.pixel_format {
        PixelFormat::RGB24 => pixels,
        PixelFormat::L8 => pixels.into_iter().flat_map(|level| [level; 3]).collect(),
        PixelFormat::L16 | PixelFormat::CMYK32 => return None,
    };
    (found == wanted).then(|| RgbImage::from_raw(found[0], found[1], rgb)).flatten()
}
