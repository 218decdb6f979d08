//! The images of a run.

use maud::{Markup, html};

use super::{Spot, facts, missing, scrolled};
use crate::images::class_counts;
use crate::report::reported_run::ReportedRun;
use crate::run::image_lists::ClassImages;
use crate::run::metadata::Metadata;
use crate::terminal::text::{counted, grouped};

/// Up to so many classes their counts are shown at once.
const MOST_OPEN: usize = 20;

/// The part.
pub fn section(of: &ReportedRun, spot: &Spot) -> Markup {
    let body = match &of.metadata {
        None => missing("the run has no checkpoint yet that says what its images are"),
        Some(metadata) => known(of, metadata),
    };
    spot.section("data", "Data", body)
}

fn known(of: &ReportedRun, metadata: &Metadata) -> Markup {
    let count = |list: &[ClassImages]| list.iter().map(|images| images.0).sum::<u64>();
    let images = &metadata.images;
    let classes = &metadata.classes;
    let mut about = Vec::new();
    if images.train.is_empty() && images.val.is_empty() {
        about.push(("images", "unknown: the run is older than lists of them".to_owned()));
    } else {
        about.push(("training", counted(count(&images.train), "image")));
        about.push(("validation", counted(count(&images.val), "image")));
    }
    about.push(("classes", grouped(classes.len() as u64)));
    about.push(("folder", folder(&metadata.config.data.dir, &metadata.data_dirs.dir)));
    if !metadata.config.data.val_dir.is_empty() {
        let val_dir = folder(&metadata.config.data.val_dir, &metadata.data_dirs.val_dir);
        about.push(("validation folder", val_dir));
    }
    about.push(("left out", left_out(of, metadata)));
    let named: Vec<(&str, u64)> =
        classes.iter().zip(&images.train).map(|(name, images)| (name.as_str(), images.0)).collect();
    let of_val: Vec<(&str, u64)> =
        classes.iter().zip(&images.val).map(|(name, images)| (name.as_str(), images.0)).collect();
    let notes = [class_counts::imbalance(&named), class_counts::without_validation(&of_val)];
    html! {
        (facts(&about))
        @for note in notes.iter().flatten() { p.notice { (note) } }
        @if !images.train.is_empty() || !images.val.is_empty() {
            details open[classes.len() <= MOST_OPEN] {
                summary { "Images of each class" }
                (counts(classes, &images.train, &images.val))
            }
        }
    }
}

/// A folder as the settings call it, and where that was.
fn folder(given: &str, stored: &str) -> String {
    match (given, stored) {
        ("", "") => "the pictures that the program draws itself".to_owned(),
        ("", stored) => format!("the pictures that the program draws itself, in {stored}"),
        (given, stored) if stored.is_empty() || stored == given => given.to_owned(),
        (given, stored) => format!("{given}, which was {stored}"),
    }
}

/// What of the images was not used.
fn left_out(of: &ReportedRun, metadata: &Metadata) -> String {
    let n_training = metadata.progress.bad_images.len() as u64;
    let mut parts = vec![match n_training {
        0 => "no training image was unreadable".to_owned(),
        n => format!("{} could not be read", counted(n, "training image")),
    }];
    if metadata.progress.skipped_batches > 0 {
        let batches = counted(metadata.progress.skipped_batches, "batch");
        parts.push(format!("{batches} had too few readable images and changed nothing"));
    }
    if let Ok(judgement) = &of.judgement {
        match judgement.outcomes.evaluation.failed.len() as u64 {
            0 => {}
            n => parts.push(format!(
                "{} could not be read and count as wrong",
                counted(n, "evaluated image")
            )),
        }
    }
    parts.join("; ")
}

fn counts(classes: &[String], train: &[ClassImages], val: &[ClassImages]) -> Markup {
    let most = train.iter().chain(val).map(|images| images.0).max().unwrap_or(0).max(1);
    let cell = |images: Option<&ClassImages>| match images {
        Some(ClassImages(count, _)) => html! {
            td.number.bar data-value=(count) style=(format!("--share:{:.3}", *count as f64 / most as f64)) {
                (grouped(*count))
            }
        },
        None => html! { td.number data-value="" { "-" } },
    };
    let table = html! {
        table.sortable {
            thead {
                tr {
                    th scope="col" { "class" }
                    th.number scope="col" { "training" }
                    th.number scope="col" { "validation" }
                }
            }
            tbody {
                @for (place, name) in classes.iter().enumerate() {
                    tr { th scope="row" { (name) } (cell(train.get(place))) (cell(val.get(place))) }
                }
            }
        }
    };
    scrolled("Images of each class", table)
}
