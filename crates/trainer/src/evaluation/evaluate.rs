//! One pass over images without training: used by `train` and `eval` alike.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bninception_data::{Crops, Failure, LoadOptions, Loader, Preprocessing, Source};
use bninception_engine::{EvaluationWeights, Executor, Features, Images, Normaliser};

use serde::{Deserialize, Serialize};

use crate::distributed::Ranks;
use crate::distributed::failures::{self, ToldFailures};
use crate::distributed::round::round;
use crate::error::Error;
use crate::run::state::{EvaluationResult, Statistics};
use crate::terminal::progress::ProgressBar;
use crate::terminal::text::counted;
use bninception_engine::metrics::{Metrics, Score};

/// What an evaluation found.
pub struct Evaluation {
    /// Counts and loss over the images that could be read.
    pub metrics: Metrics,
    /// Images that could not be read.
    pub failed: Vec<Failure>,
    /// The images of each class, in the order of the classes.
    pub by_class: Vec<ClassCount>,
    /// What the images that got an answer were taken for.
    pub confusion: Confusion,
    /// Seconds from the first batch to the last.
    pub seconds: f64,
}

/// Images by their class and the one that they were taken for, right ones too: the cells of a confusion matrix
/// that are not 0.
pub type Confusion = BTreeMap<(u32, u32), u64>;

/// The images of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCount {
    /// All of them, those that could not be read included; they count as wrong.
    pub images: u64,
    /// Those whose class came first.
    pub right: u64,
}

impl ClassCount {
    /// Counts an image.
    pub fn add(&mut self, is_right: bool) {
        self.images += 1;
        self.right += u64::from(is_right);
    }

    /// Fraction of the images whose class came first; `None` without images.
    pub fn recall(&self) -> Option<f64> {
        (self.images > 0).then(|| self.right as f64 / self.images as f64)
    }
}

impl Evaluation {
    /// All images, those that could not be read included.
    pub fn images(&self) -> u64 {
        self.metrics.images() + self.failed.len() as u64
    }

    /// Fraction of all images whose class came first. An image that cannot be read counts as wrong:
    /// leaving it out, or putting another in its place, would flatter the network.
    pub fn top1(&self) -> f64 {
        self.of_all(self.metrics.top1())
    }

    /// Fraction of all images whose class was among the first five.
    pub fn top5(&self) -> f64 {
        self.of_all(self.metrics.top5())
    }

    /// Mean loss of the images that could be read; not a number if there was none.
    pub fn loss(&self) -> f64 {
        self.metrics.loss().unwrap_or(f64::NAN)
    }

    /// Balanced accuracy: the mean of the recall of all classes that have images (Brodersen et al. 2010,
    /// <https://doi.org/10.1109/ICPR.2010.764>). A network that always says the largest of k classes gets
    /// 1 / k. 0 without images.
    pub fn balanced_accuracy(&self) -> f64 {
        balanced_accuracy(&self.by_class)
    }

    /// All images over the time that they took.
    pub fn images_per_second(&self) -> f64 {
        self.images() as f64 / self.seconds.max(1e-9)
    }

    /// What a checkpoint keeps of it: made behind `step` updates with `statistics`, at the end of `epoch`.
    pub fn to_result(
        &self,
        step: u64,
        epoch: Option<u64>,
        statistics: Option<Statistics>,
    ) -> EvaluationResult {
        EvaluationResult {
            step,
            epoch,
            images: self.images(),
            failed: self.failed.len() as u64,
            top1: self.top1(),
            top5: self.top5(),
            balanced: Some(self.balanced_accuracy()),
            loss: Some(self.loss()).filter(|loss| loss.is_finite()),
            statistics,
        }
    }

    fn of_all(&self, rate: Option<f64>) -> f64 {
        rate.map_or(0.0, |rate| rate * self.metrics.images() as f64 / self.images() as f64)
    }
}

/// The mean recall of the classes that have images; 0 if none has.
fn balanced_accuracy(by_class: &[ClassCount]) -> f64 {
    let recalls: Vec<f64> = by_class.iter().filter_map(ClassCount::recall).collect();
    recalls.iter().sum::<f64>() / recalls.len().max(1) as f64
}

