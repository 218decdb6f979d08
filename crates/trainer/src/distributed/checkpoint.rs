//! A checkpoint that all ranks need.

use std::path::Path;

use crate::distributed::ranks::Ranks;
use crate::error::Error;
use crate::run::checkpoint::{self, Checkpoint};

/// [`checkpoint::load`] on rank 0, which hands the file on: another process may replace it meanwhile, and other ranks
/// need not see the disk.
///
/// # Errors
/// As there, or a rank that cannot be reached.
pub fn load_on_all(ranks: &mut Ranks, path: &Path) -> Result<Checkpoint, Error> {
    let bytes = ranks.bytes_from_first(|| checkpoint::read(path).map_err(Error::from))?;
    Ok(checkpoint::parse(&bytes, path)?)
}
