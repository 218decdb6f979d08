//! Multiply and add every tap, in f32.

pub(super) mod gradients;
pub(super) mod outputs;
pub(super) mod pack;
