//! The mean of the weights of several checkpoints of one network: a model soup (Wortsman et al. 2022,
//! <https://arxiv.org/abs/2203.05482>), or stochastic weight averaging (Izmailov et al. 2018,
//! <https://arxiv.org/abs/1803.05407>) where they are of one run.

use bninception_data::Preprocessing;
use bninception_engine::ModelState;
use bninception_engine::model::{Network, ParameterTable, Weights};

use crate::config::{Config, ConfigError, inherited};
use crate::run::checkpoint::Checkpoint;
use crate::run::classes;
use crate::run::error::RunError;
use crate::run::image_lists::ImageLists;
use crate::run::initial::file_hash;
use crate::run::metadata::{AveragedSource, Metadata, StoredDirs};
use crate::run::state::TrainState;

/// Checkpoints that are being averaged, one after the other: only one needs to be in memory.
pub struct WeightMean {
    /// What the first says about itself.
    first: Metadata,
    first_path: String,
    table: ParameterTable,
    trainable: Vec<f64>,
    statistics: Vec<f64>,
    sources: Vec<AveragedSource>,
}

/// A mean that is not written yet.
pub struct AveragedCheckpoint {
    /// What it says about itself.
    pub metadata: Metadata,
    /// Its network.
    pub network: Network,
    /// Its weights, before any update.
    pub state: TrainState,
}

impl WeightMean {
    /// Begins with a checkpoint, to which the others must be alike.
    ///
    /// # Errors
    /// The file cannot be read again.
    pub fn of(first: &Checkpoint) -> Result<WeightMean, RunError> {
        let table = ParameterTable::new(&first.network);
        let mut mean = WeightMean {
            first: first.metadata.clone(),
            first_path: first.path.display().to_string(),
            trainable: vec![0.0; table.n_trainable()],
            statistics: vec![0.0; table.n_statistics()],
            table,
            sources: Vec::new(),
        };
        mean.take(first)?;
        Ok(mean)
    }

    /// Adds a checkpoint.
    ///
    /// # Errors
    /// It has another network, other classes or another preprocessing than the first, or the file cannot be
    /// read again.
    pub fn add(&mut self, checkpoint: &Checkpoint) -> Result<(), RunError> {
        if let Some(difference) = self.difference(checkpoint) {
            return Err(RunError::Unusable(format!(
                "{} cannot be averaged with {}: {difference}",
                checkpoint.path.display(),
                self.first_path
            )));
        }
        // Parts that were frozen in one run and not in another, or images of different runs, are those of none.
        let (first, other) = (&mut self.first, &checkpoint.metadata);
        if first.config.train.freeze != other.config.train.freeze {
            first.config.train.freeze.clear();
        }
        if first.images != other.images {
            first.images = ImageLists::default();
        }
        self.take(checkpoint)
    }

    /// Sums the weights that evaluation would use: the moving average where there is one.
    fn take(&mut self, checkpoint: &Checkpoint) -> Result<(), RunError> {
        let weights = checkpoint.state.model.evaluation_weights();
        for (sums, values) in
            [(&mut self.trainable, &weights.trainable), (&mut self.statistics, &weights.statistics)]
        {
            sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        self.sources.push(AveragedSource {
            path: checkpoint.path.display().to_string(),
            blake3: file_hash(&checkpoint.path)?,
            step: checkpoint.metadata.step,
        });
        Ok(())
    }

    /// How a checkpoint differs from the first in what makes the network and its input, in words.
    fn difference(&self, checkpoint: &Checkpoint) -> Option<String> {
        let (first, other) = (&self.first, &checkpoint.metadata);
        if first.classes != other.classes {
            let difference = classes::difference(&first.classes, &other.classes);
            return Some(format!("it has other classes: {difference}"));
        }
        let pairs = setting_differences(&first.config, &other.config)
            .unwrap_or_else(|error| vec![error.to_string()])
            .into_iter()
            .chain(input_differences(&first.preprocessing, &other.preprocessing))
            .chain(trained_size_difference(first, other));
        let pairs: Vec<String> = pairs.collect();
        match pairs.is_empty() {
            false => Some(pairs.join("; ")),
            true if ParameterTable::new(&checkpoint.network) != self.table => {
                Some("it has another network, with other tensors".to_owned())
            }
            true => None,
        }
    }

    /// The mean. It has no momentum, no population statistics and no progress: no run led to it.
    ///
    /// # Errors
    /// Settings of which no network can be built.
    pub fn finish(self) -> Result<AveragedCheckpoint, RunError> {
        let n = self.sources.len() as f64;
        let mean = |sums: &[f64]| sums.iter().map(|sum| (sum / n) as f32).collect();
        let weights =
            Weights { trainable: mean(&self.trainable), statistics: mean(&self.statistics) };
        let mut config = self.first.config;
        let has_images = self.first.images != ImageLists::default();
        if !has_images {
            config.data.dir.clear();
            config.data.val_dir.clear();
        }
        let Metadata { classes, preprocessing, recipe, images, data_dirs, .. } = self.first;
        let metadata = Metadata {
            preprocessing,
            images,
            data_dirs: if has_images { data_dirs } else { StoredDirs::default() },
            averaged: self.sources,
            trained_image_size: self.first.trained_image_size,
            ..Metadata::without_run(classes, config, recipe)
        };
        let network = metadata.network().map_err(RunError::Unusable)?;
        let state = TrainState::of(ModelState::of(weights));
        Ok(AveragedCheckpoint { metadata, network, state })
    }
}

/// Settings of the network that differ. Its input is compared by [`input_differences`].
fn setting_differences(first: &Config, other: &Config) -> Result<Vec<String>, ConfigError> {
    let settings = |config: &Config| -> Result<_, ConfigError> {
        let mut settings = inherited(config)?;
        settings.retain(|(key, _)| key.starts_with("network."));
        settings.push(("network.aux", config.network.aux.into()));
        Ok(settings)
    };
    let pairs = settings(first)?.into_iter().zip(settings(other)?);
    let differ = pairs.filter(|((_, first), (_, other))| first != other);
    Ok(differ.map(|((key, first), (_, other))| format!("{key} is {other}, not {first}")).collect())
}

/// The image size of training, if it differs: running statistics belong to it.
fn trained_size_difference(first: &Metadata, other: &Metadata) -> Option<String> {
    let size = |metadata: &Metadata| {
        metadata.trained_image_size.unwrap_or(metadata.preprocessing.image_size)
    };
    let (first, other) = (size(first), size(other));
    (first != other).then(|| format!("it was trained at {other} px, not {first}"))
}

/// Fields of the preprocessing that differ.
fn input_differences(first: &Preprocessing, other: &Preprocessing) -> Vec<String> {
    let Preprocessing { image_size, crop_ratio, mean, std, exif, interpolation } = other;
    let pairs = [
        ("image_size", format!("{image_size}"), format!("{}", first.image_size)),
        ("crop_ratio", format!("{crop_ratio}"), format!("{}", first.crop_ratio)),
        ("mean", format!("{mean:?}"), format!("{:?}", first.mean)),
        ("std", format!("{std:?}"), format!("{:?}", first.std)),
        ("exif", format!("{exif}"), format!("{}", first.exif)),
        ("interpolation", format!("{interpolation:?}"), format!("{:?}", first.interpolation)),
    ];
    let differ = pairs.into_iter().filter(|(_, other, first)| other != first);
    differ
        .map(|(name, other, first)| format!("preprocessing.{name} is {other}, not {first}"))
        .collect()
}
