//! Line charts as SVG and PNG, both from one description; sheets of pictures and confusion matrices as
//! PNG.
//!
//! A [`Figure`] is laid out once, as a list of shapes with places in pixels; the SVG is those shapes
//! as text, the PNG the same shapes painted at twice the size. The font is part of the program, so
//! that a figure has the same bytes on every machine of a kind, whatever fonts are installed.

mod chart;
mod contact_sheet;
mod font;
mod heat_map;
mod label;
mod layout;
mod png;
mod scene;
mod svg;
mod ticks;

pub use chart::{
    Axis, Band, Direction, Figure, Format, Mark, PALETTE, Panel, Scale, Series, Style, Weight,
};
pub use contact_sheet::{Cell, ContactSheet, Group, PIXELS_PER_UNIT, Thumbnail};
pub use heat_map::HeatMap;
pub use label::{Caption, Tone};

use std::fs;
use std::path::Path;

use crate::error::Error;
use crate::file_error::FileError;

impl Figure {
    /// Writes the figure as SVG.
    ///
    /// # Errors
    /// No panel has a point that can be drawn, or the file cannot be written.
    pub fn write_svg(&self, path: &Path) -> Result<(), Error> {
        Ok(fs::write(path, self.to_svg()?).map_err(FileError::of("write", path))?)
    }

    /// Writes the figure as PNG, two pixels for each unit of the SVG.
    ///
    /// # Errors
    /// No panel has a point that can be drawn, or the file cannot be written.
    pub fn write_png(&self, path: &Path) -> Result<(), Error> {
        Ok(fs::write(path, self.to_png()?).map_err(FileError::of("write", path))?)
    }

    /// The text of the SVG.
    ///
    /// # Errors
    /// No panel has a point that can be drawn.
    pub fn to_svg(&self) -> Result<String, Error> {
        Ok(svg::to_text(&self.title, &layout::scene(self)?))
    }

    /// The bytes of the PNG.
    ///
    /// # Errors
    /// No panel has a point that can be drawn.
    pub fn to_png(&self) -> Result<Vec<u8>, Error> {
        png::bytes(&layout::scene(self)?, &[])
    }
}

#[cfg(test)]
mod tests;
