//! From a figure to shapes with places.

use super::chart::{
    Axis, Band, Direction, Figure, Mark, PALETTE, Panel, Scale, Series, Style, Weight,
};
use super::font::Face;
use super::scene::{Anchor, Colour, Place, Rectangle, Scene, Shape, Stroke, Text};
use super::ticks::{Tick, fraction, has_place, span, ticks};
use crate::error::Error;

const BLACK: Colour = (0x20, 0x20, 0x20);
const GREY: Colour = (0x70, 0x70, 0x70);
const PALE: Colour = (0xe4, 0xe4, 0xe4);

const TITLE_SIZE: f64 = 16.0;
const PANEL_TITLE_SIZE: f64 = 14.0;
const LABEL_SIZE: f64 = 13.0;
const TICK_SIZE: f64 = 12.0;

/// Room at the edges of the figure.
const MARGIN: f64 = 12.0;
/// Between the panels of a row.
const GAP: f64 = 22.0;
/// Length of the sample of a curve in the legend.
const SAMPLE: f64 = 28.0;
const LEGEND_ROW: f64 = 20.0;
const MOST_Y_TICKS: usize = 6;

/// Lays a figure out.
///
/// # Errors
/// No panel has a point that can be drawn.
pub(super) fn scene(figure: &Figure) -> Result<Scene, Error> {
    // A panel that nothing has a place in is not drawn.
    let panels: Vec<&Panel> =
        figure.panels.iter().filter(|panel| Frame::spans(panel).is_some()).collect();
    if panels.is_empty() {
        let title = &figure.title;
        return Err(Error::Unusable(format!(
            "there is nothing to draw in the figure `{title}`: no series has a finite value"
        )));
    }
    let face = Face::read()?;
    let columns = columns(panels.len());
    let (plot_width, plot_height) = match columns {
        1 => (640.0, 360.0),
        2 => (430.0, 310.0),
        _ => (330.0, 260.0),
    };
    // Panels that show the same curves share one legend at the foot of the figure.
    let entries: Vec<Vec<&Series>> = panels.iter().map(|panel| legend_entries(panel)).collect();
    let shared = entries.windows(2).all(|pair| same_entries(&pair[0], &pair[1]));

    let mut scene = Scene::default();
    let mut top = MARGIN;
    if !figure.title.is_empty() {
        top += TITLE_SIZE + 8.0;
    }
    let mut right = 0.0_f64;
    // The same room for the labels of every y axis, so that the panels of a column stand in line.
    let widths = panels.iter().map(|panel| y_labels_width(panel, &face));
    let y_room = widths.fold(0.0, f64::max);
    for (row, panels) in panels.chunks(columns).enumerate() {
        let title_room =
            if panels.iter().any(|p| !p.title.is_empty()) { PANEL_TITLE_SIZE + 10.0 } else { 4.0 };
        let mut left = MARGIN;
        let mut bottom = top;
        for (column, panel) in panels.iter().enumerate() {
            let plot = Rectangle {
                left: left + y_room,
                top: top + title_room,
                width: plot_width,
                height: plot_height,
            };
            let frame = Frame::new(panel, plot, left);
            frame.draw(panel, &mut scene, &face);
            left = frame.plot.right() + GAP;
            let mut below = frame.plot.bottom() + 2.0 * LABEL_SIZE + 22.0;
            if !shared {
                let entries = &entries[row * columns + column];
                let centre = frame.plot.left + plot_width / 2.0;
                below = legend(&mut scene, entries, centre, plot_width, below, &face);
            }
            bottom = bottom.max(below);
        }
        right = right.max(left - GAP);
        top = bottom + 6.0;
    }
    scene.width = right + MARGIN;
    if shared {
        let (centre, room) = (scene.width / 2.0, scene.width - 2.0 * MARGIN);
        let entries = entries.first().map(Vec::as_slice).unwrap_or_default();
        top = legend(&mut scene, entries, centre, room, top, &face);
    }
    scene.height = top + MARGIN / 2.0;
    if !figure.title.is_empty() {
        let place = (scene.width / 2.0, MARGIN + TITLE_SIZE);
        scene.shapes.push(text(&figure.title, place, TITLE_SIZE, Anchor::Middle));
    }
    (scene.width, scene.height) = (scene.width.ceil(), scene.height.ceil());
    Ok(scene)
}

