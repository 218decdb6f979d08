//! What a figure shows, before it has places and sizes.

/// A figure: panels side by side, three in a row at most.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figure {
    /// Stands above the panels; may be empty.
    pub title: String,
    /// The panels, in reading order.
    pub panels: Vec<Panel>,
}

/// One pair of axes with what is drawn between them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Panel {
    /// Stands above the panel; may be empty.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// Curves; later ones lie above earlier ones.
    pub series: Vec<Series>,
    /// Filled bands; they lie below all curves.
    pub bands: Vec<Band>,
    /// Reference lines.
    pub marks: Vec<Mark>,
}

/// An axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// What the numbers are, with their unit.
    pub label: String,
    /// How values become places.
    pub scale: Scale,
    /// How values are written.
    pub format: Format,
    /// First and last value; without it the axis spans all values.
    pub range: Option<(f64, f64)>,
}

impl Axis {
    /// A linear axis of plain numbers that spans all values.
    pub fn new(label: &str) -> Axis {
        Axis { label: label.to_owned(), ..Axis::default() }
    }

    /// The same axis, logarithmic: values that are not above 0 have no place on it.
    pub fn log(self) -> Axis {
        Axis { scale: Scale::Log, ..self }
    }

    /// The same axis with fractions written as percentages.
    pub fn percent(self) -> Axis {
        Axis { format: Format::Percent, ..self }
    }
}

/// How values become places on an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Equal distances for equal differences.
    #[default]
    Linear,
    /// Equal distances for equal ratios.
    Log,
}

/// How the values of an axis are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As numbers; 20,000 is 20k and 3,000,000 is 3M.
    #[default]
    Number,
    /// A fraction, 0.5, as 50 %.
    Percent,
}

/// A curve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Its name in the legend; a curve without a name has no entry there.
    pub name: String,
    /// (x, y), in the order in which they are joined. A value that is not finite, or that the scale
    /// has no place for, leaves a gap.
    pub points: Vec<(f64, f64)>,
    /// Solid or dashed.
    pub style: Style,
    /// Normal or thin.
    pub weight: Weight,
    /// Index into [`PALETTE`], counted round.
    pub colour: usize,
}

/// How a curve is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// One stroke.
    #[default]
    Solid,
    /// Dashes.
    Dashed,
}

/// How heavy a curve is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weight {
    /// A curve to be read.
    #[default]
    Normal,
    /// One of several that a normal curve sums up: thin and pale.
    Thin,
}

/// The area between two curves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Band {
    /// (x, lower y, upper y) in order; a value that is not finite leaves a gap.
    pub points: Vec<(f64, f64, f64)>,
    /// Index into [`PALETTE`], counted round.
    pub colour: usize,
}

/// A reference line across a panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Its direction.
    pub direction: Direction,
    /// Where it crosses the axis.
    pub at: f64,
    /// Stands along the line; may be empty.
    pub label: String,
}

/// The direction of a reference line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// At one y.
    Horizontal,
    /// At one x.
    Vertical,
}

/// Colours that people with any kind of colour blindness can tell apart: those of Okabe & Ito,
/// <https://jfly.uni-koeln.de/color/>, without yellow, which is too pale for a line on white, with
/// grey for black, and with a dark brown as the eighth.
pub const PALETTE: [(u8, u8, u8); 8] = [
    (0x40, 0x40, 0x40),
    (0x00, 0x72, 0xb2),
    (0xd5, 0x5e, 0x00),
    (0x00, 0x9e, 0x73),
    (0xcc, 0x79, 0xa7),
    (0xe6, 0x9f, 0x00),
    (0x56, 0xb4, 0xe9),
    (0x6b, 0x3e, 0x0b),
];
