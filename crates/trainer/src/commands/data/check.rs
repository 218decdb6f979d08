//! `data check`.

use std::path::Path;

use bninception_data::check::{Duplicate, Finding, Report};
use bninception_data::{DecodeOptions, Lister};
use serde_json::{Value, json};

use super::sheet;
use crate::cli::DataCheckArgs;
use crate::commands::print;
use crate::error::Error;
use crate::images::class_counts::{imbalance, without_validation};
use crate::images::data_dirs::check_outside;
use crate::images::scan;
use crate::terminal::color::Accent;
use crate::terminal::output::{with_path, with_paths};
use crate::terminal::progress::SharedProgress;
use crate::terminal::signals;
use crate::terminal::text::{counted, one_line};

/// Entries of a list that are shown without `--all`.
const SHOWN: usize = 10;

pub(super) fn check(args: &DataCheckArgs) -> Result<(), Error> {
    signals::listen()?;
    if let Some(file) = &args.sheet {
        check_outside(&args.dir, file, "--sheet")?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            let file = file.display();
            return Err(Error::Usage(format!(
                "--sheet {file}: its folder does not exist; make it first"
            )));
        }
    }
    let stop = || signals::received().is_some();
    let lister = Lister::new(args.workers).with_stop(&stop);
    let progress = SharedProgress::new("checking");
    let start = |images| progress.start(images);
    let advance = |done| progress.advance(done);
    let options = DecodeOptions::default();
    let report = bninception_data::check(&lister, &args.dir, &options, start, &advance);
    drop(progress);
    let report = scan::stopped_by_signal(report)?;
    if let Some(file) = &args.sheet {
        sheet::sheet(&args.dir, &report)?.write_png(file)?;
        tracing::info!("some images of each class: {}", file.display());
    }
    if args.json {
        print::json(&to_json(&report))?;
    } else {
        print::text(&to_text(&report, if args.all { usize::MAX } else { SHOWN }))?;
    }
    if !report.breaks_a_run() {
        return Ok(());
    }
    let mut problems = Vec::new();
    if report.layout.is_some() {
        problems.push("its layout".to_owned());
    }
    if !report.unreadable.is_empty() {
        let files = counted(report.unreadable.len() as u64, "file");
        problems.push(format!("{files} that cannot be read"));
    }
    let (dir, problems) = (args.dir.display(), problems.join(" and "));
    Err(Error::Unusable(format!("{dir} would break a run: {problems}; see the report")))
}

fn to_text(report: &Report, shown: usize) -> String {
    let mut lines = Vec::new();
    for split in &report.splits {
        let counts: Vec<usize> = split.classes.iter().map(|(_, images)| *images).collect();
        lines.push(format!(
            "{}: {} of {}, from {} to {} a class",
            split.name,
            counted(counts.iter().sum::<usize>() as u64, "image"),
            counted(counts.len() as u64, "class"),
            counts.iter().min().unwrap_or(&0),
            counts.iter().max().unwrap_or(&0)
        ));
        let empty = split.classes.iter().filter(|(_, images)| *images == 0);
        let empty: Vec<String> = empty.map(|(name, _)| name.clone()).collect();
        list(&mut lines, "empty classes", &empty, shown);
    }
    lines.extend(about_classes(report));
    let formats: Vec<String> =
        report.formats.iter().map(|(format, files)| format!("{files} {format}")).collect();
    lines.push(format!("formats: {}", formats.join(", ")));
    let sizes = report.sizes.iter().map(|(end, files)| {
        let side = (*end as f64).sqrt();
        format!("{files} up to {side:.0} x {side:.0}")
    });
    lines.push(format!("sizes, by area: {}", sizes.collect::<Vec<_>>().join(", ")));
    lines.push(format!("turned by EXIF: {}", report.turned));
    if !report.left_out.is_empty() {
        let files: Vec<String> =
            report.left_out.iter().map(|(extension, n)| format!("{n} {extension}")).collect();
        lines.push(format!("files that are left out: {}", files.join(", ")));
    }
    list(&mut lines, "notes", &report.notes, shown);
    list(&mut lines, "of another format than their name says", &findings(&report.misnamed), shown);
    let damaged = "damaged, parts are grey or wrong though they can be read";
    list(&mut lines, &Accent::Caution.paint(damaged), &findings(&report.damaged), shown);
    list(&mut lines, "suspicious", &findings(&report.suspicious), shown);
    let duplicates: Vec<String> = report.duplicates.iter().map(duplicate).collect();
    list(&mut lines, "same content", &duplicates, shown);
    let unreadable = Accent::Bad.paint("cannot be read");
    list(&mut lines, &unreadable, &findings(&report.unreadable), shown);
    if let Some(layout) = &report.layout {
        lines.push(format!("{}: {layout}", Accent::Bad.paint("the layout is refused")));
    }
    if !report.breaks_a_run() {
        lines.push(Accent::Good.paint(&match report.images() {
            1 => "1 image, which can be read".to_owned(),
            images => format!("{images} images, every one can be read"),
        }));
    }
    lines.join("\n")
}

