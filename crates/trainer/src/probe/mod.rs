//! A linear probe: what a linear classifier makes of the features of a network that stays as it is.
//!
//! ```text
//! features:   executor, images       -> what the last layer reads of each
//! fit:        features, classes      -> the strength of the penalty, and the classifier
//! regression: features, weights      -> the function that is minimised, and its gradient
//! minimise:   a function, a point    -> its minimum
//! products:   rows, weights          -> products in f64
//! checkpoint: classifier, checkpoint -> a checkpoint with the classifier in it
//! ```

pub mod checkpoint;
pub mod features;
pub mod fit;
pub mod minimise;
mod products;
pub mod regression;
