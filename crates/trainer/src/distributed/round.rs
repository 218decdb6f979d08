//! One round of work that ranks do side by side.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::distributed::ranks::Ranks;
use crate::error::Error;
use crate::terminal::signals;

/// What each rank made in this round, in their order. A signal to any of them ends all.
///
/// # Errors
/// A rank that cannot be reached, or [`Error::Interrupted`].
pub fn round<T: Serialize + DeserializeOwned>(ranks: &mut Ranks, own: T) -> Result<Vec<T>, Error> {
    let signal = signals::received().map(|(signal, _)| signal);
    let all = ranks.gather((signal, own))?;
    if let Some(signal) = all.iter().find_map(|(signal, _)| *signal) {
        return Err(Error::Interrupted { name: signals::name(signal), signal });
    }
    Ok(all.into_iter().map(|(_, made)| made).collect())
}
