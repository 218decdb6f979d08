//! The page: one file of HTML that needs no network.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use maud::{Markup, html};
use serde_json::json;

use crate::comparison::recorded_run::RecordedRun;
use crate::comparison::run_table::RunTable;
use crate::error::Error;
use crate::file_error::FileError;
use crate::page::charts::charts;
use crate::page::{CHARTS_JS, Document, TABLES_JS};
use crate::report::reported_run::ReportedRun;
use crate::report::sections::{self, Spot, scrolled};
use crate::run::atomic_file;
use crate::run::metadata::PROGRAM;
use crate::terminal::text::counted;

/// Points of a curve at most. More than a screen has columns; a page of several runs stays small.
const MOST_POINTS: usize = 1500;

/// Draws what the page says, and makes its tables work.
const START_JS: &str = r#""use strict";
const charts = document.getElementById("charts");
if (charts) bn.charts(charts, bn.data("charts-data"));
bn.tables();
"#;

/// Writes the page of `runs`, one or several, to `path`: in one step, so that nobody reads half of it.
///
/// # Errors
/// The file cannot be written.
pub fn write(runs: &[ReportedRun], path: &Path) -> Result<(), Error> {
    let text = to_html(runs)?;
    atomic_file::write(path, |file| file.write_all(text.as_bytes()))
        .map_err(FileError::of("write", path))?;
    Ok(())
}

/// The text of the page.
///
/// # Errors
/// None for settings that came from runs.
pub fn to_html(runs: &[ReportedRun]) -> Result<String, Error> {
    let recorded: Vec<&RecordedRun> = runs.iter().map(|of| &of.run).collect();
    let names: Vec<&str> = runs.iter().map(|of| of.name.as_str()).collect();
    let charts = charts(&recorded, MOST_POINTS);
    let curves = match charts.is_empty() {
        true => None,
        false => Some(json!({ "runs": names, "charts": charts })),
    };
    let has_curves = curves.is_some();
    let (title, body) = match runs {
        [run] => (run.name.clone(), of_one(run, has_curves)?),
        runs => {
            let title = format!("{} side by side", counted(runs.len() as u64, "run"));
            let body = of_several(runs, &title, has_curves)?;
            (title, body)
        }
    };
    let data: Vec<(&str, serde_json::Value)> =
        curves.into_iter().map(|curves| ("charts-data", curves)).collect();
    let document = Document {
        title: &format!("{title} - bninception"),
        body,
        data: &data,
        scripts: &[CHARTS_JS, TABLES_JS, START_JS],
        connects: false,
    };
    Ok(document.to_html())
}

/// Where the page of runs in these folders goes if nobody says: into the folder of a single one, and of several
/// into the nearest folder that holds all of them.
pub fn default_path(folders: &[PathBuf]) -> PathBuf {
    const NAME: &str = "report.html";
    let [first, others @ ..] = folders else { return PathBuf::from(NAME) };
    if others.is_empty() {
        return first.join(NAME);
    }
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let others: Vec<PathBuf> = others.iter().map(|path| whole(path)).collect();
    let holds_all = |folder: &Path| {
        let folder = whole(folder);
        others.iter().all(|other| other.starts_with(&folder))
    };
    // As it was named, as long as its name has a part to climb out of.
    let mut above = first.ancestors().skip(1).map(|folder| match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    });
    let named = above.find(|folder| holds_all(folder)).map(Path::to_owned);
    let found = named.or_else(|| {
        let first = whole(first);
        first.ancestors().skip(1).find(|folder| holds_all(folder)).map(Path::to_owned)
    });
    found.unwrap_or_else(|| PathBuf::from(".")).join(NAME)
}

fn of_one(run: &ReportedRun, has_curves: bool) -> Result<Markup, Error> {
    let spot = Spot { rank: 2, prefix: String::new() };
    let RecordedRun { config, .. } = &run.run;
    let parts = [
        ("result", "Result"),
        ("curves", "Curves"),
        ("mistakes", "Mistakes"),
        ("confusion", "Confusion"),
        ("classes", "Classes"),
        ("calibration", "Calibration"),
        ("training-images", "Training images"),
        ("recipe", "Recipe"),
        ("data", "Data"),
        ("environment", "Environment"),
        ("commands", "Go on"),
    ];
    let (preset, _) = run.run.preset()?;
    Ok(html! {
        header.page {
            h1 { (run.name) }
            p.quiet {
                (preset) ", " (config.data.image_size) " px, batches of " (config.train.batch_size)
                ", seed " (config.train.seed)
            }
            nav.parts aria-label="Parts of the page" {
                @for (id, title) in parts { a href={ "#" (id) } { (title) } }
            }
        }
        main #main {
            (sections::result::section(run, &spot))
            (curves(&spot, has_curves))
            (behind_curves(run, &spot)?)
        }
        (footer())
    })
}

