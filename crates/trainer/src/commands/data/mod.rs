//! `data`: what is done with folders of images beside training on them.

mod check;
mod demo;
mod index;
mod pack;
mod sheet;
mod split;

use crate::cli::DataCommand;
use crate::error::Error;

pub(super) fn data(command: &DataCommand) -> Result<(), Error> {
    match command {
        DataCommand::Demo(args) => demo::demo(args),
        DataCommand::Index(args) => index::index(args),
        DataCommand::Check(args) => check::check(args),
        DataCommand::Pack(args) => pack::pack(args),
        DataCommand::Split(args) => split::split(args),
    }
}
