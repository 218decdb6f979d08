//! A scene as SVG.

use std::fmt::Write;

use super::font::FAMILIES;
use super::scene::{Anchor, Place, Scene, Shape, Stroke, Text};

/// The text of the file.
pub(super) fn to_text(title: &str, scene: &Scene) -> String {
    let (width, height) = (number(scene.width), number(scene.height));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" font-family=\"{FAMILIES}\">\n\
         <title>{}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        escape(title)
    );
    for (index, clip) in scene.clips.iter().enumerate() {
        let [x, y, w, h] = [clip.left, clip.top, clip.width, clip.height].map(number);
        push(
            &mut svg,
            format_args!(
                "<clipPath id=\"panel{index}\"><rect x=\"{x}\" y=\"{y}\" width=\"{w}\" \
                 height=\"{h}\"/></clipPath>\n"
            ),
        );
    }
    for shape in &scene.shapes {
        svg.push_str(&element(shape));
    }
    svg.push_str("</svg>\n");
    svg
}

fn element(shape: &Shape) -> String {
    match shape {
        Shape::Line { places, stroke, clip } => format!(
            "<polyline points=\"{}\" fill=\"none\"{}{}/>\n",
            points(places),
            stroke_attributes(stroke),
            clip_attribute(*clip)
        ),
        Shape::Area { places, colour, opacity, clip } => format!(
            "<polygon points=\"{}\" fill=\"{}\" fill-opacity=\"{opacity}\"{}/>\n",
            points(places),
            hex(*colour),
            clip_attribute(*clip)
        ),
        Shape::Dot { centre, radius, colour, clip } => format!(
            "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{}\"{}/>\n",
            number(centre.0),
            number(centre.1),
            number(*radius),
            hex(*colour),
            clip_attribute(*clip)
        ),
        Shape::Text(text) => text_element(text),
    }
}

fn text_element(text: &Text) -> String {
    let (x, y) = (number(text.place.0), number(text.place.1));
    let anchor = match text.anchor {
        Anchor::Start => "",
        Anchor::Middle => " text-anchor=\"middle\"",
        Anchor::End => " text-anchor=\"end\"",
    };
    let turn =
        if text.upwards { format!(" transform=\"rotate(-90 {x} {y})\"") } else { String::new() };
    let words = |colour: &str, more: &str| {
        format!(
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{}\" fill=\"{colour}\"{anchor}{turn}{more}>{}</text>\n",
            number(text.size),
            escape(&text.text)
        )
    };
    let letters = words(&hex(text.colour), "");
    // A text of its own below the letters: not every viewer knows `paint-order`, and one that does not
    // paints the rim over them.
    let rim =
        " stroke=\"#ffffff\" stroke-width=\"3\" stroke-linejoin=\"round\" aria-hidden=\"true\"";
    match text.rim {
        true => words("#ffffff", rim) + &letters,
        false => letters,
    }
}

fn stroke_attributes(stroke: &Stroke) -> String {
    let mut text = format!(
        " stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"",
        hex(stroke.colour),
        number(stroke.width)
    );
    if stroke.opacity < 1.0 {
        push(&mut text, format_args!(" stroke-opacity=\"{}\"", stroke.opacity));
    }
    if let Some((dash, gap)) = stroke.dash {
        push(&mut text, format_args!(" stroke-dasharray=\"{} {}\"", number(dash), number(gap)));
    }
    text
}

fn clip_attribute(clip: Option<usize>) -> String {
    clip.map(|index| format!(" clip-path=\"url(#panel{index})\"")).unwrap_or_default()
}

fn points(places: &[Place]) -> String {
    let pairs: Vec<String> =
        places.iter().map(|&(x, y)| format!("{},{}", number(x), number(y))).collect();
    pairs.join(" ")
}

fn hex((red, green, blue): (u8, u8, u8)) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// To a hundredth of a pixel, without trailing zeros.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Text for XML; characters that XML does not allow are left out.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => escaped.push(c),
        }
    }
    escaped
}

fn push(text: &mut String, arguments: std::fmt::Arguments) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(arguments);
}