/// Panels in a row: three at most, and four as two rows of two.
fn columns(n_panels: usize) -> usize {
    match n_panels {
        0 | 1 => 1,
        2 | 4 => 2,
        _ => 3,
    }
}

/// Room on the left of a panel for the labels of its y axis and for its title.
fn y_labels_width(panel: &Panel, face: &Face) -> f64 {
    let span = Frame::spans(panel).map_or((1.0, 10.0), |(_, y_span)| y_span);
    let (ticks, _) = ticks(span, panel.y.scale, panel.y.format, MOST_Y_TICKS);
    let widths = ticks.iter().map(|tick| face.width(&tick.label, TICK_SIZE));
    let title = if panel.y.label.is_empty() { 0.0 } else { LABEL_SIZE + 10.0 };
    title + widths.fold(0.0, f64::max) + 8.0
}

/// A panel's place and its axes.
struct Frame {
    plot: Rectangle,
    x_span: (f64, f64),
    y_span: (f64, f64),
    scales: (Scale, Scale),
    x_ticks: (Vec<Tick>, Vec<f64>),
    y_ticks: (Vec<Tick>, Vec<f64>),
    /// Where the middle of the y label stands.
    y_label_x: f64,
}

impl Frame {
    /// The spans of both axes; `None` if nothing has a place.
    fn spans(panel: &Panel) -> Option<((f64, f64), (f64, f64))> {
        // A point counts if it has a place on both axes.
        let (x_scale, y_scale) = (panel.x.scale, panel.y.scale);
        let series = panel.series.iter().flat_map(|series| series.points.iter().copied());
        let bands = panel
            .bands
            .iter()
            .flat_map(|band| band.points.iter().flat_map(|&(x, low, high)| [(x, low), (x, high)]));
        let points: Vec<Place> = series
            .chain(bands)
            .filter(|&(x, y)| has_place(x, x_scale) && has_place(y, y_scale))
            .collect();
        let marks = |direction| {
            let of_direction = move |mark: &&Mark| mark.direction == direction;
            panel.marks.iter().filter(of_direction).map(|mark| mark.at)
        };
        let x = points.iter().map(|point| point.0).chain(marks(Direction::Vertical));
        let y = points.iter().map(|point| point.1).chain(marks(Direction::Horizontal));
        if points.is_empty() {
            return None;
        }
        let ends_have_places = |axis: &Axis| {
            axis.range.is_some_and(|(a, b)| has_place(a, axis.scale) && has_place(b, axis.scale))
        };
        let of_axis = |axis: &Axis, found| match axis.range {
            Some((low, high)) if low < high && ends_have_places(axis) => Some((low, high)),
            _ => found,
        };
        let (x, y) = (span(x, x_scale), span(y, y_scale));
        Some((of_axis(&panel.x, x)?, of_axis(&panel.y, y)?))
    }

    fn new(panel: &Panel, plot: Rectangle, left: f64) -> Frame {
        let (x_span, y_span) = Frame::spans(panel).unwrap_or(((1.0, 10.0), (1.0, 10.0)));
        let most_x = (plot.width / 60.0) as usize;
        Frame {
            plot,
            x_span,
            y_span,
            scales: (panel.x.scale, panel.y.scale),
            x_ticks: ticks(x_span, panel.x.scale, panel.x.format, most_x),
            y_ticks: ticks(y_span, panel.y.scale, panel.y.format, MOST_Y_TICKS),
            y_label_x: left + LABEL_SIZE,
        }
    }

    fn x(&self, value: f64) -> f64 {
        self.plot.left + self.plot.width * fraction(value, self.x_span, self.scales.0)
    }

    fn y(&self, value: f64) -> f64 {
        self.plot.bottom() - self.plot.height * fraction(value, self.y_span, self.scales.1)
    }

    fn draw(&self, panel: &Panel, scene: &mut Scene, face: &Face) {
        let clip = scene.clips.len();
        // Half a line's width more, so that a curve along the edge is not thinned.
        let Rectangle { left, top, width, height } = self.plot;
        scene.clips.push(Rectangle {
            left: left - 1.0,
            top: top - 1.0,
            width: width + 2.0,
            height: height + 2.0,
        });
        self.draw_axes(panel, scene);
        for band in &panel.bands {
            self.draw_band(band, clip, scene);
        }
        for mark in &panel.marks {
            self.draw_mark_line(mark, scene);
        }
        for series in &panel.series {
            self.draw_series(series, clip, scene);
        }
        for mark in &panel.marks {
            self.draw_mark_label(mark, panel, scene, face);
        }
    }

