//! What an export is made of.

use bninception_data::Preprocessing;
use bninception_engine::model::parameters::TensorSpec;
use bninception_engine::model::{Network, ParameterTable, Role, Weights};
use serde_json::{Value, json};

use super::storage::Storage;
use crate::error::Error;

/// A network that is handed on.
#[derive(Clone, Copy, Debug)]
pub struct Exported<'a> {
    /// The network; its auxiliary heads stay behind.
    pub network: &'a Network,
    /// The weights that evaluation uses.
    pub weights: &'a Weights,
    /// What an image goes through.
    pub preprocessing: &'a Preprocessing,
    /// Names of the classes.
    pub classes: &'a [String],
}

impl Exported<'_> {
    /// What an image goes through, for the metadata of a file. A mean is that of red, green and blue in
    /// 0 to 1.
    pub fn input(&self) -> Value {
        let Preprocessing { image_size, crop_ratio, mean, std, exif, interpolation } =
            self.preprocessing;
        // The f32 of a setting such as 0.485 is written as that.
        let numbers = |values: &[f32; 3]| values.map(|value| value.to_string().parse::<f64>().ok());
        json!({
            "colours": "red, green, blue from 0 to 1, less mean, over std",
            "crop_ratio": crop_ratio,
            "exif": exif,
            "image_size": image_size,
            "interpolation": interpolation,
            "mean": numbers(mean),
            "std": numbers(std),
        })
    }

    /// The tensors of the layers that evaluation runs, with their values.
    pub(super) fn tensors(&self) -> Vec<(TensorSpec, &[f32])> {
        let ParameterTable { trainable, statistics } = ParameterTable::new(self.network);
        let runs = self.network.evaluated_layers();
        let trainable = trainable.into_iter().map(|spec| (spec, &self.weights.trainable));
        let statistics = statistics.into_iter().map(|spec| (spec, &self.weights.statistics));
        trainable
            .chain(statistics)
            .filter(|(spec, _)| runs[spec.layer])
            .map(|(spec, values)| {
                let values = &values[spec.range.clone()];
                (spec, values)
            })
            .collect()
    }
}

/// The bytes of a tensor, and whether they are of the type asked for: filters and matrices are, the rest is
/// in f32.
///
/// # Errors
/// A value that is beyond the type.
pub(super) fn stored(
    name: &str,
    role: Role,
    values: &[f32],
    storage: Storage,
) -> Result<(Storage, Vec<u8>), Error> {
    let storage = match role {
        Role::ConvWeight | Role::LinearWeight => storage,
        _ => Storage::F32,
    };
    let bytes = storage.bytes(values).map_err(|at| {
        Error::Unusable(format!(
            "{name} has the value {} at {at}, which {} cannot hold; take --storage {}",
            values[at],
            storage.name(),
            if storage == Storage::F16 { "bf16" } else { "f32" }
        ))
    })?;
    Ok((storage, bytes))
}
