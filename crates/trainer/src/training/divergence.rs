//! Numbers that are no longer finite: where they appear first, the batch that brought them, and how
//! often a run goes back.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use bninception_data::Batch;
use bninception_engine::model::parameters::TensorSpec;
use bninception_engine::model::{ParameterTable, Weights};
use bninception_engine::{Images, Normaliser};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::config::OnDivergence;
use crate::file_error::FileError;
use crate::run::atomic_file;

/// How often a run goes back to its last checkpoint before it gives up.
pub const MOST_ROLLBACKS: u32 = 3;

/// What was not finite.
#[derive(Clone, Debug, PartialEq)]
pub enum Culprit {
    /// The loss.
    Loss(f64),
    /// A value of a tensor.
    Tensor {
        /// `gradient`, `parameter` or `statistic`.
        kind: &'static str,
        /// The tensor's name.
        name: String,
        /// The place in it.
        index: usize,
        /// The value.
        value: f32,
    },
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Culprit::Loss(loss) => write!(f, "the loss is {loss}"),
            Culprit::Tensor { kind, name, index, value } => {
                write!(f, "the {kind} {name} is {value} at value {index}")
            }
        }
    }
}

/// The first number that is not finite after an update: among the gradients, which come first, the
/// parameters, and the running statistics.
pub fn find(
    table: &ParameterTable,
    gradients: Option<&[f32]>,
    weights: &Weights,
) -> Option<Culprit> {
    let look = |kind, specs: &[TensorSpec], values: &[f32]| {
        specs.iter().find_map(|spec| {
            let values = &values[spec.range.clone()];
            let index = values.iter().position(|value| !value.is_finite())?;
            let name = spec.name.clone();
            Some(Culprit::Tensor { kind, name, index, value: values[index] })
        })
    };
    gradients
        .and_then(|gradients| look("gradient", &table.trainable, gradients))
        .or_else(|| look("parameter", &table.trainable, &weights.trainable))
        .or_else(|| look("statistic", &table.statistics, &weights.statistics))
}

/// The factor on the learning rate after `rollbacks`.
pub fn lr_factor(rollbacks: u32) -> f64 {
    0.5_f64.powi(rollbacks.min(MOST_ROLLBACKS) as i32)
}

/// Whether a run that diverged goes back once more.
pub fn may_roll_back(policy: OnDivergence, rollbacks: u32) -> bool {
    policy == OnDivergence::Rollback && rollbacks < MOST_ROLLBACKS
}

/// What is said of a batch that is kept.
#[derive(Debug)]
pub struct About {
    /// The files of its images.
    pub files: Vec<String>,
    /// Updates done before it.
    pub step: u64,
    /// Learning rate of its update.
    pub lr: f64,
}

/// Writes a batch as the network saw it: tensors `images` (n x 3 x size x size, normalised) and
/// `labels`, and in the metadata key `bninception` the step, the reason and the files.
///
/// # Errors
/// The file cannot be written.
pub fn dump(
    path: &Path,
    batch: &Batch,
    normaliser: &Normaliser,
    about: &About,
    culprit: &Culprit,
) -> Result<(), FileError> {
    let n = batch.labels.len();
    let pixels = batch.images.len() / n.max(1) / 3;
    let side = (pixels as f64).sqrt().round() as usize;
    let values = Images::Levels { levels: &batch.images, normaliser }.to_values(pixels);
    let images: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let labels: Vec<u8> = batch.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
    let write = || -> Result<(), std::io::Error> {
        let view = |dtype, shape, bytes| TensorView::new(dtype, shape, bytes);
        let images = view(Dtype::F32, vec![n, 3, side, side], &images);
        let labels = view(Dtype::U32, vec![n], &labels);
        let other = std::io::Error::other::<safetensors::SafeTensorError>;
        let tensors = [("images", images.map_err(other)?), ("labels", labels.map_err(other)?)];
        let reason = culprit.to_string();
        let About { files, step, lr } = about;
        let about = json!({ "step": step, "lr": lr, "reason": reason, "files": files });
        let about = HashMap::from([("bninception".to_owned(), about.to_string())]);
        let bytes = safetensors::serialize(tensors, Some(about)).map_err(other)?;
        atomic_file::write(path, |file| file.write_all(&bytes))
    };
    write().map_err(FileError::of("write", path))
}

#[cfg(test)]
mod tests {
    use bninception_engine::model::{Network, NetworkOptions};

    use super::*;

    #[test]
    fn the_first_to_appear_is_named() {
        let network = Network::bn_inception(NetworkOptions::default()).unwrap();
        let table = ParameterTable::new(&network);
        let weights = Weights {
            trainable: vec![0.0; table.n_trainable()],
            statistics: vec![0.0; table.n_statistics()],
        };
        let gradients = vec![0.0; table.n_trainable()];
        assert_eq!(find(&table, Some(&gradients), &weights), None);

        let at = |spec: &TensorSpec| spec.range.start + 2;
        let (filter, mean) = (&table.trainable[3], &table.statistics[5]);
        let mut bad = weights.clone();
        bad.statistics[at(mean)] = f32::NAN;
        let text = |found: Option<Culprit>| found.unwrap().to_string();
        let expected = format!("the statistic {} is NaN at value 2", mean.name);
        assert_eq!(text(find(&table, Some(&gradients), &bad)), expected);

        bad.trainable[at(filter)] = f32::INFINITY;
        let expected = format!("the parameter {} is inf at value 2", filter.name);
        assert_eq!(text(find(&table, Some(&gradients), &bad)), expected);

        let mut gradients = gradients;
        gradients[at(filter)] = f32::NEG_INFINITY;
        let expected = format!("the gradient {} is -inf at value 2", filter.name);
        assert_eq!(text(find(&table, Some(&gradients), &bad)), expected);
        assert_eq!(Culprit::Loss(f64::NAN).to_string(), "the loss is NaN");
    }

    #[test]
    fn three_times_back_each_at_half_the_rate() {
        let table = [
            (OnDivergence::Stop, 0, false, 1.0),
            (OnDivergence::Rollback, 0, true, 1.0),
            (OnDivergence::Rollback, 1, true, 0.5),
            (OnDivergence::Rollback, 2, true, 0.25),
            (OnDivergence::Rollback, 3, false, 0.125),
            (OnDivergence::Rollback, 1000, false, 0.125),
        ];
        for (policy, rollbacks, again, factor) in table {
            assert_eq!(may_roll_back(policy, rollbacks), again, "{policy:?} {rollbacks}");
            assert_eq!(lr_factor(rollbacks), factor, "{rollbacks}");
        }
    }
}
