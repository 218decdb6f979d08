//! A checkpoint whose network is used for images of another size than those that it was trained on. Up to the
//! pool over all positions it only has convolutions and pools, which take maps of any size.

use bninception_engine::ModelState;
use bninception_engine::model::{Network, NetworkOptions, ParameterTable, Weights};

use crate::run::checkpoint::Checkpoint;
use crate::run::error::RunError;
use crate::run::state::{Population, TrainState};
use crate::run::transfer::Given;

/// What the recipe says changed the settings.
const SOURCE: &str = "flag --image-size";

impl Checkpoint {
    /// The same weights for images of `image_size` x `image_size` pixels. Its statistics of batch norm stay
    /// those of the size before.
    ///
    /// Auxiliary heads, whose fully connected layers fit one size alone, are left out, and with them the
    /// momentum. No layer is frozen any more: all statistics are to be taken anew.
    ///
    /// # Errors
    /// The network does not take this size.
    pub fn at_image_size(self, image_size: usize) -> Result<Checkpoint, RunError> {
        let Checkpoint { path, mut metadata, network, mut state } = self;
        if image_size == metadata.preprocessing.image_size {
            return Ok(Checkpoint { path, metadata, network, state });
        }
        let sizes = NetworkOptions::IMAGE_SIZES;
        if !sizes.contains(&image_size) {
            return Err(RunError::Usage(format!(
                "--image-size {image_size}: expected {} to {} pixels",
                sizes.start(),
                sizes.end()
            )));
        }
        let trained = metadata.trained_image_size.unwrap_or(metadata.preprocessing.image_size);
        metadata.trained_image_size = (trained != image_size).then_some(trained);
        metadata.preprocessing.image_size = image_size;
        let config = &mut metadata.config;
        config.data.image_size = image_size;
        config.train.freeze.clear();
        let mut changed = vec!["data.image_size"];
        if std::mem::take(&mut config.network.aux) {
            changed.push("network.aux");
        }
        let changed = changed.into_iter().map(|key| (key.to_owned(), SOURCE.to_owned()));
        metadata.recipe.changed.extend(changed);
        // What was measured was measured at the other size.
        metadata.progress.forget_evaluations();
        state.progress.forget_evaluations();
        let resized = metadata.network().map_err(RunError::Unusable)?;
        if ParameterTable::new(&resized) != ParameterTable::new(&network) {
            state = without_heads(&network, state, &resized)?;
        }
        Ok(Checkpoint { path, metadata, network: resized, state })
    }
}

/// The state of a network without the auxiliary heads of another.
fn without_heads(
    network: &Network,
    state: TrainState,
    resized: &Network,
) -> Result<TrainState, RunError> {
    let table = ParameterTable::new(resized);
    let places: Vec<Option<usize>> = (0..resized.options.classes).map(Some).collect();
    let taken = |trainable: &[f32], statistics: &[f32]| {
        let blank = Weights {
            trainable: vec![0.0; table.n_trainable()],
            statistics: vec![0.0; table.n_statistics()],
        };
        let taken = Given { network, trainable, statistics }.transfer(resized, &places, blank);
        taken.map(|taken| taken.weights).map_err(|problems| {
            RunError::Unusable(format!(
                "the network does not take this size: {}",
                problems.join(", ")
            ))
        })
    };
    let ModelState { weights, ema, .. } = state.model;
    let population = match state.population {
        Some(Population { statistics, made }) => {
            let statistics = taken(&weights.trainable, &statistics)?.statistics;
            Some(Population { statistics, made })
        }
        None => None,
    };
    let ema = ema.map(|ema| taken(&ema.trainable, &ema.statistics)).transpose()?;
    let weights = taken(&weights.trainable, &weights.statistics)?;
    let model = ModelState { ema, ..ModelState::of(weights) };
    Ok(TrainState { model, progress: state.progress, population })
}
