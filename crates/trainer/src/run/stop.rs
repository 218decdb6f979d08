//! Why a run leaves before its end.

use serde::{Deserialize, Serialize};

/// Why a run leaves before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// A signal, by its number.
    Signal(i32),
    /// The time given to this process is over.
    TimeIsUp,
}
