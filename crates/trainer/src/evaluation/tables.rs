//! The outcomes of an evaluation as CSV files in a folder (`eval --out`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use bninception_data::Crops;

use crate::error::Error;
use crate::evaluation::changes::Changes;
use crate::evaluation::interval::Interval;
use crate::evaluation::outcomes::{ImageOutcome, KEPT_CLASSES, Outcomes, bin_ends};
use crate::file_error::FileError;
use crate::terminal::csv_file;

type Table = csv::Writer<File>;

/// Most rows of `mistakes.csv` and `confused-pairs.csv`.
pub const MAX_ROWS: usize = 1000;

/// The images that only one of an evaluation and its baseline gets right.
const CHANGES: &str = "changes.csv";

/// The folder that outcomes are written into.
pub struct OutcomeTables {
    dir: PathBuf,
}

impl OutcomeTables {
    /// Makes the folder, before the work whose result it is for.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(dir: &Path) -> Result<OutcomeTables, Error> {
        fs::create_dir_all(dir).map_err(FileError::of("create", dir))?;
        Ok(OutcomeTables { dir: dir.to_owned() })
    }

    /// Writes all files, in the place of those of an earlier evaluation.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, outcomes: &Outcomes) -> Result<(), Error> {
        type Fill = fn(&Outcomes, &mut Table) -> csv::Result<()>;
        let files: [(&str, Fill); 6] = [
            ("per-class.csv", per_class),
            ("confusion.csv", confusion),
            ("confused-pairs.csv", confused_pairs),
            ("mistakes.csv", mistakes),
            ("predictions.csv", predictions),
            ("calibration.csv", calibration),
        ];
        for (name, fill) in files {
            csv_file::write(&self.dir.join(name), |table| fill(outcomes, table))?;
        }
        Ok(())
    }

    /// Writes the images that changed between a baseline and this evaluation. Without a baseline it says if a
    /// file of an earlier evaluation is left.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_changes(&self, changes: Option<&Changes<'_>>) -> Result<(), Error> {
        let path = self.dir.join(CHANGES);
        match changes {
            Some(changes) => csv_file::write(&path, |table| changed_images(changes, table))?,
            None if path.exists() => {
                tracing::warn!("{} is of an earlier evaluation with a baseline", path.display());
            }
            None => {}
        }
        Ok(())
    }
}

fn changed_images(changes: &Changes<'_>, table: &mut Table) -> csv::Result<()> {
    table.write_record([
        "path",
        "true",
        "right",
        "predicted",
        "probability_of_predicted",
        "probability_of_true",
        "baseline_predicted",
        "baseline_probability_of_predicted",
        "baseline_probability_of_true",
    ])?;
    for image in &changes.images {
        let mut fields = vec![
            changes.path(image).display().to_string(),
            name(changes.this, image.label).to_owned(),
            if image.is_gain { "this" } else { "baseline" }.to_owned(),
        ];
        for outcome in [image.this, image.baseline] {
            let predicted = outcome.and_then(ImageOutcome::predicted);
            fields.extend([
                predicted.map_or(String::new(), |(class, _)| name(changes.this, class).to_owned()),
                number(predicted.map(|(_, probability)| probability)),
                number(outcome.map(|outcome| outcome.probability)),
            ]);
        }
        table.write_record(fields)?;
    }
    Ok(())
}

/// A number, or nothing where there is none.
fn number(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map_or(String::new(), |value| value.to_string())
}

fn per_class(outcomes: &Outcomes, table: &mut Table) -> csv::Result<()> {
    table.write_record([
        "class",
        "images",
        "top1",
        "top5",
        "mean_probability",
        "right",
        "predicted",
        "recall_low",
        "recall_high",
        "precision",
        "f1",
    ])?;
    for (name, class) in outcomes.classes.iter().zip(outcomes.per_class()) {
        let interval = Interval::wilson(class.count.right, class.count.images);
        table.write_record([
            name.clone(),
            class.count.images.to_string(),
            number(class.count.recall()),
            number(class.top5_rate()),
            number(class.mean_probability()),
            class.count.right.to_string(),
            class.predicted.to_string(),
            number(interval.map(|found| found.low)),
            number(interval.map(|found| found.high)),
            number(class.precision()),
            number(class.f1()),
        ])?;
    }
    Ok(())
}

