//! The font inside the program: DejaVu Sans, cut to the characters of European languages
//! (`assets/DejaVuSans-LICENSE.txt`). Its widths are those of Verdana, so an SVG that names both
//! looks the same where neither is missing.
//!
//! The file is made from DejaVuSans.ttf 2.35 by fontTools: `pyftsubset DejaVuSans.ttf --no-hinting
//! --layout-features= --unicodes=U+0020-007E,U+00A0-017F,U+0391-03C9,U+0410-044F,U+2010-2015,
//! U+2018-201E,U+2020-2022,U+2026,U+2030,U+2070,U+2074-208E,U+2190-2193,U+2212,U+2248,U+2260,
//! U+2264,U+2265`.

use ttf_parser::Face;

use crate::error::Error;

/// What an SVG asks for; the first is the font inside the program.
pub(super) const FAMILIES: &str = "DejaVu Sans, Verdana, sans-serif";

const BYTES: &[u8] = include_bytes!("../../assets/DejaVuSans-subset.ttf");

/// The font.
pub(super) fn face() -> Result<Face<'static>, Error> {
    Face::parse(BYTES, 0).map_err(|error| {
        Error::Unusable(format!("the font inside the program is damaged: {error}"))
    })
}

/// Width of a text in the unit of `size`, the height of the font's em square.
pub(super) fn width(face: &Face, text: &str, size: f64) -> f64 {
    let advance = |c| {
        let glyph = face.glyph_index(c).unwrap_or_default();
        f64::from(face.glyph_hor_advance(glyph).unwrap_or(0))
    };
    text.chars().map(advance).sum::<f64>() * size / f64::from(face.units_per_em())
}
