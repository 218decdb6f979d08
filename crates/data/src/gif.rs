//! The first frame of a GIF on its canvas.
//!
//! What the frame leaves uncovered has its transparent colour, or the first of its palette where it has
//! none, as in Pillow; the background colour of the header counts for nothing. A frame that is larger
//! than the canvas makes it larger.

use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, Decoder, DecodingError};

use crate::error::DecodeError;

/// A GIF whose first frame is next to be read.
pub(crate) struct Gif<'a> {
    decoder: Decoder<Cursor<&'a [u8]>>,
    placement: Placement,
    /// The sides of the canvas.
    width: usize,
    height: usize,
}

/// Where the frame is on the canvas.
struct Placement {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    transparent: Option<u8>,
}

impl<'a> Gif<'a> {
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Gif<'a>, DecodeError> {
        let mut options = DecodeOptions::new();
        options.set_color_output(ColorOutput::Indexed);
        let mut decoder = options.read_info(Cursor::new(bytes)).map_err(decode_error)?;
        let frame = decoder.next_frame_info().map_err(decode_error)?;
        let frame = frame.ok_or_else(|| DecodeError::Corrupt("GIF without a frame".to_owned()))?;
        let placement = Placement {
            left: frame.left.into(),
            top: frame.top.into(),
            width: frame.width.into(),
            height: frame.height.into(),
            transparent: frame.transparent,
        };
        let width = (placement.left + placement.width).max(decoder.width().into());
        let height = (placement.top + placement.height).max(decoder.height().into());
        Ok(Gif { decoder, placement, width, height })
    }

    pub(crate) fn dimensions(&self) -> (u32, u32) {
        (self.width as u32, self.height as u32) // of 17 bits
    }

    /// Decodes the frame into the memory of `rgb`.
    pub(crate) fn into_rgb(mut self, mut rgb: Vec<u8>) -> Result<Vec<u8>, DecodeError> {
        let Placement { left, top, width, height, transparent } = self.placement;
        let mut indices = vec![0; width * height];
        self.decoder.read_into_buffer(&mut indices).map_err(decode_error)?;
        let palette = self.decoder.palette().map_err(decode_error)?;
        // An index beyond the palette is black.
        let colour = |index: u8| -> [u8; 3] {
            let found = palette.get(usize::from(index) * 3..).and_then(|rest| rest.first_chunk());
            found.copied().unwrap_or_default()
        };
        let colours: Vec<[u8; 3]> = (0..=255).map(colour).collect();
        rgb.clear();
        rgb.resize(self.width * self.height * 3, 0);
        let uncovered = colours[usize::from(transparent.unwrap_or(0))];
        rgb.chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&uncovered));
        for y in 0..height {
            let start = ((top + y) * self.width + left) * 3;
            let row = rgb[start..start + width * 3].chunks_exact_mut(3);
            for (pixel, index) in row.zip(&indices[y * width..]) {
                pixel.copy_from_slice(&colours[usize::from(*index)]);
            }
        }
        Ok(rgb)
    }
}

fn decode_error(error: DecodingError) -> DecodeError {
    match error {
        DecodingError::UnexpectedEof => DecodeError::Truncated,
        DecodingError::Io(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => {
            DecodeError::Truncated
        }
        other => DecodeError::Corrupt(format!("damaged GIF: {other}")),
    }
}
