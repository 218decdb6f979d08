//! A matrix of counts as shades: how many images of each class were taken for each class.

use std::fs;
use std::path::Path;

use super::font::Face;
use super::label::{NUMBER_NOTE, class_label, cut, lacks_letters};
use super::png;
use super::scene::{Anchor, Colour, Picture, Place, Rectangle, Scene, Shape, Text};
use crate::error::Error;
use crate::file_error::FileError;

/// Up to so many classes have their names and counts; above, cells are too small for letters.
const MAX_NAMED: usize = 50;

/// Most cells of a row; of more classes, several share a cell.
const MAX_CELLS: usize = 1000;

const TITLE_SIZE: f64 = 16.0;
const NAME_SIZE: f64 = 12.0;
const NOTE_SIZE: f64 = 11.0;
const MARGIN: f64 = 14.0;
/// Room for a name.
const NAME_ROOM: f64 = 150.0;

const INK: Colour = (0x20, 0x20, 0x20);
const QUIET: Colour = (0x70, 0x70, 0x70);
const LINES: Colour = (0xdd, 0xdd, 0xdd);
/// Full shades of what is right and what is wrong: blue and vermillion of the palette.
const RIGHT: Colour = (0x00, 0x72, 0xb2);
const WRONG: Colour = (0xd5, 0x5e, 0x00);

/// A confusion matrix.
#[derive(Clone, Debug, Default)]
pub struct HeatMap {
    /// Stands above it.
    pub title: String,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// The cells that are not 0: true class, predicted class, images.
    pub cells: Vec<(u32, u32, u64)>,
}

impl HeatMap {
    /// Writes the map as PNG.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_png(&self, path: &Path) -> Result<(), Error> {
        Ok(fs::write(path, self.to_png()?).map_err(FileError::of("write", path))?)
    }

    /// The bytes of the PNG.
    ///
    /// # Errors
    /// The map cannot be painted.
    pub fn to_png(&self) -> Result<Vec<u8>, Error> {
        let face = Face::read()?;
        let mut page = Page { face: &face, scene: Scene::default(), pictures: Vec::new() };
        match self.classes.len() {
            ..=MAX_NAMED => page.draw_named(self),
            _ => page.draw_shades(self),
        }
        png::bytes(&page.scene, &page.pictures)
    }

    /// Images of each true class.
    fn row_sums(&self) -> Vec<u64> {
        let mut sums = vec![0; self.classes.len()];
        self.cells.iter().for_each(|&(label, _, count)| sums[label as usize] += count);
        sums
    }
}

/// The shade of a cell that holds `count` of the `all` images of its row. The square root lets a few
/// mistakes be seen beside many right answers.
fn shade(count: u64, all: u64, is_right: bool) -> Colour {
    mixed(count as f64 / all.max(1) as f64, is_right)
}

fn mixed(share: f64, is_right: bool) -> Colour {
    let part = share.clamp(0.0, 1.0).sqrt();
    let full = if is_right { RIGHT } else { WRONG };
    let mix = |channel: u8| (255.0 - part * (255.0 - f64::from(channel))).round() as u8;
    (mix(full.0), mix(full.1), mix(full.2))
}

/// A map while it is laid out.
struct Page<'a> {
    face: &'a Face,
    scene: Scene,
    pictures: Vec<Picture>,
}

