//! The first mini-batch of a run as its network saw it: cropped, mirrored and coloured by the run's settings
//! and its seed.

use std::path::PathBuf;
use std::sync::Arc;

use bninception_data::{FileSource, Loader, Sample, Share, Source};

use crate::error::Error;
use crate::figure::Thumbnail;
use crate::run::metadata::Metadata;
use crate::setup;
use crate::terminal::signals;

/// Some images of a mini-batch.
#[derive(Clone, Debug)]
pub struct TrainingPictures {
    /// The images, in the order of the batch.
    pub pictures: Vec<TrainingPicture>,
    /// Images of the whole batch.
    pub n_batch: usize,
    /// The share of an image's own class in its label, where images were mixed in pairs.
    pub own_share: Option<f64>,
}

/// An image of a mini-batch.
#[derive(Clone, Debug)]
pub struct TrainingPicture {
    /// As the network saw it.
    pub picture: Thumbnail,
    /// Its class.
    pub class: String,
    /// The class of the image that it was mixed with.
    pub mixed_with: Option<String>,
    /// Its file.
    pub path: PathBuf,
}

/// At most `most` images of the first mini-batch that the run of `metadata` draws from `samples`, its training
/// images. What the batch holds follows from settings and seed alone.
///
/// # Errors
/// Fewer images than a mini-batch has, a loader that fails, or a signal that asks to stop.
pub fn training_pictures(
    metadata: &Metadata,
    samples: Vec<Sample>,
    most: usize,
) -> Result<TrainingPictures, Error> {
    let mut config = metadata.config.clone();
    // A checkpoint that was calibrated at another size has that in its settings.
    config.data.image_size = metadata.trained_image_size.unwrap_or(config.data.image_size);
    let source: Arc<dyn Source> =
        Arc::new(FileSource::new(samples, setup::decode_options(&config))?);
    let plan = setup::train_plan(&config, Share::default(), 0..1);
    let options = setup::load_options(&config, config.train.batch_size);
    let preprocessing = setup::preprocessing(&config);
    let mut loader = Loader::train(Arc::clone(&source), &preprocessing, &options, &plan)?;
    let mut found = TrainingPictures { pictures: Vec::new(), n_batch: 0, own_share: None };
    let Some(batch) = loader.next() else { return Ok(found) };
    let batch = batch?;
    signals::check()?;
    let name = |label: u32| metadata.classes.get(label as usize).cloned().unwrap_or_default();
    let side = config.data.image_size as u32;
    found.n_batch = batch.labels.len();
    found.own_share = batch.own_share;
    let levels = batch.images.chunks_exact(preprocessing.n_values());
    // The first is mixed with the last, and so on inwards.
    let partners = batch.labels.iter().rev();
    let images = batch.labels.iter().zip(partners).zip(&batch.indices).zip(levels);
    for (((&label, &partner), &index), levels) in images.take(most) {
        found.pictures.push(TrainingPicture {
            picture: Thumbnail { width: side, height: side, rgb: levels.to_vec() },
            class: name(label),
            mixed_with: batch.own_share.map(|_| name(partner)),
            path: source.path(index as usize).to_owned(),
        });
    }
    Ok(found)
}