    fn draw_axes(&self, panel: &Panel, scene: &mut Scene) {
        let plot = &self.plot;
        let (left, right, top, bottom) = (plot.left, plot.right(), plot.top, plot.bottom());
        let mut line = |from: Place, to: Place, colour: Colour| {
            let (places, stroke) = (vec![from, to], Stroke::solid(colour, 1.0));
            scene.shapes.push(Shape::Line { places, stroke, clip: None });
        };
        for tick in &self.x_ticks.0 {
            let x = self.x(tick.value);
            line((x, top), (x, bottom), PALE);
            line((x, bottom), (x, bottom + 5.0), BLACK);
        }
        for tick in &self.y_ticks.0 {
            let y = self.y(tick.value);
            line((left, y), (right, y), PALE);
            line((left - 5.0, y), (left, y), BLACK);
        }
        for &value in &self.x_ticks.1 {
            let x = self.x(value);
            line((x, bottom), (x, bottom + 3.0), BLACK);
        }
        for &value in &self.y_ticks.1 {
            let y = self.y(value);
            line((left - 3.0, y), (left, y), BLACK);
        }
        line((left, top), (left, bottom), BLACK);
        line((left, bottom), (right, bottom), BLACK);

        for tick in &self.x_ticks.0 {
            let place = (self.x(tick.value), bottom + TICK_SIZE + 6.0);
            scene.shapes.push(text(&tick.label, place, TICK_SIZE, Anchor::Middle));
        }
        for tick in &self.y_ticks.0 {
            let place = (left - 8.0, self.y(tick.value) + 0.36 * TICK_SIZE);
            scene.shapes.push(text(&tick.label, place, TICK_SIZE, Anchor::End));
        }
        let middle = (left + plot.width / 2.0, top + plot.height / 2.0);
        let place = (middle.0, bottom + TICK_SIZE + LABEL_SIZE + 14.0);
        scene.shapes.push(text(&panel.x.label, place, LABEL_SIZE, Anchor::Middle));
        scene.shapes.push(Shape::Text(Text {
            upwards: true,
            ..words(&panel.y.label, (self.y_label_x, middle.1), LABEL_SIZE, Anchor::Middle)
        }));
        let place = (middle.0, top - 8.0);
        scene.shapes.push(text(&panel.title, place, PANEL_TITLE_SIZE, Anchor::Middle));
    }

    fn draw_series(&self, series: &Series, clip: usize, scene: &mut Scene) {
        let colour = palette(series.colour);
        let stroke = stroke(series);
        let clip = Some(clip);
        for piece in self.pieces(&series.points, |&(x, y)| Some((x, y))) {
            match piece.as_slice() {
                &[centre] => {
                    scene.shapes.push(Shape::Dot { centre, radius: 2.5, colour, clip });
                }
                _ => {
                    let places = thinned(piece);
                    scene.shapes.push(Shape::Line { places, stroke, clip });
                }
            }
        }
    }

    fn draw_band(&self, band: &Band, clip: usize, scene: &mut Scene) {
        let mut lower = self
            .pieces(&band.points, |&(x, low, high)| self.has_place(x, high).then_some((x, low)));
        let upper = self
            .pieces(&band.points, |&(x, low, high)| self.has_place(x, low).then_some((x, high)));
        for (lower, mut upper) in lower.drain(..).zip(upper) {
            upper.reverse();
            let places = [lower, upper].concat();
            let colour = palette(band.colour);
            scene.shapes.push(Shape::Area { places, colour, opacity: 0.18, clip: Some(clip) });
        }
    }

    /// The places of points, cut where a point has none.
    fn pieces<P>(&self, points: &[P], point: impl Fn(&P) -> Option<Place>) -> Vec<Vec<Place>> {
        let mut pieces = vec![Vec::new()];
        for value in points {
            let place = point(value)
                .filter(|&(x, y)| self.has_place(x, y))
                .map(|(x, y)| (self.x(x), self.y(y)));
            match (place, pieces.last_mut()) {
                (Some(place), Some(piece)) => piece.push(place),
                (None, Some(piece)) if !piece.is_empty() => pieces.push(Vec::new()),
                _ => {}
            }
        }
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }

