//! A checkpoint: one safetensors file that alone is enough to predict, evaluate or continue.
//!
//! Network tensors stand under their own names, the optimizer's momentum under
//! `optimizer.momentum.NAME`, averaged weights under `ema.NAME`, population statistics under
//! `population.NAME`. The metadata key `bninception` holds [`Metadata`] as JSON. The format is
//! described in `checkpoints/README.md`.
//!
//! A file replaces the one before in one step ([`atomic_file`]), carries a checksum over its content,
//! and never holds a number that is not finite. Reading one takes at most three times the memory of
//! the file, whatever it claims about itself, and the file at most [`MAX_FILE_BYTES`].

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bninception_engine::ModelState;
use bninception_engine::model::parameters::TensorSpec;
use bninception_engine::model::{Network, ParameterTable, Weights};
use safetensors::tensor::{Dtype, SafeTensors, TensorInfo};

use crate::run::atomic_file;
use crate::run::metadata::{FORMAT_VERSION, Metadata};
use crate::run::state::{Population, TrainState};

/// The one metadata key, beside what safetensors needs itself. One key only, because several would
/// be written in the order of a hash map and the bytes of a file would differ from run to run.
const METADATA_KEY: &str = "bninception";
const MOMENTUM_PREFIX: &str = "optimizer.momentum.";
const EMA_PREFIX: &str = "ema.";
const POPULATION_PREFIX: &str = "population.";

/// Largest file that is read, in bytes. A run with 21,841 classes (ImageNet-21k) and a moving
/// average has 0.4 GB.
pub const MAX_FILE_BYTES: u64 = 4 << 30;

/// Largest header, in bytes: names, shapes and metadata. 21,841 classes take 2 MB.
const MAX_HEADER_BYTES: u64 = 32 << 20;

/// Bytes in front of the header: its length, little endian.
const LENGTH_BYTES: usize = 8;

/// A checkpoint that has been read.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Where it was read from.
    pub path: PathBuf,
    /// What it says about itself.
    pub metadata: Metadata,
    /// The network it belongs to.
    pub network: Network,
    /// Weights, momentum, averages, population statistics and counters.
    pub state: TrainState,
}

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system refuses.
    #[error("cannot {action} the checkpoint {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is no checkpoint, or a damaged one.
    #[error("{} is not a checkpoint of this program: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// A state that must not replace a good one.
    #[error("{} was not written: {tensor} is not finite", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor, and the place in it.
        tensor: String,
    },
    /// A file that could not be read again must not replace a good one.
    #[error("{} was not written, because it could not be read again: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the reader would refuse.
        reason: String,
    },
}

impl CheckpointError {
    /// Whether it lies in what was to be written, so that no other try and no other place helps.
    pub fn is_of_content(&self) -> bool {
        matches!(self, CheckpointError::NotFinite { .. } | CheckpointError::Unreadable { .. })
    }
}

/// Writes a checkpoint to `path`, replacing a file there in one step. Version, checksum and the word on
/// population statistics in the metadata are those of what is written.
///
/// # Errors
/// A value is not finite, [`load`] would refuse the file, or the folder cannot be written; the old file
/// is then as it was.
pub fn save(
    path: &Path,
    metadata: &Metadata,
    table: &ParameterTable,
    state: &TrainState,
) -> Result<(), CheckpointError> {
    let tensors = tensors_of(table, state);
    for tensor in &tensors {
        if let Some(index) = tensor.values.iter().position(|value| !value.is_finite()) {
            let tensor = format!("{} at value {index}", tensor.name);
            return Err(CheckpointError::NotFinite { path: path.to_owned(), tensor });
        }
    }
    let io_error = |source| CheckpointError::Io { action: "write", path: path.to_owned(), source };
    let calibration = state.population.as_ref().map(|population| population.made);
    let metadata = Metadata { calibration, ..metadata.clone() };
    let header = header(metadata, &tensors).map_err(io_error)?;
    check_header(&header, &tensors, table)
        .map_err(|reason| CheckpointError::Unreadable { path: path.to_owned(), reason })?;
    atomic_file::write(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors.iter().try_for_each(|tensor| tensor.bytes(|bytes| file.write_all(bytes)))
    })
    .map_err(io_error)
}