/// Evaluates the centre of every image of `source` once.
///
/// # Errors
/// No image at all, an executor or loader that fails, or a signal that asks to stop.
pub fn evaluate(
    executor: &mut dyn Executor,
    weights: EvaluationWeights<'_>,
    source: Arc<dyn Source>,
    preprocessing: &Preprocessing,
    options: &LoadOptions,
    ranks: &mut Ranks,
) -> Result<Evaluation, Error> {
    let classes = executor.network().options.classes;
    let mut metrics = Metrics::default();
    let mut by_class = vec![ClassCount::default(); classes];
    let mut confusion = Confusion::new();
    let pass = run_all(
        executor,
        weights,
        PassImages {
            source: Arc::clone(&source),
            crops: Crops::One,
            preprocessing,
            options,
            wanted: Wanted::Logits,
            title: Some("evaluating"),
        },
        ranks,
        &mut |Answered { labels, logits, .. }| {
            for (logits_k, &label) in logits.chunks_exact(classes).zip(labels) {
                let score = Score::of_logits(logits_k, label as usize);
                metrics.add(&score);
                by_class[label as usize].add(score.is_in_top(1));
                if score.rank.is_some() {
                    *confusion.entry((label, first_class(logits_k))).or_default() += 1;
                }
            }
            Ok(())
        },
    )?;
    for failure in &pass.failed {
        by_class[source.label(failure.index as usize) as usize].add(false);
    }
    warn_of_not_finite(&metrics);
    Ok(Evaluation { metrics, failed: pass.failed, by_class, confusion, seconds: pass.seconds })
}

/// The class that comes first, by the rule of [`Metrics::add_batch`]: of equals the one with the lower index.
fn first_class(logits_k: &[f32]) -> u32 {
    let mut first = 0;
    for (class, logit) in logits_k.iter().enumerate() {
        if *logit > logits_k[first] {
            first = class;
        }
    }
    first as u32
}

/// Says how many images got no usable answer.
pub fn warn_of_not_finite(metrics: &Metrics) {
    let n = metrics.not_finite();
    if n > 0 {
        let images = counted(n, "image");
        tracing::warn!("{images} with a logit that is not finite: counted as wrong");
    }
}

/// What a pass over all images leaves beside its answers.
pub struct Pass {
    /// Images that could not be read.
    pub failed: Vec<Failure>,
    /// Seconds from the first batch to the last.
    pub seconds: f64,
}

/// The images of a pass, and what is wanted of them.
pub struct PassImages<'a> {
    /// The images.
    pub source: Arc<dyn Source>,
    /// What of each is looked at.
    pub crops: Crops,
    /// What it goes through.
    pub preprocessing: &'a Preprocessing,
    /// How batches are made.
    pub options: &'a LoadOptions,
    /// What is wanted.
    pub wanted: Wanted,
    /// What the work is called while it goes on; none shows nothing.
    pub title: Option<&'static str>,
}

/// What a pass is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Logits alone.
    Logits,
    /// What the last layer reads, too.
    Features,
}

/// What the network says of the images of a batch that could be read.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// Their places in the list of images.
    pub indices: &'a [u32],
    /// Their classes.
    pub labels: &'a [u32],
    /// `[images][crops][classes]`.
    pub logits: &'a [f32],
    /// `[images][crops][channels]`; empty unless wanted.
    pub features: &'a [f32],
    /// The images of the batch that could not be read.
    pub failed: &'a [Failure],
}

/// What a rank tells the others of its batch.
#[derive(Default, Serialize, Deserialize)]
struct Told {
    indices: Vec<u32>,
    labels: Vec<u32>,
    logits: Vec<f32>,
    features: Vec<f32>,
    failed: ToldFailures,
}

