//! The checks of a batch, which all executors share.

use crate::error::ModelError;
use crate::layer::{Layer, Op};
use crate::network::Network;

/// Fails unless a buffer, named by `what`, has the expected length.
///
/// # Errors
/// [`ModelError::Length`].
pub fn check_len(what: &'static str, expected: usize, found: usize) -> Result<(), ModelError> {
    if expected == found { Ok(()) } else { Err(ModelError::Length { what, expected, found }) }
}

/// Fails unless `network` can train on a batch.
///
/// # Shapes
/// `images` `[n][3][size][size]`, `labels` `[n]`.
///
/// # Errors
/// No image, images of another length, a label out of range, or a batch norm that would see a
/// single value per channel.
pub fn check_batch(network: &Network, images: &[f32], labels: &[u32]) -> Result<(), ModelError> {
    if labels.is_empty() {
        return Err(ModelError::Length { what: "labels", expected: 1, found: 0 });
    }
    check_len("images", labels.len() * network.layers[0].output.len(), images.len())?;
    let classes = network.options.classes;
    if let Some(image) = labels.iter().position(|&label| label as usize >= classes) {
        return Err(ModelError::Label { image, label: labels[image], classes });
    }
    check_images(network, images).map(|_| ())
}

/// Fails unless batch statistics of `images` are defined in every layer. Returns the number of images.
///
/// # Shapes
/// `images` `[n][3][size][size]`.
///
/// # Errors
/// No image, images of another length, or a batch norm that would see a single value per channel.
pub fn check_images(network: &Network, images: &[f32]) -> Result<usize, ModelError> {
    let image = network.layers[0].output.len();
    let n_images = images.len() / image;
    check_len("images", n_images.max(1) * image, images.len())?;
    let sees_one_value =
        |layer: &&Layer| layer.op == Op::BatchNorm && n_images * layer.output.pixels() < 2;
    match network.layers.iter().find(sees_one_value) {
        Some(layer) => Err(ModelError::SingleValue { layer: layer.name.clone() }),
        None => Ok(n_images),
    }
}