    fn has_place(&self, x: f64, y: f64) -> bool {
        has_place(x, self.scales.0) && has_place(y, self.scales.1)
    }

    /// Where a mark begins and ends; `None` outside the axes.
    fn mark_ends(&self, mark: &Mark) -> Option<(Place, Place)> {
        let (plot, at) = (&self.plot, mark.at);
        let inside = |(low, high): (f64, f64)| at >= low && at <= high;
        match mark.direction {
            Direction::Horizontal if inside(self.y_span) => {
                Some(((plot.left, self.y(at)), (plot.right(), self.y(at))))
            }
            Direction::Vertical if inside(self.x_span) => {
                Some(((self.x(at), plot.bottom()), (self.x(at), plot.top)))
            }
            _ => None,
        }
    }

    fn draw_mark_line(&self, mark: &Mark, scene: &mut Scene) {
        let Some((from, to)) = self.mark_ends(mark) else { return };
        let stroke = Stroke { dash: Some((2.0, 3.0)), ..Stroke::solid(GREY, 1.3) };
        scene.shapes.push(Shape::Line { places: vec![from, to], stroke, clip: None });
    }

    /// Along the line, at that of a few places where it covers least of the curves.
    fn draw_mark_label(&self, mark: &Mark, panel: &Panel, scene: &mut Scene, face: &Face) {
        const PARTS: [f64; 5] = [0.0, 1.0, 0.5, 0.25, 0.75];
        let Some((from, to)) = self.mark_ends(mark) else { return };
        let length = face.width(&mark.label, TICK_SIZE);
        let (upwards, places): (bool, Vec<Place>) = match mark.direction {
            Direction::Horizontal => {
                let (first, last) = (from.0 + 6.0, to.0 - 6.0 - length);
                let starts = PARTS.map(|part| first + part * (last - first));
                let above = starts.map(|x| (x, from.1 - 5.0));
                (false, above.into_iter().chain(starts.map(|x| (x, from.1 + 14.0))).collect())
            }
            Direction::Vertical => {
                let (first, last) = (from.1 - 6.0, to.1 + 6.0 + length);
                let starts = PARTS.map(|part| first + part * (last - first));
                let before = starts.map(|y| (from.0 - 5.0, y));
                (true, before.into_iter().chain(starts.map(|y| (from.0 + 14.0, y))).collect())
            }
        };
        let covered = |&(x, y): &Place| -> usize {
            let (left, top, width, height) = match upwards {
                false => (x, y - TICK_SIZE, length, TICK_SIZE + 3.0),
                true => (x - TICK_SIZE, y - length, TICK_SIZE + 3.0, length),
            };
            self.curve_places(panel, &Rectangle { left, top, width, height })
        };
        let Some(place) = places.into_iter().min_by_key(covered) else { return };
        let words = words(&mark.label, place, TICK_SIZE, Anchor::Start);
        scene.shapes.push(Shape::Text(Text { upwards, rim: true, colour: GREY, ..words }));
    }

    /// How many places of the panel's curves, taken every few pixels, lie in a box.
    fn curve_places(&self, panel: &Panel, area: &Rectangle) -> usize {
        const BETWEEN: usize = 16;
        let inside = |(x, y): Place| {
            x >= area.left && x <= area.right() && y >= area.top && y <= area.bottom()
        };
        let mut n_inside = 0;
        for series in &panel.series {
            for piece in self.pieces(&series.points, |&(x, y)| Some((x, y))) {
                for pair in piece.windows(2) {
                    let part = |i: usize| i as f64 / BETWEEN as f64;
                    let along = |a: f64, b: f64, i: usize| a + (b - a) * part(i);
                    let between =
                        |i| (along(pair[0].0, pair[1].0, i), along(pair[0].1, pair[1].1, i));
                    n_inside += (0..BETWEEN).filter(|&i| inside(between(i))).count();
                }
            }
        }
        n_inside
    }
}