/// Reads the header of a file that is to be written, by the rules of [`load`].
fn check_header(
    header: &[u8],
    tensors: &[Tensor<'_>],
    table: &ParameterTable,
) -> Result<(), String> {
    let bytes = tensors.iter().map(|tensor| tensor.len_bytes() as u64).sum::<u64>();
    check_size(header.len() as u64, LENGTH_BYTES as u64 + header.len() as u64 + bytes)?;
    let header: safetensors::tensor::Metadata =
        serde_json::from_slice(header).map_err(|error| error.to_string())?;
    let network = Metadata::check(metadata_of(&header)?)?;
    match ParameterTable::new(&network) == *table {
        true => Ok(()),
        false => Err("its tensors are not those of the network of its settings".to_owned()),
    }
}

/// Refuses a header or a file that is too large to be read.
fn check_size(header: u64, file: u64) -> Result<(), String> {
    if file > MAX_FILE_BYTES {
        return Err(format!("{file} bytes, more than the limit of {MAX_FILE_BYTES}"));
    }
    if header > file.min(MAX_HEADER_BYTES) {
        return Err(format!(
            "its header would have {header} bytes, more than the file or the limit of \
             {MAX_HEADER_BYTES}"
        ));
    }
    Ok(())
}

/// Reads and checks a checkpoint.
///
/// # Errors
/// The file cannot be read, is no checkpoint, or its tensors do not fit its network.
pub fn load(path: &Path) -> Result<Checkpoint, CheckpointError> {
    parse(&read(path)?, path)
}

/// Reads a checkpoint's bytes, for [`parse`].
///
/// # Errors
/// The file cannot be read, or is too large for a checkpoint.
pub fn read(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let (mut bytes, rest) = read_header(path)?;
    rest.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(read_error(path))?;
    Ok(bytes)
}

/// Reads what a checkpoint says about itself, without its tensors and without a look at its checksum.
///
/// # Errors
/// The file cannot be read, or its header is not that of a checkpoint.
pub fn load_metadata(path: &Path) -> Result<Metadata, CheckpointError> {
    let format = |reason: String| CheckpointError::Format { path: path.to_owned(), reason };
    let (bytes, _) = read_header(path)?;
    let header = bytes.get(LENGTH_BYTES..).unwrap_or_default();
    let header = serde_json::from_slice(header)
        .map_err(|error| format(format!("it is no valid safetensors file ({error})")))?;
    Metadata::from_json(metadata_of(&header).map_err(format)?).map_err(format)
}

fn read_error(path: &Path) -> impl Fn(io::Error) -> CheckpointError {
    move |source| CheckpointError::Io { action: "read", path: path.to_owned(), source }
}

/// The length and the header, and the file behind them. A file that is too short gives what it has.
fn read_header(path: &Path) -> Result<(Vec<u8>, File), CheckpointError> {
    let format = |reason: String| CheckpointError::Format { path: path.to_owned(), reason };
    let mut file = File::open(path).map_err(read_error(path))?;
    let size = file.metadata().map_err(read_error(path))?.len();
    check_size(0, size).map_err(format)?;
    let mut bytes = Vec::new();
    let mut read = |file: &mut File, n: u64| {
        file.take(n).read_to_end(&mut bytes).map_err(read_error(path))?;
        Ok::<_, CheckpointError>(<[u8; LENGTH_BYTES]>::try_from(bytes.as_slice()).ok())
    };
    if let Some(length) = read(&mut file, LENGTH_BYTES as u64)? {
        let length = u64::from_le_bytes(length);
        check_size(length, size).map_err(format)?;
        read(&mut file, length)?;
    }
    Ok((bytes, file))
}

fn metadata_of(header: &safetensors::tensor::Metadata) -> Result<&str, String> {
    let json = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
    json.map(String::as_str).ok_or_else(|| format!("its metadata lacks the key `{METADATA_KEY}`"))
}

/// [`load`] of a file's content; `path` is for messages.
///
/// # Errors
/// As [`load`].
pub fn parse(bytes: &[u8], path: &Path) -> Result<Checkpoint, CheckpointError> {
    let format = |reason: String| CheckpointError::Format { path: path.to_owned(), reason };
    let not_safetensors = |error| format(format!("it is no valid safetensors file ({error})"));
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(not_safetensors)?;
    let json = metadata_of(&header).map_err(format)?;
    let metadata: Metadata = Metadata::from_json(json).map_err(format)?;
    let network = metadata.network().map_err(format)?;
    let table = ParameterTable::new(&network);
    let file = SafeTensors::deserialize(bytes).map_err(not_safetensors)?;
    if !metadata.checksum.is_empty() {
        check_sum(&file, json, &metadata.checksum).map_err(format)?;
    }
    let state = read_state(&file, &table, &metadata).map_err(format)?;
    Ok(Checkpoint { path: path.to_owned(), metadata, network, state })
}

/// One tensor on its way into a file.
struct Tensor<'a> {
    name: String,
    shape: &'a [usize],
    values: &'a [f32],
}

