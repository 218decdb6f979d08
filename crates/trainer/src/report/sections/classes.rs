//! Recall, precision and F1 of every class.

use maud::{Markup, html};

use super::{Spot, missing, scrolled};
use crate::evaluation::interval::Interval;
use crate::evaluation::outcomes::ClassRow;
use crate::report::judgement::Judgement;
use crate::report::reported_run::Shown;
use crate::terminal::text::{grouped, percent};

/// Up to so many classes all of them are shown; of more, the ends first.
const MOST_OPEN: usize = 60;

/// Classes of each end.
const OF_AN_END: usize = 20;

/// From so many classes on a table can be filtered.
const FILTERED: usize = 15;

type NamedRow<'a> = (&'a String, &'a ClassRow);

/// The part.
pub fn section(judgement: &Shown<Judgement>, spot: &Spot) -> Markup {
    let body = match judgement {
        Err(reason) => missing(reason),
        Ok(judgement) => {
            let rows = judgement.outcomes.per_class();
            let all: Vec<NamedRow<'_>> = judgement.outcomes.classes.iter().zip(&rows).collect();
            html! {
                p.hint {
                    "Recall: the share of a class's images that were right, with its 95 % interval. Precision: the \
                     share of right ones among all that were taken for the class. F1: their harmonic mean. A head \
                     sorts the table."
                }
                (tables(&all, spot))
            }
        }
    };
    spot.section("classes", "Classes", body)
}

fn tables(all: &[NamedRow<'_>], spot: &Spot) -> Markup {
    if all.len() <= MOST_OPEN {
        return table(
            all,
            "Recall and precision of each class",
            (all.len() >= FILTERED).then(|| spot.id("filter")),
        );
    }
    // What no image says anything of is at neither end.
    let mut ranked: Vec<NamedRow<'_>> =
        all.iter().copied().filter(|(_, row)| row.count.images > 0).collect();
    ranked.sort_by(|(_, a), (_, b)| {
        let key = |row: &ClassRow| row.f1().unwrap_or(0.0);
        key(a).total_cmp(&key(b))
    });
    let n = ranked.len().min(OF_AN_END);
    let best: Vec<NamedRow<'_>> = ranked.iter().rev().take(n).copied().collect();
    html! {
        details open { summary { "The " (n) " classes with the lowest F1" } (table(&ranked[..n], "Worst classes", None)) }
        details { summary { "The " (n) " classes with the highest F1" } (table(&best, "Best classes", None)) }
        details {
            summary { "All " (grouped(all.len() as u64)) " classes" }
            (table(all, "All classes", Some(spot.id("filter"))))
        }
    }
}

fn table(rows: &[NamedRow<'_>], label: &str, filter: Option<String>) -> Markup {
    let table = html! {
        table.sortable data-filter=[filter.as_ref()] {
            thead {
                tr {
                    th scope="col" { "class" }
                    th.number scope="col" { "images" }
                    th.number scope="col" { "recall" }
                    th.number.fixed scope="col" { "95 %" }
                    th.number scope="col" { "precision" }
                    th.number scope="col" { "F1" }
                    th.number scope="col" { "mean probability" }
                }
            }
            tbody { @for row in rows { (line(*row)) } }
        }
    };
    html! {
        @if let Some(id) = &filter {
            p {
                label for=(id) { "Classes whose row holds " }
                input type="search" id=(id) autocomplete="off"; " "
                output for=(id) {}
            }
        }
        (scrolled(label, table))
    }
}

fn line((name, row): NamedRow<'_>) -> Markup {
    let interval = Interval::wilson(row.count.right, row.count.images);
    html! {
        tr {
            th scope="row" { (name) }
            td.number data-value=(row.count.images) { (grouped(row.count.images)) }
            (rate(row.count.recall()))
            td.number { @match interval { Some(found) => (found.to_text()), None => "-" } }
            (rate(row.precision()))
            (rate(row.f1()))
            (rate(row.mean_probability().filter(|mean| mean.is_finite())))
        }
    }
}

/// A rate with a bar behind it; a dash where there is none.
fn rate(rate: Option<f64>) -> Markup {
    match rate {
        Some(rate) => html! {
            td.number.bar data-value=(rate) style=(format!("--share:{rate:.3}")) { (percent(rate)) }
        },
        None => html! { td.number data-value="" { "-" } },
    }
}
