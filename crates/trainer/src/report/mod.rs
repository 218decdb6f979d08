//! A page on one run, or on several side by side.
//!
//! ```text
//! judgement:         checkpoint, images -> its answers, and its worst mistakes with activation maps
//! training_pictures: settings, images   -> the first mini-batch as the network saw it
//! environment:       train.log, machine -> what computed the run, and what computes now
//! reported_run:      folder             -> all of that, with the run's record
//! picture:           pixels             -> a picture inside the page
//! sections:          a reported run     -> a part of the page each
//! html:              reported runs      -> the page
//! markdown:          a recorded run     -> report.md, with figures beside it
//! ```

pub mod environment;
pub mod html;
pub mod judgement;
pub mod markdown;
pub mod picture;
pub mod reported_run;
pub mod sections;
pub mod training_pictures;
