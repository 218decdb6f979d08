//! Pictures in rows with words beneath, for a look at many of them at once.

use std::fs;
use std::path::Path;

use super::font::Face;
use super::label::{Caption, NUMBER_NOTE, Tone};
use super::png;
use super::scene::{Anchor, Picture, Rectangle, Scene, Shape, Text};
use crate::error::Error;
use crate::file_error::FileError;

const TITLE_SIZE: f64 = 16.0;
const NOTE_SIZE: f64 = 11.0;
const HEADING_SIZE: f64 = 13.0;
const CAPTION_SIZE: f64 = 10.0;
/// From baseline to baseline, in parts of the size.
const LINE: f64 = 1.3;

/// Room at the edges of the sheet.
const MARGIN: f64 = 14.0;
/// Between pictures.
const GAP: f64 = 8.0;
/// Above the heading of a group.
const GROUP_GAP: f64 = 10.0;

/// Behind pictures that do not fill their box.
const PALE: (u8, u8, u8) = (0xee, 0xee, 0xee);

/// A sheet of pictures.
#[derive(Clone, Debug, Default)]
pub struct ContactSheet {
    /// Stands above all.
    pub title: String,
    /// Lines below the title.
    pub notes: Vec<String>,
    /// Pictures that belong together, one group below the other.
    pub groups: Vec<Group>,
    /// Pictures in a row, at least 1.
    pub columns: usize,
    /// Side of a picture's box, of which the PNG has [`PIXELS_PER_UNIT`] times as many pixels.
    pub side: f64,
}

/// Pixels of a PNG for each unit of length.
pub const PIXELS_PER_UNIT: f64 = png::SCALE as f64;

/// Pictures that belong together.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Stands above them; may be empty.
    pub heading: Caption,
    /// The pictures, in reading order.
    pub cells: Vec<Cell>,
}

/// A picture with words beneath.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// The picture; `None` for one that cannot be read, in whose place that is said.
    pub picture: Option<Thumbnail>,
    /// Lines beneath, cut to the width of the picture.
    pub captions: Vec<Caption>,
}

/// A picture's pixels.
#[derive(Clone, Debug, Default)]
pub struct Thumbnail {
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Red, green and blue, height x width x 3.
    pub rgb: Vec<u8>,
}

impl Thumbnail {
    /// Writes the pixels as PNG, one to one.
    ///
    /// # Errors
    /// There are not as many as the sides say, or the file cannot be written.
    pub fn write_png(&self, path: &Path) -> Result<(), Error> {
        let bytes = png::of_pixels(self.width, self.height, &self.rgb)?;
        Ok(fs::write(path, bytes).map_err(FileError::of("write", path))?)
    }
}

impl ContactSheet {
    /// Writes the sheet as PNG.
    ///
    /// # Errors
    /// It is too large to be painted, or the file cannot be written.
    pub fn write_png(&self, path: &Path) -> Result<(), Error> {
        Ok(fs::write(path, self.to_png()?).map_err(FileError::of("write", path))?)
    }

    /// The bytes of the PNG.
    ///
    /// # Errors
    /// The sheet is too large to be painted.
    pub fn to_png(&self) -> Result<Vec<u8>, Error> {
        let face = Face::read()?;
        let mut page = Page { face: &face, scene: Scene::default(), pictures: Vec::new() };
        page.fill(self);
        png::bytes(&page.scene, &page.pictures)
    }
}

/// A sheet while it is laid out.
struct Page<'a> {
    face: &'a Face,
    scene: Scene,
    pictures: Vec<Picture>,
}

