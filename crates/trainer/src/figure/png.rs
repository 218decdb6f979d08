//! A scene as PNG, painted by tiny-skia with the glyphs of the font inside the program.

use skrifa::outline::OutlinePen;
use tiny_skia::{
    FillRule, FilterQuality, IntSize, LineCap, LineJoin, Mask, Paint, Path, PathBuilder, Pixmap,
    PixmapPaint, Rect, StrokeDash, Transform,
};

use super::font::Face;
use super::scene::{Anchor, Colour, Picture, Place, Rectangle, Scene, Shape, Stroke, Text};
use crate::error::Error;

/// Pixels for each unit of the scene: sharp on dense screens and in print.
pub(super) const SCALE: f32 = 2.0;

/// The bytes of the file. A picture whose pixels are not as many as its sides say is left out.
pub(super) fn bytes(scene: &Scene, pictures: &[Picture]) -> Result<Vec<u8>, Error> {
    let (width, height) = (SCALE * scene.width as f32, SCALE * scene.height as f32);
    let mut pixmap = Pixmap::new(width.ceil() as u32, height.ceil() as u32).ok_or_else(|| {
        Error::Unusable(format!("a figure of {width} x {height} pixels cannot be painted"))
    })?;
    pixmap.fill(tiny_skia::Color::WHITE);
    let face = Face::read()?;
    let masks: Vec<Option<Mask>> = scene.clips.iter().map(|clip| mask(&pixmap, clip)).collect();
    for shape in &scene.shapes {
        paint_shape(&mut pixmap, shape, &masks, &face);
    }
    for picture in pictures {
        paint_picture(&mut pixmap, picture);
    }
    pixmap.encode_png().map_err(|error| Error::Unusable(format!("cannot encode a PNG: {error}")))
}

/// The bytes of a file with these pixels, red, green and blue.
pub(super) fn of_pixels(width: u32, height: u32, rgb: &[u8]) -> Result<Vec<u8>, Error> {
    let pixmap = pixmap_of(width, height, rgb).ok_or_else(|| {
        Error::Unusable(format!("{} levels are no picture of {width} x {height} pixels", rgb.len()))
    })?;
    pixmap.encode_png().map_err(|error| Error::Unusable(format!("cannot encode a PNG: {error}")))
}

fn pixmap_of(width: u32, height: u32, rgb: &[u8]) -> Option<Pixmap> {
    let rgba = rgb.chunks_exact(3).flat_map(|rgb| [rgb[0], rgb[1], rgb[2], 255]).collect();
    Pixmap::from_vec(rgba, IntSize::from_wh(width, height)?)
}

fn paint_picture(pixmap: &mut Pixmap, picture: &Picture) {
    let Some(source) = pixmap_of(picture.width, picture.height, &picture.rgb) else { return };
    let place = &picture.place;
    let scale = |length: f64, pixels: u32| SCALE * length as f32 / pixels as f32;
    // On whole pixels, so that its edges are sharp.
    let at = |length: f64| (SCALE * length as f32).round();
    let transform = Transform::from_row(
        scale(place.width, picture.width),
        0.0,
        0.0,
        scale(place.height, picture.height),
        at(place.left),
        at(place.top),
    );
    let quality = match picture.is_smooth {
        true => FilterQuality::Bicubic,
        false => FilterQuality::Nearest,
    };
    let paint = PixmapPaint { quality, ..PixmapPaint::default() };
    pixmap.draw_pixmap(0, 0, source.as_ref(), &paint, transform, None);
}

fn mask(pixmap: &Pixmap, clip: &Rectangle) -> Option<Mask> {
    let mut mask = Mask::new(pixmap.width(), pixmap.height())?;
    let sides = [clip.left, clip.top, clip.width, clip.height].map(|side| side as f32);
    let path = PathBuilder::from_rect(Rect::from_xywh(sides[0], sides[1], sides[2], sides[3])?);
    mask.fill_path(&path, FillRule::Winding, true, scaled());
    Some(mask)
}