fn of_several(runs: &[ReportedRun], title: &str, has_curves: bool) -> Result<Markup, Error> {
    let spot = Spot { rank: 2, prefix: String::new() };
    let table = RunTable::new(runs.iter().map(|of| &of.run))?;
    let id = |place: usize| format!("run-{}", place + 1);
    Ok(html! {
        header.page {
            h1 { (title) }
            nav.parts aria-label="Parts of the page" {
                a href="#results" { "Results" }
                a href="#curves" { "Curves" }
                @for (place, run) in runs.iter().enumerate() { a href={ "#" (id(place)) } { (run.name) } }
            }
        }
        main #main {
            (spot.section("results", "Results", html! {
                (rows("Results of the runs", &table.results()))
                p.hint { (table.notes()) }
                @if let Some(settings) = table.settings() {
                    h3 { "Settings that differ" }
                    (rows("Settings that differ", &settings))
                }
            }))
            (curves(&spot, has_curves))
            @for (place, run) in runs.iter().enumerate() {
                @let spot = Spot { rank: 3, prefix: format!("{}-", id(place)) };
                section id=(id(place)) {
                    h2 { (run.name) }
                    details open[place == 0] {
                        summary { "All about this run" }
                        (sections::result::section(run, &spot))
                        (behind_curves(run, &spot)?)
                    }
                }
            }
        }
        (footer())
    })
}

/// A table of texts, of which those behind the first column are numbers or short.
fn rows(label: &str, (header, rows): &(Vec<String>, Vec<Vec<String>>)) -> Markup {
    scrolled(
        label,
        html! {
            table.sortable {
                thead {
                    tr {
                        @for (place, title) in header.iter().enumerate() {
                            th.number[place > 0] scope="col" { (title) }
                        }
                    }
                }
                tbody {
                    @for row in rows {
                        tr {
                            @for (place, cell) in row.iter().enumerate() {
                                @if place == 0 { th scope="row" { (cell) } } @else { td.number { (cell) } }
                            }
                        }
                    }
                }
            }
        },
    )
}

fn curves(spot: &Spot, has_curves: bool) -> Markup {
    let body = match has_curves {
        false => html! { p.notice { "Nothing has been recorded yet." } },
        true => html! {
            div #charts {}
            noscript {
                p.notice {
                    "A script draws the curves, and this browser runs none; " code { "report --format md" }
                    " draws them as pictures."
                }
            }
        },
    };
    spot.section("curves", "Curves", body)
}

/// The parts of a run behind its curves.
fn behind_curves(run: &ReportedRun, spot: &Spot) -> Result<Markup, Error> {
    Ok(html! {
        (sections::mistakes::section(&run.judgement, spot))
        (sections::confusion::section(&run.judgement, spot))
        (sections::classes::section(&run.judgement, spot))
        (sections::calibration::section(&run.judgement, spot))
        (sections::training::section(&run.training_pictures, &run.run.config, spot))
        (sections::recipe::section(run, spot)?)
        (sections::data::section(run, spot))
        (sections::environment::section(run, spot))
        (sections::commands::section(run, spot))
    })
}

fn footer() -> Markup {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    html! {
        footer {
            "Made by " (PROGRAM) " at " time datetime=(now) { (now.replace('T', " ").replace('Z', " UTC")) } "."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_goes_to_its_run_or_to_where_all_runs_are() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/x", "a/y", "b"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let path = |names: &[&str]| {
            let folders: Vec<PathBuf> = names.iter().map(|name| dir.path().join(name)).collect();
            default_path(&folders)
        };
        for (names, expected) in [
            (&["a/x"][..], "a/x/report.html"),
            (&["a/x", "a/y"], "a/report.html"),
            (&["a/x", "b"], "report.html"),
            (&["b", "a/x", "a/y"], "report.html"),
            (&["a/../b", "a/x"], "report.html"),
        ] {
            let (found, expected) = (path(names), dir.path().join(expected));
            assert_eq!(found.file_name(), expected.file_name(), "{names:?}");
            let folder = |path: &Path| path.parent().unwrap().canonicalize().unwrap();
            assert_eq!(folder(&found), folder(&expected), "{names:?}");
        }
        // Seen from the working directory.
        let of =
            |names: &[&str]| default_path(&names.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(of(&["runs/a"]), Path::new("runs/a/report.html"));
        assert_eq!(of(&[]), Path::new("report.html"));
    }
}
