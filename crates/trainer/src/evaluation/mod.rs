//! A network that is used on labelled images: its answers, and what is made of them.
//!
//! ```text
//! evaluate:   executor, images        -> logits, batch by batch; counts and loss
//! ensemble:   checkpoints, crops      -> the mean of their class probabilities
//! outcomes:   answers, labels         -> classes, confused pairs, mistakes, calibration
//! tables:     outcomes                -> CSV files in a folder
//! statistics: checkpoint              -> the statistics of batch norm that are used
//! calibrate:  executor, mini-batches  -> population statistics
//! ```

pub mod calibrate;
pub mod ensemble;
pub mod evaluate;
pub mod outcomes;
pub mod statistics;
pub mod tables;
