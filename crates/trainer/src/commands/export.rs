//! `export`.

use std::fs;
use std::path::Path;

use bninception_data::folder::is_same;
use bninception_engine::model::Network;
use serde_json::json;

use crate::cli::ExportArgs;
use crate::commands::print;
use crate::comparison::recorded_run::RecordedRun;
use crate::error::Error;
use crate::evaluation::statistics;
use crate::export::exported::Exported;
use crate::export::hub;
use crate::export::model_card::ModelCard;
use crate::export::onnx::{self, GraphOptions};
use crate::export::public_file::{self, PublicFile};
use crate::file_error::FileError;
use crate::images::own_images::check_outside_of_images;
use crate::run::atomic_file;
use crate::run::checkpoint::{self, Checkpoint};
use crate::run::folder::RunFolder;
use crate::terminal::output::with_path;
use crate::terminal::text::{bytes, quoted};

/// Width of the pool projections of modules 4c and 4d in the public port.
const PUBLIC_POOL_PROJ: usize = 128;

pub(super) fn export(args: &ExportArgs) -> Result<(), Error> {
    check_arguments(args)?;
    let checkpoint = checkpoint::load(&RunFolder::checkpoint_in(&args.checkpoint)?)?;
    let (weights, statistics) = statistics::weights(&checkpoint, args.statistics)?;
    if let Some(note) = statistics::size_note(&checkpoint, statistics) {
        tracing::warn!("{note}");
    }
    let Checkpoint { metadata, network, .. } = &checkpoint;
    let exported = Exported {
        network,
        weights: &weights,
        preprocessing: &metadata.preprocessing,
        classes: &metadata.classes,
    };
    let target = &args.target;
    if let Some(out) = [&target.safetensors, &target.onnx, &target.hub].into_iter().flatten().next()
    {
        check_outside_of_images(metadata, &checkpoint.path, out, "bninception export")?;
    }
    let out = match (&target.safetensors, &target.onnx, &target.hub) {
        (Some(out), _, _) => {
            check_free(out, &checkpoint, args)?;
            let file = PublicFile::of(&exported, args.storage)?;
            atomic_file::write(out, |writer| file.write(writer))
                .map_err(FileError::of("write", out))?;
            warn_of_port(network);
            out
        }
        (_, Some(out), _) => {
            check_free(out, &checkpoint, args)?;
            let options = GraphOptions {
                keep_batch_norm: args.keep_batch_norm,
                softmax: args.softmax,
                storage: args.storage,
            };
            let model = onnx::model(&exported, options)?;
            atomic_file::write(out, |writer| writer.write_all(&model))
                .map_err(FileError::of("write", out))?;
            out
        }
        (_, _, Some(dir)) => {
            hub::FILES
                .iter()
                .try_for_each(|file| check_free(&dir.join(file), &checkpoint, args))?;
            let name = args.name.clone().unwrap_or_else(|| RunFolder::at(dir).name());
            let card = ModelCard { name: &name, metadata, statistics };
            let run = recorded_run(&checkpoint);
            hub::write(dir, &exported, args.storage, &card, run.as_ref())?;
            dir
        }
        (None, None, None) => unreachable!("clap asks for one of them"),
    };
    let n_bytes = len_bytes(out)?;
    let statistics = statistics::name(statistics);
    if args.json {
        let result = json!({
            "bytes": n_bytes,
            "classes": metadata.classes.len(),
            "statistics": statistics,
            "storage": args.storage.name(),
        });
        return print::json(&with_path("path", out, result));
    }
    print::text(&format!(
        "{}: {}, weights in {}, batch norm statistics: {statistics}{}",
        out.display(),
        bytes(n_bytes),
        args.storage.name(),
        match &target.hub {
            Some(dir) =>
                format!("\nread it before you publish it: {}", quoted(&dir.join("README.md"))),
            None => String::new(),
        }
    ))
}

/// Refuses what goes only with another file.
fn check_arguments(args: &ExportArgs) -> Result<(), Error> {
    let is_onnx = args.target.onnx.is_some();
    let wrong = [
        ("--softmax", args.softmax && !is_onnx, "--onnx"),
        ("--keep-batch-norm", args.keep_batch_norm && !is_onnx, "--onnx"),
        ("--name", args.name.is_some() && args.target.hub.is_none(), "--hub"),
    ];
    match wrong.iter().find(|(_, is_wrong, _)| *is_wrong) {
        Some((flag, _, with)) => Err(Error::Usage(format!("{flag} goes with {with} only"))),
        None => Ok(()),
    }
}

/// Refuses to replace what nobody said should be replaced, and checkpoints whatever was said.
fn check_free(path: &Path, exported: &Checkpoint, args: &ExportArgs) -> Result<(), Error> {
    if !path.exists() {
        return Ok(());
    }
    if is_same(path, &exported.path) || checkpoint::load_metadata(path).is_ok() {
        return Err(Error::Usage(format!(
            "{} is a checkpoint, which training could not go on without; name another place",
            path.display()
        )));
    }
    match args.overwrite {
        true => Ok(()),
        false => Err(Error::Usage(format!(
            "{} is there already; name another place, or replace it with --overwrite",
            path.display()
        ))),
    }
}

/// Says what the public port does not have.
fn warn_of_port(network: &Network) {
    let width = network.options.pool_proj_4c4d;
    let (lacks, help) = match public_file::lacks(network) {
        Some(lacks) => (lacks.to_owned(), "--onnx takes every network"),
        None if width != PUBLIC_POOL_PROJ => (
            format!(
                "its pool projections in 4c and 4d have {width} channels, those of the port {PUBLIC_POOL_PROJ}"
            ),
            "what --hub writes has a file for PyTorch that does",
        ),
        None => return,
    };
    tracing::warn!("the public PyTorch port does not have this network: {lacks}; {help}");
}

/// The record of the run that a checkpoint lies in the folder of, if it can be read.
fn recorded_run(checkpoint: &Checkpoint) -> Option<RecordedRun> {
    let run = RecordedRun::read(checkpoint.path.parent()?).ok().filter(|run| !run.is_empty())?;
    // A checkpoint that was put beside another run is not of it.
    (run.config == checkpoint.metadata.config).then_some(run)
}

/// The bytes of a file, or of the files in a folder.
fn len_bytes(path: &Path) -> Result<u64, Error> {
    let metadata = fs::metadata(path).map_err(FileError::of("read", path))?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    let entries = fs::read_dir(path).map_err(FileError::of("list", path))?;
    Ok(entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|about| about.len()).sum())
}
