//! What a network was given and gave, as a file for other programs.

use std::path::Path;

use bninception_engine::model::parameters::TensorSpec;
use bninception_engine::model::{ParameterTable, Weights};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::error::Error;
use crate::file_error::FileError;
use crate::run::atomic_file;

/// Images and labels, weights, and what came of them.
pub(super) struct NetworkRecord<'a> {
    /// The network's tensors.
    pub(super) table: &'a ParameterTable,
    /// `[n][3][side][side]`, normalised.
    pub(super) images: Vec<f32>,
    /// Classes of the n images.
    pub(super) labels: &'a [u32],
    /// Weights and statistics, under their names.
    pub(super) weights: &'a Weights,
    /// `[n][classes]`, with these statistics.
    pub(super) logits: &'a [f32],
    /// Those of the mean loss with the statistics of the batch, under `gradient.NAME`.
    pub(super) gradients: &'a [f32],
}

impl NetworkRecord<'_> {
    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn save(&self, path: &Path) -> Result<(), Error> {
        let n = self.labels.len();
        let side = ((self.images.len() / n.max(1) / 3) as f64).sqrt().round() as usize;
        let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        let mut f32s = |name: String, shape: Vec<usize>, values: &[f32]| {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            tensors.push((name, Dtype::F32, shape, bytes));
        };
        f32s("images".into(), vec![n, 3, side, side], &self.images);
        f32s("logits".into(), vec![n, self.logits.len() / n.max(1)], self.logits);
        let of = |spec: &TensorSpec, values: &[f32]| values[spec.range.clone()].to_vec();
        for spec in &self.table.trainable {
            let shape = spec.shape.clone();
            f32s(spec.name.clone(), shape.clone(), &of(spec, &self.weights.trainable));
            f32s(format!("gradient.{}", spec.name), shape, &of(spec, self.gradients));
        }
        for spec in &self.table.statistics {
            let values = of(spec, &self.weights.statistics);
            f32s(spec.name.clone(), spec.shape.clone(), &values);
        }
        let labels = self.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        tensors.push(("labels".into(), Dtype::U32, vec![n], labels));
        let write = || -> Result<(), std::io::Error> {
            let other = std::io::Error::other::<safetensors::SafeTensorError>;
            let mut views = Vec::new();
            for (name, dtype, shape, bytes) in &tensors {
                views.push((name, TensorView::new(*dtype, shape.clone(), bytes).map_err(other)?));
            }
            let bytes = safetensors::serialize(views, None).map_err(other)?;
            atomic_file::write(path, |file| file.write_all(&bytes))
        };
        Ok(write().map_err(FileError::of("write", path))?)
    }
}
