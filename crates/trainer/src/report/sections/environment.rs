//! What computed the run, and what computed the page.

use maud::{Markup, html};

use super::{Spot, facts, scrolled};
use crate::report::environment;
use crate::report::reported_run::ReportedRun;

/// The part.
pub fn section(of: &ReportedRun, spot: &Spot) -> Markup {
    let of_run = environment::of_run(of.metadata.as_ref(), &of.log);
    let mut now = environment::now();
    if let Ok(judgement) = &of.judgement {
        now.push(("engine", judgement.engine.clone()));
    }
    let starts = &of.log.starts;
    let warnings = &of.log.warnings;
    let body = html! {
        div.columns {
            div {
                p { strong { "The run" } }
                @if of_run.is_empty() { p.quiet { "Its folder does not say." } } @else { (facts(&of_run)) }
            }
            div {
                p { strong { "This page" } }
                (facts(&now))
            }
        }
        @if !starts.is_empty() {
            details {
                summary { "How the run was started" }
                (scrolled("Starts of the run", html! {
                    table {
                        thead { tr { th scope="col" { "when (UTC)" } th scope="col" { "version: command" } } }
                        tbody {
                            @for (time, command) in starts {
                                tr { th scope="row" { (short(time)) } td { code { (command) } } }
                            }
                        }
                    }
                }))
            }
        }
        @if !warnings.is_empty() {
            details {
                summary { "Warnings in the run's log (" (warnings.len()) ")" }
                ul { @for warning in warnings { li { (warning) } } }
            }
        }
    };
    spot.section("environment", "Environment", body)
}

/// A time to the second, without the letters of RFC 3339.
fn short(time: &str) -> String {
    time.split('.').next().unwrap_or(time).replace('T', " ")
}
