//! The font inside the program: DejaVu Sans, cut to the characters of European languages
//! (`assets/DejaVuSans-LICENSE.txt`). Its widths are those of Verdana, so an SVG that names both
//! looks the same where neither is missing.
//!
//! The file is made from DejaVuSans.ttf 2.35 by fontTools: `pyftsubset DejaVuSans.ttf --no-hinting
//! --layout-features= --unicodes=U+0020-007E,U+00A0-017F,U+0391-03C9,U+0410-044F,U+2010-2015,
//! U+2018-201E,U+2020-2022,U+2026,U+2030,U+2070,U+2074-208E,U+2190-2193,U+2212,U+2248,U+2260,
//! U+2264,U+2265`.

use skrifa::charmap::Charmap;
use skrifa::instance::{LocationRef, Size};
use skrifa::metrics::GlyphMetrics;
use skrifa::outline::{DrawSettings, OutlineGlyphCollection, OutlinePen};
use skrifa::{FontRef, MetadataProvider};

use crate::error::Error;

/// What an SVG asks for; the first is the font inside the program.
pub(super) const FAMILIES: &str = "DejaVu Sans, Verdana, sans-serif";

const BYTES: &[u8] = include_bytes!("../../assets/DejaVuSans-subset.ttf");

/// The font.
pub(super) struct Face {
    characters: Charmap<'static>,
    metrics: GlyphMetrics<'static>,
    outlines: OutlineGlyphCollection<'static>,
    units_per_em: f64,
}

impl Face {
    /// Reads the font.
    ///
    /// # Errors
    /// It is damaged, which no build is.
    pub(super) fn read() -> Result<Face, Error> {
        let font = FontRef::new(BYTES).map_err(|error| {
            Error::Unusable(format!("the font inside the program is damaged: {error}"))
        })?;
        let (unscaled, plain) = (Size::unscaled(), LocationRef::default());
        Ok(Face {
            characters: font.charmap(),
            metrics: font.glyph_metrics(unscaled, plain),
            outlines: font.outline_glyphs(),
            units_per_em: f64::from(font.metrics(unscaled, plain).units_per_em),
        })
    }

    /// The font's unit in a text of this size, the height of the em square.
    pub(super) fn unit(&self, size: f64) -> f64 {
        size / self.units_per_em
    }

    /// Whether it has a character; for others it draws a box.
    pub(super) fn has(&self, c: char) -> bool {
        self.characters.map(c).is_some()
    }

    /// How far the pen moves for a character, in units of the font.
    pub(super) fn advance(&self, c: char) -> f32 {
        let glyph = self.characters.map(c).unwrap_or_default();
        self.metrics.advance_width(glyph).unwrap_or(0.0)
    }

    /// Draws a character, in units of the font. A space has no outline.
    pub(super) fn draw(&self, c: char, pen: &mut impl OutlinePen) {
        let glyph = self.characters.map(c).unwrap_or_default();
        let settings = DrawSettings::unhinted(Size::unscaled(), LocationRef::default());
        if let Some(outline) = self.outlines.get(glyph) {
            let _ = outline.draw(settings, pen);
        }
    }

    /// Width of a text in the unit of `size`.
    pub(super) fn width(&self, text: &str, size: f64) -> f64 {
        text.chars().map(|c| f64::from(self.advance(c))).sum::<f64>() * size / self.units_per_em
    }
}
