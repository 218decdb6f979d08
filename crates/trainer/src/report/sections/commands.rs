//! Commands to go on.

use std::path::Path;

use maud::{Markup, html};

use super::Spot;
use crate::page::commands::commands;
use crate::report::reported_run::ReportedRun;
use crate::terminal::text::quoted;

/// The part.
pub fn section(of: &ReportedRun, spot: &Spot) -> Markup {
    let folder = &of.run.folder;
    let mut commands = commands(folder, &of.status);
    let parent = folder.path().parent().filter(|parent| !parent.as_os_str().is_empty());
    let runs = quoted(parent.unwrap_or(Path::new(".")));
    commands
        .push(("Watch runs live, this one among them", format!("bninception dashboard {runs}")));
    let body = html! {
        p.hint { "Paths are those of the folder in which this page was made. A click selects a command." }
        @for (what, command) in &commands {
            p.before { (what) ":" }
            pre.commands tabindex="0" { code { (command) } }
        }
    };
    spot.section("commands", "Go on", body)
}