/// The same curve to the eye: of the places within half a pixel of x, the first, the highest, the
/// lowest and the last. A long run has more points than an image has columns.
fn thinned(places: Vec<Place>) -> Vec<Place> {
    const FEW: usize = 2000;
    if places.len() <= FEW {
        return places;
    }
    let column = |place: &Place| (2.0 * place.0).floor();
    let by_height = |a: &&(usize, Place), b: &&(usize, Place)| a.1.1.total_cmp(&b.1.1);
    let places: Vec<(usize, Place)> = places.into_iter().enumerate().collect();
    let mut kept = Vec::new();
    for chunk in places.chunk_by(|a, b| column(&a.1) == column(&b.1)) {
        let ends = [chunk.first(), chunk.last()];
        let extremes = [chunk.iter().min_by(by_height), chunk.iter().max_by(by_height)];
        let mut few: Vec<(usize, Place)> =
            ends.into_iter().chain(extremes).flatten().copied().collect();
        few.sort_by_key(|&(index, _)| index);
        few.dedup_by_key(|(index, _)| *index);
        kept.extend(few.into_iter().map(|(_, place)| place));
    }
    kept
}

/// The curves that a legend names: each name once, and none that is not to be seen.
fn legend_entries(panel: &Panel) -> Vec<&Series> {
    let mut entries: Vec<&Series> = Vec::new();
    let is_seen = |&(x, y): &Place| has_place(x, panel.x.scale) && has_place(y, panel.y.scale);
    let is_named = |series: &&Series| !series.name.is_empty() && series.points.iter().any(is_seen);
    for series in panel.series.iter().filter(is_named) {
        if !entries.iter().any(|known| same_entry(known, series)) {
            entries.push(series);
        }
    }
    entries
}

fn same_entry(a: &Series, b: &Series) -> bool {
    (&a.name, a.colour, a.style, a.weight) == (&b.name, b.colour, b.style, b.weight)
}

fn same_entries(a: &[&Series], b: &[&Series]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_entry(a, b))
}

/// Draws a legend in centred rows below `top`, and gives where it ends.
fn legend(
    scene: &mut Scene,
    entries: &[&Series],
    centre: f64,
    room: f64,
    top: f64,
    face: &Face,
) -> f64 {
    const BETWEEN: f64 = 22.0;
    let width = |series: &Series| SAMPLE + 7.0 + face.width(&series.name, LABEL_SIZE);
    // Columns of one width line the rows up; they are as many as have room.
    let widest = entries.iter().map(|series| width(series)).fold(0.0, f64::max);
    let columns = (((room + BETWEEN) / (widest + BETWEEN)) as usize).clamp(1, entries.len().max(1));
    let n_rows = entries.len().div_ceil(columns);
    let columns = entries.len().div_ceil(n_rows.max(1));
    let all: f64 = columns as f64 * (widest + BETWEEN) - BETWEEN;
    for (index, series) in entries.iter().enumerate() {
        let (row, column) = (index / columns, index % columns);
        let left = centre - all / 2.0 + column as f64 * (widest + BETWEEN);
        let middle = top + (row as f64 + 0.5) * LEGEND_ROW;
        let places = vec![(left, middle), (left + SAMPLE, middle)];
        scene.shapes.push(Shape::Line { places, stroke: stroke(series), clip: None });
        let place = (left + SAMPLE + 7.0, middle + 0.36 * LABEL_SIZE);
        scene.shapes.push(text(&series.name, place, LABEL_SIZE, Anchor::Start));
    }
    top + n_rows as f64 * LEGEND_ROW
}

fn stroke(series: &Series) -> Stroke {
    let (width, opacity) = match series.weight {
        Weight::Normal => (2.0, 1.0),
        Weight::Thin => (1.0, 0.45),
    };
    let dash = match series.style {
        Style::Solid => None,
        Style::Dashed => Some((6.0, 3.5)),
    };
    Stroke { colour: palette(series.colour), width, opacity, dash }
}

fn palette(index: usize) -> Colour {
    PALETTE[index % PALETTE.len()]
}

fn words(text: &str, place: Place, size: f64, anchor: Anchor) -> Text {
    let text = text.to_owned();
    Text { text, place, size, anchor, upwards: false, rim: false, colour: BLACK }
}

fn text(text: &str, place: Place, size: f64, anchor: Anchor) -> Shape {
    Shape::Text(words(text, place, size, anchor))
}
