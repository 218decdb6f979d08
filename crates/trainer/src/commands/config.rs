//! `config show`.

use std::path::PathBuf;

use crate::cli::ConfigCommand;
use crate::commands::{print, recipe};
use crate::config::RecipeChoice;
use crate::error::Error;
use crate::images::data_dirs::DataDirs;
use crate::images::scan;
use crate::terminal::signals;

pub(super) fn config(command: &ConfigCommand) -> Result<(), Error> {
    let ConfigCommand::Show(args) = command;
    let first = args.resolve_to_train(None)?;
    let resolved = match args.leaves_recipe_open() || RecipeChoice::adapts(&first.recipe.preset) {
        false => first,
        true if first.config.data.dir.is_empty() => first,
        true => {
            signals::listen()?;
            let parent = PathBuf::from(&first.config.checkpoint.dir);
            let dirs = DataDirs::of_config(&first.config, &parent)?;
            let splits = scan::scan(&first.config, &dirs)?;
            recipe::of_images(args, first, &splits)?
        }
    };
    print::text(&resolved.to_annotated_toml()?)
}
