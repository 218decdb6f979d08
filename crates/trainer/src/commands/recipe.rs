//! The recipe of a training run, where it depends on the images.

use bninception_data::{Splits, median_short_side};

use crate::cli::ConfigArgs;
use crate::config::{ImageFacts, Resolved, choose, size_advice};
use crate::error::Error;
use crate::setup;

/// The settings of a run on `splits`, which were found with those of `first`. Where the command line
/// names neither a preset nor a file, a recipe is chosen by the images, and told with its reason; else
/// an image size that does not suit them gets a line of advice.
///
/// # Errors
/// A shard that is damaged; see [`ConfigArgs::resolve`].
pub(super) fn of_images(
    args: &ConfigArgs,
    first: Resolved,
    splits: &Splits,
) -> Result<Resolved, Error> {
    if first.config.data.dir.is_empty() {
        return Ok(first);
    }
    let short_side = median_short_side(&splits.train, &setup::decode_options(&first.config))?;
    if args.leaves_recipe_to_images() {
        let images = splits.train.len();
        let choice = choose(ImageFacts { images, classes: splits.classes.len(), short_side });
        tracing::info!(
            "no preset was named, so this is {choice}; `bninception presets list` names the others"
        );
        return Ok(args.resolve_to_train(Some(&choice))?);
    }
    let advice = short_side.and_then(|side| size_advice(first.config.data.image_size, side));
    if let Some(advice) = advice {
        tracing::info!("{advice}");
    }
    Ok(first)
}
