//! The checks of a batch, which all executors share.

use std::ops::Range;

use crate::error::ModelError;
use crate::layer::{Layer, Op};
use crate::network::Network;

/// The network's value of each of the 256 levels of red, green and blue.
#[derive(Clone, Debug, PartialEq)]
pub struct Normaliser(Box<[[f32; 256]; 3]>);

impl Normaliser {
    /// `(level / 255 - mean) / std` by channel.
    pub fn new(mean: [f32; 3], std: [f32; 3]) -> Normaliser {
        let mut values = Box::new([[0.0; 256]; 3]);
        for (c, values) in values.iter_mut().enumerate() {
            for (level, value) in values.iter_mut().enumerate() {
                *value = (level as f32 / 255.0 - mean[c]) / std[c];
            }
        }
        Normaliser(values)
    }

    /// The values, `[3][256]`.
    pub fn values(&self) -> &[[f32; 256]; 3] {
        &self.0
    }
}

/// Images as a network gets them.
#[derive(Clone, Copy, Debug)]
pub enum Images<'a> {
    /// As they are stored.
    Levels {
        /// Levels of red, green and blue, `[n][height][width][3]`.
        levels: &'a [u8],
        /// What the network sees of them.
        normaliser: &'a Normaliser,
    },
    /// Values that are normalised already, `[n][3][height][width]`: those of other programs.
    Values(&'a [f32]),
}

impl<'a> Images<'a> {
    /// Numbers of all images.
    pub fn len(&self) -> usize {
        match self {
            Images::Levels { levels, .. } => levels.len(),
            Images::Values(values) => values.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those whose numbers lie in `range`.
    ///
    /// # Panics
    /// The range ends behind the last.
    pub fn slice(&self, range: Range<usize>) -> Images<'a> {
        match *self {
            Images::Levels { levels, normaliser } => {
                Images::Levels { levels: &levels[range], normaliser }
            }
            Images::Values(values) => Images::Values(&values[range]),
        }
    }

    /// The network's values, `[n][3][pixels]`, of images with `pixels` pixels each.
    pub fn to_values(&self, pixels: usize) -> Vec<f32> {
        match self {
            Images::Values(values) => values.to_vec(),
            Images::Levels { levels, normaliser } => {
                let image = |levels: &'a [u8]| {
                    let channel = move |c: usize| {
                        let table = &normaliser.0[c];
                        levels[c..].iter().step_by(3).map(|&level| table[usize::from(level)])
                    };
                    (0..3).flat_map(channel)
                };
                levels.chunks_exact(3 * pixels).flat_map(image).collect()
            }
        }
    }
}

/// Fails unless a buffer, named by `what`, has the expected length.
///
/// # Errors
/// [`ModelError::Length`].
pub fn check_len(what: &'static str, expected: usize, found: usize) -> Result<(), ModelError> {
    if expected == found { Ok(()) } else { Err(ModelError::Length { what, expected, found }) }
}

/// Fails unless a batch fits `network`. Whether its statistics are defined, [`check_variance`] says.
///
/// # Errors
/// No image, images of another length, or a label out of range.
pub fn check_batch(
    network: &Network,
    images: Images<'_>,
    labels: &[u32],
) -> Result<(), ModelError> {
    if labels.is_empty() {
        return Err(ModelError::Length { what: "labels", expected: 1, found: 0 });
    }
    check_len("images", labels.len() * network.layers[0].output.len(), images.len())?;
    let classes = network.options.classes;
    if let Some(image) = labels.iter().position(|&label| label as usize >= classes) {
        return Err(ModelError::Label { image, label: labels[image], classes });
    }
    Ok(())
}

/// Fails unless there is one weight for each class of `network`, or none at all.
///
/// # Errors
/// [`ModelError::Length`].
pub fn check_class_weights(network: &Network, weights: Option<&[f64]>) -> Result<(), ModelError> {
    let classes = network.options.classes;
    check_len("weights of classes", classes, weights.map_or(classes, <[f64]>::len))
}

/// Fails unless batch statistics of `images` are defined in every layer. Returns the number of images.
///
/// # Errors
/// No image, images of another length, or a batch norm that would see a single value per channel.
pub fn check_images(network: &Network, images: Images<'_>) -> Result<usize, ModelError> {
    let image = network.layers[0].output.len();
    let n_images = images.len() / image;
    check_len("images", n_images.max(1) * image, images.len())?;
    check_variance(network, n_images)?;
    Ok(n_images)
}

/// Fails if a batch norm would see a single value per channel in a batch of `n_images`.
///
/// # Errors
/// [`ModelError::SingleValue`].
pub fn check_variance(network: &Network, n_images: usize) -> Result<(), ModelError> {
    let sees_one_value =
        |layer: &&Layer| layer.op == Op::BatchNorm && n_images * layer.output.pixels() < 2;
    match network.layers.iter().find(sees_one_value) {
        Some(layer) => Err(ModelError::SingleValue { layer: layer.name.clone() }),
        None => Ok(()),
    }
}
