//! The span of an axis, the values that it labels, and how they are written.

use super::chart::{Format, Scale};

/// A labelled value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) value: f64,
    pub(super) label: String,
}

/// Where an axis begins and ends: the values' own span with a little room.
///
/// A linear axis of values that are not negative begins at 0 if they come near it. `None` if no
/// value has a place on the scale.
pub(super) fn span(values: impl Iterator<Item = f64>, scale: Scale) -> Option<(f64, f64)> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(|&value| has_place(value, scale)) {
        (low, high) = (low.min(value), high.max(value));
    }
    if low > high {
        return None;
    }
    match scale {
        Scale::Linear if low == high => {
            let room = if low == 0.0 { 1.0 } else { 0.1 * low.abs() };
            Some((low - room, high + room))
        }
        Scale::Linear => {
            let room = 0.04 * (high - low);
            let first = if low >= 0.0 && low < 0.25 * high { 0.0 } else { low - room };
            Some((first, high + room))
        }
        Scale::Log if low == high => Some((low / 2.0, high * 2.0)),
        Scale::Log => {
            let room = (high / low).powf(0.03);
            Some((low / room, high * room))
        }
    }
}

/// Whether a value can be drawn. One beyond 1e100 cannot: it stems from a run that has diverged, and
/// sums of such values would be no numbers.
pub(super) fn has_place(value: f64, scale: Scale) -> bool {
    match scale {
        Scale::Linear => value.abs() < 1e100,
        Scale::Log => value > 1e-100 && value < 1e100,
    }
}

/// Where a value stands between the ends of an axis: 0 at `low`, 1 at `high`.
pub(super) fn fraction(value: f64, (low, high): (f64, f64), scale: Scale) -> f64 {
    match scale {
        Scale::Linear => (value - low) / (high - low),
        Scale::Log => (value.ln() - low.ln()) / (high.ln() - low.ln()),
    }
}

