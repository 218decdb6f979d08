//! Weights as safetensors in the naming of the public PyTorch port
//! (<https://github.com/Cadene/pretrained-models.pytorch>, `bninception.py`), which `load_state_dict` takes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};

use bninception_engine::model::layer::Activation;
use bninception_engine::model::{Kind, Network, Role};
use serde_json::{Value, json};

use super::exported::{Exported, stored};
use super::storage::Storage;
use crate::error::Error;

/// The key of the metadata that tells what images go through.
pub const INPUT_KEY: &str = "bninception.input";
/// The key of the metadata that tells what tensors do not tell of the network.
pub const NETWORK_KEY: &str = "bninception.network";
/// The key of the metadata that names the classes.
pub const CLASSES_KEY: &str = "bninception.classes";

/// What the port adds to each variance: PyTorch's default.
const EPSILON: f64 = 1e-5;

/// Why no port in PyTorch has this network, whatever its widths; `None` if one has.
pub fn lacks(network: &Network) -> Option<&'static str> {
    let options = &network.options;
    match network.kind {
        Kind::GoogLeNet => Some("it is GoogLeNet"),
        Kind::BnInception if options.batch_norm.is_none() => Some("it has no batch norm"),
        Kind::BnInception if options.lrn => Some("it has local response normalisation"),
        Kind::BnInception if options.activation == Activation::Sigmoid => {
            Some("it has sigmoids in place of ReLU")
        }
        Kind::BnInception => None,
    }
}

/// A file that is ready to be written.
pub struct PublicFile {
    header: Vec<u8>,
    tensors: BTreeMap<String, PublicTensor>,
}

struct PublicTensor {
    shape: Vec<usize>,
    storage: Storage,
    bytes: Vec<u8>,
}

impl PublicFile {
    /// The file of `exported`. The port adds a bias to each convolution: where the network has none, zeros
    /// are written.
    ///
    /// # Errors
    /// A value that `storage` cannot hold.
    pub fn of(exported: &Exported<'_>, storage: Storage) -> Result<PublicFile, Error> {
        let epsilon = exported.network.options.batch_norm.map_or(EPSILON, |norm| norm.epsilon);
        let mut tensors = BTreeMap::new();
        for (spec, values) in exported.tensors() {
            let values = match spec.role {
                Role::RunningVar => Cow::Owned(with_epsilon(values, epsilon)),
                _ => Cow::Borrowed(values),
            };
            let (storage, bytes) = stored(&spec.name, spec.role, &values, storage)?;
            if spec.role == Role::ConvWeight {
                let name = spec.name.replace(".weight", ".bias");
                let zeros = vec![0; spec.shape[0] * size_of::<f32>()];
                let bias = PublicTensor {
                    shape: vec![spec.shape[0]],
                    storage: Storage::F32,
                    bytes: zeros,
                };
                // One that the network has comes behind its filters.
                tensors.insert(name, bias);
            }
            tensors.insert(spec.name, PublicTensor { shape: spec.shape, storage, bytes });
        }
        let header = header(exported, &tensors);
        Ok(PublicFile { header, tensors })
    }

    /// Writes it.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&(self.header.len() as u64).to_le_bytes())?;
        out.write_all(&self.header)?;
        self.tensors.values().try_for_each(|tensor| out.write_all(&tensor.bytes))
    }
}

/// Variances that with the port's epsilon give what these give with `epsilon`.
fn with_epsilon(variances: &[f32], epsilon: f64) -> Vec<f32> {
    let more = epsilon - EPSILON;
    variances.iter().map(|&variance| (f64::from(variance) + more) as f32).collect()
}

/// The header, filled up to a multiple of 8 bytes. Its keys are in order, so that equal weights make equal
/// files.
fn header(exported: &Exported<'_>, tensors: &BTreeMap<String, PublicTensor>) -> Vec<u8> {
    let options = &exported.network.options;
    let network = json!({ "activation": options.activation.name(), "lrn": options.lrn });
    let about = json!({
        // What readers for PyTorch look for.
        "format": "pt",
        INPUT_KEY: exported.input().to_string(),
        NETWORK_KEY: network.to_string(),
        CLASSES_KEY: json!(exported.classes).to_string(),
    });
    let mut entries = serde_json::Map::from_iter([("__metadata__".to_owned(), about)]);
    let mut start = 0;
    for (name, tensor) in tensors {
        let dtype = match tensor.storage {
            Storage::F32 => "F32",
            Storage::F16 => "F16",
            Storage::Bf16 => "BF16",
        };
        let end = start + tensor.bytes.len();
        let entry = json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end] });
        entries.insert(name.clone(), entry);
        start = end;
    }
    let mut header = Value::Object(entries).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}
