//! What an image file may take to decode, and what is done to its picture on the way.

/// Settings of [`decode`](crate::decode()).
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
