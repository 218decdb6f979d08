//! Which classes were taken for which.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{Spot, missing, scrolled};
use crate::evaluation::confusion::confusion_map;
use crate::evaluation::outcomes::Outcomes;
use crate::report::judgement::Judgement;
use crate::report::picture::data_uri;
use crate::report::reported_run::Shown;
use crate::terminal::text::{counted, grouped};

/// Up to so many classes every cell has its count; above, cells are too small for numbers.
const MOST_NAMED: usize = 40;

/// Pairs in the list of the most confused.
const MOST_PAIRS: usize = 20;

/// The part.
pub fn section(judgement: &Shown<Judgement>, spot: &Spot) -> Markup {
    let body = match judgement {
        Err(reason) => missing(reason),
        Ok(judgement) => {
            let outcomes = &judgement.outcomes;
            html! {
                p {
                    "How many images of each class (rows) were taken for each class (columns), of "
                    (counted(judgement.n_images(), "image"))
                    ". Right ones are blue, wrong ones orange; the shade tells their share of the row."
                }
                @if outcomes.classes.len() <= MOST_NAMED { (matrix(outcomes)) } @else { (shades(outcomes)) }
                (pairs(outcomes))
            }
        }
    };
    spot.section("confusion", "Confusion of classes", body)
}

fn matrix(outcomes: &Outcomes) -> Markup {
    let cells = &outcomes.evaluation.confusion;
    let classes = &outcomes.classes;
    let sum = |label: u32| (0..classes.len() as u32).filter_map(|p| cells.get(&(label, p))).sum();
    let table = html! {
        table.confusion {
            thead {
                tr {
                    th scope="col" { "class \\ taken for" }
                    @for name in classes { th.column scope="col" { span { (name) } } }
                }
            }
            tbody {
                @for (label, name) in (0..).zip(classes) {
                    @let of_row = sum(label);
                    tr {
                        th scope="row" { (name) }
                        @for predicted in 0..classes.len() as u32 {
                            (cell(cells, classes, (label, predicted), of_row))
                        }
                    }
                }
            }
        }
    };
    scrolled("Confusion matrix", table)
}

fn cell(
    cells: &BTreeMap<(u32, u32), u64>,
    classes: &[String],
    (label, predicted): (u32, u32),
    of_row: u64,
) -> Markup {
    let Some(&count) = cells.get(&(label, predicted)) else {
        return html! { td.none { span.unseen { "0" } } };
    };
    // The square root lets a few mistakes be seen beside many right answers.
    let share = (count as f64 / of_row.max(1) as f64).sqrt();
    let title = format!(
        "{count} of {of_row} images of {} taken for {}",
        classes[label as usize], classes[predicted as usize]
    );
    let kind = if label == predicted { "right" } else { "wrong" };
    html! { td class=(kind) style=(format!("--share:{share:.3}")) title=(title) { (grouped(count)) } }
}

/// The matrix of many classes as a picture.
fn shades(outcomes: &Outcomes) -> Markup {
    match confusion_map(&outcomes.classes, &outcomes.evaluation).to_png() {
        Ok(bytes) => html! {
            img.matrix src=(data_uri("image/png", &bytes))
                alt="The confusion matrix in shades; the pairs that are confused most are listed below";
        },
        Err(error) => missing(&error.to_string()),
    }
}

fn pairs(outcomes: &Outcomes) -> Markup {
    let pairs = outcomes.confused_pairs();
    if pairs.is_empty() {
        return html! {};
    }
    let rows = outcomes.per_class();
    let name = |class: u32| outcomes.classes[class as usize].as_str();
    let shown = &pairs[..pairs.len().min(MOST_PAIRS)];
    let table = html! {
        table.sortable {
            thead {
                tr {
                    th scope="col" { "class" }
                    th scope="col" { "taken for" }
                    th.number scope="col" { "images" }
                    th.number scope="col" { "of the class" }
                }
            }
            tbody {
                @for pair in shown {
                    @let images = rows[pair.label as usize].count.images;
                    @let share = pair.count as f64 / images.max(1) as f64;
                    tr {
                        th scope="row" { (name(pair.label)) }
                        td { (name(pair.predicted)) }
                        td.number { (grouped(pair.count)) }
                        td.number.bar.wrong data-value=(share) style=(format!("--share:{share:.3}")) {
                            (format!("{:.1} %", 100.0 * share))
                        }
                    }
                }
            }
        }
    };
    let title = match shown.len() == pairs.len() {
        true => format!("All {}", counted(pairs.len() as u64, "confused pair")),
        false => format!("The {MOST_PAIRS} most confused of {} pairs", grouped(pairs.len() as u64)),
    };
    html! {
        details open[outcomes.classes.len() > MOST_NAMED] {
            summary { (title) }
            (scrolled("Confused pairs", table))
        }
    }
}
