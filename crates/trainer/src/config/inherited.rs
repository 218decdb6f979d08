//! The settings that a run takes over from the checkpoint that it begins with.

use toml::Value;

use super::diff;
use super::error::ConfigError;
use super::sections::Config;

/// What makes the network and its input what they were. Dropout and auxiliary heads are matters of training,
/// and the number of classes is one of the images.
const KEYS: [&str; 13] = [
    "network.kind",
    "network.activation",
    "network.batch_norm",
    "network.bn_epsilon",
    "network.lrn",
    "network.conv_bias",
    "network.pool_proj_4c4d",
    "data.image_size",
    "data.crop_ratio",
    "data.mean",
    "data.std",
    "data.exif",
    "augment.interpolation",
];

/// The settings that a run inherits from one with the settings `config`, by their keys.
///
/// # Errors
/// A config that TOML cannot hold.
pub fn inherited(config: &Config) -> Result<Vec<(&'static str, Value)>, ConfigError> {
    let mut settings = diff::settings(config)?;
    Ok(KEYS.into_iter().filter_map(|key| Some((key, settings.remove(key)?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, resolve};

    #[test]
    fn what_a_run_inherits_makes_the_same_network() {
        let sets = ["network.pool_proj_4c4d=128", "network.dropout=0.5", "data.mean=[0.1,0.2,0.3]"];
        let sets = sets.map(str::to_owned);
        let own = resolve(&Sources { sets: &sets, ..Sources::default() }).unwrap().config;
        let settings = inherited(&own).unwrap();
        assert_eq!(settings.len(), KEYS.len(), "every key is a setting");
        let size = ["data.image_size=64".to_owned()];
        let sources = Sources {
            preset: Some("small"),
            of_checkpoint: &settings,
            sets: &size,
            ..Sources::default()
        };
        let found = resolve(&sources).unwrap();
        assert_eq!(found.config.network.pool_proj_4c4d, 128);
        assert_eq!(found.config.data.mean, own.data.mean);
        assert_eq!((found.config.network.dropout, found.config.data.image_size), (0.0, 64));
        assert_eq!(found.origins["network.pool_proj_4c4d"].to_string(), "the first checkpoint");
    }
}