impl Page<'_> {
    fn fill(&mut self, sheet: &ContactSheet) {
        let columns = sheet.columns.max(1);
        let width = columns as f64 * (sheet.side + GAP) - GAP;
        let mut top = MARGIN;
        if !sheet.title.is_empty() {
            let title = Caption::plain(&sheet.title);
            self.line(&title, (MARGIN, top), TITLE_SIZE, width);
            top += TITLE_SIZE * LINE + 4.0;
        }
        let mut captions = sheet.groups.iter().flat_map(|group| {
            group.cells.iter().flat_map(|cell| &cell.captions).chain([&group.heading])
        });
        let explains = captions.any(|caption| caption.shows_number(self.face));
        let note = explains.then(|| NUMBER_NOTE.to_owned());
        for note in sheet.notes.iter().chain(&note) {
            self.line(
                &Caption { tone: Tone::Quiet, ..Caption::plain(note) },
                (MARGIN, top),
                NOTE_SIZE,
                width,
            );
            top += NOTE_SIZE * LINE;
        }
        for group in &sheet.groups {
            top += GROUP_GAP;
            if !group.heading.is_empty() {
                self.line(&group.heading, (MARGIN, top), HEADING_SIZE, width);
                top += HEADING_SIZE * LINE + 4.0;
            }
            for cells in group.cells.chunks(columns) {
                for (column, cell) in cells.iter().enumerate() {
                    let left = MARGIN + column as f64 * (sheet.side + GAP);
                    self.cell(cell, left, top, sheet.side);
                }
                let lines = cells.iter().map(|cell| cell.captions.len()).max().unwrap_or(0);
                top += sheet.side + 3.0 + lines as f64 * CAPTION_SIZE * LINE + GAP;
            }
        }
        self.scene.width = (width + 2.0 * MARGIN).ceil();
        self.scene.height = (top + MARGIN / 2.0).ceil();
    }

    fn cell(&mut self, cell: &Cell, left: f64, top: f64, side: f64) {
        let area = Rectangle { left, top, width: side, height: side };
        self.scene.shapes.push(Shape::area(&area, PALE));
        match &cell.picture {
            Some(picture) => self.pictures.push(Picture {
                place: fitted(picture.width, picture.height, &area),
                width: picture.width,
                height: picture.height,
                rgb: picture.rgb.clone(),
                is_smooth: true,
            }),
            None => {
                let words = Caption { tone: Tone::Alarm, ..Caption::plain("cannot be read") };
                let middle = (left + side / 2.0, top + side / 2.0 + 0.36 * CAPTION_SIZE);
                let text = words.fitted(self.face, CAPTION_SIZE, side);
                self.text(text, middle, CAPTION_SIZE, Anchor::Middle, words.tone);
            }
        }
        for (index, caption) in cell.captions.iter().enumerate() {
            let down = side + 3.0 + index as f64 * CAPTION_SIZE * LINE;
            self.line(caption, (left, top + down), CAPTION_SIZE, side);
        }
    }

    /// A line whose upper edge is at a place.
    fn line(&mut self, caption: &Caption, (left, top): (f64, f64), size: f64, room: f64) {
        let text = caption.fitted(self.face, size, room);
        self.text(text, (left, top + size), size, Anchor::Start, caption.tone);
    }

    fn text(&mut self, text: String, place: (f64, f64), size: f64, anchor: Anchor, tone: Tone) {
        let colour = tone.colour();
        let text = Text { text, place, size, anchor, upwards: false, rim: false, colour };
        self.scene.shapes.push(Shape::Text(text));
    }
}

/// Where a picture of `width` x `height` pixels lies in a box: whole, in the middle, at its own shape.
fn fitted(width: u32, height: u32, area: &Rectangle) -> Rectangle {
    let (width, height) = (f64::from(width.max(1)), f64::from(height.max(1)));
    let scale = (area.width / width).min(area.height / height);
    // A line of one pixel is still seen.
    let (width, height) = ((scale * width).max(1.0), (scale * height).max(1.0));
    Rectangle {
        left: area.left + (area.width - width) / 2.0,
        top: area.top + (area.height - height) / 2.0,
        width,
        height,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32, rgb: [u8; 3]) -> Cell {
        let rgb = rgb.repeat((width * height) as usize);
        Cell { picture: Some(Thumbnail { width, height, rgb }), captions: vec![] }
    }

    /// Pixels of about this colour.
    fn count(png: &[u8], rgb: [u8; 3]) -> usize {
        let image = tiny_skia::Pixmap::decode_png(png).unwrap();
        let near = |pixel: &&tiny_skia::PremultipliedColorU8| {
            let found = [pixel.red(), pixel.green(), pixel.blue()];
            found.iter().zip(rgb).all(|(a, b)| a.abs_diff(b) <= 2)
        };
        image.pixels().iter().filter(near).count()
    }

    #[test]
    fn pictures_keep_their_shape_and_fill_their_box() {
        let (red, green) = ([200, 30, 30], [30, 180, 30]);
        let cells = vec![picture(10, 10, red), picture(200, 50, green), picture(1, 4000, red)];
        let sheet = ContactSheet {
            title: "Pictures".to_owned(),
            groups: vec![Group { heading: Caption::plain("a"), cells }],
            columns: 2,
            side: 50.0,
            ..ContactSheet::default()
        };
        let png = sheet.to_png().unwrap();
        // A box has 100 x 100 pixels, a fourth of which the wide one fills; the thin one a unit's width.
        let (found, expected) = (count(&png, green), 100 * 25);
        assert!(found.abs_diff(expected) < 300, "{found} of {expected}");
        let (found, expected) = (count(&png, red), 100 * 100 + 2 * 100);
        assert!(found.abs_diff(expected) < 600, "{found} of {expected}");
        assert_eq!(png, sheet.to_png().unwrap());
    }

    #[test]
    fn odd_names_and_missing_pictures_do_not_break_it() {
        let names = ["蚂蚁", "שלום", "a\nb\u{0}", "e\u{301}🐜", &"long ".repeat(500), ""];
        let captions = names.map(Caption::plain).to_vec();
        let cell = Cell { picture: None, captions };
        let broken = Cell {
            picture: Some(Thumbnail { width: 3, height: 3, rgb: vec![0; 5] }),
            captions: vec![],
        };
        let heading = Caption::plain(names[0]);
        for columns in [0, 1, 30] {
            let groups = vec![
                Group { heading: heading.clone(), cells: vec![cell.clone(), broken.clone()] },
                Group::default(),
            ];
            let notes = names.map(str::to_owned).to_vec();
            let sheet = ContactSheet { title: String::new(), notes, groups, columns, side: 40.0 };
            assert!(sheet.to_png().unwrap().len() > 100);
        }
        // Nothing at all is a sheet as well.
        assert!(ContactSheet::default().to_png().is_ok());
    }
}
