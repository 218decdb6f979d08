//! `bench` and what follows it.

use clap::{Args, Subcommand, ValueEnum};

use super::settings::ConfigArgs;

/// `bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Time whole steps of training or evaluation on random images.
    Model(BenchModelArgs),
    /// Time every convolution of the network in every direction, after checking its answer.
    Ops(BenchOpsArgs),
    /// Time reading, decoding and augmenting the training images, by number of workers.
    Data(BenchDataArgs),
}

/// `bench data`.
#[derive(Debug, Args)]
pub struct BenchDataArgs {
    /// Settings; --data-dir, --image-size, -j, --set augment.colour=none and so on.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Images to time, over several epochs where there are fewer; 0 takes every image once.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub images: usize,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `bench ops`.
#[derive(Debug, Args)]
pub struct BenchOpsArgs {
    /// Settings; without a preset the default network at 224 px.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Timed calls, of which the median is reported.
    #[arg(long, default_value_t = 9, value_name = "N")]
    pub repeats: usize,
    /// Calls before the timed ones.
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub warmup: usize,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `bench model`.
#[derive(Debug, Args)]
pub struct BenchModelArgs {
    /// Training steps, or evaluation.
    #[arg(long, value_enum, default_value_t = BenchMode::Train)]
    pub mode: BenchMode,
    /// Settings; without a preset the default network with 1000 classes at 224 px.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Timed steps, of which the median is reported.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub repeats: usize,
    /// Steps before the timed ones.
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub warmup: usize,
    /// Also print where the time goes, by layer and kind of work.
    #[arg(long)]
    pub profile: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What `bench model` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchMode {
    /// Forward, backward and optimizer.
    Train,
    /// Forward with running statistics.
    Eval,
}
