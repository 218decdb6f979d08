//! `config show`.

use std::path::PathBuf;

use crate::cli::ConfigCommand;
use crate::commands::recipe::Start;
use crate::commands::{print, recipe};
use crate::error::Error;
use crate::images::data_dirs::DataDirs;
use crate::images::scan;
use crate::terminal::signals;

pub(super) fn config(command: &ConfigCommand) -> Result<(), Error> {
    let ConfigCommand::Show(args) = command;
    let start = Start::of(args)?;
    let mut resolved = start.resolved.clone();
    if recipe::depends_on_images(args, &resolved) {
        signals::listen()?;
        let parent = PathBuf::from(&resolved.config.checkpoint.dir);
        let dirs = DataDirs::of_config(&resolved.config, &parent)?;
        let splits = scan::scan(&resolved.config, &dirs)?;
        resolved = recipe::of_images(args, &start, &splits)?;
    }
    print::text(&resolved.to_annotated_toml()?)
}
