//! From folders to the images of a run.
//!
//! ```text
//! data_dirs:  settings           -> folders; what may not be written there
//! scan:       settings, folders  -> training and validation images
//! own_images: checkpoint         -> exactly the images of its run
//! named:      a command line     -> the images that it names
//! bad_images: images broken      -> how many are put up with
//! class_counts: labels           -> images of each class, and warnings about them
//! ```

pub mod bad_images;
pub mod class_counts;
pub mod data_dirs;
pub mod named;
pub mod own_images;
pub mod scan;
