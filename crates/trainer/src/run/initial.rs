//! The weights that a run begins with when they are those of a checkpoint.
//!
//! A checkpoint gives every tensor that both networks have. Of a classifier it gives the rows of the classes
//! that have the same name; the others are drawn. What only one of the networks has is no obstacle where the
//! rest does not depend on it: auxiliary heads, and biases in front of a batch norm, which subtracts them
//! again.

use std::fs;
use std::path::Path;

use bninception_engine::ModelState;
use bninception_engine::model::parameters::TensorSpec;
use bninception_engine::model::{Network, ParameterTable, Role, Weights};

use crate::file_error::FileError;
use crate::run::checkpoint::Checkpoint;
use crate::run::error::RunError;
use crate::run::metadata::InitialSource;

/// The first weights of a run, and what of them is a checkpoint's.
#[derive(Clone, Debug)]
pub struct InitialWeights {
    /// Weights and running statistics.
    pub weights: Weights,
    /// Where they come from.
    pub source: InitialSource,
    /// Tensors that were taken over whole.
    pub n_taken: usize,
    /// Tensors that were drawn, classifiers left out.
    pub drawn: Vec<String>,
    /// Tensors of the checkpoint that the run has no use for.
    pub left_out: Vec<String>,
}

impl InitialWeights {
    /// The weights of `checkpoint` for a network with these classes; what it does not give is that of
    /// `drawn`. They are the weights that evaluation would use: the moving average where there is one, with
    /// population statistics where there are some.
    ///
    /// # Errors
    /// Tensors that do not fit, or a file that cannot be read.
    pub fn of(
        checkpoint: &Checkpoint,
        network: &Network,
        classes: &[String],
        drawn: Weights,
    ) -> Result<InitialWeights, RunError> {
        let given = Given::of(checkpoint);
        let table = ParameterTable::new(network);
        let own_classes = &checkpoint.metadata.classes;
        let place = |class| own_classes.iter().position(|own| own == class);
        let places: Vec<Option<usize>> = classes.iter().map(place).collect();
        let mut weights = drawn;
        let (mut n_taken, mut drawn, mut problems) = (0, Vec::new(), Vec::new());
        let trainable = table.trainable.iter().map(|spec| (spec, true));
        let statistics = table.statistics.iter().map(|spec| (spec, false));
        for (spec, is_trainable) in trainable.chain(statistics) {
            let vector = match is_trainable {
                true => &mut weights.trainable,
                false => &mut weights.statistics,
            };
            let to = &mut vector[spec.range.clone()];
            match given.find(&spec.name) {
                Some((own, values)) if is_of_classifier(network, spec) => {
                    match own.shape[1..] == spec.shape[1..] {
                        true => copy_rows(values, to, &places),
                        false => problems.push(other_shape(spec, own)),
                    }
                }
                Some((own, values)) if own.shape == spec.shape => {
                    to.copy_from_slice(values);
                    n_taken += 1;
                }
                Some(_) if is_optional(network, spec) => drawn.push(spec.name.clone()),
                Some((own, _)) => problems.push(other_shape(spec, own)),
                None if is_optional(network, spec) => drawn.push(spec.name.clone()),
                None => problems.push(format!("{} is missing there", spec.name)),
            }
        }
        let has = |name: &String| {
            table.trainable.iter().chain(&table.statistics).any(|spec| spec.name == *name)
        };
        let mut left_out = Vec::new();
        for (spec, values) in given.tensors().filter(|(spec, _)| !has(&spec.name)) {
            if !is_optional(given.network, spec) {
                problems.push(format!("{} is there and not here", spec.name));
            } else if spec.role == Role::Bias {
                let norm = format!("{}_bn.running_mean", given.network.layers[spec.layer].name);
                if let Some(mean) = table.statistics.iter().find(|spec| spec.name == norm) {
                    // The mean of Wx + b is that of Wx plus b.
                    let mean = &mut weights.statistics[mean.range.clone()];
                    mean.iter_mut().zip(values).for_each(|(mean, bias)| *mean -= bias);
                }
            }
            left_out.push(spec.name.clone());
        }
        if !problems.is_empty() {
            return Err(RunError::Unusable(format!(
                "{} has another network: {}; leave the settings of [network] to it",
                checkpoint.path.display(),
                first_of(&problems)
            )));
        }
        let kept = classes.iter().zip(&places).filter(|(_, place)| place.is_some());
        let source = InitialSource {
            path: checkpoint.path.display().to_string(),
            blake3: file_hash(&checkpoint.path)?,
            step: checkpoint.metadata.step,
            kept_classes: kept.map(|(class, _)| class.clone()).collect(),
        };
        Ok(InitialWeights { weights, source, n_taken, drawn, left_out })
    }

