//! A checkpoint for other programs.
//!
//! ```text
//! exported:    a checkpoint -> network, weights that evaluation uses, what images go through, classes
//! storage:     values -> bytes of the number type asked for
//! public_file: safetensors in the naming of the public PyTorch port
//! onnx:        a graph of ONNX operators with its weights
//! hub:         a folder as model hubs have them: config.json, model.safetensors, README.md by model_card
//! ```

pub mod exported;
pub mod hub;
pub mod model_card;
pub mod onnx;
pub mod public_file;
pub mod storage;
