//! Weights of other programs.
//!
//! ```text
//! tensors:       a file -> named tensors, by torch_file (.pth, zip or legacy) or from safetensors
//! public_names:  named tensors -> a network of ours, and the weights in its layout
//! preprocessing: what the foreign network wants to see, in our terms
//! own_words:     what a file that this program exported says of all that
//! checkpoint:    all of it -> a checkpoint
//! ```

pub mod checkpoint;
pub mod error;
pub mod own_words;
pub mod preprocessing;
pub mod public_names;
pub mod tensor;
pub mod tensors;
pub mod torch_file;