/// The labelled values between `low` and `high`, at most about `most`, and those that get a short
/// line without a label.
pub(super) fn ticks(
    span: (f64, f64),
    scale: Scale,
    format: Format,
    most: usize,
) -> (Vec<Tick>, Vec<f64>) {
    match scale {
        Scale::Linear => (linear(span, format, most), Vec::new()),
        Scale::Log => logarithmic(span, format, most),
    }
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn linear((low, high): (f64, f64), format: Format, most: usize) -> Vec<Tick> {
    let wanted = (high - low) / most.max(1) as f64;
    let power = 10_f64.powf(wanted.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= wanted * 0.999);
    let step = factor.unwrap_or(10.0) * power;
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    // The step's own digits, so that 0.1 * 3 is 0.3.
    let values = (first..=last).map(|index| index as f64 * step);
    values
        .map(|value| Tick { value, label: label(value, step, high.abs().max(low.abs()), format) })
        .collect()
}

/// Powers of ten; in a short span 1, 2 and 5 of each, in a very short one linear values.
fn logarithmic((low, high): (f64, f64), format: Format, most: usize) -> (Vec<Tick>, Vec<f64>) {
    let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    let inside = |value: f64| value >= low * (1.0 - 1e-9) && value <= high * (1.0 + 1e-9);
    let multiples = |factors: &[i32]| -> Vec<f64> {
        let all = decades.clone().flat_map(|decade| {
            factors.iter().map(move |&factor| f64::from(factor) * 10_f64.powi(decade))
        });
        all.filter(|&value| inside(value)).collect()
    };
    let tens = multiples(&[1]);
    let fives = multiples(&[1, 2, 5]);
    let minor = multiples(&[2, 3, 4, 5, 6, 7, 8, 9]);
    if fives.len() < 3 {
        return (linear((low, high), format, most), minor);
    }
    let values = match tens.len() {
        n if n < 3 || fives.len() <= most => fives,
        n => tens.into_iter().step_by(n.div_ceil(most.max(1))).collect(),
    };
    let tick = |value: f64| Tick { value, label: label(value, value, value, format) };
    (values.into_iter().map(tick).collect(), minor)
}

/// A value with as many digits as a difference of `step` needs, on an axis that goes to `largest`.
fn label(value: f64, step: f64, largest: f64, format: Format) -> String {
    match format {
        Format::Percent => format!("{} %", decimal(100.0 * value, 100.0 * step)),
        Format::Number => number(value, step, largest),
    }
}

/// `largest` chooses the unit, so that all labels of a linear axis have the same.
fn number(value: f64, step: f64, largest: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    for (from, unit, name) in [(1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")] {
        if largest >= from {
            return format!("{}{name}", decimal(value / unit, step / unit));
        }
    }
    let magnitude = value.abs();
    if magnitude < 1e-4 {
        let exponent = magnitude.log10().floor() as i32;
        let mantissa = decimal(value / 10_f64.powi(exponent), step / 10_f64.powi(exponent));
        let power = format!("10{}", superscript(exponent));
        return if mantissa == "1" { power } else { format!("{mantissa}·{power}") };
    }
    decimal(value, step)
}

fn decimal(value: f64, step: f64) -> String {
    // One digit for each power of ten below 1, and one more where the step is 2.5 of them.
    let digits = (-(step.abs().log10() + 1e-9).floor()).clamp(0.0, 12.0) as usize;
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    };
    // The typographic minus is as wide as a digit.
    if text == "-0" { "0".to_owned() } else { text.replace('-', "\u{2212}") }
}

fn superscript(exponent: i32) -> String {
    let digit = |c| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        c => char::from_u32('⁰' as u32 + (c as u32 - '0' as u32)).unwrap_or(c),
    };
    exponent.to_string().chars().map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(span: (f64, f64), scale: Scale, format: Format) -> Vec<String> {
        ticks(span, scale, format, 6).0.into_iter().map(|tick| tick.label).collect()
    }

    type Span = (f64, f64);

    #[test]
    fn labels_are_round_and_no_longer_than_needed() {
        use Format::{Number, Percent};
        use Scale::{Linear, Log};
        let table: [(Span, Scale, Format, &[&str]); 12] = [
            ((0.0, 10.0), Linear, Number, &["0", "2", "4", "6", "8", "10"]),
            ((0.0, 0.5), Linear, Number, &["0", "0.1", "0.2", "0.3", "0.4", "0.5"]),
            ((0.0, 0.78), Linear, Percent, &["0 %", "20 %", "40 %", "60 %"]),
            ((0.701, 0.722), Linear, Percent, &["70.5 %", "71 %", "71.5 %", "72 %"]),
            ((0.0, 31e6), Linear, Number, &["0", "10M", "20M", "30M"]),
            ((0.0, 9_400.0), Linear, Number, &["0", "2000", "4000", "6000", "8000"]),
            ((900.0, 2_600.0), Linear, Number, &["1000", "1500", "2000", "2500"]),
            ((-3.0, 3.0), Linear, Number, &["−3", "−2", "−1", "0", "1", "2", "3"]),
            ((100.0, 2e6), Log, Number, &["100", "1000", "10k", "100k", "1M"]),
            ((300.0, 9e3), Log, Number, &["500", "1000", "2000", "5000"]),
            ((1e-6, 1e-2), Log, Number, &["10⁻⁶", "10⁻⁵", "0.0001", "0.001", "0.01"]),
            ((0.0015, 0.045), Log, Number, &["0.002", "0.005", "0.01", "0.02"]),
        ];
        for (span, scale, format, expected) in table {
            assert_eq!(labels(span, scale, format), expected, "{span:?}, {scale:?}");
        }
    }

    #[test]
    fn spans_skip_what_has_no_place() {
        let table: [(&[f64], Scale, Option<Span>); 7] = [
            (&[], Scale::Linear, None),
            (&[f64::NAN, f64::INFINITY], Scale::Linear, None),
            (&[0.0, -1.0], Scale::Log, None),
            (&[0.0, 100.0, f64::NAN], Scale::Linear, Some((0.0, 104.0))),
            (&[50.0, 100.0], Scale::Linear, Some((48.0, 102.0))),
            (&[5.0], Scale::Linear, Some((4.5, 5.5))),
            (&[0.0, 7.0], Scale::Log, Some((3.5, 14.0))),
        ];
        for (values, scale, expected) in table {
            assert_eq!(span(values.iter().copied(), scale), expected, "{values:?}");
        }
    }
}
