//! `import` on the command line.

use std::path::PathBuf;

use clap::Args;

use crate::import::preprocessing::ForeignInput;

/// `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Weights of BN-Inception in the names of its public PyTorch port: a safetensors file, or one that
    /// torch.save wrote. Nothing in it is executed.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The checkpoint to write.
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// File with the name of each class, one a line, in the order of the classifier's outputs; without it
    /// classes get numbers for names.
    #[arg(long, value_name = "FILE")]
    pub classes: Option<PathBuf>,
    /// What the network was trained to see; by default what the file says if `export` wrote it, else `caffe`.
    #[arg(long, value_enum, value_name = "KIND")]
    pub preprocessing: Option<ForeignInput>,
    /// Rows and columns of the network's input, 32 to 512; by default what the file says if `export` wrote
    /// it, else 224.
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
    /// Subtract the biases of convolutions from the running means behind them. The network answers as
    /// before, and has 10 thousand parameters less.
    #[arg(long)]
    pub fold_biases: bool,
    /// Replace a file that is there already.
    #[arg(long)]
    pub overwrite: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}
