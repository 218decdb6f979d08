//! Settings of a run: typed, merged from presets, files and the command line, and checked once.
//!
//! Later sources win: `configs/base.toml`, the preset and what it extends, `-c FILE` in order,
//! `--set key=value` in order, plain flags. [`resolve`] remembers which source gave each value.
//! From then on a config is read-only; the run folder gets a copy that loads back equal.

mod diff;
mod error;
mod origin;
mod presets;
mod recipe;
mod resolve;
mod sections;
mod validate;

use serde::{Deserialize, Serialize};

pub use diff::{Change, changes_maths, diff, nearest_setting};
pub use error::{ConfigError, Problem};
pub use origin::Origin;
pub(crate) use presets::nearest;
pub use presets::{BASE, preset_names, preset_text, preset_title};
pub use recipe::Recipe;
pub use resolve::{ConfigFile, Flag, MAX_FILE_BYTES, Resolved, Sources, resolve};
pub use sections::{
    Activation, Checkpoint, Data, Dtype, Engine, EngineKind, Log, Network, NetworkKind,
    OnDivergence, Optimizer, Schedule, ScheduleKind, Train,
};
pub(crate) use validate::MAX_COUNT;
// The data crate's own settings, which checkpoints store too.
pub use bninception_data::{AugmentConfig as Augment, Colour, Interpolation, Shuffle};

/// All settings of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Options of the network.
    pub network: Network,
    /// Where images come from, their order and their preparation.
    pub data: Data,
    /// Random changes to training images.
    pub augment: Augment,
    /// Stochastic gradient descent.
    pub optimizer: Optimizer,
    /// The learning rate over time.
    pub schedule: Schedule,
    /// Length, batches and precision of training.
    pub train: Train,
    /// When and where checkpoints are written.
    pub checkpoint: Checkpoint,
    /// What is written down while training.
    pub log: Log,
    /// What runs the network.
    pub engine: Engine,
}

impl Config {
    /// Every setting as TOML, which [`resolve`] loads back equal as a file.
    ///
    /// # Errors
    /// An integer above 2^63 - 1, which no resolved config holds.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        Ok(toml::to_string(self)?)
    }
}
