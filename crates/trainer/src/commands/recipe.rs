//! The recipe of a training run, where it depends on its first checkpoint and on the images.

use std::path::Path;

use bninception_data::{Splits, median_short_side};
use toml::Value;

use crate::cli::{ConfigArgs, FINETUNE_PRESET};
use crate::config::{ImageFacts, RecipeChoice, Resolved, diff, inherited, size_advice};
use crate::error::Error;
use crate::run::checkpoint::{self, Checkpoint};
use crate::run::folder::RunFolder;
use crate::setup;

/// A checkpoint that a run begins with.
pub(super) struct FirstCheckpoint {
    pub(super) checkpoint: Checkpoint,
    /// The settings that come with it.
    settings: Vec<(&'static str, Value)>,
}

/// What the command line says before any image is looked at.
pub(super) struct Start {
    pub(super) resolved: Resolved,
    pub(super) first: Option<FirstCheckpoint>,
}

impl Start {
    /// Resolves the settings, with those of the checkpoint that the run begins with.
    ///
    /// # Errors
    /// Settings that are not as they must be, or a checkpoint that cannot be read.
    pub(super) fn of(args: &ConfigArgs) -> Result<Start, Error> {
        let resolved = args.resolve_to_train(None, &[])?;
        let path = &resolved.config.train.init_from;
        if path.is_empty() {
            return Ok(Start { resolved, first: None });
        }
        let checkpoint = checkpoint::load(&RunFolder::checkpoint_in(Path::new(path))?)?;
        let settings = inherited(&checkpoint.metadata.config)?;
        let resolved = args.resolve_to_train(None, &settings)?;
        Ok(Start { resolved, first: Some(FirstCheckpoint { checkpoint, settings }) })
    }

    fn inherited(&self) -> &[(&'static str, Value)] {
        self.first.as_ref().map_or(&[], |first| &first.settings)
    }
}

impl FirstCheckpoint {
    /// Where the settings of a run differ from what comes with the checkpoint, in words; empty if they do
    /// not.
    ///
    /// # Errors
    /// None for a config that came from [`crate::config::resolve`].
    pub(super) fn differences(&self, resolved: &Resolved) -> Result<String, Error> {
        let changes = diff(&self.checkpoint.metadata.config, &resolved.config)?;
        let is_inherited = |key: &str| self.settings.iter().any(|(own, _)| *own == key);
        let of_network = |key: &str| key.starts_with("network.") && key != "network.classes";
        let changes = changes.iter().filter(|c| is_inherited(&c.key) || of_network(&c.key));
        let text = changes.map(|c| format!("{} {} -> {}", c.key, c.old, c.new));
        Ok(text.collect::<Vec<_>>().join(", "))
    }
}

/// Whether the settings of a run depend on its images: it has a folder of them, and no recipe is named, or
/// one that adapts.
pub(super) fn depends_on_images(args: &ConfigArgs, first: &Resolved) -> bool {
    let is_open = args.leaves_recipe_open() && first.config.train.init_from.is_empty();
    let adapts = is_open || RecipeChoice::adapts(&first.recipe.preset);
    adapts && !first.config.data.dir.is_empty()
}

/// The settings of a run on `splits`, which were found with those of `start`. Where the command line
/// names neither a preset nor a file, a recipe is chosen by the images, and told with its reason. A
/// preset that adapts to the images gets what suits them, also where it was named. With any other, an
/// image size that does not suit gets a line of advice.
///
/// # Errors
/// A shard that is damaged; see [`ConfigArgs::resolve`].
pub(super) fn of_images(
    args: &ConfigArgs,
    start: &Start,
    splits: &Splits,
) -> Result<Resolved, Error> {
    let first = start.resolved.clone();
    if first.config.data.dir.is_empty() {
        return Ok(first);
    }
    let (images, classes) = (splits.train.len(), splits.classes.len());
    let short_side = median_short_side(&splits.train, &setup::decode_options(&first.config))?;
    let facts = ImageFacts { images, classes, short_side };
    if args.leaves_recipe_open() && start.first.is_some() {
        let image_size = first.config.data.image_size;
        tracing::info!(
            "no preset was named, so this is {FINETUNE_PRESET} at {image_size} px, because the first weights are \
             those of a checkpoint; `bninception presets list` names the others"
        );
        return Ok(first);
    }
    if args.leaves_recipe_open() {
        let choice = RecipeChoice::by_number(facts);
        let resolved = args.resolve_to_train(Some(&choice), &[])?;
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
    Ok(args.resolve_to_train(Some(&choice), start.inherited())?)
}
