//! `config show`.

use crate::cli::ConfigCommand;
use crate::error::Error;

pub(super) fn config(command: &ConfigCommand) -> Result<(), Error> {
    let ConfigCommand::Show(args) = command;
    super::print(&args.resolve_to_train()?.to_annotated_toml()?)
}
