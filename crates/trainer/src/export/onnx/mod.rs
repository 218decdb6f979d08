//! A network as an ONNX model (<https://onnx.ai>): weights and graph in one file, which many runtimes read.

mod graph;
mod schema;

use prost::Message;
use serde_json::{Value, json};

pub use graph::{GraphOptions, INPUT};
use schema::{Entry, Model, OperatorSet};

use super::exported::Exported;
use crate::error::Error;

/// The operators' version: that of ONNX 1.12 of 2022, which the runtimes of today read.
const OPSET: i64 = 17;

/// The version of the file format that goes with it
/// (<https://github.com/onnx/onnx/blob/main/docs/Versioning.md>).
const IR_VERSION: i64 = 8;

/// The bytes of a model. What an image has to go through, and the names of the classes, stand in its metadata.
///
/// # Errors
/// A value that the number type of storage cannot hold.
pub fn model(exported: &Exported<'_>, options: GraphOptions) -> Result<Vec<u8>, Error> {
    let mut metadata_props =
        vec![Entry { key: "classes".to_owned(), value: json!(exported.classes).to_string() }];
    if let Value::Object(input) = exported.input() {
        metadata_props.extend(input.into_iter().map(|(key, value)| Entry {
            key,
            value: match value {
                Value::String(text) => text,
                value => value.to_string(),
            },
        }));
    }
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: "bninception".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph::graph(exported, options)?),
        opset_import: vec![OperatorSet { domain: String::new(), version: OPSET }],
        metadata_props,
    };
    Ok(model.encode_to_vec())
}
