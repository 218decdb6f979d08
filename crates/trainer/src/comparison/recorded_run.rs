//! A run as its folder tells of it: settings, and what `metrics.jsonl` and `summary.csv` recorded.
//!
//! Nothing here changes a folder, so a run that is still going on can be read at any time.

use std::fs;
use std::path::Path;

use crate::comparison::epoch_rows::{self, EpochRow};
use crate::config::{
    BestBy, Change, Config, ConfigError, ConfigFile, Recipe, Sources, changes_maths, diff,
    preset_names, resolve,
};
use crate::error::Error;
use crate::file_error::FileError;
use crate::run::checkpoint;
use crate::run::folder::RunFolder;
use crate::run::records::Record;

/// A run, read from its folder.
#[derive(Clone, Debug)]
pub struct RecordedRun {
    /// The folder.
    pub folder: RunFolder,
    /// All settings.
    pub config: Config,
    /// Where they come from; of an unknown preset if the run is older than recipes.
    pub recipe: Recipe,
    /// Training between two log lines, in the order of the steps.
    pub training: Vec<TrainingRow>,
    /// Evaluations in the order of the steps, each step once.
    pub evaluations: Vec<EvalRow>,
    /// Epochs in their order.
    pub epochs: Vec<EpochRow>,
    /// What was watched of layers (`log.watch`), in the order of the steps.
    pub watched: Vec<Watched>,
    /// Whether the loss ceased to be a number.
    pub diverged: bool,
}

/// A line of `"kind":"train"`. NaN stands for a number that was not finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingRow {
    /// Updates done.
    pub step: u64,
    /// Passes over the training images done, with the fraction of the present one.
    pub epoch: f64,
    /// Mean loss since the line before.
    pub loss: f64,
    /// Fraction of the training images right since the line before.
    pub top1: f64,
    /// Learning rate of the last update.
    pub lr: f64,
    /// Euclidean norm of the last update's gradient, before it is clipped.
    pub grad_norm: f64,
    /// Speed since the line before.
    pub images_per_second: f64,
    /// Fraction of the time since the line before that was spent waiting for data.
    pub data_wait: f64,
}

/// A line of `"kind":"eval"`. The loss is NaN where it was not finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvalRow {
    /// Updates done.
    pub step: u64,
    /// Passes over the training images done.
    pub epoch: f64,
    /// Images evaluated; 0 where that is not known.
    pub images: u64,
    /// Mean loss.
    pub loss: f64,
    /// Fraction of the images whose label came first.
    pub top1: f64,
    /// Fraction of the images whose label was among the first five.
    pub top5: f64,
    /// Mean recall of the classes that have images; NaN where it is not known.
    pub balanced: f64,
    /// How long it took; NaN where it is not known.
    pub seconds: f64,
}

/// A line of `"kind":"watch"`: the inputs of a layer's nonlinearity over one mini-batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    /// Updates done.
    pub step: u64,
    /// The layer.
    pub layer: String,
    /// The 15th, 50th and 85th percentile, NaN where not finite.
    pub percentiles: [f64; 3],
}

