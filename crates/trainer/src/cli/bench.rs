//! `bench` and what follows it.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};

use super::settings::ConfigArgs;
use crate::machine::card::CARDS;

/// `bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Time whole steps of training or evaluation on random images.
    Model(BenchModelArgs),
    /// Time every convolution of the network in every direction, after checking its answer.
    Ops(BenchOpsArgs),
    /// Time reading, decoding and augmenting the training images, by number of workers.
    Data(BenchDataArgs),
    /// Time what several processes tell each other: sums, broadcasts, gathers, barriers. It runs in all of
    /// them: bninception launch -n 2 -- bench collective.
    Collective(BenchCollectiveArgs),
}

/// `bench collective`.
#[derive(Debug, Args)]
pub struct BenchCollectiveArgs {
    /// Sizes of the messages, such as 4kB,1MB,45MB; 45 MB is a gradient of the network with 1000 classes.
    #[arg(
        long,
        value_name = "SIZES",
        value_delimiter = ',',
        value_parser = parse_size,
        default_value = "4kB,64kB,1MB,4MB,16MB,45MB,64MB"
    )]
    pub sizes: Vec<usize>,
    /// Timed calls of each kind and size, of which the median is reported.
    #[arg(long, default_value_t = 9, value_name = "N")]
    pub repeats: usize,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Largest message: lengths of MPI are counted in 31 bits.
const MOST_BYTES: usize = 2_000_000_000;

/// Bytes, which are whole f32 values: `4096`, `4kB`, `45MB`, `1GB`.
fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" => Some(1000),
        "m" | "mb" => Some(1_000_000),
        "g" | "gb" => Some(1_000_000_000),
        _ => None,
    };
    let bytes = digits.parse::<usize>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
    let is_possible = |&bytes: &usize| (4..=MOST_BYTES).contains(&bytes) && bytes % 4 == 0;
    bytes.filter(is_possible).ok_or_else(|| {
        "expected bytes such as 4096, 64kB or 45MB, from 4 to 2GB, in fours".to_owned()
    })
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
    /// Also print where the time goes, by layer and kind of work; on a GPU by kernel and by layer, beside the least time
    /// that a known card needs.
    #[arg(long)]
    pub profile: bool,
    /// Print what a step starts on a GPU and how long that would take on this card, without the card: with --device host.
    #[arg(long, value_name = "CARD", value_parser = PossibleValuesParser::new(CARDS.map(|card| card.key)))]
    pub predict: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

impl BenchMode {
    /// The name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            BenchMode::Train => "train",
            BenchMode::Eval => "eval",
        }
    }
}

/// What `bench model` times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchMode {
    /// Forward, backward and optimizer.
    Train,
    /// Forward with running statistics.
    Eval,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes() {
        for (text, bytes) in
            [("4096", 4096), ("4kB", 4000), ("45MB", 45_000_000), ("1g", 1_000_000_000)]
        {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for text in ["", "kB", "3", "0", "6", "4TB", "3GB", "-4"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
