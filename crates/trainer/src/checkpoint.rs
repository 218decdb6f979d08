//! A checkpoint: one safetensors file that alone is enough to predict, evaluate or continue.
//!
//! Network tensors stand under their own names, the optimizer's momentum under
//! `optimizer.momentum.NAME`, averaged weights under `ema.NAME`. The metadata key `bninception`
//! holds [`Metadata`] as JSON. The format is described in `checkpoints/README.md`.
//!
//! A file is written under another name beside its place, flushed to the disk, renamed, and the
//! folder flushed: at every moment there is either the old file or the new one, whole.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bninception_data::Preprocessing;
use bninception_engine::model::parameters::TensorSpec;
use bninception_engine::model::{Network, ParameterTable, Weights};
use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigError, ConfigFile, Sources, resolve};
use crate::setup;
use crate::state::{Progress, TrainState};

/// Version of the metadata; raised when an older program could no longer read it.
pub const FORMAT_VERSION: u32 = 1;

/// The one metadata key, beside what safetensors needs itself. One key only, because several would
/// be written in the order of a hash map and the bytes of a file would differ from run to run.
const METADATA_KEY: &str = "bninception";
const MOMENTUM_PREFIX: &str = "optimizer.momentum.";
const EMA_PREFIX: &str = "ema.";

/// Largest file that is read, in bytes. A run with 21,841 classes (ImageNet-21k) and a moving
/// average has 0.4 GB.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// What a checkpoint says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// Program and version that wrote the file.
    pub program: String,
    /// Class names; a label is a position in this list.
    pub classes: Vec<String>,
    /// How an image becomes the network's input.
    pub preprocessing: Preprocessing,
    /// All settings of the run.
    pub config: Config,
    /// Updates done.
    pub step: u64,
    /// Whole epochs done.
    pub epoch: u64,
    /// Batches done in the present epoch.
    pub position: u64,
    /// Batches of an epoch.
    pub steps_per_epoch: u64,
    /// Counters and sums of the run.
    pub progress: Progress,
}

/// A checkpoint that has been read.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Where it was read from.
    pub path: PathBuf,
    /// What it says about itself.
    pub metadata: Metadata,
    /// The network it belongs to.
    pub network: Network,
    /// Weights, momentum, averages and counters.
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
    /// The settings in the metadata are not valid.
    #[error("{}: the settings stored in it are not valid: {source}", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: Box<ConfigError>,
    },
}

/// Writes a checkpoint to `path`, replacing a file there in one step.
///
/// # Errors
/// The folder cannot be written; the old file is then as it was.
pub fn save(
    path: &Path,
    metadata: &Metadata,
    table: &ParameterTable,
    state: &TrainState,
) -> Result<(), CheckpointError> {
    let error = |source| CheckpointError::Io { action: "write", path: path.to_owned(), source };
    let bytes = to_bytes(metadata, table, state).map_err(error)?;
    write_atomically(path, &bytes).map_err(error)
}

/// Gives `path` the content of the checkpoint `from` in the same folder, in one step: as a second
/// name of the same file where the file system can, as a copy otherwise.
///
/// # Errors
/// The folder cannot be written; an old file at `path` is then as it was.
pub fn duplicate(from: &Path, path: &Path) -> Result<(), CheckpointError> {
    let error = |source| CheckpointError::Io { action: "write", path: path.to_owned(), source };
    let mut name = std::ffi::OsString::from(".new-");
    name.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(name);
    let _ = fs::remove_file(&temporary); // left behind by a killed process
    if fs::hard_link(from, &temporary).is_err() {
        let bytes = fs::read(from).map_err(error)?;
        return write_atomically(path, &bytes).map_err(error);
    }
    fs::rename(&temporary, path).and_then(|()| sync_folder(path)).map_err(error)
}

