//! What the engines with a static plan share: the network's layers as stages, and places for buffers.

pub(crate) mod lower;
pub(crate) mod memory;
pub(crate) mod padded;
pub(crate) mod schedule;
pub(crate) mod stage;
