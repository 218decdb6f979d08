//! `mnist`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `mnist`.
#[derive(Debug, Args)]
pub struct MnistArgs {
    /// Folder with MNIST's four files, plain or packed: train-images-idx3-ubyte[.gz],
    /// train-labels-idx1-ubyte[.gz], and the two that begin with t10k.
    #[arg(long, visible_alias = "data-path", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The paper's fully connected network, LeNet-5, or one after the other.
    #[arg(long, value_enum, default_value_t = MnistModel::Both)]
    pub model: MnistModel,
    /// Steps of SGD (section 4.1).
    #[arg(long, default_value_t = 50_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub steps: u64,
    /// Images of a step (section 4.1).
    #[arg(short, long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=60_000))]
    pub batch_size: u64,
    /// Learning rate, the same with batch norm and without; by default 0.1 for mlp and 1 for lenet. The
    /// paper gives none.
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub lr: Option<f64>,
    /// Standard deviation of the initial weights; the paper says "small random Gaussian values".
    #[arg(long, default_value_t = crate::mnist::experiment::SIGMA, value_name = "SIGMA", allow_negative_numbers = true)]
    pub sigma: f64,
    /// Decides the initial weights and the order of the images.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// Folder for the curves, the figures and the result; what is there is replaced.
    #[arg(long, default_value = "checkpoints/mnist", value_name = "DIR")]
    pub out: PathBuf,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// The networks of `mnist`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MnistModel {
    /// Three hidden layers of 100 sigmoids (section 4.1).
    Mlp,
    /// LeNet-5 with sigmoids.
    Lenet,
    /// First `mlp`, then `lenet`.
    Both,
}