/// Runs every image through a network once, and hands each batch to `each`, in their order. Of several ranks each
/// runs its share of the batches, and all get the answers of all.
///
/// # Errors
/// No image at all, an executor or loader that fails, a signal that asks any rank to stop, or those of `each`.
pub fn run_all(
    executor: &mut dyn Executor,
    weights: EvaluationWeights<'_>,
    images: PassImages<'_>,
    ranks: &mut Ranks,
    each: &mut dyn FnMut(Answered<'_>) -> Result<(), Error>,
) -> Result<Pass, Error> {
    let PassImages { source, crops, preprocessing, options, wanted, title } = images;
    let n_images = source.len();
    if n_images == 0 {
        return Err(Error::Unusable("there is no image to evaluate".to_owned()));
    }
    tracing::debug!("evaluating {}", counted(n_images as u64, "image"));
    ranks.at("the evaluation");
    executor.prepare_evaluation(weights)?;
    let normaliser = Normaliser::new(preprocessing.mean, preprocessing.std);
    let start = Instant::now();
    let mut progress = title.map(|title| ProgressBar::start(title, n_images as u64));
    let options = crop_options(options, crops, preprocessing.n_values());
    let share = ranks.share();
    let mut loader =
        Loader::eval_share(Arc::clone(&source), crops, preprocessing, &options, share)?;
    let mut failed = Vec::new();
    let mut features = Features::default();
    for _ in 0..n_images.div_ceil(options.batch_size).div_ceil(share.ranks) {
        let (mut told, mut wait) = (Told::default(), Duration::ZERO);
        // The last round may have fewer batches than ranks.
        if let Some(batch) = loader.next() {
            let mut batch = batch?;
            wait = batch.wait;
            if !batch.labels.is_empty() {
                let images = Images::Levels { levels: &batch.images, normaliser: &normaliser };
                match wanted {
                    Wanted::Logits => executor.evaluate(images, &mut told.logits)?,
                    Wanted::Features => {
                        executor.evaluate_features(images, &mut told.logits, &mut features)?;
                        told.features = std::mem::take(&mut features.pooled);
                    }
                }
            }
            told.indices = std::mem::take(&mut batch.indices);
            told.labels = std::mem::take(&mut batch.labels);
            told.failed = failures::told(&batch.failed);
            loader.recycle(batch);
        }
        for told in round(ranks, told)? {
            let Told { indices, labels, logits, features, .. } = &told;
            let mut of_batch = failures::heard(source.as_ref(), &told.failed);
            each(Answered { indices, labels, logits, features, failed: &of_batch })?;
            if let Some(progress) = &mut progress {
                let images = (labels.len() + of_batch.len()) as u64;
                progress.advance(images, std::mem::take(&mut wait));
            }
            failed.append(&mut of_batch);
        }
    }
    drop(progress);
    Ok(Pass { failed, seconds: start.elapsed().as_secs_f64() })
}

/// Most bytes of crops that are made ahead, as long as one worker does with that.
const MAX_CROP_BYTES: usize = 1 << 28;

/// Options for several crops of an image, `n_values` values each: a batch has as many images as give
/// about the same number of network inputs, at least one, and fewer batches wait. The network then
/// takes so long for an image that one or two workers keep ahead of it.
fn crop_options(options: &LoadOptions, crops: Crops, n_values: usize) -> LoadOptions {
    if crops == Crops::One {
        return *options;
    }
    let batch_size = (options.batch_size / crops.count()).max(1);
    let batch_bytes = batch_size * crops.count() * n_values;
    // A worker makes one batch while another waits; one more is with the network.
    let workers = (MAX_CROP_BYTES / batch_bytes.max(1)).saturating_sub(1) / 2;
    LoadOptions { batch_size, workers: options.workers.min(workers.max(1)), prefetch: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_with_images_weighs_the_same() {
        let count = |images, right| ClassCount { images, right };
        for (by_class, expected) in [
            (vec![], 0.0),
            (vec![count(0, 0)], 0.0),
            (vec![count(90, 90), count(10, 0)], 0.5),
            (vec![count(90, 45), count(10, 10), count(0, 0)], 0.75),
            (vec![count(3, 0), count(1, 0)], 0.0),
        ] {
            assert_eq!(balanced_accuracy(&by_class), expected, "{by_class:?}");
        }
    }

    #[test]
    fn the_first_class_is_that_of_the_rank() {
        for (logits_k, first) in [
            (&[0.5][..], 0),
            (&[0.1, 0.3, 0.2], 1),
            (&[0.3, 0.1, 0.3], 0),
            (&[-2.0, -1.0, -1.0], 1),
            (&[0.0, -0.0], 0),
        ] {
            assert_eq!(first_class(logits_k), first, "{logits_k:?}");
            for label in 0..logits_k.len() {
                let is_right = Score::of_logits(logits_k, label).is_in_top(1);
                assert_eq!(is_right, label == first as usize, "{logits_k:?}, class {label}");
            }
        }
    }

    #[test]
    fn many_crops_wait_in_small_batches() {
        let options = |batch_size, workers, prefetch| LoadOptions { batch_size, workers, prefetch };
        let (small, large) = (3 * 64 * 64, 3 * 224 * 224);
        let table = [
            (Crops::One, options(32, 64, 4), large, options(32, 64, 4)),
            (Crops::Ten, options(32, 4, 4), large, options(3, 4, 1)),
            (Crops::Ten, options(8, 2, 4), large, options(1, 2, 1)),
            // An image has 22 MB of crops: 2 x 5 + 1 batches are below 256 MiB, and 2 x 6 + 1 above.
            (Crops::All144, options(32, 64, 4), large, options(1, 5, 1)),
            (Crops::All144, options(32, 2, 4), large, options(1, 2, 1)),
            (Crops::All144, options(256, 64, 4), small, options(1, 64, 1)),
            (Crops::All144, options(32, 0, 4), large, options(1, 0, 1)),
            // Never less than one worker, if workers were asked for.
            (Crops::All144, options(32, 8, 4), 3 * 4096 * 4096, options(1, 1, 1)),
        ];
        for (crops, asked, n_values, expected) in table {
            let found = crop_options(&asked, crops, n_values);
            assert_eq!(found, expected, "{crops:?}, {asked:?}, {n_values} values");
        }
    }
}
