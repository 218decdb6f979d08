//! Multiply and add every tap, in f32: outputs and the gradient of the input (`outputs`), the gradient of the
//! weights (`gradients`), and the order in which both read or write weights (`pack`).

pub(super) mod gradients;
pub(super) mod outputs;
pub(super) mod pack;
