//! `config show`.

use crate::cli::ConfigCommand;
use crate::error::Error;

pub(super) fn config(command: &ConfigCommand) -> Result<(), Error> {
    let ConfigCommand::Show(args) = command;
    super::print(&args.resolve(None, None)?.to_annotated_toml()?)
}