    /// The state of a run that begins with them.
    pub fn to_state(&self, with_ema: bool) -> ModelState {
        let ema = with_ema.then(|| self.weights.clone());
        ModelState { ema, ..ModelState::of(self.weights.clone()) }
    }

    /// What was taken over and what was not, a line each.
    pub fn to_lines(&self, classes: &[String]) -> Vec<String> {
        let InitialSource { path, blake3, step, kept_classes } = &self.source;
        let drawn: Vec<&String> =
            classes.iter().filter(|class| !kept_classes.contains(class)).collect();
        let mut lines = vec![format!(
            "initial weights: {} tensors of {path} (step {step}, BLAKE3 {})",
            self.n_taken,
            blake3.get(..16).unwrap_or(blake3)
        )];
        lines.push(format!(
            "classifier: {} of {} classes kept by name{}, {} drawn anew{}",
            kept_classes.len(),
            classes.len(),
            listed(kept_classes),
            drawn.len(),
            listed(&drawn)
        ));
        if !self.drawn.is_empty() {
            lines.push(format!(
                "not in that checkpoint as here, so drawn: {}",
                first_of(&self.drawn)
            ));
        }
        if !self.left_out.is_empty() {
            lines.push(format!("of that checkpoint not taken: {}", first_of(&self.left_out)));
        }
        lines
    }
}

/// What a checkpoint gives.
struct Given<'a> {
    network: &'a Network,
    table: ParameterTable,
    trainable: &'a [f32],
    statistics: &'a [f32],
}

impl<'a> Given<'a> {
    fn of(checkpoint: &'a Checkpoint) -> Given<'a> {
        let weights = checkpoint.state.model.evaluation_weights();
        let population = checkpoint.state.population.as_ref();
        Given {
            network: &checkpoint.network,
            table: ParameterTable::new(&checkpoint.network),
            trainable: &weights.trainable,
            statistics: population.map_or(&weights.statistics, |found| &found.statistics),
        }
    }

    /// All tensors with their values.
    fn tensors(&self) -> impl Iterator<Item = (&TensorSpec, &'a [f32])> {
        let (trainable, statistics) = (self.trainable, self.statistics);
        let of = |values: &'a [f32]| {
            move |spec: &'_ TensorSpec| -> &'a [f32] { &values[spec.range.clone()] }
        };
        let (of_trainable, of_statistics) = (of(trainable), of(statistics));
        let trainable = self.table.trainable.iter().map(move |spec| (spec, of_trainable(spec)));
        let statistics = self.table.statistics.iter().map(move |spec| (spec, of_statistics(spec)));
        trainable.chain(statistics)
    }

    fn find(&self, name: &str) -> Option<(&TensorSpec, &'a [f32])> {
        self.tensors().find(|(spec, _)| spec.name == name)
    }
}

/// Copies the row of each class that has a place among `rows`.
fn copy_rows(rows: &[f32], to: &mut [f32], places: &[Option<usize>]) {
    let len = to.len() / places.len();
    for (row, place) in to.chunks_exact_mut(len).zip(places) {
        if let Some(place) = place {
            row.copy_from_slice(&rows[place * len..][..len]);
        }
    }
}

fn is_of_classifier(network: &Network, spec: &TensorSpec) -> bool {
    network.losses.iter().any(|loss| loss.logits == spec.layer)
}

/// Whether the rest of a network works without this tensor: it is an auxiliary head's, or batch norm
/// subtracts it.
fn is_optional(network: &Network, spec: &TensorSpec) -> bool {
    let is_auxiliary = !network.evaluated_layers()[spec.layer];
    let has_norm = network.options.batch_norm.is_some();
    is_auxiliary || spec.role == Role::Bias && has_norm && !is_of_classifier(network, spec)
}

fn other_shape(spec: &TensorSpec, own: &TensorSpec) -> String {
    format!("{} has the shape {:?} there and {:?} here", spec.name, own.shape, spec.shape)
}

/// `: a, b, c and 4 more` behind a number; nothing of none.
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