fn paint_shape(pixmap: &mut Pixmap, shape: &Shape, masks: &[Option<Mask>], face: &Face) {
    let mask = |clip: Option<usize>| masks.get(clip?)?.as_ref();
    // A path is `None` where it has no extent, and then there is nothing to see.
    match shape {
        Shape::Line { places, stroke, clip } => {
            let Some(path) = path(places, false) else { return };
            let paint = paint(stroke.colour, stroke.opacity);
            pixmap.stroke_path(&path, &paint, &pen(stroke), scaled(), mask(*clip));
        }
        Shape::Area { places, colour, opacity, clip } => {
            let Some(path) = path(places, true) else { return };
            let paint = paint(*colour, *opacity);
            pixmap.fill_path(&path, &paint, FillRule::Winding, scaled(), mask(*clip));
        }
        Shape::Dot { centre, radius, colour, clip } => {
            let (x, y, radius) = (centre.0 as f32, centre.1 as f32, *radius as f32);
            let Some(path) = PathBuilder::from_circle(x, y, radius) else { return };
            let paint = paint(*colour, 1.0);
            pixmap.fill_path(&path, &paint, FillRule::Winding, scaled(), mask(*clip));
        }
        Shape::Text(text) => paint_text(pixmap, text, face),
    }
}

fn paint_text(pixmap: &mut Pixmap, text: &Text, face: &Face) {
    let Some(path) = outline(text, face) else { return };
    if text.rim {
        let white = Stroke::solid((255, 255, 255), 3.0);
        pixmap.stroke_path(&path, &paint(white.colour, 1.0), &pen(&white), scaled(), None);
    }
    pixmap.fill_path(&path, &paint(text.colour, 1.0), FillRule::Winding, scaled(), None);
}

/// The glyphs of a text at its place.
fn outline(text: &Text, face: &Face) -> Option<Path> {
    let unit = face.unit(text.size);
    let before = match text.anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => 0.5,
        Anchor::End => 1.0,
    };
    let mut pen = Pen { builder: PathBuilder::new(), unit: unit as f32, x: 0.0 };
    pen.x = -(before * face.width(&text.text, text.size)) as f32;
    for c in text.text.chars() {
        face.draw(c, &mut pen);
        pen.x += pen.unit * face.advance(c);
    }
    let (x, y) = (text.place.0 as f32, text.place.1 as f32);
    let turn = if text.upwards { Transform::from_rotate(-90.0) } else { Transform::identity() };
    pen.builder.finish()?.transform(turn.post_translate(x, y))
}

/// Draws glyphs, whose y points up, into a path, whose y points down.
struct Pen {
    builder: PathBuilder,
    /// Size of the font's unit.
    unit: f32,
    /// Where the glyph begins.
    x: f32,
}

impl Pen {
    fn place(&self, x: f32, y: f32) -> (f32, f32) {
        (self.x + self.unit * x, -self.unit * y)
    }
}

impl OutlinePen for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.builder.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.place(x, y);
        self.builder.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.place(x1, y1), self.place(x, y));
        self.builder.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) =
            (self.place(x1, y1), self.place(x2, y2), self.place(x, y));
        self.builder.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.builder.close();
    }
}

fn path(places: &[Place], closed: bool) -> Option<Path> {
    let mut builder = PathBuilder::new();
    for (index, &(x, y)) in places.iter().enumerate() {
        match index {
            0 => builder.move_to(x as f32, y as f32),
            _ => builder.line_to(x as f32, y as f32),
        }
    }
    if closed {
        builder.close();
    }
    builder.finish()
}

fn pen(stroke: &Stroke) -> tiny_skia::Stroke {
    let dash =
        stroke.dash.and_then(|(dash, gap)| StrokeDash::new(vec![dash as f32, gap as f32], 0.0));
    tiny_skia::Stroke {
        width: stroke.width as f32,
        line_cap: LineCap::Butt,
        line_join: LineJoin::Round,
        dash,
        ..tiny_skia::Stroke::default()
    }
}

fn paint((red, green, blue): Colour, opacity: f64) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(red, green, blue, (255.0 * opacity).round() as u8);
    paint.anti_alias = true;
    paint
}

fn scaled() -> Transform {
    Transform::from_scale(SCALE, SCALE)
}
