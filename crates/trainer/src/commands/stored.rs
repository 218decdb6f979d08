//! The settings of a checkpoint's run, with the flags of a command that uses its network.

use crate::cli::{ConfigArgs, UseArgs};
use crate::config::{Config, ConfigFile};
use crate::error::Error;
use crate::run::checkpoint::Checkpoint;

/// For a command that evaluates.
pub(super) fn use_config(checkpoint: &Checkpoint, args: &UseArgs) -> Result<Config, Error> {
    stored_config(checkpoint, &args.config_args().for_evaluation()?)
}

/// For a command that runs the network as in training, so that its batches are those of training.
pub(super) fn training_config(checkpoint: &Checkpoint, args: &UseArgs) -> Result<Config, Error> {
    stored_config(checkpoint, &args.config_args())
}

fn stored_config(checkpoint: &Checkpoint, args: &ConfigArgs) -> Result<Config, Error> {
    let name = checkpoint.path.display().to_string();
    let text = checkpoint.metadata.config.to_toml()?;
    Ok(args.resolve(Some(ConfigFile { name, text }), None)?.config)
}
