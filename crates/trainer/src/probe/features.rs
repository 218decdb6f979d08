//! What the last layer of a network reads of each image, in one pass over centre crops.

use std::sync::Arc;

use bninception_data::{Crops, Failure, LoadOptions, Preprocessing, Source};
use bninception_engine::{EvaluationWeights, Executor};

use crate::distributed::Ranks;
use crate::error::Error;
use crate::evaluation::evaluate::{Answered, Pass, PassImages, Wanted, run_all};

/// The features of images, which take 4 kB each.
pub struct FeatureTable {
    /// `[images][channels]`, of the images that could be read, in their order.
    pub values: Vec<f32>,
    /// The class of each of them.
    pub labels: Vec<u32>,
    /// The others.
    pub failed: Vec<Failure>,
    /// Seconds that it took.
    pub seconds: f64,
}

impl FeatureTable {
    /// Runs every image of `source` through a network once.
    ///
    /// # Errors
    /// No image at all, an executor or loader that fails, or a signal that asks to stop.
    pub fn of(
        executor: &mut dyn Executor,
        weights: EvaluationWeights<'_>,
        source: Arc<dyn Source>,
        preprocessing: &Preprocessing,
        options: &LoadOptions,
    ) -> Result<FeatureTable, Error> {
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        let images = PassImages {
            source,
            crops: Crops::One,
            preprocessing,
            options,
            wanted: Wanted::Features,
            title: Some("features"),
        };
        let Pass { failed, seconds } =
            run_all(executor, weights, images, &mut Ranks::alone(), &mut |answered| {
                let Answered { labels: of_batch, features, .. } = answered;
                values.extend_from_slice(features);
                labels.extend_from_slice(of_batch);
                Ok(())
            })?;
        Ok(FeatureTable { values, labels, failed, seconds })
    }
}
