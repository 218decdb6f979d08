//! The settings of a run: its preset, what differs from it, and who said so.

use maud::{Markup, html};

use super::{Spot, scrolled};
use crate::config::Recipe;
use crate::error::Error;
use crate::report::reported_run::ReportedRun;

/// The part.
///
/// # Errors
/// None for settings that came from a run.
pub fn section(of: &ReportedRun, spot: &Spot) -> Result<Markup, Error> {
    let run = &of.run;
    let (preset, changes) = run.preset()?;
    let is_known = !run.recipe.is_unknown();
    // A checkpoint remembers who changed a setting; config.toml has no more than the values.
    let stored = of.metadata.as_ref().map(|metadata| &metadata.recipe);
    let recipe: &Recipe = stored.filter(|stored| stored.preset == preset).unwrap_or(&run.recipe);
    let origin = |key: &str| recipe.changed.get(key).map_or("-", String::as_str);
    let table = html! {
        table.settings {
            thead {
                tr {
                    th scope="col" { "setting" }
                    th scope="col" { (preset) }
                    th scope="col" { "this run" }
                    @if is_known { th scope="col" { "from" } }
                }
            }
            tbody {
                @for change in &changes {
                    tr {
                        th scope="row" { code { (change.key) } }
                        td { code { (change.old) } }
                        td { code { (change.new) } }
                        @if is_known { td { (origin(&change.key)) } }
                    }
                }
            }
        }
    };
    let settings = run.config.to_toml()?;
    let body = html! {
        p {
            @if is_known { "Preset " } @else { "The run does not say its preset; the nearest is " }
            code { (preset) } ". "
            @if changes.is_empty() { "No setting differs from it." }
            @else { "These settings differ from it:" }
        }
        @if !changes.is_empty() { (scrolled("Settings that differ from the preset", table)) }
        details {
            summary { "All settings" }
            pre.commands tabindex="0" { code { (settings) } }
        }
    };
    Ok(spot.section("recipe", "Recipe", body))
}
