//! The paper's first experiment (section 4.1): digits, sigmoids, with and without batch norm.
//!
//! ```text
//! images:     four IDX files            -> Digits, 28 x 28 binary pixels
//! network:    model, seed               -> Network, a chain of stages
//! stage:      convolution, batch norm or bias, sigmoid, pool: forward and backward
//! places:     the loops that move values between images and patches
//! experiment: Digits, Settings          -> Curve, test accuracy and percentiles by step
//! report:     the curves of all         -> CSV, JSON, figures, the table on stdout
//! ```
//!
//! candle reads the files; the networks are run by loops of our own, because a step of LeNet-5 by
//! candle's autograd takes several times as long: its convolutions copy, and their gradients more so.
//! `tests/mnist.rs` holds every gradient against that autograd in f64. A network runs in one thread,
//! and the two networks of a comparison side by side, so the number of threads changes no result.
//!
//! Letters: an activation is `[channels][images][rows][columns]`, with the channel outermost, so that
//! what batch norm sums over lies in one piece.

pub mod experiment;
pub mod images;
pub mod network;
mod places;
pub mod report;
pub mod stage;
