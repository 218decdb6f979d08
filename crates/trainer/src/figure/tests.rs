use super::*;

fn curve(name: &str, colour: usize, points: Vec<(f64, f64)>) -> Series {
    Series { name: name.to_owned(), points, colour, ..Series::default() }
}

fn panel(series: Vec<Series>) -> Panel {
    Panel {
        title: "training".to_owned(),
        x: Axis::new("steps"),
        y: Axis::new("top-1").percent(),
        series,
        ..Panel::default()
    }
}

fn figure(panels: Vec<Panel>) -> Figure {
    Figure { title: "a < b & c".to_owned(), panels }
}

fn rising(rate: f64) -> Vec<(f64, f64)> {
    (0..40).map(|i| (f64::from(i) * 100.0, 0.8 * (1.0 - (-rate * f64::from(i)).exp()))).collect()
}

#[test]
fn both_files_decode_and_name_every_curve() {
    let series = vec![curve("bn-x5 <fast>", 1, rising(0.3)), curve("inception", 2, rising(0.1))];
    let log = Panel { x: Axis::new("steps").log(), ..panel(series.clone()) };
    let figure = figure(vec![panel(series), log]);
    let dir = tempfile::tempdir().unwrap();
    let (svg_path, png_path) = (dir.path().join("a.svg"), dir.path().join("a.png"));
    figure.write_svg(&svg_path).unwrap();
    figure.write_png(&png_path).unwrap();

    let svg = fs::read_to_string(&svg_path).unwrap();
    for part in ["a &lt; b &amp; c", "bn-x5 &lt;fast&gt;", "inception", "top-1", "20 %", "</svg>"] {
        assert!(svg.contains(part), "no `{part}` in\n{svg}");
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");

    let image = tiny_skia::Pixmap::load_png(&png_path).unwrap();
    let drawn = |colour: usize| {
        let (red, green, blue) = PALETTE[colour];
        let wanted = tiny_skia::PremultipliedColorU8::from_rgba(red, green, blue, 255);
        image.pixels().iter().filter(|&&pixel| Some(pixel) == wanted).count()
    };
    assert!(drawn(1) > 500 && drawn(2) > 500, "{} and {} pixels", drawn(1), drawn(2));
    // Nothing has the colour of a curve that there is not.
    assert_eq!(drawn(3), 0);
}

#[test]
fn the_rim_of_a_label_is_a_text_below_it() {
    let mark =
        Mark { direction: Direction::Horizontal, at: 0.4, label: "best of inception".to_owned() };
    let panel = Panel { marks: vec![mark], ..panel(vec![curve("a", 1, rising(0.3))]) };
    let svg = figure(vec![panel]).to_svg().unwrap();
    let labels: Vec<&str> =
        svg.lines().filter(|line| line.contains(">best of inception</text>")).collect();
    assert_eq!(labels.len(), 2, "{labels:?}");
    assert!(labels[0].contains("stroke=\"#ffffff\"") && labels[0].contains("aria-hidden"));
    assert!(!labels[1].contains("stroke") && !labels[1].contains("#ffffff"), "{}", labels[1]);
    // What not every viewer knows.
    for part in ["paint-order", "style", "dominant-baseline", "class="] {
        assert!(!svg.contains(part), "{part} in\n{svg}");
    }
}

#[test]
fn the_same_figure_has_the_same_bytes() {
    let figure = figure(vec![panel(vec![curve("a", 0, rising(0.2))])]);
    assert_eq!(figure.to_svg().unwrap(), figure.clone().to_svg().unwrap());
    assert_eq!(figure.to_png().unwrap(), figure.clone().to_png().unwrap());
}

#[test]
fn values_that_are_no_numbers_leave_gaps() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    // (points, lines, dots): a piece of two points or more is a line, of one point a dot.
    let table = [
        (vec![(0.0, 1.0), (1.0, 2.0)], 1, 0),
        (vec![(0.0, 1.0), (1.0, nan), (2.0, 3.0), (3.0, 4.0)], 1, 1),
        (vec![(nan, nan), (1.0, 2.0), (2.0, inf), (3.0, -inf), (4.0, 1.0)], 0, 2),
        (vec![(0.0, 1.0), (1.0, 2.0), (nan, 3.0), (2.0, 3.0), (3.0, 4.0)], 2, 0),
    ];
    for (points, lines, dots) in table {
        let series = vec![curve("", 1, points.clone()), curve("empty", 2, vec![])];
        let figure = figure(vec![panel(series)]);
        let svg = figure.to_svg().unwrap();
        let clipped = |element: &str| {
            let is_curve = |line: &&str| line.starts_with(element) && line.contains("clip-path=");
            svg.lines().filter(is_curve).count()
        };
        assert_eq!((clipped("<polyline"), clipped("<circle")), (lines, dots), "{points:?}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        figure.to_png().unwrap();
    }
}

#[test]
fn a_logarithmic_axis_leaves_out_what_has_no_place() {
    let points = vec![(0.0, 0.1), (10.0, 0.2), (100.0, 0.3)];
    let panel = Panel { x: Axis::new("steps").log(), ..panel(vec![curve("a", 1, points)]) };
    let svg = figure(vec![panel]).to_svg().unwrap();
    let curve = svg.lines().find(|line| line.contains("clip-path=")).unwrap();
    assert_eq!(
        curve.split("points=\"").nth(1).unwrap().split('"').next().unwrap().split(' ').count(),
        2
    );
}

#[test]
fn an_empty_figure_is_an_error() {
    let nothing = [
        vec![],
        vec![panel(vec![])],
        vec![panel(vec![curve("a", 0, vec![(f64::NAN, 1.0), (1.0, f64::NAN)])])],
    ];
    for panels in nothing {
        let error = figure(panels).to_svg().unwrap_err().to_string();
        assert!(error.contains("nothing to draw"), "{error}");
    }
    // An empty panel beside a full one is left out, and so is the name of a curve without points.
    let full = || panel(vec![curve("a", 0, rising(0.1)), curve("unseen", 1, vec![])]);
    let empty = || Panel { title: "blank".to_owned(), ..panel(vec![curve("b", 0, vec![])]) };
    let with_empty = figure(vec![empty(), full(), empty()]).to_svg().unwrap();
    assert_eq!(with_empty, figure(vec![full()]).to_svg().unwrap());
    assert!(!with_empty.contains("blank") && !with_empty.contains("unseen"), "{with_empty}");
    // One point is a dot with axes around it.
    let one = figure(vec![panel(vec![curve("a", 0, vec![(5.0, 0.5)])])]).to_svg().unwrap();
    assert!(one.contains("<circle") && !one.contains("NaN"), "{one}");
}

#[test]
fn a_long_curve_is_thinned_and_keeps_its_extremes() {
    let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), 0.5)).collect();
    points[50_123].1 = 1.0;
    points[70_321].1 = 0.0;
    let svg = figure(vec![panel(vec![curve("a", 0, points)])]).to_svg().unwrap();
    assert!(svg.len() < 100_000, "{} bytes", svg.len());
    let line = svg.lines().find(|line| line.contains("clip-path=")).unwrap();
    let places = line.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
    let mut heights: Vec<f64> =
        places.split(' ').map(|place| place.split(',').nth(1).unwrap().parse().unwrap()).collect();
    heights.sort_by(f64::total_cmp);
    heights.dedup();
    assert_eq!(heights.len(), 3, "{heights:?}");
}

#[test]
fn odd_axes_do_not_panic() {
    let values = [0.0, 1e-300, 1.0, 1e300, -1e300, 0.5];
    for scale in [Scale::Linear, Scale::Log] {
        for format in [Format::Number, Format::Percent] {
            for range in [None, Some((2.0, 1.0)), Some((f64::NAN, 1.0)), Some((-1.0, 3.0))] {
                let points = values.iter().map(|&v| (v, v)).collect();
                let axis = Axis { label: "v".to_owned(), scale, format, range };
                let marks = vec![
                    Mark { direction: Direction::Horizontal, at: 2.0, label: "mark".to_owned() },
                    Mark { direction: Direction::Vertical, at: f64::NAN, label: String::new() },
                ];
                let bands =
                    vec![Band { points: vec![(1.0, 0.5, 2.0), (2.0, f64::NAN, 3.0)], colour: 9 }];
                let series = vec![curve("a", 99, points)];
                let panel =
                    Panel { title: String::new(), x: axis.clone(), y: axis, series, bands, marks };
                figure(vec![panel.clone()]).to_png().unwrap();
                figure(vec![panel; 5]).to_svg().unwrap();
            }
        }
    }
}