impl Tensor<'_> {
    fn len_bytes(&self) -> usize {
        size_of_val(self.values)
    }

    /// Hands over the values as little-endian bytes, piece by piece.
    fn bytes(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        const PIECE: usize = 1 << 14;
        let mut bytes = [0; 4 * PIECE];
        for values in self.values.chunks(PIECE) {
            let bytes = &mut bytes[..size_of_val(values)];
            for (four, value) in bytes.chunks_exact_mut(4).zip(values) {
                four.copy_from_slice(&value.to_le_bytes());
            }
            take(bytes)?;
        }
        Ok(())
    }
}

/// The tensors of a state in the order of their names, which is their order in the file.
fn tensors_of<'a>(table: &'a ParameterTable, state: &'a TrainState) -> Vec<Tensor<'a>> {
    let mut tensors = Vec::new();
    let mut add = |prefix: &str, specs: &'a [TensorSpec], values: &'a [f32]| {
        for spec in specs {
            let name = format!("{prefix}{}", spec.name);
            tensors.push(Tensor { name, shape: &spec.shape, values: &values[spec.range.clone()] });
        }
    };
    add("", &table.trainable, &state.model.weights.trainable);
    add("", &table.statistics, &state.model.weights.statistics);
    add(MOMENTUM_PREFIX, &table.trainable, &state.model.velocity);
    if let Some(ema) = &state.model.ema {
        add(EMA_PREFIX, &table.trainable, &ema.trainable);
        add(EMA_PREFIX, &table.statistics, &ema.statistics);
    }
    if let Some(population) = &state.population {
        add(POPULATION_PREFIX, &table.statistics, &population.statistics);
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    tensors
}

/// A digest of the tensors of a state.
pub fn digest(table: &ParameterTable, state: &TrainState) -> String {
    let mut hasher = blake3::Hasher::new();
    for tensor in tensors_of(table, state) {
        // Hashing does not fail.
        let _ = tensor.bytes(|bytes| {
            hasher.update(bytes);
            Ok(())
        });
    }
    hasher.finalize().to_hex().to_string()
}

/// The header of a file of `tensors`, checksum included, filled up to a multiple of 8 bytes.
fn header(metadata: Metadata, tensors: &[Tensor<'_>]) -> io::Result<Vec<u8>> {
    let format_version = FORMAT_VERSION;
    let without = Metadata { format_version, checksum: String::new(), ..metadata };
    let mut checksum = Checksum::of_metadata(&serde_json::to_string(&without)?);
    for tensor in tensors {
        checksum.tensor(&tensor.name, tensor.len_bytes());
        tensor.bytes(|bytes| {
            checksum.hasher.update(bytes);
            Ok(())
        })?;
    }
    let metadata = Metadata { checksum: checksum.to_text(), ..without };
    let json = serde_json::to_string(&metadata)?;

    let mut end = 0;
    let infos = tensors.iter().map(|tensor| {
        let start = end;
        end += tensor.len_bytes();
        let shape = tensor.shape.to_vec();
        let info = TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, end) };
        (tensor.name.clone(), info)
    });
    let about = HashMap::from([(METADATA_KEY.to_owned(), json)]);
    let header = safetensors::tensor::Metadata::new(Some(about), infos.collect());
    let mut bytes = serde_json::to_vec(&header.map_err(io::Error::other)?)?;
    bytes.resize(bytes.len().next_multiple_of(LENGTH_BYTES), b' ');
    Ok(bytes)
}

/// A checksum over metadata and tensors. BLAKE3, because it is as fast as reading a disk and no
/// accident escapes it (<https://github.com/BLAKE3-team/BLAKE3>).
struct Checksum {
    hasher: blake3::Hasher,
}

