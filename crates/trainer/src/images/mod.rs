//! From folders to the images of a run.
//!
//! ```text
//! data_dirs:  settings           -> folders; what may not be written there
//! scan:       settings, folders  -> training and validation images
//! own_images: checkpoint         -> exactly the images of its run
//! ```

pub mod data_dirs;
pub mod own_images;
pub mod scan;