/// What a run would say of rare classes, and of those without validation images.
fn about_classes(report: &Report) -> Vec<String> {
    let split = |names: &[&str]| report.splits.iter().find(|split| names.contains(&split.name));
    let Some(train) = split(&["train", "all"]) else { return Vec::new() };
    let counts: Vec<(&str, u64)> =
        train.classes.iter().map(|(name, images)| (name.as_str(), *images as u64)).collect();
    let without = split(&["val"]).and_then(|val| {
        let images = |name: &str| val.classes.iter().find(|(class, _)| class == name);
        let counts: Vec<(&str, u64)> = counts
            .iter()
            .map(|&(name, _)| (name, images(name).map_or(0, |(_, images)| *images as u64)))
            .collect();
        without_validation(&counts)
    });
    imbalance(&counts).into_iter().chain(without).collect()
}

/// Adds a titled list, cut at `shown` entries; nothing if it is empty.
fn list(lines: &mut Vec<String>, title: &str, entries: &[String], shown: usize) {
    if entries.is_empty() {
        return;
    }
    lines.push(format!("{title}: {}", entries.len()));
    lines.extend(entries.iter().take(shown).map(|entry| format!("  {entry}")));
    if entries.len() > shown {
        lines.push(format!("  and {} more; --all shows them", entries.len() - shown));
    }
}

fn findings(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| format!("{}: {}", name(&finding.path), finding.what)).collect()
}

fn duplicate(duplicate: &Duplicate) -> String {
    let names: Vec<String> = duplicate.paths.iter().map(|path| name(path)).collect();
    let mut what = String::new();
    if duplicate.across_splits {
        what.push_str(" (in training and validation)");
    }
    if duplicate.across_classes {
        what.push_str(" (under different classes)");
    }
    format!("{}{what}", names.join(" = "))
}

/// A path on one line.
fn name(path: &Path) -> String {
    one_line(&path.display().to_string())
}

fn to_json(report: &Report) -> Value {
    let findings = |findings: &[Finding]| -> Vec<Value> {
        let one = |found: &Finding| with_path("path", &found.path, json!({ "what": found.what }));
        findings.iter().map(one).collect()
    };
    let splits = report.splits.iter().map(|split| {
        let classes = split.classes.iter();
        let classes: Vec<Value> =
            classes.map(|(name, images)| json!({ "name": name, "images": images })).collect();
        json!({ "name": split.name, "classes": classes })
    });
    let duplicates = report.duplicates.iter().map(|duplicate| {
        let about = json!({
            "across_classes": duplicate.across_classes,
            "across_splits": duplicate.across_splits,
        });
        with_paths("paths", &duplicate.paths, about)
    });
    json!({
        "images": report.images(),
        "breaks_a_run": report.breaks_a_run(),
        "layout": report.layout,
        "notes": report.notes,
        "left_out": report.left_out,
        "splits": splits.collect::<Vec<_>>(),
        "unreadable": findings(&report.unreadable),
        "damaged": findings(&report.damaged),
        "suspicious": findings(&report.suspicious),
        "misnamed": findings(&report.misnamed),
        "duplicates": duplicates.collect::<Vec<_>>(),
        "formats": report.formats,
        "pixels_up_to": report.sizes,
        "turned": report.turned,
    })
}
