//! Images that could not be read, as ranks tell each other of them: by their place, because all have the same list, and
//! a path may be no text.

use bninception_data::{Failure, Source};

/// Places in the list of images, and why those could not be read.
pub type ToldFailures = Vec<(u32, String)>;

/// What to tell of failures.
pub fn told(failed: &[Failure]) -> ToldFailures {
    failed.iter().map(|failure| (failure.index, failure.error.clone())).collect()
}

/// The failures that were told, of images of `source`.
pub fn heard(source: &dyn Source, told: &ToldFailures) -> Vec<Failure> {
    let failure = |(index, error): &(u32, String)| {
        let path = source.path(*index as usize).to_owned();
        Failure { index: *index, path, error: error.clone() }
    };
    told.iter().map(failure).collect()
}
