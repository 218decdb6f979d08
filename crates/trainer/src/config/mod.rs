//! Settings of a run: typed, merged from presets, files and the command line, and checked once.
//!
//! Later sources win: `configs/base.toml`, the preset and what it extends, what was chosen by the
//! images, what comes with the first checkpoint, `-c FILE` in order, `--set key=value` in order, plain flags.
//! [`resolve`] remembers which source gave each value. From then on a config is read-only; the run folder
//! gets a copy that loads back equal.

mod choice;
mod class_weights;
mod device_choice;
mod diff;
mod error;
mod inherited;
mod origin;
mod presets;
mod recipe;
mod resolve;
mod sections;
mod validate;

pub use choice::{ImageFacts, RecipeChoice, size_advice};
pub use class_weights::ClassWeights;
pub use device_choice::DeviceChoice;
pub use diff::{Change, changes_maths, diff, nearest_setting};
pub use error::{ConfigError, Problem};
pub use inherited::inherited;
pub use origin::Origin;
pub(crate) use presets::nearest;
pub use presets::{BASE, preset_names, preset_text, preset_title};
pub use recipe::Recipe;
pub use resolve::{ConfigFile, Flag, MAX_FILE_BYTES, Resolved, Sources, resolve};
pub use sections::{
    Activation, BestBy, CheckpointConfig, Config, DataConfig, Dtype, EngineConfig, EngineKind,
    EvalStatistics, LogConfig, NetworkConfig, NetworkKind, OnDivergence, OptimizerConfig, Reduce,
    ScaleLr, ScheduleConfig, ScheduleKind, TrainConfig,
};
pub(crate) use validate::MAX_COUNT;
// The data crate's own settings, which checkpoints store too.
pub use bninception_data::{AugmentConfig, Balance, Colour, Interpolation, Mirror, Shuffle};
