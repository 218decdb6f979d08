//! `config show`.

use crate::cli::ConfigCommand;
use crate::commands::print;
use crate::error::Error;

pub(super) fn config(command: &ConfigCommand) -> Result<(), Error> {
    let ConfigCommand::Show(args) = command;
    print::text(&args.resolve_to_train()?.to_annotated_toml()?)
}
