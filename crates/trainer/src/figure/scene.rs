//! Shapes with places in pixels, x to the right and y down.

/// Red, green, blue.
pub(super) type Colour = (u8, u8, u8);

/// A place: x, y.
pub(super) type Place = (f64, f64);

/// A laid-out figure on white.
#[derive(Debug, Default)]
pub(super) struct Scene {
    pub(super) width: f64,
    pub(super) height: f64,
    /// Rectangles to which shapes can be cut.
    pub(super) clips: Vec<Rectangle>,
    /// In the order of painting.
    pub(super) shapes: Vec<Shape>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rectangle {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Rectangle {
    pub(super) fn right(&self) -> f64 {
        self.left + self.width
    }

    pub(super) fn bottom(&self) -> f64 {
        self.top + self.height
    }
}

#[derive(Debug)]
pub(super) enum Shape {
    /// A line through places.
    Line { places: Vec<Place>, stroke: Stroke, clip: Option<usize> },
    /// A filled outline.
    Area { places: Vec<Place>, colour: Colour, opacity: f64, clip: Option<usize> },
    /// A filled circle.
    Dot { centre: Place, radius: f64, colour: Colour, clip: Option<usize> },
    /// A line of text, its baseline at a place.
    Text(Text),
}

impl Shape {
    /// A filled rectangle.
    pub(super) fn area(place: &Rectangle, colour: Colour) -> Shape {
        let (left, right, top, bottom) = (place.left, place.right(), place.top, place.bottom());
        let places = vec![(left, top), (right, top), (right, bottom), (left, bottom)];
        Shape::Area { places, colour, opacity: 1.0, clip: None }
    }

    /// A line from one place to another.
    pub(super) fn thin_line(from: Place, to: Place, colour: Colour) -> Shape {
        Shape::Line { places: vec![from, to], stroke: Stroke::solid(colour, 1.0), clip: None }
    }
}

/// Pixels at a place. They are painted above the areas, lines and texts of a scene.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) place: Rectangle,
    pub(super) width: u32,
    pub(super) height: u32,
    /// Red, green and blue, height x width x 3.
    pub(super) rgb: Vec<u8>,
    /// Whether its pixels run into each other, as of a photograph, or are areas of one colour.
    pub(super) is_smooth: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Stroke {
    pub(super) colour: Colour,
    pub(super) width: f64,
    pub(super) opacity: f64,
    /// Lengths of dash and gap.
    pub(super) dash: Option<(f64, f64)>,
}

impl Stroke {
    pub(super) fn solid(colour: Colour, width: f64) -> Stroke {
        Stroke { colour, width, opacity: 1.0, dash: None }
    }
}

#[derive(Debug)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) place: Place,
    pub(super) size: f64,
    pub(super) anchor: Anchor,
    /// Whether it runs upwards.
    pub(super) upwards: bool,
    /// Whether it has a white rim, because it may stand on a line.
    pub(super) rim: bool,
    pub(super) colour: Colour,
}

/// Which part of a text stands at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}