fn confusion(outcomes: &Outcomes, table: &mut Table) -> csv::Result<()> {
    table.write_record(["true", "predicted", "count"])?;
    for (&(label, predicted), count) in &outcomes.evaluation.confusion {
        let [label, predicted] = [label, predicted].map(|class| name(outcomes, class));
        table.write_record([label, predicted, &count.to_string()])?;
    }
    Ok(())
}

fn confused_pairs(outcomes: &Outcomes, table: &mut Table) -> csv::Result<()> {
    table.write_record(["true", "predicted", "count", "share_of_true"])?;
    let rows = outcomes.per_class();
    for pair in outcomes.confused_pairs().iter().take(MAX_ROWS) {
        let share = pair.count as f64 / rows[pair.label as usize].count.images as f64;
        let [label, predicted] = [pair.label, pair.predicted].map(|class| name(outcomes, class));
        table.write_record([label, predicted, &pair.count.to_string(), &share.to_string()])?;
    }
    Ok(())
}

fn mistakes(outcomes: &Outcomes, table: &mut Table) -> csv::Result<()> {
    table.write_record([
        "path",
        "true",
        "predicted",
        "probability_of_predicted",
        "probability_of_true",
    ])?;
    for mistake in outcomes.mistakes().into_iter().take(MAX_ROWS) {
        let Some((predicted, probability)) = mistake.predicted() else { continue };
        table.write_record([
            &path(outcomes, mistake.index),
            name(outcomes, mistake.label),
            name(outcomes, predicted),
            &number(Some(probability)),
            &number(Some(mistake.probability)),
        ])?;
    }
    Ok(())
}

/// One row for each image, in the order of the images, those that could not be read included.
fn predictions(outcomes: &Outcomes, table: &mut Table) -> csv::Result<()> {
    let kept = outcomes.classes.len().min(KEPT_CLASSES);
    let mut header =
        ["path", "true", "predicted", "probability_of_true"].map(str::to_owned).to_vec();
    header.extend(
        (1..=kept).flat_map(|rank| [format!("class_{rank}"), format!("probability_{rank}")]),
    );
    header.push("error".to_owned());
    let width = header.len();
    let mut rows: Vec<(u32, Vec<String>)> = Vec::new();
    for outcome in &outcomes.images {
        let class = |class| name(outcomes, class).to_owned();
        let mut fields = vec![
            path(outcomes, outcome.index),
            class(outcome.label),
            outcome.predicted().map_or(String::new(), |(predicted, _)| class(predicted)),
            number(Some(outcome.probability)),
        ];
        for &(place, probability) in &outcome.top {
            fields.extend([class(place), number(Some(probability))]);
        }
        fields.resize(width - 1, String::new());
        let answered = outcome.predicted().is_some();
        fields.push(if answered { "" } else { "a logit is not finite" }.to_owned());
        rows.push((outcome.index, fields));
    }
    for failure in &outcomes.evaluation.failed {
        let label = outcomes.samples[failure.index as usize].label;
        let mut fields = vec![path(outcomes, failure.index), name(outcomes, label).to_owned()];
        fields.resize(width - 1, String::new());
        fields.push(failure.error.clone());
        rows.push((failure.index, fields));
    }
    rows.sort_by_key(|(index, _)| *index);
    header.push("crops".to_owned());
    table.write_record(header)?;
    let crops = match outcomes.crops {
        Crops::Mirrored => "image and mirror".to_owned(),
        crops => crops.count().to_string(),
    };
    rows.into_iter().try_for_each(|(_, mut fields)| {
        fields.push(crops.clone());
        table.write_record(fields)
    })
}

fn calibration(outcomes: &Outcomes, table: &mut Table) -> csv::Result<()> {
    table.write_record(["above", "up_to", "images", "mean_confidence", "accuracy"])?;
    for (index, bin) in outcomes.bins().iter().enumerate() {
        let (lower, upper) = bin_ends(index);
        table.write_record([
            lower.to_string(),
            upper.to_string(),
            bin.images.to_string(),
            number(bin.confidence()),
            number(bin.accuracy()),
        ])?;
    }
    Ok(())
}

fn name(outcomes: &Outcomes, class: u32) -> &str {
    &outcomes.classes[class as usize]
}

fn path(outcomes: &Outcomes, index: u32) -> String {
    outcomes.samples[index as usize].path.display().to_string()
}
