//! What was found.

use super::libraries::Libraries;
use super::ranks::Ranks;
use super::starters::Starter;
use crate::machine::control_group::GroupLimits;
use crate::machine::gpu::Gpus;
use crate::machine::processor::Processor;
use crate::training::memory_limit::FreeMemory;

/// What was found.
pub(super) struct Findings {
    pub processor: Processor,
    pub limits: GroupLimits,
    pub total_memory: Option<u64>,
    pub free_memory: Option<FreeMemory>,
    pub gpus: Gpus,
    pub ranks: Ranks,
    /// What the user has named as library.
    pub named_library: Option<String>,
    pub libraries: Libraries,
    pub starters: Vec<Starter>,
}
