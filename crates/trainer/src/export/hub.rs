//! A folder as model hubs have them: `config.json` in the form of timm
//! (<https://github.com/huggingface/pytorch-image-models>, `save_config_for_hf`), the weights, the network
//! in PyTorch, and a page about the model (<https://huggingface.co/docs/hub/model-cards>).

use std::path::Path;

use bninception_engine::model::layer::Op;
use serde_json::{Value, json};

use super::exported::Exported;
use super::model_card::ModelCard;
use super::public_file::{PublicFile, lacks};
use super::storage::Storage;
use crate::comparison::curves::curves;
use crate::comparison::recorded_run::RecordedRun;
use crate::error::Error;
use crate::file_error::FileError;
use crate::run::atomic_file;

/// The network in PyTorch, which the page about the model uses.
const PORT: &str = include_str!("../../../../tools/peers/bn_inception.py");

/// The names of the folder's files; the curves are there if the run's record is.
pub const FILES: [&str; 5] =
    ["config.json", "model.safetensors", "bn_inception.py", "README.md", "curves.png"];

/// Writes the folder at `dir`, each file in one step and the page last. `run` is the record of the run that
/// the checkpoint belongs to.
///
/// # Errors
/// A network that the port in PyTorch does not have, a value that `storage` cannot hold, or the system's.
pub fn write(
    dir: &Path,
    exported: &Exported<'_>,
    storage: Storage,
    card: &ModelCard<'_>,
    run: Option<&RecordedRun>,
) -> Result<(), Error> {
    if let Some(lacks) = lacks(exported.network) {
        return Err(Error::Usage(format!(
            "--hub is for BN-Inception with batch norm and ReLU, which its PyTorch file has; {lacks}: export \
             it with --onnx"
        )));
    }
    let weights = PublicFile::of(exported, storage)?;
    let config = format!("{:#}\n", config(exported));
    let page = card.to_text(exported, storage, run.is_some());
    // The page goes first and comes last: at no moment does one stand beside another model.
    for name in ["README.md", "curves.png"] {
        let path = dir.join(name);
        atomic_file::remove(&path).map_err(FileError::of("remove", &path))?;
    }
    let path = dir.join("model.safetensors");
    atomic_file::write(&path, |file| weights.write(file)).map_err(FileError::of("write", &path))?;
    if let Some(run) = run {
        curves(run).write_png(&dir.join("curves.png"))?;
    }
    let texts = [("config.json", config.as_str()), ("bn_inception.py", PORT), ("README.md", &page)];
    for (name, text) in texts {
        let path = dir.join(name);
        atomic_file::write(&path, |file| file.write_all(text.as_bytes()))
            .map_err(FileError::of("write", &path))?;
    }
    Ok(())
}

fn config(exported: &Exported<'_>) -> Value {
    let network = exported.network;
    let classes = exported.classes.len();
    let features = network.layers.iter().find(|layer| layer.op == Op::GlobalAveragePool);
    let pooled = features.map(|layer| network.layers[layer.inputs[0]].output);
    let size = exported.preprocessing.image_size;
    let input = exported.input();
    json!({
        "architecture": "bninception",
        "num_classes": classes,
        "num_features": pooled.map(|map| map.channels),
        "global_pool": "avg",
        "model_args": {
            // The port has a bias in each convolution, as the public weights do.
            "conv_bias": true,
            "pool_proj_4c4d": network.options.pool_proj_4c4d,
        },
        "label_names": exported.classes,
        "pretrained_cfg": {
            "classifier": "last_linear",
            "crop_mode": "center",
            "crop_pct": input["crop_ratio"],
            "custom_load": false,
            "first_conv": "conv1_7x7_s2",
            "fixed_input_size": false,
            "input_size": [3, size, size],
            "interpolation": input["interpolation"],
            "mean": input["mean"],
            "num_classes": classes,
            "pool_size": pooled.map(|map| [map.height, map.width]),
            "std": input["std"],
        },
    })
}