impl Page<'_> {
    fn draw_named(&mut self, map: &HeatMap) {
        let n = map.classes.len();
        let side = (880.0 / n.max(1) as f64).clamp(17.0, 96.0);
        let size = NAME_SIZE.min(0.72 * side);
        let names: Vec<String> = (1..)
            .zip(&map.classes)
            .map(|(number, name)| {
                let label = class_label(name, number, self.face);
                cut(&label, self.face, size, NAME_ROOM, false)
            })
            .collect();
        let room = names.iter().map(|name| self.face.width(name, size)).fold(0.0, f64::max);
        let sums = map.row_sums();
        let recall = |label: usize| {
            let right =
                map.cells.iter().find(|cell| (cell.0, cell.1) == (label as u32, label as u32));
            let right = right.map_or(0, |cell| cell.2);
            match sums[label] {
                0 => "no image".to_owned(),
                all => format!("{:.0} % of {all}", 100.0 * right as f64 / all as f64),
            }
        };
        let recalls: Vec<String> = (0..n).map(recall).collect();
        let after = recalls.iter().map(|text| self.face.width(text, size)).fold(0.0, f64::max);

        // The axis' name, the names, and the cells; above the columns the same.
        let axis = NOTE_SIZE + 8.0;
        let top = MARGIN + TITLE_SIZE + 10.0 + axis + room + 8.0;
        let left = MARGIN + axis + room + 8.0;
        let plot = Rectangle { left, top, width: side * n as f64, height: side * n as f64 };
        for &(label, predicted, count) in &map.cells {
            let (row, column) = (label as usize, predicted as usize);
            let place = Rectangle {
                left: left + side * column as f64,
                top: top + side * row as f64,
                width: side,
                height: side,
            };
            let is_right = label == predicted;
            self.scene.shapes.push(Shape::area(&place, shade(count, sums[row], is_right)));
            let text = count.to_string();
            let width = self.face.width(&text, 1.0);
            let size = (0.44 * side).min(16.0).min((side - 3.0) / width.max(0.1));
            let middle = (place.left + side / 2.0, place.top + side / 2.0 + 0.36 * size);
            // White letters on dark cells.
            let is_dark = count as f64 > 0.3 * sums[row] as f64;
            let colour = if is_dark { (255, 255, 255) } else { INK };
            self.text(&text, middle, size, Anchor::Middle, colour);
        }
        for index in 0..=n {
            let at = side * index as f64;
            self.line((left + at, top), (left + at, plot.bottom()));
            self.line((left, top + at), (plot.right(), top + at));
        }
        for (index, name) in names.iter().enumerate() {
            let middle = side * (index as f64 + 0.5) + 0.36 * size;
            self.text(name, (left - 8.0, top + middle), size, Anchor::End, INK);
            self.upwards(name, (left + middle, top - 8.0), size, Anchor::Start, INK);
            self.text(
                &recalls[index],
                (plot.right() + 8.0, top + middle),
                size,
                Anchor::Start,
                QUIET,
            );
        }
        let centre = (left + plot.width / 2.0, top + plot.height / 2.0);
        self.upwards(
            "true class",
            (MARGIN + NOTE_SIZE, centre.1),
            NOTE_SIZE,
            Anchor::Middle,
            QUIET,
        );
        let above = top - room - 8.0 - 10.0;
        self.text("predicted class", (centre.0, above), NOTE_SIZE, Anchor::Middle, QUIET);
        let right = plot.right() + 8.0 + after;
        self.finish(map, right, plot.bottom() + 10.0);
    }

    fn draw_shades(&mut self, map: &HeatMap) {
        let n = map.classes.len();
        let share = n.div_ceil(MAX_CELLS);
        let n_cells = n.div_ceil(share);
        let (mut counts, mut sums) = (vec![0_u64; n_cells * n_cells], vec![0_u64; n_cells]);
        for &(label, predicted, count) in &map.cells {
            let (row, column) = (label as usize / share, predicted as usize / share);
            counts[row * n_cells + column] += count;
            sums[row] += count;
        }
        let mut rgb = Vec::with_capacity(3 * counts.len());
        for (index, &count) in counts.iter().enumerate() {
            let (row, column) = (index / n_cells, index % n_cells);
            let (red, green, blue) = shade(count, sums[row], row == column);
            rgb.extend([red, green, blue]);
        }
        // Whole pixels for a cell, so that all cells are equal.
        let pixels = (1400.0 / n_cells as f64).round().max(1.0);
        let side = n_cells as f64 * pixels / f64::from(png::SCALE);
        // As many names as have room.
        let step = n.div_ceil(24);
        let named: Vec<usize> = (0..n).step_by(step).collect();
        let names: Vec<String> = named
            .iter()
            .map(|&class| {
                let label = class_label(&map.classes[class], class + 1, self.face);
                cut(&label, self.face, NOTE_SIZE, NAME_ROOM, false)
            })
            .collect();
        let room = names.iter().map(|name| self.face.width(name, NOTE_SIZE)).fold(0.0, f64::max);
        let (left, top) = (MARGIN + NOTE_SIZE + 8.0 + room + 8.0, MARGIN + TITLE_SIZE + 34.0);
        let place = Rectangle { left, top, width: side, height: side };
        for (&class, name) in named.iter().zip(&names) {
            let at = top + side * (class as f64 + 0.5) / n as f64;
            self.line((left - 5.0, at), (left, at));
            self.text(name, (left - 8.0, at + 0.36 * NOTE_SIZE), NOTE_SIZE, Anchor::End, INK);
        }
        let (n_cells, width) = (n_cells as u32, side);
        self.pictures.push(Picture {
            place,
            width: n_cells,
            height: n_cells,
            rgb,
            is_smooth: false,
        });
        for (from, to) in [
            ((left, top), (left + width, top)),
            ((left, top + width), (left + width, top + width)),
            ((left, top), (left, top + width)),
            ((left + width, top), (left + width, top + width)),
        ] {
            self.line(from, to);
        }
        let middle = (left + width / 2.0, top + width / 2.0);
        self.upwards(
            "true class",
            (MARGIN + NOTE_SIZE, middle.1),
            NOTE_SIZE,
            Anchor::Middle,
            QUIET,
        );
        let what = match share {
            1 => "predicted class".to_owned(),
            share => format!("predicted class; a cell stands for {share} x {share} classes"),
        };
        self.text(&what, (middle.0, top - 8.0), NOTE_SIZE, Anchor::Middle, QUIET);
        self.finish(map, left + width, top + width + 10.0);
    }

    /// Title, the meaning of the shades, and the size of the page.
    fn finish(&mut self, map: &HeatMap, right: f64, bottom: f64) {
        const BAR: f64 = 90.0;
        const STEPS: u32 = 90;
        let mut left = MARGIN;
        let baseline = bottom + NOTE_SIZE;
        for (is_right, words) in [(true, "right:"), (false, "wrong:")] {
            self.text(words, (left, baseline), NOTE_SIZE, Anchor::Start, QUIET);
            left += self.face.width(words, NOTE_SIZE) + 6.0;
            let rgb = (0..STEPS).flat_map(|step| {
                let (red, green, blue) = mixed(f64::from(step) / f64::from(STEPS - 1), is_right);
                [red, green, blue]
            });
            let place = Rectangle { left, top: bottom, width: BAR, height: NOTE_SIZE + 2.0 };
            self.pictures.push(Picture {
                place,
                width: STEPS,
                height: 1,
                rgb: rgb.collect(),
                is_smooth: false,
            });
            left += BAR + 6.0;
            let words = if is_right { "0 to 100 %" } else { "0 to 100 % of the class's images" };
            self.text(words, (left, baseline), NOTE_SIZE, Anchor::Start, QUIET);
            left += self.face.width(words, NOTE_SIZE) + 18.0;
        }
        let mut bottom = baseline;
        if map.classes.iter().any(|name| lacks_letters(name, self.face)) {
            bottom += NOTE_SIZE + 8.0;
            self.text(NUMBER_NOTE, (MARGIN, bottom), NOTE_SIZE, Anchor::Start, QUIET);
            left = left.max(MARGIN + self.face.width(NUMBER_NOTE, NOTE_SIZE));
        }
        let title = (MARGIN, MARGIN + TITLE_SIZE);
        self.text(&map.title, title, TITLE_SIZE, Anchor::Start, INK);
        let widest = right.max(left).max(MARGIN + self.face.width(&map.title, TITLE_SIZE));
        self.scene.width = (widest + MARGIN).ceil();
        self.scene.height = (bottom + MARGIN).ceil();
    }

    fn line(&mut self, from: Place, to: Place) {
        self.scene.shapes.push(Shape::thin_line(from, to, LINES));
    }

    fn text(&mut self, text: &str, place: Place, size: f64, anchor: Anchor, colour: Colour) {
        let text = text.to_owned();
        let text = Text { text, place, size, anchor, upwards: false, rim: false, colour };
        self.scene.shapes.push(Shape::Text(text));
    }

    fn upwards(&mut self, text: &str, place: Place, size: f64, anchor: Anchor, colour: Colour) {
        let text = text.to_owned();
        let text = Text { text, place, size, anchor, upwards: true, rim: false, colour };
        self.scene.shapes.push(Shape::Text(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(n: usize) -> HeatMap {
        let cells = (0..n as u32)
            .flat_map(|class| [(class, class, 90), (class, (class + 1) % n as u32, 10)]);
        HeatMap {
            title: format!("{n} classes"),
            classes: (0..n).map(|class| format!("class {class}")).collect(),
            cells: cells.collect(),
        }
    }

    #[test]
    fn any_number_of_classes_has_a_map() {
        for n in [0, 1, 2, 50, 51, 1000, 2100] {
            let map = if n == 0 { HeatMap::default() } else { map(n) };
            let png = map.to_png().unwrap();
            let image = tiny_skia::Pixmap::decode_png(&png).unwrap();
            assert!(image.width() < 3000 && image.height() < 3000, "{n}: {}", image.width());
            assert_eq!(png, map.to_png().unwrap());
        }
    }

    /// Every cell has its own shade in the picture: 9 of 10 right, 1 of 10 wrong.
    #[test]
    fn cells_have_the_shade_of_their_share() {
        for n in [10, 100] {
            let image = tiny_skia::Pixmap::decode_png(&map(n).to_png().unwrap()).unwrap();
            let count = |(red, green, blue): Colour| {
                let wanted = tiny_skia::PremultipliedColorU8::from_rgba(red, green, blue, 255);
                image.pixels().iter().filter(|&&pixel| Some(pixel) == wanted).count()
            };
            let (right, wrong) = (count(shade(90, 100, true)), count(shade(10, 100, false)));
            assert!(right > 50 * n && wrong > 50 * n, "{n}: {right} and {wrong} pixels");
            assert!(right.abs_diff(wrong) < right / 2, "{n}: {right} and {wrong} pixels");
        }
        assert_eq!(shade(0, 0, true), (255, 255, 255));
        assert_eq!(shade(5, 5, false), WRONG);
    }

    #[test]
    fn odd_names_do_not_break_it() {
        let mut map = map(4);
        map.classes = ["蚂蚁", "", &"long ".repeat(100), "a\nb"].map(str::to_owned).to_vec();
        map.to_png().unwrap();
        map.cells.clear();
        map.to_png().unwrap();
    }
}
