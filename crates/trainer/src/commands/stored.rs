//! The settings of a checkpoint's run, with the flags of a command that uses its network; and that all ranks use the
//! same one.

use std::path::Path;

use crate::cli::{ConfigArgs, UseArgs};
use crate::config::{Config, ConfigFile, DeviceChoice, Dtype};
use crate::distributed::{Ranks, agreement};
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
    let mut config = checkpoint.metadata.config.clone();
    // A checkpoint is used where there is what it needs, wherever it was trained.
    config.engine.device = DeviceChoice::Auto;
    if config.train.dtype == Dtype::Tf32 {
        config.train.dtype = Dtype::F32;
    }
    let text = config.to_toml()?;
    Ok(args.resolve(Some(ConfigFile { name, text }), None)?.config)
}

/// Compares checkpoints, by their checksums, and images of ranks that use them together: one of the files may have
/// been replaced meanwhile.
///
/// # Errors
/// A rank that has something else.
pub(super) fn check_same<'a>(
    ranks: &mut Ranks,
    checksums: impl Iterator<Item = &'a str>,
    files: impl Iterator<Item = &'a Path>,
) -> Result<(), Error> {
    if !ranks.are_many() {
        return Ok(());
    }
    let checksums: Vec<&str> = checksums.collect();
    let mut hasher = blake3::Hasher::new();
    let mut n_files = 0;
    for file in files {
        hasher.update(file.as_os_str().as_encoded_bytes()).update(&[0]);
        n_files += 1;
    }
    let digest = hasher.finalize().to_hex();
    let same = vec![
        ("checkpoints", checksums.join(" ")),
        ("numbers of images", n_files.to_string()),
        ("images", digest.to_string()),
    ];
    Ok(agreement::check(ranks, same)?)
}