impl RecordedRun {
    /// Reads the folder of a run.
    ///
    /// # Errors
    /// There is no run, its settings are missing or invalid, or its record is damaged before its
    /// last line.
    pub fn read(path: &Path) -> Result<RecordedRun, Error> {
        let folder = RunFolder::at(path);
        let (config, recipe) = read_config(&folder)?;
        let metrics = folder.metrics();
        let text = match fs::read(&metrics) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            // A run makes the file at its first line.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(FileError::of("read", &metrics)(error).into()),
        };
        let rows = parse(&text).map_err(|reason| damaged(&metrics, &reason))?;
        let Rows { training, mut evaluations, watched } = rows;
        let epochs = epoch_rows::read(&folder.summary())?;
        add_evaluations(&mut evaluations, &epochs);
        let diverged = folder.diverged().exists();
        Ok(RecordedRun { folder, config, recipe, training, evaluations, epochs, watched, diverged })
    }

    /// Whether nothing at all is known of it yet.
    pub fn is_empty(&self) -> bool {
        self.training.is_empty() && self.evaluations.is_empty() && self.epochs.is_empty()
    }

    /// The best evaluation as training calls it (`checkpoint.best_by`), the earlier one of equals; the one with the
    /// most images right where the record does not hold that measure. One without a finite loss is never the best.
    pub fn best(&self) -> Option<&EvalRow> {
        let measured = match self.config.checkpoint.best_by {
            BestBy::Top1 => None,
            BestBy::Balanced => self.greatest(|row| row.balanced),
            BestBy::Loss => self.greatest(|row| -row.loss),
        };
        measured.or_else(|| self.most_right())
    }

    /// The evaluation with the most images right, the earlier one of equals, whatever the run calls its best. This is
    /// the mark of the paper's figure 3.
    pub fn most_right(&self) -> Option<&EvalRow> {
        self.greatest(|row| row.top1)
    }

    fn greatest(&self, measure: impl Fn(&EvalRow) -> f64) -> Option<&EvalRow> {
        let is_one = |row: &&EvalRow| row.loss.is_finite() && measure(row).is_finite();
        // `max_by` gives the last of equals, hence from the back.
        let rows = self.evaluations.iter().filter(is_one).rev();
        rows.max_by(|a, b| measure(a).total_cmp(&measure(b)))
    }

    /// The first evaluated step at which top-1 is `target` or more. Nothing is read between two
    /// evaluations.
    pub fn first_step_at(&self, target: f64) -> Option<u64> {
        let reached = |row: &&EvalRow| row.loss.is_finite() && row.top1 >= target;
        self.evaluations.iter().find(reached).map(|evaluation| evaluation.step)
    }

    /// The most steps that lie between two evaluations, or before the first; 0 without any.
    pub fn longest_interval(&self) -> u64 {
        let before = std::iter::once(0).chain(self.evaluations.iter().map(|row| row.step));
        let pairs = before.zip(&self.evaluations);
        pairs.map(|(before, row)| row.step.saturating_sub(before)).max().unwrap_or(0)
    }

    /// The preset of the recipe, and the settings in which the run differs from it. Of a run that is
    /// older than recipes, the preset that its settings are nearest to.
    ///
    /// # Errors
    /// None for settings that came from a run.
    pub fn preset(&self) -> Result<(&'static str, Vec<Change>), ConfigError> {
        preset_of(&self.config, &self.recipe)
    }
}

