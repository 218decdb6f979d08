//! One process or many.

use crate::collective::Collective;
use crate::error::CollectiveError;
use crate::launcher::Launcher;
use crate::mpi::Mpi;
use crate::solo::Solo;

/// Whether to look for other ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// If a launcher started this process.
    #[default]
    Auto,
    /// In any case.
    Mpi,
    /// Never.
    None,
}

/// The ranks that this process is one of. Without a launcher and `Mpi`, nothing is opened.
///
/// # Errors
/// No library, or one that is not the launcher's.
pub fn connect(choice: Choice) -> Result<Box<dyn Collective>, CollectiveError> {
    let launcher = Launcher::of_process();
    match (choice, launcher) {
        (Choice::None, _) | (Choice::Auto, None) => Ok(Box::new(Solo::default())),
        // A launcher of one process needs no library.
        (Choice::Auto, Some(Launcher { size: Some(1), .. })) => Ok(Box::new(Solo::default())),
        (Choice::Auto | Choice::Mpi, launcher) => Ok(Box::new(Mpi::open(launcher)?)),
    }
}
