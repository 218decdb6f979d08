//! Commands to go on.

use std::path::Path;

use maud::{Markup, html};

use super::Spot;
use crate::comparison::inventory::RunStatus;
use crate::report::reported_run::ReportedRun;
use crate::terminal::text::quoted;

/// The part.
pub fn section(of: &ReportedRun, spot: &Spot) -> Markup {
    let commands = commands(of);
    let body = html! {
        p.hint { "Paths are those of the folder in which this page was made. A click selects a command." }
        @for (what, command) in &commands {
            p.before { (what) }
            pre.commands tabindex="0" { code { (command) } }
        }
    };
    spot.section("commands", "Go on", body)
}

fn commands(of: &ReportedRun) -> Vec<(&'static str, String)> {
    let folder = &of.run.folder;
    let run = quoted(folder.path());
    let mut commands = Vec::new();
    if matches!(of.status, RunStatus::Stopped | RunStatus::Diverged) {
        commands.push(("Go on with the run:", format!("bninception resume {run}")));
    }
    if let Some(checkpoint) = folder.best_or_last() {
        let checkpoint = quoted(&checkpoint);
        commands.extend([
            (
                "Evaluate it on other images:",
                format!("bninception eval {checkpoint} --data-dir DIR"),
            ),
            ("Name pictures:", format!("bninception predict {checkpoint} IMAGE...")),
            ("See what speaks for a class:", format!("bninception explain {checkpoint} IMAGE...")),
            ("Hand the network on:", format!("bninception export {checkpoint} --onnx FILE.onnx")),
        ]);
    }
    let parent = folder.path().parent().filter(|parent| !parent.as_os_str().is_empty());
    let runs = quoted(parent.unwrap_or(Path::new(".")));
    commands
        .push(("Watch runs live, this one among them:", format!("bninception dashboard {runs}")));
    commands.push(("Make this page anew:", format!("bninception report {run}")));
    commands
}