/// Reads and checks a checkpoint.
///
/// # Errors
/// The file cannot be read, is no checkpoint, or its tensors do not fit its network.
pub fn load(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let io_error = |source| CheckpointError::Io { action: "read", path: path.to_owned(), source };
    let format = |reason: String| CheckpointError::Format { path: path.to_owned(), reason };

    let file = File::open(path).map_err(io_error)?;
    let size = file.metadata().map_err(io_error)?.len();
    if size > MAX_FILE_BYTES {
        return Err(format(format!("{size} bytes, more than the limit of {MAX_FILE_BYTES}")));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(io_error)?;

    let not_safetensors = |error| format(format!("it is no valid safetensors file ({error})"));
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(not_safetensors)?;
    let json = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
    let Some(json) = json else {
        return Err(format(format!("its metadata lacks the key `{METADATA_KEY}`")));
    };
    let metadata: Metadata = parse_metadata(json).map_err(format)?;
    check_settings(path, &metadata)?;
    let network = setup::network(&metadata.config, metadata.classes.len())
        .map_err(|error| format(error.to_string()))?;
    let table = ParameterTable::new(&network);
    let file = SafeTensors::deserialize(&bytes).map_err(not_safetensors)?;
    let state = read_state(&file, &table, metadata.progress.clone()).map_err(format)?;
    Ok(Checkpoint { path: path.to_owned(), metadata, network, state })
}

/// Checks the version before the rest, so that a newer file is called newer and not broken.
fn parse_metadata(json: &str) -> Result<Metadata, String> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let broken = |error| format!("its metadata cannot be understood ({error})");
    let Version { format_version } = serde_json::from_str(json).map_err(broken)?;
    if format_version != FORMAT_VERSION {
        return Err(format!(
            "it has format version {format_version}, this program reads {FORMAT_VERSION}; \
             use the program that wrote it"
        ));
    }
    let metadata: Metadata = serde_json::from_str(json).map_err(broken)?;
    if metadata.classes.is_empty() {
        return Err("its metadata names no class".to_owned());
    }
    Ok(metadata)
}

/// Runs the stored settings through the same checks as those of a new run.
fn check_settings(path: &Path, metadata: &Metadata) -> Result<(), CheckpointError> {
    let check = || -> Result<(), ConfigError> {
        let name = path.display().to_string();
        let files = [ConfigFile { name, text: metadata.config.to_toml()? }];
        resolve(&Sources { files: &files, ..Sources::default() }).map(|_| ())
    };
    check().map_err(|source| CheckpointError::Settings {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// One tensor on its way into a file.
struct F32View<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl View for F32View<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        size_of_val(self.values)
    }
}

fn to_bytes<'a>(
    metadata: &Metadata,
    table: &'a ParameterTable,
    state: &'a TrainState,
) -> io::Result<Vec<u8>> {
    let mut tensors: Vec<(String, F32View<'a>)> = Vec::new();
    let mut add = |prefix: &str, specs: &'a [TensorSpec], values: &'a [f32]| {
        for spec in specs {
            let view = F32View { shape: &spec.shape, values: &values[spec.range.clone()] };
            tensors.push((format!("{prefix}{}", spec.name), view));
        }
    };
    add("", &table.trainable, &state.weights.trainable);
    add("", &table.statistics, &state.weights.statistics);
    add(MOMENTUM_PREFIX, &table.trainable, &state.velocity);
    if let Some(ema) = &state.ema {
        add(EMA_PREFIX, &table.trainable, &ema.trainable);
        add(EMA_PREFIX, &table.statistics, &ema.statistics);
    }
    let json = serde_json::to_string(metadata)?;
    let header = HashMap::from([(METADATA_KEY.to_owned(), json)]);
    safetensors::serialize(tensors, Some(header)).map_err(io::Error::other)
}

fn read_state(
    file: &SafeTensors<'_>,
    table: &ParameterTable,
    progress: Progress,
) -> Result<TrainState, String> {
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
    let ema = match file.names().iter().any(|name| name.starts_with(EMA_PREFIX)) {
        true => Some(Weights {
            trainable: read(EMA_PREFIX, &table.trainable)?,
            statistics: read(EMA_PREFIX, &table.statistics)?,
        }),
        false => None,
    };
    if file.len() != expected {
        return Err(format!("expected {expected} tensors, found {}", file.len()));
    }
    Ok(TrainState { weights, velocity, ema, progress })
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

/// Writes `bytes` beside `path` and renames, flushing file and folder.
fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".new-").suffix(".safetensors");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any new file: what the umask leaves of read and write for all.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(path)
}

/// Flushes the folder of `path`, without which a rename may be lost when the power fails.
fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(folder)?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path; // folders cannot be flushed there
    Ok(())
}
