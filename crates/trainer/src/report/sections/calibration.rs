//! How far the probabilities can be believed.

use maud::{Markup, html};

use super::{Spot, missing, scrolled};
use crate::evaluation::outcomes::{Bin, bin_ends};
use crate::report::judgement::Judgement;
use crate::report::reported_run::Shown;
use crate::terminal::text::{counted, grouped, percent};

/// Sides of the diagram, and the room for its words.
const SIDE: f64 = 260.0;
const LEFT: f64 = 46.0;
const TOP: f64 = 10.0;
const BELOW: f64 = 40.0;
/// Height of the bars that count images.
const COUNTS: f64 = 50.0;

/// The part.
pub fn section(judgement: &Shown<Judgement>, spot: &Spot) -> Markup {
    let body = match judgement {
        Err(reason) => missing(reason),
        Ok(judgement) => match judgement.outcomes.ece() {
            None => missing("no image got an answer"),
            Some(ece) => html! {
                p {
                    "Expected calibration error: " strong { (format!("{ece:.4}")) } " on "
                    (counted(judgement.n_images(), "image"))
                    ". Images are put together by the probability of their likeliest class, in 15 ranges of equal \
                     width. Where bars end on the diagonal, an answer with 80 % is right 8 times of 10; bars below \
                     it tell of a network that is too sure of itself."
                }
                (diagram(&judgement.outcomes.bins(), ece))
                (numbers(&judgement.outcomes.bins()))
            },
        },
    };
    spot.section("calibration", "Calibration", body)
}

/// Accuracy against probability, and below it how many images each range has.
fn diagram(bins: &[Bin], ece: f64) -> Markup {
    let (width, height) = (LEFT + SIDE + 24.0, TOP + SIDE + 16.0 + COUNTS + BELOW);
    let x = |share: f64| LEFT + SIDE * share;
    let y = |share: f64| TOP + SIDE * (1.0 - share);
    let most = bins.iter().map(|bin| bin.images).max().unwrap_or(0).max(1);
    let floor = TOP + SIDE + 16.0 + COUNTS;
    let bars = || {
        bins.iter().enumerate().filter(|(_, bin)| bin.images > 0).map(|(index, bin)| {
            let (low, high) = bin_ends(index);
            (x(low) + 1.0, SIDE * (high - low) - 2.0, bin)
        })
    };
    let label = format!(
        "Reliability diagram: accuracy against the probability of the likeliest class; expected calibration error \
         {ece:.4}. The numbers follow in a table."
    );
    html! {
        svg.calibration viewBox=(format!("0 0 {width} {height}")) role="img" aria-label=(label) {
            @for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
                line.grid x1=(x(0.0)) x2=(x(1.0)) y1=(y(tick)) y2=(y(tick)) {}
                text.end x=(LEFT - 6.0) y=(y(tick) + 4.0) { (format!("{:.0} %", 100.0 * tick)) }
                text.middle x=(x(tick)) y=(floor + 16.0) { (format!("{:.0} %", 100.0 * tick)) }
            }
            @for (left, width, bin) in bars() {
                @let accuracy = bin.accuracy().unwrap_or(0.0);
                rect.accuracy x=(left) width=(width) y=(y(accuracy)) height=(SIDE * accuracy) {}
                @let share = bin.images as f64 / most as f64;
                rect.count x=(left) width=(width) y=(floor - COUNTS * share) height=(COUNTS * share) {}
            }
            line.ideal x1=(x(0.0)) y1=(y(0.0)) x2=(x(1.0)) y2=(y(1.0)) {}
            @for (left, width, bin) in bars() {
                @let (accuracy, mean) = (bin.accuracy().unwrap_or(0.0), bin.confidence().unwrap_or(0.0));
                line.gap x1=(left + width / 2.0) x2=(left + width / 2.0) y1=(y(accuracy)) y2=(y(mean)) {}
                circle.mean cx=(left + width / 2.0) cy=(y(mean)) r="3.5" {}
            }
            text.middle x=(x(0.5)) y=(floor + 34.0) { "probability of the likeliest class" }
        }
        ul.key {
            li { span.swatch.accuracy {} "accuracy" }
            li { span.swatch.mean {} "mean probability" }
            li { span.swatch.count {} "images in the range, " (grouped(most)) " at most" }
        }
    }
}

fn numbers(bins: &[Bin]) -> Markup {
    let or_dash = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), percent);
    let table = html! {
        table {
            thead {
                tr {
                    th scope="col" { "probability" }
                    th.number scope="col" { "images" }
                    th.number scope="col" { "mean probability" }
                    th.number scope="col" { "accuracy" }
                }
            }
            tbody {
                @for (index, bin) in bins.iter().enumerate() {
                    @let (low, high) = bin_ends(index);
                    tr {
                        th scope="row" { (format!("{:.1} to {:.1} %", 100.0 * low, 100.0 * high)) }
                        td.number { (grouped(bin.images)) }
                        td.number { (or_dash(bin.confidence())) }
                        td.number { (or_dash(bin.accuracy())) }
                    }
                }
            }
        }
    };
    html! { details { summary { "The numbers of the diagram" } (scrolled("Calibration by range", table)) } }
}
