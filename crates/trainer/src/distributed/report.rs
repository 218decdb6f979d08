//! What a rank says of its part of an update, beside its sums.

use bninception_engine::metrics::Metrics;
use serde::{Deserialize, Serialize};

use crate::distributed::failures::ToldFailures;
use crate::run::stop::Stop;

/// What a rank says of its part of an update. All ranks hear all reports, so that none decides alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Micro-batches that took part.
    pub micro_batches: u32,
    /// The sum of their mean losses.
    pub loss: f64,
    /// Their images, counted.
    pub metrics: Metrics,
    /// Training images that could not be read.
    pub failed: ToldFailures,
    /// A reason to save and leave.
    pub stop: Option<Stop>,
    /// A loss that was not finite.
    pub divergence: Option<Divergence>,
}

/// Files that are named of an update whose numbers are not finite.
const MOST_FILES: usize = 8;

/// A number that was not finite.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// What was not finite, in words.
    pub reason: String,
    /// Some files of the update.
    pub files: String,
}

impl Divergence {
    /// `reason` in an update with these files.
    pub fn of(reason: &impl ToString, files: &[String]) -> Divergence {
        let mut shown: Vec<String> = files.iter().take(MOST_FILES).cloned().collect();
        if files.len() > shown.len() {
            shown.push(format!("and {} more", files.len() - shown.len()));
        }
        Divergence { reason: reason.to_string(), files: shown.join(", ") }
    }
}
