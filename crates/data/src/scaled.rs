//! JPEGs at a half, a quarter or an eighth of their sides.
//!
//! A block of 8x8 pixels is stored as cosines; an inverse transform of its lowest 4x4, 2x2 or 1x1
//! gives a smaller picture for less work, as libjpeg's `scale_denom` does. What is left out is finer
//! than the pixels of the result, so that it is an antialiased reduction already.
//!
//! With the feature `turbo` libjpeg-turbo does it, else jpeg-decoder. Their pictures differ by a few
//! levels.

use image::RgbImage;

/// Whether the decoder may be given a file of more rows than its header tells: libjpeg-turbo takes what
/// is left over for damage.
pub(crate) const STOPS_EARLY: bool = cfg!(not(feature = "turbo"));

/// Decodes a JPEG of `width` x `height` pixels at the smallest of the scales that divides its sides
/// by `allowed` at most, and says which.
///
/// `None` where no scale fits, or for what only the full decoder reads: four colours, 16 bits, damage
/// that this decoder refuses. The caller then decodes in full, and reports what is wrong.
pub(crate) fn decode(
    bytes: &[u8],
    width: u32,
    height: u32,
    allowed: u32,
) -> Option<(u32, RgbImage)> {
    let divisor = [8, 4, 2].into_iter().find(|divisor| *divisor <= allowed)?;
    let image = decode_at(bytes, width, height, divisor)?;
    let wanted = (width.div_ceil(divisor), height.div_ceil(divisor));
    (image.dimensions() == wanted).then_some((divisor, image))
}

#[cfg(not(feature = "turbo"))]
fn decode_at(bytes: &[u8], width: u32, height: u32, divisor: u32) -> Option<RgbImage> {
    use jpeg_decoder::{Decoder, PixelFormat};
    // A JPEG has 65,535 pixels a side at most.
    let wanted = |side: u32| u16::try_from(side.div_ceil(divisor)).ok();
    let mut decoder = Decoder::new(bytes);
    let (found_width, found_height) = decoder.scale(wanted(width)?, wanted(height)?).ok()?;
    let pixels = decoder.decode().ok()?;
    let rgb = match decoder.info()?.pixel_format {
        PixelFormat::RGB24 => pixels,
        PixelFormat::L8 => pixels.into_iter().flat_map(|level| [level; 3]).collect(),
        PixelFormat::L16 | PixelFormat::CMYK32 => return None,
    };
    RgbImage::from_raw(found_width.into(), found_height.into(), rgb)
}

#[cfg(feature = "turbo")]
fn decode_at(bytes: &[u8], width: u32, height: u32, divisor: u32) -> Option<RgbImage> {
    use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat, ScalingFactor};
    let factor = ScalingFactor::new(1, divisor as usize);
    let mut decoder = Decompressor::new().ok()?;
    let header = decoder.read_header(bytes).ok()?;
    let is_read =
        matches!(header.colorspace, Colorspace::RGB | Colorspace::YCbCr | Colorspace::Gray);
    // The pixels were counted with the size that the caller knows.
    if !is_read || (header.width, header.height) != (width as usize, height as usize) {
        return None;
    }
    decoder.set_scaling_factor(factor).ok()?;
    let scaled = header.scaled(factor);
    let pitch = scaled.width * 3;
    let mut rgb = vec![0; pitch * scaled.height];
    let (width, height) = (scaled.width, scaled.height);
    let target = Image { pixels: &mut rgb[..], width, pitch, height, format: PixelFormat::RGB };
    decoder.decompress(bytes, target).ok()?;
    RgbImage::from_raw(width as u32, height as u32, rgb)
}
