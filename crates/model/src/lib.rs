//! BN-Inception (Inception-v2 of Ioffe & Szegedy 2015, <https://arxiv.org/abs/1502.03167>) as data, and
//! GoogLeNet, the network that it grew from.
//!
//! [`table`] holds the paper's Figure 5 and GoogLeNet's table 1. [`network`] turns a table into one
//! list of [`layer`]s, whose [`parts`] lie one behind the other. Everything else reads that list: [`summary`],
//! [`parameters`], [`init`], and the [`reference`](mod@reference) executor on candle. Batch size is never part
//! of a network. [`fold`] takes a batch norm of evaluation into the convolution before it.
#![forbid(unsafe_code)]

pub mod batch;
pub mod dropout;
pub mod error;
pub mod fold;
pub mod init;
pub mod layer;
pub mod network;
pub mod parameters;
pub mod parts;
pub mod reference;
pub mod summary;
pub mod table;

pub use error::ModelError;
pub use fold::{NormTensors, fold_batch_norm};
pub use network::{AuxOptions, BatchNormOptions, Kind, Network, NetworkOptions};
pub use parameters::{ParameterTable, Role, Weights};
