//! Files on disk to batches of pixels.
//!
//! The modules stand in the order in which the data flows:
//!
//! ```text
//! listing: DIR                    -> the entries of its folders
//! packing: DIR                    -> a folder of shards, decoded once, that is read like DIR
//! folder:  DIR/train/CLASS/*      -> Vec<Sample { path, label }>
//! images:  any files and folders  -> Vec<Sample { path, label: 0 }>
//! decode:  bytes of a file        -> RGB u8, height x width x 3
//! crop:    width, height, draws   -> the region to look at
//! crops:   width, height          -> the regions of an evaluation by many crops
//! resize:  region                 -> RGB u8, size x size x 3
//! mirror:  seed, epoch, index     -> left to right or not
//! colour:  planes in [0, 1]       -> the same planes, distorted
//! augment / preprocess: the above -> RGB u8, size x size x 3
//! mixup:   seed, batch            -> the images of a batch, mixed in pairs
//! order:   seed, epoch            -> the order of the samples
//! balance: seed, epoch, classes   -> the same with rare classes more often
//! loader:  order, source          -> Batch { images, labels, ... }
//! ```
//!
//! Every random choice is a function of (seed, epoch, index): [`random`] makes the generators, and
//! nothing else does. So the number of threads and the depth of the queue never change a byte, and
//! a run resumes in the middle of an epoch without replaying it.
//!
//! The crate knows nothing of networks or tensors: a batch is a plain `Vec<f32>`.

#![forbid(unsafe_code)]

pub mod augment;
pub mod balance;
pub mod check;
mod class_folders;
mod class_name;
pub mod colour;
pub mod crop;
pub mod crops;
pub mod decode;
mod decode_options;
pub mod demo;
mod entropy;
mod error;
mod exif;
mod fields;
pub mod folder;
mod folder_state;
mod format;
mod gif;
mod guard;
pub mod headers;
mod huffman;
mod ifd;
pub mod images;
mod jpeg;
mod layout;
mod left_out;
pub mod likeness;
pub mod listing;
pub mod loader;
mod mirror;
mod mixup;
mod open;
pub mod order;
pub mod packing;
mod picture_size;
pub mod preprocess;
pub mod random;
pub mod resize;
mod sample;
mod scaled;
mod shard;
pub mod share;
pub mod source;
pub mod split;
mod split_folders;
mod text;
mod thumbnail;
mod tiff;

pub use augment::AugmentConfig;
pub use balance::Balance;
pub use check::check;
pub use class_folders::{IMAGE_EXTENSIONS, is_image_path};
pub use class_name::check_class_name;
pub use colour::Colour;
pub use crops::Crops;
pub use decode::{decode, decode_file};
pub use decode_options::DecodeOptions;
pub use demo::{DemoOptions, write_demo};
pub use error::{DataError, DecodeError};
pub use folder::{ScanOptions, Splits, scan, scan_classes, scan_classes_with, scan_with};
pub use format::begins_as_image;
pub use headers::check_headers;
pub use image::RgbImage;
pub use images::find_images;
pub use listing::Lister;
pub use loader::{Batch, Failure, LoadOptions, Loader, TrainPlan};
pub use mirror::Mirror;
pub use order::{Shuffle, epoch_order};
pub use packing::{PackOptions, PackSummary, pack};
pub use picture_size::median_short_side;
pub use preprocess::{Preprocessing, preprocess_file};
pub use resize::{Filter, Interpolation};
pub use sample::Sample;
pub use share::Share;
pub use source::{FileSource, Source};
pub use split::split;
pub use text::counted;
pub use thumbnail::{thumbnail, to_jpeg};
