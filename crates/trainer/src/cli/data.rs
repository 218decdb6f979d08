//! `data` and what follows it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `data`.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Draw the embedded pictures into a folder.
    Demo(DataDemoArgs),
    /// List the folders of a data set and keep the listing for the runs to come.
    Index(DataIndexArgs),
    /// Read every image of a folder and report what would break a run, and what looks odd. Ends with
    /// code 3 if something would break a run.
    Check(DataCheckArgs),
    /// Set a part of each class aside for validation, in a new folder of hard links (symbolic ones
    /// where the file system allows no hard links). No image is copied.
    Split(DataSplitArgs),
    /// Decode every image once and store it, shrunk, in a folder that is read like DIR: for fast
    /// accelerators and slow disks. Packing again takes up what was stopped, and only what changed.
    Pack(DataPackArgs),
}

/// `data demo`.
#[derive(Debug, Args)]
pub struct DataDemoArgs {
    /// The folder to make.
    pub dir: PathBuf,
    /// Training pictures of each of the ten classes.
    #[arg(long, default_value_t = 200)]
    pub train_per_class: usize,
    /// Validation pictures of each class.
    #[arg(long, default_value_t = 40)]
    pub val_per_class: usize,
    /// Rows and columns of a picture.
    #[arg(long, default_value_t = 64)]
    pub size: usize,
    /// Decides every picture.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// `data check`.
#[derive(Debug, Args)]
pub struct DataCheckArgs {
    /// Folder of images, as for `train --data-dir`.
    pub dir: PathBuf,
    /// Show long lists whole.
    #[arg(long)]
    pub all: bool,
    /// Also draw some images of each class, with the number of its images, as a PNG.
    #[arg(long, value_name = "FILE")]
    pub sheet: Option<PathBuf>,
    /// Threads; 0 takes the number of cores.
    #[arg(short = 'j', long, default_value_t = 0, value_name = "N")]
    pub workers: usize,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `data split`.
#[derive(Debug, Args)]
pub struct DataSplitArgs {
    /// Folder of class folders, or with a `train` folder of them.
    pub dir: PathBuf,
    /// The folder to make.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Part of each class.
    #[arg(long, default_value_t = 0.1, value_name = "FRACTION")]
    pub val_fraction: f64,
    /// Decides which images; training on DIR with this seed and fraction holds out the same.
    #[arg(long, default_value_t = 42, value_name = "N")]
    pub seed: u64,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `data pack`.
#[derive(Debug, Args)]
pub struct DataPackArgs {
    /// Folder of images, as for `train --data-dir`.
    pub dir: PathBuf,
    /// The folder to make, or to go on with.
    pub out: PathBuf,
    /// Pixels of the short side; smaller images stay as they are. A pixel takes 3 bytes.
    #[arg(long, default_value_t = 256, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub short_side: u32,
    /// Leave images as they lie in the file, whatever their EXIF orientation (needs data.exif=false).
    #[arg(long)]
    pub ignore_exif: bool,
    /// Threads; 0 takes the number of cores.
    #[arg(short = 'j', long, default_value_t = 0, value_name = "N")]
    pub workers: usize,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `data index`.
#[derive(Debug, Args)]
pub struct DataIndexArgs {
    /// Folder of images, as for `train --data-dir`.
    pub dir: PathBuf,
    /// List every folder anew, whatever is known of it.
    #[arg(long)]
    pub rebuild: bool,
    /// Threads; 0 takes the number of cores.
    #[arg(short = 'j', long, default_value_t = 0, value_name = "N")]
    pub workers: usize,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}
