//! The recipe of a training run, where it depends on the images.

use bninception_data::{Splits, median_short_side};

use crate::cli::ConfigArgs;
use crate::config::{ImageFacts, RecipeChoice, Resolved, size_advice};
use crate::error::Error;
use crate::setup;

/// Whether the settings of a run depend on its images: it has a folder of them, and no recipe is named, or
/// one that adapts.
pub(super) fn depends_on_images(args: &ConfigArgs, first: &Resolved) -> bool {
    let adapts = args.leaves_recipe_open() || RecipeChoice::adapts(&first.recipe.preset);
    adapts && !first.config.data.dir.is_empty()
}

/// The settings of a run on `splits`, which were found with those of `first`. Where the command line
/// names neither a preset nor a file, a recipe is chosen by the images, and told with its reason. A
/// preset that adapts to the images gets what suits them, also where it was named. With any other, an
/// image size that does not suit gets a line of advice.
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
    let (images, classes) = (splits.train.len(), splits.classes.len());
    let short_side = median_short_side(&splits.train, &setup::decode_options(&first.config))?;
    let facts = ImageFacts { images, classes, short_side };
    if args.leaves_recipe_open() {
        let resolved = args.resolve_to_train(Some(&RecipeChoice::by_number(facts)))?;
        let (preset, image_size) = (&resolved.recipe.preset, resolved.config.data.image_size);
        tracing::info!(
            "no preset was named, so this is {preset} at {image_size} px, {facts}; `bninception presets \
             list` names the others"
        );
        return Ok(resolved);
    }
    let Some(choice) = RecipeChoice::of_preset(&first.recipe.preset, facts) else {
        let advice = short_side.and_then(|side| size_advice(first.config.data.image_size, side));
        if let Some(advice) = advice {
            tracing::info!("{advice}");
        }
        return Ok(first);
    };
    Ok(args.resolve_to_train(Some(&choice))?)
}
