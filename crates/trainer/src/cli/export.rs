//! `export` on the command line.

use std::path::PathBuf;

use clap::Args;

use crate::evaluation::statistics::Statistics;
use crate::export::storage::Storage;

/// `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The checkpoint, or the folder of a run, whose best checkpoint is taken.
    pub checkpoint: PathBuf,
    /// What to write.
    #[command(flatten)]
    pub target: ExportTarget,
    /// In ONNX, batch norm as nodes of its own; by default it is folded into the convolutions.
    #[arg(long)]
    pub keep_batch_norm: bool,
    /// In ONNX, probabilities in place of logits.
    #[arg(long)]
    pub softmax: bool,
    /// Number type of the filters and of the classifier in the file.
    #[arg(long, value_enum, default_value = "f32", value_name = "DTYPE")]
    pub storage: Storage,
    /// Name of the model on its page; by default that of the folder.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Statistics of batch norm; by default population statistics if the checkpoint has some.
    #[arg(long, value_enum)]
    pub statistics: Option<Statistics>,
    /// Replace what is there already.
    #[arg(long)]
    pub overwrite: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What an export writes: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ExportTarget {
    /// Weights in the names of the public PyTorch port.
    #[arg(long, value_name = "FILE")]
    pub safetensors: Option<PathBuf>,
    /// An ONNX model (opset 17) for batches of any size.
    #[arg(long, value_name = "FILE")]
    pub onnx: Option<PathBuf>,
    /// A folder as model hubs have them: config.json, model.safetensors, the network in PyTorch, README.md.
    #[arg(long, value_name = "DIR")]
    pub hub: Option<PathBuf>,
}
