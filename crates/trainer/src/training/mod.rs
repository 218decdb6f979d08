//! A run that learns: the loop, where a step lies in it, and what may end it.
//!
//! ```text
//! train:        Job, executor, state         -> state at the end, everything saved on the way
//! course:       settings, images, progress   -> epoch, position and learning rate of a step
//! schedule:     settings, step               -> learning rate
//! divergence:   gradients, weights           -> the first number that is not finite
//! watch:        a layer's inputs             -> rows of the record
//! resources:    settings, executor           -> memory and disk that the run takes
//! memory_limit: files of the system          -> memory that is free, and what limits it
//! ```

pub mod course;
pub mod divergence;
pub mod memory_limit;
pub mod resources;
pub mod schedule;
pub mod train;
pub mod watch;
