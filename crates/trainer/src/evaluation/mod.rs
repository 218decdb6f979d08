//! A network that is used on labelled images: its answers, and what is made of them.
//!
//! ```text
//! evaluate:   executor, images        -> logits, batch by batch; counts and loss
//! last_layer: network                 -> where its last matrix stands
//! feature_file: features, paths       -> a file of NumPy
//! ensemble:   checkpoints, crops      -> the mean of their class probabilities
//! confusion:  evaluation              -> its matrix as a picture
//! outcomes:   answers, labels         -> classes, confused pairs, mistakes, calibration
//! tables:     outcomes                -> CSV files in a folder
//! pictures:   outcomes                -> pictures of mistakes and of confusion beside them
//! interval:   counts                  -> how far a rate can be believed
//! paired:     counts of two           -> whether their rates differ
//! changes:    outcomes of two         -> these counts, and the images that changed
//! majority:   counts                  -> what a network that learnt nothing would score
//! statistics: checkpoint              -> the statistics of batch norm that are used
//! calibrate:  executor, mini-batches  -> population statistics
//! ```

pub mod activation_map;
pub mod calibrate;
pub mod changes;
pub mod confusion;
pub mod ensemble;
pub mod evaluate;
pub mod feature_file;
pub mod interval;
pub mod last_layer;
pub mod majority;
pub mod outcomes;
pub mod paired;
pub mod pictures;
pub mod statistics;
pub mod tables;
