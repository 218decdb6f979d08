//! The moment that a release bears, so that the same source gives the same bytes
//! (<https://reproducible-builds.org/docs/source-date-epoch/>).

use std::env;

use crate::shell::output_of;

/// Seconds since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceDate(u64);

impl SourceDate {
    /// What the variable `SOURCE_DATE_EPOCH` says, else the time of the last commit.
    ///
    /// # Errors
    /// A variable that is no number; no commit.
    pub(crate) fn find() -> Result<SourceDate, String> {
        let (text, from) = match env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => (text, "SOURCE_DATE_EPOCH"),
            Err(_) => (output_of("git", &["log", "-1", "--format=%ct"])?, "the last commit"),
        };
        let seconds = text.trim().parse();
        let seconds = seconds.map_err(|_| format!("{from}: {text:?} is no number of seconds"))?;
        Ok(SourceDate(seconds))
    }

    /// A moment by its seconds.
    #[cfg(test)]
    pub(crate) fn from_seconds(seconds: u64) -> SourceDate {
        SourceDate(seconds)
    }

    /// Seconds since 1970.
    pub(crate) fn seconds(self) -> u64 {
        self.0
    }

    /// As `2026-01-31T12:00:00Z`.
    pub(crate) fn to_rfc3339(self) -> String {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(self.0);
        humantime::format_rfc3339_seconds(time).to_string()
    }
}