/// [`RecordedRun::preset`] of a run with these settings and this recipe.
///
/// # Errors
/// As there.
pub fn preset_of(
    config: &Config,
    recipe: &Recipe,
) -> Result<(&'static str, Vec<Change>), ConfigError> {
    let mut nearest: Option<(usize, &'static str, Vec<Change>)> = None;
    for name in preset_names() {
        let sources = Sources { preset: Some(name), ..Sources::default() };
        let changes = diff(&resolve(&sources)?.config, config)?;
        if name == recipe.preset {
            return Ok((name, changes));
        }
        let distance = changes.iter().filter(|change| is_recipe(&change.key)).count();
        if nearest.as_ref().is_none_or(|(least, ..)| distance < *least) {
            nearest = Some((distance, name, changes));
        }
    }
    Ok(nearest.map(|(_, name, changes)| (name, changes)).unwrap_or_default())
}

/// Whether a setting belongs to what a model is, and not to its seed, to places or to pace.
pub fn is_recipe(key: &str) -> bool {
    // The length counts: a longer run has more chances of a good evaluation.
    let is_length = matches!(key, "train.epochs" | "train.steps" | "train.patience");
    key != "train.seed" && (is_length || changes_maths(key, false))
}

/// The settings of the run in `folder`, and where they come from.
///
/// # Errors
/// They are missing or invalid.
pub fn read_config(folder: &RunFolder) -> Result<(Config, Recipe), Error> {
    let path = folder.config();
    if path.is_file() {
        let file = ConfigFile::read(&path)?;
        let is_of_recipe = file.names_preset();
        let resolved = resolve(&Sources { files: &[file], ..Sources::default() })?;
        let recipe = if is_of_recipe { resolved.recipe } else { Recipe::default() };
        return Ok((resolved.config, recipe));
    }
    if folder.last().is_file() {
        let metadata = checkpoint::load_metadata(&folder.last())?;
        return Ok((metadata.config, metadata.recipe));
    }
    Err(Error::Unusable(format!(
        "{} is not the folder of a run: it has neither config.toml nor last.safetensors",
        folder.path().display()
    )))
}

fn damaged(path: &Path, reason: &str) -> Error {
    Error::Unusable(format!(
        "{}: {reason}; `bninception resume` of the run cuts off what is damaged and makes it again",
        path.display()
    ))
}

/// Adds the evaluations that `summary.csv` alone has: somebody may have lost the other file, or cut it.
fn add_evaluations(evaluations: &mut Vec<EvalRow>, epochs: &[EpochRow]) {
    for row in epochs {
        let Some(top1) = row.val_top1 else { continue };
        if evaluations.iter().any(|known| known.step == row.step) {
            continue;
        }
        evaluations.push(EvalRow {
            step: row.step,
            epoch: row.epoch as f64,
            images: 0,
            loss: row.val_loss.unwrap_or(f64::NAN),
            top1,
            top5: row.val_top5.unwrap_or(f64::NAN),
            balanced: f64::NAN,
            seconds: f64::NAN,
        });
    }
    evaluations.sort_by_key(|row| row.step);
}

/// The rows of a record, by kind.
struct Rows {
    training: Vec<TrainingRow>,
    evaluations: Vec<EvalRow>,
    watched: Vec<Watched>,
}

/// The rows of a record. What follows its last end of line is being written, or torn, and is left
/// out.
fn parse(text: &str) -> Result<Rows, String> {
    let (mut training, mut evaluations) = (Vec::new(), Vec::<EvalRow>::new());
    let mut watched = Vec::new();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (index, line) in whole.lines().enumerate() {
        let record: Record = serde_json::from_str(line)
            .map_err(|error| format!("line {} is not a record ({error})", index + 1))?;
        match record {
            Record::Train {
                step,
                epoch,
                loss,
                top1,
                lr,
                grad_norm,
                images_per_second,
                data_wait,
            } => training.push(TrainingRow {
                step,
                epoch,
                loss,
                top1,
                lr,
                grad_norm,
                images_per_second,
                data_wait,
            }),
            Record::Eval { top1, .. } if !top1.is_finite() => {
                return Err(format!("line {} is an evaluation without top1", index + 1));
            }
            Record::Eval { step, epoch, images, loss, top1, top5, balanced, seconds, .. } => {
                // A step that was done again stands for the earlier try.
                evaluations.retain(|row| row.step < step);
                let row = EvalRow { step, epoch, images, loss, top1, top5, balanced, seconds };
                evaluations.push(row);
            }
            Record::Watch { step, layer, p15, p50, p85, .. } => {
                watched.push(Watched { step, layer, percentiles: [p15, p50, p85] });
            }
            Record::Other => {}
        }
    }
    Ok(Rows { training, evaluations, watched })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eval(step: u64, top1: f64) -> String {
        format!(
            "{{\"kind\":\"eval\",\"step\":{step},\"epoch\":1.0,\"loss\":1.0,\"top1\":{top1}}}\n"
        )
    }

    fn run(text: &str) -> RecordedRun {
        let Rows { training, evaluations, watched } = parse(text).unwrap();
        let config = resolve(&Sources::default()).unwrap().config;
        let folder = RunFolder::at(Path::new("run"));
        let recipe = Recipe::default();
        let epochs = Vec::new();
        let diverged = false;
        RecordedRun { folder, config, recipe, training, evaluations, epochs, watched, diverged }
    }

    #[test]
    fn the_earlier_of_equal_evaluations_is_best() {
        // (record, best step, first step at 0.5, longest interval)
        let table = [
            (String::new(), None, None, 0),
            (eval(10, 0.5) + &eval(20, 0.5), Some(10), Some(10), 10),
            (eval(10, 0.4) + &eval(40, 0.6) + &eval(50, 0.6), Some(40), Some(40), 30),
            (eval(10, 0.4) + &eval(20, 0.49), Some(20), None, 10),
            // The last line is torn, although what is left of it could be read.
            (eval(10, 0.4) + eval(20, 0.9).trim_end(), Some(10), None, 10),
            (eval(10, 0.4) + "{\"kind\":\"ev", Some(10), None, 10),
            // A loss that was not finite.
            (
                eval(10, 0.4) + &eval(20, 0.9).replace("1.0,\"top1", "null,\"top1"),
                Some(10),
                None,
                10,
            ),
            // Evaluated again after a resume.
            (eval(10, 0.9) + &eval(20, 0.9) + &eval(10, 0.3), Some(10), None, 10),
        ];
        for (text, best, first, interval) in table {
            let run = run(&text);
            assert_eq!(run.best().map(|row| row.step), best, "{text}");
            assert_eq!(run.first_step_at(0.5), first, "{text}");
            assert_eq!(run.longest_interval(), interval, "{text}");
        }
    }

    #[test]
    fn the_best_is_what_training_calls_so() {
        let row = |step: u64, top1: f64, balanced: f64, loss: f64| {
            format!(
                "{{\"kind\":\"eval\",\"step\":{step},\"loss\":{loss},\"top1\":{top1},\"balanced\":{balanced}}}\n"
            )
        };
        let mut run =
            run(&(row(1, 0.5, 0.4, 0.9) + &row(2, 0.4, 0.5, 1.0) + &row(3, 0.3, 0.3, 0.8)));
        for (by, step) in [(BestBy::Top1, 1), (BestBy::Balanced, 2), (BestBy::Loss, 3)] {
            run.config.checkpoint.best_by = by;
            assert_eq!(run.best().map(|row| row.step), Some(step), "{by:?}");
            assert_eq!(run.most_right().map(|row| row.step), Some(1));
        }
        // A record of a program that did not know the measure.
        run.config.checkpoint.best_by = BestBy::Balanced;
        run.evaluations.iter_mut().for_each(|row| row.balanced = f64::NAN);
        assert_eq!(run.best().map(|row| row.step), Some(1));
    }

    #[test]
    fn what_the_record_lost_is_in_the_summary() {
        let epoch = |epoch: u64, val_top1| EpochRow {
            epoch,
            step: 10 * epoch,
            lr: 0.1,
            train_loss: 1.0,
            train_top1: 0.5,
            val_loss: None,
            val_top1,
            val_top5: None,
            seconds: 1.0,
        };
        let mut evaluations = run(&eval(20, 0.4)).evaluations;
        add_evaluations(
            &mut evaluations,
            &[epoch(1, Some(0.3)), epoch(2, Some(0.9)), epoch(3, None)],
        );
        let found: Vec<(u64, f64)> = evaluations.iter().map(|row| (row.step, row.top1)).collect();
        assert_eq!(found, [(10, 0.3), (20, 0.4)]);
    }

    #[test]
    fn damage_in_the_middle_is_named() {
        let text = eval(10, 0.4) + "{\"kind\":\"ev\n" + &eval(20, 0.5);
        assert!(parse(&text).err().unwrap().contains("line 2 is not a record"));
        let text = "{\"kind\":\"eval\",\"step\":1,\"top1\":null}\n";
        assert!(parse(text).err().unwrap().contains("line 1 is an evaluation without top1"));
    }

    #[test]
    fn a_loss_that_was_not_finite_is_no_number() {
        let text = "{\"kind\":\"train\",\"step\":1,\"loss\":null,\"top1\":0.1,\"lr\":0.01}\n\
                    {\"kind\":\"later-invention\",\"step\":1,\"x\":{}}\n";
        let run = run(text);
        assert_eq!(run.training.len(), 1);
        assert!(run.training[0].loss.is_nan());
        assert_eq!(run.training[0].lr, 0.01);
    }

    #[test]
    fn the_nearest_preset_is_found() {
        type Edit = fn(&mut Config);
        let table: [(&str, Edit, &[&str]); 5] = [
            ("inception", |_| {}, &[]),
            ("bn-x30", |c| c.data.dir = "pictures".to_owned(), &["data.dir"]),
            ("bn-x5", |c| c.data.image_size = 64, &["data.image_size"]),
            (
                "inception",
                |c| (c.optimizer.lr, c.train.seed) = (0.0075, 7),
                &["optimizer.lr", "train.seed"],
            ),
            (
                "inception",
                |c| c.network.activation = crate::config::Activation::Sigmoid,
                &["network.activation"],
            ),
        ];
        for (preset, edit, expected) in table {
            let sources = Sources { preset: Some(preset), ..Sources::default() };
            let mut run = run("");
            run.config = resolve(&sources).unwrap().config;
            edit(&mut run.config);
            let (found, changes) = run.preset().unwrap();
            let keys: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
            assert_eq!((found, keys.as_slice()), (preset, expected));
            // What a recipe says is not guessed.
            run.recipe.preset = "modern".to_owned();
            assert_eq!(run.preset().unwrap().0, "modern");
        }
    }
}
