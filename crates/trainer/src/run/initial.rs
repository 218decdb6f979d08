//! The weights that a run begins with when they are those of a checkpoint.

use std::fs;
use std::path::Path;

use bninception_engine::ModelState;
use bninception_engine::model::{Network, Weights};

use crate::file_error::FileError;
use crate::run::checkpoint::Checkpoint;
use crate::run::error::RunError;
use crate::run::metadata::InitialSource;
use crate::run::transfer::{Given, Transferred};

/// The first weights of a run, and what of them is a checkpoint's.
#[derive(Clone, Debug)]
pub struct InitialWeights {
    /// Weights and running statistics, and what became of the checkpoint's.
    taken: Transferred,
    /// Where they come from.
    pub source: InitialSource,
}

impl InitialWeights {
    /// The weights of `checkpoint` for a network with these classes; what it does not give is that of
    /// `drawn`. They are the weights that evaluation would use: the moving average where there is one, with
    /// population statistics where there are some. Rows of a classifier are found by the names of classes.
    ///
    /// # Errors
    /// Tensors that do not fit, or a file that cannot be read.
    pub fn of(
        checkpoint: &Checkpoint,
        network: &Network,
        classes: &[String],
        drawn: Weights,
    ) -> Result<InitialWeights, RunError> {
        let own_classes = &checkpoint.metadata.classes;
        let place = |class| own_classes.iter().position(|own| own == class);
        let places: Vec<Option<usize>> = classes.iter().map(place).collect();
        let weights = checkpoint.state.model.evaluation_weights();
        let population = checkpoint.state.population.as_ref();
        let given = Given {
            network: &checkpoint.network,
            trainable: &weights.trainable,
            statistics: population.map_or(&weights.statistics, |found| &found.statistics),
        };
        let taken = given.transfer(network, &places, drawn).map_err(|problems| {
            RunError::Unusable(format!(
                "{} has another network: {}; leave the settings of [network] to it",
                checkpoint.path.display(),
                first_of(&problems)
            ))
        })?;
        let kept = classes.iter().zip(&places).filter(|(_, place)| place.is_some());
        let source = InitialSource {
            path: checkpoint.path.display().to_string(),
            blake3: file_hash(&checkpoint.path)?,
            step: checkpoint.metadata.step,
            kept_classes: kept.map(|(class, _)| class.clone()).collect(),
        };
        Ok(InitialWeights { taken, source })
    }

    /// The state of a run that begins with them.
    pub fn to_state(&self, with_ema: bool) -> ModelState {
        let weights = &self.taken.weights;
        let ema = with_ema.then(|| weights.clone());
        ModelState { ema, ..ModelState::of(weights.clone()) }
    }

    /// What was taken over and what was not, a line each.
    pub fn to_lines(&self, classes: &[String]) -> Vec<String> {
        let InitialSource { path, blake3, step, kept_classes } = &self.source;
        let Transferred { n_taken, drawn, left_out, .. } = &self.taken;
        let new_classes: Vec<&String> =
            classes.iter().filter(|class| !kept_classes.contains(class)).collect();
        let mut lines = vec![format!(
            "initial weights: {n_taken} tensors of {path} (step {step}, BLAKE3 {})",
            blake3.get(..16).unwrap_or(blake3)
        )];
        lines.push(format!(
            "classifier: {} of {} classes kept by name{}, {} drawn anew{}",
            kept_classes.len(),
            classes.len(),
            listed(kept_classes),
            new_classes.len(),
            listed(&new_classes)
        ));
        if !drawn.is_empty() {
            lines.push(format!("not in that checkpoint as here, so drawn: {}", first_of(drawn)));
        }
        if !left_out.is_empty() {
            lines.push(format!("of that checkpoint not taken: {}", first_of(left_out)));
        }
        lines
    }
}

/// ` (a, b, c and 4 more)` behind a number; nothing of none.
fn listed<S: AsRef<str>>(names: &[S]) -> String {
    if names.is_empty() { String::new() } else { format!(" ({})", first_of(names)) }
}

fn first_of<S: AsRef<str>>(texts: &[S]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = texts.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match texts.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// BLAKE3 of a file, as `b3sum` prints it.
///
/// # Errors
/// The file cannot be read.
pub fn file_hash(path: &Path) -> Result<String, RunError> {
    let bytes = fs::read(path).map_err(FileError::of("read", path))?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}
