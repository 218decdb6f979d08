//! The tensors of a foreign file, by their names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::error::ImportError;
use super::tensor::{ForeignTensor, Number};
use super::torch_file;
use crate::file_error::FileError;

/// Largest file that is read, in bytes: 90 times the public weights of this network.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// The tensors of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForeignTensors {
    /// By name.
    pub tensors: BTreeMap<String, ForeignTensor>,
    /// What the file says of itself, by key: the metadata of safetensors.
    pub metadata: BTreeMap<String, String>,
}

impl ForeignTensors {
    /// Reads a file of safetensors or of PyTorch, whichever it is by its first bytes. Nothing in it is
    /// executed.
    ///
    /// # Errors
    /// A file that cannot be read, is of another kind, or is damaged.
    pub fn read(path: &Path) -> Result<ForeignTensors, ImportError> {
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(FileError::of("read", path))?;
        let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(FileError::of("read", path))?;
        ForeignTensors::parse(&bytes)
            .map_err(|reason| ImportError::Format { path: path.to_owned(), reason })
    }

    /// As [`ForeignTensors::read`], of a file's content.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<ForeignTensors, String> {
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(format!("it has more than {MAX_FILE_BYTES} bytes"));
        }
        if torch_file::is_torch(bytes) {
            let tensors = torch_file::parse(bytes)?;
            return Ok(ForeignTensors { tensors, metadata: BTreeMap::new() });
        }
        // The header of a safetensors file is a JSON object behind its length of eight bytes.
        match bytes.get(8) {
            Some(b'{') => of_safetensors(bytes),
            _ => Err("it is neither a safetensors file nor one that torch.save wrote".to_owned()),
        }
    }
}

fn of_safetensors(bytes: &[u8]) -> Result<ForeignTensors, String> {
    let broken = |error| format!("it is no valid safetensors file ({error})");
    let file = SafeTensors::deserialize(bytes).map_err(broken)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let metadata = header.metadata().iter().flatten();
    let metadata = metadata.map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let kind = match view.dtype() {
            Dtype::F32 => Number::F32,
            Dtype::F64 => Number::F64,
            Dtype::F16 => Number::F16,
            Dtype::BF16 => Number::Bf16,
            // Counters, such as num_batches_tracked.
            Dtype::I64 | Dtype::I32 | Dtype::U8 | Dtype::BOOL => continue,
            other => return Err(format!("tensor {name} has numbers of the type {other:?}")),
        };
        let shape = view.shape().to_vec();
        tensors.insert(name.to_owned(), ForeignTensor { shape, values: kind.values(view.data()) });
    }
    Ok(ForeignTensors { tensors, metadata })
}
