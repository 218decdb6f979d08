//! `bench`: speed, measured on answers that were checked.

mod collective;
mod conv_sizes;
mod data;
mod device_ops;
mod device_profile;
mod model;
mod ops;
mod prediction;
mod profile_table;

use crate::cli::BenchCommand;
use crate::distributed::Ranks;
use crate::error::Error;

pub(super) fn bench(command: &BenchCommand, ranks: &mut Ranks) -> Result<(), Error> {
    match command {
        BenchCommand::Collective(args) => {
            check_repeats(args.repeats)?;
            collective::bench(args, ranks)
        }
        BenchCommand::Data(args) => data::bench(args),
        BenchCommand::Model(args) => {
            check_repeats(args.repeats)?;
            model::bench(args)
        }
        BenchCommand::Ops(args) => {
            check_repeats(args.repeats)?;
            ops::bench(args)
        }
    }
}

/// At least one timed repeat must be asked for.
fn check_repeats(repeats: usize) -> Result<(), Error> {
    match repeats {
        0 => Err(Error::Usage("--repeats 0: expected at least 1".to_owned())),
        _ => Ok(()),
    }
}
