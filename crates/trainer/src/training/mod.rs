//! A run that learns: the loop, where a step lies in it, and what may end it.
//!
//! ```text
//! job:          settings, images, folder     -> what a run works on
//! train:        Job, executor, state         -> the end of the run, everything saved on the way
//! session:      the above                    -> a run while it goes on
//! micro_batch:  a loaded batch, settings     -> what executors take
//! step:         micro-batches                -> one update
//! in_flight:    updates that were started    -> those that are over
//! recent:       updates that are over         -> loss and top-1 beside the bar
//! feeding:      waiting for images           -> what would keep up with a device
//! epoch:        validation                   -> row of an epoch
//! validation:   images, statistics           -> the evaluation of an epoch
//! event_images: a batch, an evaluation       -> pictures for TensorBoard
//! course:       settings, images, progress   -> epoch, position and learning rate of a step
//! schedule:     settings, step               -> learning rate
//! trial:        settings, images             -> updates of a state that is thrown away
//! pace:         trial                        -> how long the run will take
//! range_test:   trial, rates                 -> losses
//! lr_choice:    losses                       -> a learning rate
//! batch_size:   images, memory               -> a batch size
//! divergence:   gradients, weights           -> the first number that is not finite
//! watch:        a layer's inputs             -> rows of the record
//! resources:    settings, executor           -> memory and disk that the run takes
//! memory_limit: files of the system          -> memory that is free, and what limits it
//! device_memory: executor                    -> whether a batch fits its device
//! ```

pub mod batch_size;
pub mod course;
pub mod device_memory;
pub mod divergence;
mod epoch;
mod event_images;
mod feeding;
mod in_flight;
pub mod job;
pub mod left_over;
pub mod lr_choice;
pub mod memory_limit;
mod micro_batch;
pub mod pace;
pub mod range_test;
mod recent;
pub mod resources;
pub mod schedule;
mod session;
mod step;
pub mod train;
pub mod trial;
mod validation;
pub mod watch;
