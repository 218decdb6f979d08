//! A checkpoint whose classifier is a probe's.

use std::path::Path;

use bninception_engine::model::Network;

use super::regression::Linear;
use crate::config::{Config, Recipe};
use crate::evaluation::evaluate::Evaluation;
use crate::evaluation::last_layer::LastLayer;
use crate::run::checkpoint::Checkpoint;
use crate::run::image_lists::ImageLists;
use crate::run::initial::InitialWeights;
use crate::run::metadata::{InitialSource, Metadata, StoredDirs};
use crate::run::state::{RunProgress, Statistics, TrainState};

/// What a probe works on, as its checkpoint tells it.
pub struct ProbedImages {
    /// Class names, in the order of the labels.
    pub classes: Vec<String>,
    /// Which images they are.
    pub lists: ImageLists,
    /// Where they are.
    pub dirs: StoredDirs,
}

/// The checkpoint for `path`, not written yet, with the weights of `initial` and the classifier of a probe.
/// No row of the classifier is an earlier one, whatever the names of the classes.
pub fn with_classifier(
    path: &Path,
    network: Network,
    (config, recipe): (Config, Recipe),
    images: ProbedImages,
    initial: &InitialWeights,
    classifier: &Linear,
) -> Checkpoint {
    let mut model = initial.to_state(false);
    let LastLayer { matrix, bias, .. } = LastLayer::of(&network);
    for (range, values) in [(matrix, &classifier.matrix), (bias, &classifier.bias)] {
        let to = &mut model.weights.trainable[range];
        to.iter_mut().zip(values).for_each(|(to, &value)| *to = value as f32);
    }
    let ProbedImages { classes, lists, dirs } = images;
    let metadata = Metadata {
        images: lists,
        data_dirs: dirs,
        initial: Some(InitialSource { kept_classes: Vec::new(), ..initial.source.clone() }),
        ..Metadata::without_run(classes, config, recipe)
    };
    Checkpoint { path: path.to_owned(), metadata, network, state: TrainState::of(model) }
}

/// Keeps in `checkpoint` what an evaluation of it found.
pub fn keep_evaluation(
    checkpoint: &mut Checkpoint,
    evaluation: &Evaluation,
    statistics: Option<Statistics>,
) {
    let result = evaluation.to_result(0, None, statistics);
    let progress =
        RunProgress { evaluated_step: Some(0), evaluation: Some(result), ..RunProgress::default() };
    checkpoint.metadata.progress.clone_from(&progress);
    checkpoint.state.progress = progress;
}
