//! `report`: a page on one run, in its folder.

use serde_json::json;

use crate::cli::ReportArgs;
use crate::commands::print;
use crate::comparison::page;
use crate::comparison::recorded_run::{RecordedRun, find_runs};
use crate::error::Error;
use crate::terminal::output::with_path;

pub(super) fn report(args: &ReportArgs) -> Result<(), Error> {
    let mut paths = Vec::new();
    for argument in &args.runs {
        for path in find_runs(argument)? {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    let mut reports = Vec::new();
    for path in paths {
        let run = RecordedRun::read(&path)?;
        let page = page::write(&run)?;
        if !args.json {
            print::text(&page.display().to_string())?;
        }
        reports.push(with_path("run", &path, with_path("report", &page, json!({}))));
    }
    if args.json {
        return print::json(&json!({ "reports": reports }));
    }
    Ok(())
}