impl Checksum {
    /// `json` has an empty checksum.
    fn of_metadata(json: &str) -> Checksum {
        let mut hasher = blake3::Hasher::new();
        hasher.update(json.as_bytes());
        Checksum { hasher }
    }

    /// The name of a tensor, before its bytes.
    fn tensor(&mut self, name: &str, bytes: usize) {
        self.hasher.update(name.as_bytes());
        self.hasher.update(&[0]);
        self.hasher.update(&(bytes as u64).to_le_bytes());
    }

    fn to_text(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}

/// Compares the checksum that a file states with that of its content.
fn check_sum(file: &SafeTensors<'_>, json: &str, stated: &str) -> Result<(), String> {
    // The last field: whatever stands in front of it may hold the same letters.
    let (before, after) = json.rsplit_once(stated).unwrap_or((json, ""));
    let mut checksum = Checksum::of_metadata(&format!("{before}{after}"));
    let mut names = file.names();
    names.sort_unstable();
    for name in names {
        let tensor = file.tensor(name).map_err(|error| error.to_string())?;
        checksum.tensor(name, tensor.data().len());
        checksum.hasher.update(tensor.data());
    }
    let found = checksum.to_text();
    if found == stated {
        return Ok(());
    }
    Err(format!(
        "it is damaged: its content has the checksum {found}, its metadata says {stated}; \
         take an earlier checkpoint of the run, such as one of its epochs"
    ))
}

fn read_state(
    file: &SafeTensors<'_>,
    table: &ParameterTable,
    metadata: &Metadata,
) -> Result<TrainState, String> {
    // Nothing is allocated for tensors that are not there.
    let values: usize = table.n_trainable() + table.n_statistics();
    let stored: usize = file.iter().map(|(_, tensor)| tensor.data().len() / size_of::<f32>()).sum();
    if stored < values {
        return Err(format!("its network has {values} values, its tensors hold {stored}"));
    }
    let mut expected = 0;
    let mut read = |prefix: &str, specs: &[TensorSpec]| -> Result<Vec<f32>, String> {
        let mut values = Vec::with_capacity(specs.last().map_or(0, |spec| spec.range.end));
        for spec in specs {
            read_tensor(file, &format!("{prefix}{}", spec.name), &spec.shape, &mut values)?;
            expected += 1;
        }
        Ok(values)
    };
    let weights = Weights {
        trainable: read("", &table.trainable)?,
        statistics: read("", &table.statistics)?,
    };
    let velocity = read(MOMENTUM_PREFIX, &table.trainable)?;
    let has = |prefix: &str| file.names().iter().any(|name| name.starts_with(prefix));
    let ema = match has(EMA_PREFIX) {
        true => Some(Weights {
            trainable: read(EMA_PREFIX, &table.trainable)?,
            statistics: read(EMA_PREFIX, &table.statistics)?,
        }),
        false => None,
    };
    let population = match (has(POPULATION_PREFIX), metadata.calibration) {
        (true, Some(made)) => {
            Some(Population { statistics: read(POPULATION_PREFIX, &table.statistics)?, made })
        }
        (true, None) => {
            return Err("its metadata does not say how its population statistics were made".into());
        }
        (false, _) => None,
    };
    if file.len() != expected {
        return Err(format!("expected {expected} tensors, found {}", file.len()));
    }
    let model = ModelState { weights, velocity, ema };
    Ok(TrainState { model, progress: metadata.progress.clone(), population })
}

fn read_tensor(
    file: &SafeTensors<'_>,
    name: &str,
    shape: &[usize],
    values: &mut Vec<f32>,
) -> Result<(), String> {
    let tensor = file.tensor(name).map_err(|_| format!("tensor {name} is missing"))?;
    if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
        return Err(format!(
            "tensor {name}: expected F32 {shape:?}, found {:?} {:?}",
            tensor.dtype(),
            tensor.shape()
        ));
    }
    let start = values.len();
    for bytes in tensor.data().chunks_exact(4) {
        values.push(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    }
    match values[start..].iter().position(|value| !value.is_finite()) {
        Some(index) => Err(format!("tensor {name} is not finite at value {index}")),
        None => Ok(()),
    }
}
