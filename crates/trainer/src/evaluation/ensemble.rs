//! One or several trained networks evaluated as one: "the prediction is the arithmetic average of
//! class probabilities predicted by the constituent networks" (Ioffe & Szegedy 2015, section 4.2.3),
//! and of the crops of an image (Szegedy et al. 2014, section 7).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bninception_data::{Crops, Failure, FileSource, Preprocessing, Sample};
use bninception_engine::model::{Network, Weights};
use bninception_engine::{EvaluationWeights, Executor};

use crate::config::Config;
use crate::distributed::Ranks;
use crate::error::Error;
use crate::evaluation::activation_map::CentredClassifier;
use crate::evaluation::evaluate::{Answered, PassImages, Wanted, run_all, warn_of_not_finite};
use crate::evaluation::outcomes::{ImageOutcome, Outcomes};
use crate::evaluation::statistics::{self, Statistics};
use crate::images::own_images::OwnImages;
use crate::run::checkpoint::Checkpoint;
use crate::run::classes;
use crate::run::metadata::Metadata;
use crate::setup;
use bninception_engine::metrics::{Score, log_add, log_softmax};

/// A network with all that it takes to use it.
pub struct Member {
    /// Its checkpoint.
    pub path: PathBuf,
    /// The checksum of that file; empty of an earlier program.
    pub checksum: String,
    /// Updates behind its weights.
    pub step: u64,
    /// Whether its weights are the moving average of those of training.
    pub ema: bool,
    /// The statistics that its batch norm uses.
    pub statistics: Option<Statistics>,
    /// How images become its input.
    pub preprocessing: Preprocessing,
    /// Its run's settings, with those of the command.
    pub config: Config,
    /// The images of its run.
    pub own: OwnImages,
    /// Its classes, in its own order.
    classes: Vec<String>,
    network: Network,
    weights: Weights,
    /// For each of its classes, the place in the list of all models.
    places: Vec<usize>,
}

impl Member {
    /// The model of `checkpoint`, whose classes are matched with `classes` by name.
    ///
    /// # Errors
    /// Other classes, or statistics that the checkpoint does not have.
    pub fn new(
        checkpoint: Checkpoint,
        config: Config,
        asked: Option<Statistics>,
        classes: &[String],
    ) -> Result<Member, Error> {
        let (weights, statistics) = statistics::weights(&checkpoint, asked)?;
        let own = OwnImages::of(&checkpoint.metadata, &checkpoint.path);
        let Checkpoint { path, metadata, network, state, .. } = checkpoint;
        let Some(places) = classes::places(classes, &metadata.classes) else {
            return Err(Error::Unusable(format!(
                "{} has other classes than the first checkpoint: {}; models that are evaluated \
                 together must name the same classes",
                path.display(),
                classes::difference(classes, &metadata.classes)
            )));
        };
        let (step, ema) = (metadata.step, state.model.ema.is_some());
        let Metadata { preprocessing, classes, checksum, .. } = metadata;
        Ok(Member {
            path,
            checksum,
            step,
            ema,
            statistics,
            preprocessing,
            config,
            own,
            classes,
            network,
            weights,
            places,
        })
    }
}

impl Member {
    /// An executor that is ready to evaluate with its weights, and its last layer.
    ///
    /// # Errors
    /// An executor that cannot be built.
    pub fn explainer(&self) -> Result<(Box<dyn Executor>, CentredClassifier), Error> {
        let mut executor = setup::executor(&self.config, self.network.clone())?;
        executor.prepare_evaluation(EvaluationWeights::Given(&self.weights))?;
        Ok((executor, CentredClassifier::of(&self.network, &self.weights)))
    }

    /// The names of its classes, in its own order.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The place among its own classes of a class in the list of all models.
    pub fn own_class(&self, class: u32) -> Option<usize> {
        self.places.iter().position(|&place| place == class as usize)
    }
}

