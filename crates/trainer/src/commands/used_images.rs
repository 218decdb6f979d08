//! A checkpoint, and the images that a command line names behind it: what `predict` and `explain` have in
//! common.

use std::io;
use std::path::{Path, PathBuf};

use bninception_data::is_image_path;

use super::stored::use_config;
use crate::cli::UseArgs;
use crate::config::Config;
use crate::error::Error;
use crate::images::named::{self, NamedImages};
use crate::images::scan;
use crate::run::checkpoint::{self, Checkpoint};
use crate::run::folder::RunFolder;
use crate::setup;
use crate::terminal::signals;
use crate::terminal::text::quoted;

/// What a command uses.
pub(super) struct UsedImages {
    pub(super) checkpoint: Checkpoint,
    /// The settings of its run, with the flags of the command.
    pub(super) config: Config,
    /// The images that were named, in their order.
    pub(super) images: NamedImages,
}

impl UsedImages {
    /// Reads the checkpoint, and finds the images. From then on signals are listened to.
    ///
    /// # Errors
    /// Arguments in the wrong places, a checkpoint that cannot be read, images that cannot be found, or a
    /// signal that asks to stop.
    pub(super) fn of(
        checkpoint: &Path,
        images: &[PathBuf],
        options: &UseArgs,
        command: &str,
    ) -> Result<UsedImages, Error> {
        check_places(checkpoint, images, command)?;
        let checkpoint = checkpoint::load(&RunFolder::checkpoint_in(checkpoint)?)?;
        let config = use_config(&checkpoint, options)?;
        // While standard input is read, a signal ends the program as any that waits for it.
        let decode = setup::decode_options(&config);
        let named = named::named(images, io::stdin().lock(), decode.max_bytes)?;
        signals::listen()?;
        let stop = || signals::received().is_some();
        let lister = scan::lister(&config).with_stop(&stop);
        let images = scan::stopped_by_signal(NamedImages::find(&lister, named, decode))?;
        for note in &images.notes {
            tracing::warn!("{note}");
        }
        Ok(UsedImages { checkpoint, config, images })
    }
}

/// Says what is wrong where the checkpoint and the images of a command do not stand in their places.
fn check_places(first: &Path, images: &[PathBuf], command: &str) -> Result<(), Error> {
    let is_checkpoint =
        |path: &Path| path.extension().is_some_and(|extension| extension == "safetensors");
    let second = images.iter().find(|path| is_checkpoint(path));
    let message = match second {
        Some(second) if is_checkpoint(first) => format!(
            "{} and {} are checkpoints: {command} takes one, and images behind it",
            first.display(),
            second.display()
        ),
        Some(second) => format!(
            "the checkpoint comes first: bninception {command} {} {}",
            quoted(second),
            quoted(first)
        ),
        None if is_image_path(first) => format!(
            "{} is an image; the checkpoint or the folder of a run comes first: bninception {command} \
             CHECKPOINT {}",
            first.display(),
            quoted(first)
        ),
        None if images.is_empty() => format!(
            "no image: name images or folders of images behind the checkpoint, or `-` for standard \
             input: bninception {command} {} IMAGE...",
            quoted(first)
        ),
        None => return Ok(()),
    };
    Err(Error::Usage(message))
}
