//! The files of a comparison: figures, CSV, and a page of both.

use std::fs;
use std::path::Path;

use super::{Comparison, tables};
use crate::comparison::recorded_run::RecordedRun;
use crate::comparison::run_table::RunTable;
use crate::comparison::watch_figure::watch_figure;
use crate::error::Error;
use crate::figure::Figure;
use crate::file_error::FileError;
use crate::terminal::csv_file;

/// Writes the comparison into `dir`, which is made if it is missing: `compare.csv`, `compare.md` and the
/// figure `compare`; the figure `watch` where layers were watched; `figure3.csv` and the figure `figure3`
/// where there is a baseline. Gives the names written.
///
/// # Errors
/// A file cannot be written.
pub fn write(
    runs: &[RecordedRun],
    table: &RunTable<'_>,
    figure3: Option<&Comparison>,
    dir: &Path,
) -> Result<Vec<String>, Error> {
    fs::create_dir_all(dir).map_err(FileError::of("create", dir))?;
    let mut names = vec!["compare.csv".to_owned(), "compare.md".to_owned()];
    let mut page = String::new();
    let mut draw = |name: &str, figure: &Figure, page: &mut String| -> Result<(), Error> {
        for (extension, write) in
            [("svg", Figure::write_svg as fn(&Figure, &Path) -> _), ("png", Figure::write_png)]
        {
            let name = format!("{name}.{extension}");
            write(figure, &dir.join(&name))?;
            names.push(name);
        }
        page.push_str(&format!("\n![{}]({name}.svg)\n", figure.title));
        Ok(())
    };
    csv_file::write(&dir.join("compare.csv"), |rows| table.csv(rows))?;
    page.push_str(&markdown(&table.results()));
    if let Some(settings) = table.settings() {
        page.push_str(&format!("\n{}", markdown(&settings)));
    }
    page.push_str(&format!("\n{}\n", table.notes()));
    if let Some(figure) = table.figure() {
        draw("compare", &figure, &mut page)?;
    }
    if let Some(comparison) = figure3 {
        page.push_str(&format!(
            "\n{}\n{}\n",
            markdown(&tables::table(comparison)),
            tables::notes(comparison)
        ));
        draw("figure3", &comparison.figure(), &mut page)?;
    }
    if let Some(figure) = watch_figure(&watched(runs, figure3)) {
        draw("watch", &figure, &mut page)?;
    }
    if let Some(comparison) = figure3 {
        csv_file::write(&dir.join("figure3.csv"), |rows| tables::csv(comparison, rows))?;
        names.push("figure3.csv".to_owned());
    }
    let path = dir.join("compare.md");
    fs::write(&path, page).map_err(FileError::of("write", &path))?;
    Ok(names)
}

/// The runs that watched layers, with their names; of several seeds of a model, one.
fn watched<'a>(
    runs: &'a [RecordedRun],
    figure3: Option<&'a Comparison>,
) -> Vec<(String, &'a RecordedRun)> {
    let has_watched = |run: &&RecordedRun| !run.watched.is_empty();
    match figure3 {
        Some(comparison) => {
            let models = comparison.models.iter();
            models
                .filter_map(|model| {
                    Some((model.name.clone(), model.runs.iter().find(has_watched)?))
                })
                .collect()
        }
        None => {
            let paths: Vec<&Path> = runs.iter().map(|run| run.folder.path()).collect();
            let names = super::names(&paths, str::to_owned);
            names.into_iter().zip(runs).filter(|(_, run)| has_watched(run)).collect()
        }
    }
}

/// A table with its first column aligned left, the others right.
fn markdown((header, rows): &(Vec<String>, Vec<Vec<String>>)) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = format!("|---{}|\n", "|---:".repeat(header.len().saturating_sub(1)));
    let rows: String = rows.iter().map(|row| line(row)).collect();
    format!("{}{rule}{rows}", line(header))
}