/// Evaluates every sample once: the mean of the class probabilities of all crops and models.
///
/// The models take turns, so that one network's memory is needed at a time; for several models the
/// probabilities of all images are kept meanwhile, 8 bytes for each image and class.
///
/// # Errors
/// No image at all, an executor or loader that fails, or a signal that asks to stop.
pub fn evaluate(
    models: &[Member],
    classes: &[String],
    samples: Vec<Sample>,
    crops: Crops,
    ranks: &mut Ranks,
) -> Result<Outcomes, Error> {
    let mut failed: BTreeMap<u32, Failure> = BTreeMap::new();
    let mut seconds = 0.0;
    let mut outcomes = Vec::new();
    let mut sums = Sums::new(if models.len() > 1 { samples.len() } else { 0 }, classes.len());
    for model in models {
        let mut executor = setup::executor(&model.config, model.network.clone())?;
        let statistics = statistics::name(model.statistics);
        tracing::info!("{}, batch norm statistics: {statistics}", executor.describe());
        let source = FileSource::new(samples.clone(), setup::decode_options(&model.config))?;
        let options = setup::load_options(&model.config, setup::val_batch_size(&model.config));
        let mut log_k = vec![0.0; classes.len()];
        let mut in_order = vec![0.0; classes.len()];
        let mut each = |Answered { indices, labels, logits, .. }: Answered<'_>| {
            let rows = logits.chunks_exact(crops.count() * classes.len());
            for ((&index, &label), logits) in indices.iter().zip(labels).zip(rows) {
                mean_of_crops(logits, &model.places, &mut log_k);
                if models.len() > 1 {
                    sums.add(index, &log_k);
                    continue;
                }
                let score = match crops {
                    // As in training, from the logits themselves.
                    Crops::One => {
                        for (&logit, &place) in logits.iter().zip(&model.places) {
                            in_order[place] = logit;
                        }
                        Score::of_logits(&in_order, label as usize)
                    }
                    _ => Score::of_log_probabilities(&log_k, label as usize),
                };
                outcomes.push(ImageOutcome::new(index, label, score, &log_k));
            }
            Ok(())
        };
        let pass = run_all(
            executor.as_mut(),
            EvaluationWeights::Given(&model.weights),
            PassImages {
                source: Arc::new(source),
                crops,
                preprocessing: &model.preprocessing,
                options: &options,
                wanted: Wanted::Logits,
                title: Some("evaluating"),
            },
            ranks,
            &mut each,
        )?;
        seconds += pass.seconds;
        failed.extend(pass.failed.into_iter().map(|failure| (failure.index, failure)));
    }
    if models.len() > 1 {
        for (index, sample) in (0..).zip(&samples) {
            // An image that one of the models could not read has no mean over all of them.
            if !failed.contains_key(&index) {
                let log_k = sums.mean(index, models.len());
                let score = Score::of_log_probabilities(&log_k, sample.label as usize);
                outcomes.push(ImageOutcome::new(index, sample.label, score, &log_k));
            }
        }
    }
    let failed = failed.into_values().collect();
    let outcomes = Outcomes::new(classes.to_vec(), samples, crops, outcomes, failed, seconds);
    warn_of_not_finite(&outcomes.evaluation.metrics);
    Ok(outcomes)
}

/// Mean over the crops of one image of the softmax of its logits (crops x classes), each class put
/// at its place; as logarithms.
fn mean_of_crops(logits: &[f32], places: &[usize], log_k: &mut [f64]) {
    let crops = logits.chunks_exact(places.len());
    let log_crops = (crops.len() as f64).ln();
    log_k.fill(f64::NEG_INFINITY);
    for logits_k in crops {
        for (log, &place) in log_softmax(logits_k).into_iter().zip(places) {
            log_k[place] = log_add(log_k[place], log);
        }
    }
    log_k.iter_mut().for_each(|log| *log -= log_crops);
}

/// Sums over models of each image's probabilities, as logarithms.
struct Sums {
    classes: usize,
    logs: Vec<f64>,
}

impl Sums {
    fn new(images: usize, classes: usize) -> Sums {
        Sums { classes, logs: vec![f64::NEG_INFINITY; images * classes] }
    }

    fn add(&mut self, index: u32, log_k: &[f64]) {
        let row = &mut self.logs[index as usize * self.classes..][..self.classes];
        row.iter_mut().zip(log_k).for_each(|(sum, &log)| *sum = log_add(*sum, log));
    }

    /// The mean over `models` models.
    fn mean(&self, index: u32, models: usize) -> Vec<f64> {
        let row = &self.logs[index as usize * self.classes..][..self.classes];
        let log_models = (models as f64).ln();
        row.iter().map(|log| log - log_models).collect()
    }
}

/// The statistics that all models use; `None` if they differ.
pub fn common_statistics(models: &[Member]) -> Option<Option<Statistics>> {
    let first = models.first()?.statistics;
    models.iter().all(|model| model.statistics == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// Logits whose softmax is the given probabilities.
    fn logits(probabilities: &[f64]) -> Vec<f32> {
        probabilities.iter().map(|probability| probability.ln() as f32).collect()
    }

    /// The first model knows a b c and sees two crops, the second c a b and sees one.
    #[test]
    fn probabilities_are_averaged_by_name() {
        let classes = names("a b c");
        let first = logits(&[0.5, 0.25, 0.25, 0.1, 0.75, 0.15]);
        let second = logits(&[0.2, 0.6, 0.2]);
        let mut sums = Sums::new(2, 3);
        let mut log_k = vec![f64::NAN; 3];
        let close = |log_k: &[f64], expected: [f64; 3]| {
            let near = log_k.iter().zip(expected).all(|(log, p)| (log.exp() - p).abs() < 1e-7);
            assert!(near, "{log_k:?}, expected logarithms of {expected:?}");
        };
        mean_of_crops(&first, &[0, 1, 2], &mut log_k);
        close(&log_k, [0.3, 0.5, 0.2]);
        sums.add(1, &log_k);
        let places = classes::places(&classes, &names("c a b")).unwrap();
        mean_of_crops(&second, &places, &mut log_k);
        close(&log_k, [0.6, 0.2, 0.2]);
        sums.add(1, &log_k);
        // ([0.3 0.5 0.2] + [0.6 0.2 0.2]) / 2: b came first alone, a comes first together.
        let mean = sums.mean(1, 2);
        close(&mean, [0.45, 0.35, 0.2]);
        close(&sums.mean(0, 2), [0.0; 3]);
        let score = Score::of_log_probabilities(&mean, 1);
        assert_eq!(score.rank, Some(1));
        assert!((score.loss + 0.35_f64.ln()).abs() < 1e-6, "{}", score.loss);
    }
}
