//! `average`.

use std::path::Path;

use bninception_data::folder::is_same;
use bninception_engine::model::ParameterTable;
use serde_json::json;

use crate::cli::AverageArgs;
use crate::commands::print;
use crate::error::Error;
use crate::images::own_images::check_outside_of_images;
use crate::run::average::{AveragedCheckpoint, WeightMean};
use crate::run::checkpoint::{self, Checkpoint};
use crate::run::folder::RunFolder;
use crate::run::image_lists::ImageLists;
use crate::terminal::output::with_path;
use crate::terminal::text::{counted, quoted};

pub(super) fn average(args: &AverageArgs) -> Result<(), Error> {
    let (out, AveragedCheckpoint { metadata, network, state }) = (&args.out, read(args)?);
    let table = ParameterTable::new(&network);
    checkpoint::save(out, &metadata, &table, &state)?;
    let has_images = metadata.images != ImageLists::default();
    let dir = if has_images { "" } else { " --data-dir DIR" };
    if network.options.batch_norm.is_some() {
        tracing::warn!(
            "the means of batch norm's running statistics do not fit the averaged weights; make others with: \
             bninception calibrate {}{dir}",
            quoted(out)
        );
    }
    let n = metadata.averaged.len();
    if args.json {
        let result = json!({
            "averaged": metadata.averaged,
            "parameters": table.n_trainable(),
            "classes": metadata.classes.len(),
        });
        return print::json(&with_path("checkpoint", out, result));
    }
    print::text(&format!(
        "{}: the mean of the weights of {}, {:.2} M parameters",
        out.display(),
        counted(n as u64, "checkpoint"),
        table.n_trainable() as f64 / 1e6
    ))
}

/// The mean of the checkpoints, each in memory while it is added.
fn read(args: &AverageArgs) -> Result<AveragedCheckpoint, Error> {
    let (paths, out) = (&args.checkpoints, &args.out);
    let [first, others @ ..] = paths.as_slice() else { return Err(too_few(out)) };
    if others.is_empty() {
        return Err(too_few(out));
    }
    if out.is_dir() {
        return Err(Error::Usage(format!(
            "{} is a folder; the last argument is the file to write",
            out.display()
        )));
    }
    if out.exists() && !args.overwrite {
        return Err(Error::Usage(format!(
            "{} is there already, and the last argument is the file to write; name another, or replace it \
             with --overwrite",
            out.display()
        )));
    }
    let first = load(first, out)?;
    let mut mean = WeightMean::of(&first)?;
    drop(first);
    for path in others {
        mean.add(&load(path, out)?)?;
    }
    Ok(mean.finish()?)
}

fn too_few(out: &Path) -> Error {
    Error::Usage(format!(
        "a mean needs two checkpoints or more, and the last argument is the file to write ({}): bninception \
         average CHECKPOINT CHECKPOINT... OUT",
        out.display()
    ))
}

/// A checkpoint; `out` must not be its file, nor lie among the images of its run.
fn load(path: &Path, out: &Path) -> Result<Checkpoint, Error> {
    let path = RunFolder::checkpoint_in(path)?;
    if is_same(&path, out) {
        return Err(Error::Usage(format!(
            "{} is one of the checkpoints; name another file for their mean",
            out.display()
        )));
    }
    let checkpoint = checkpoint::load(&path)?;
    check_outside_of_images(&checkpoint.metadata, &path, out, "bninception average CHECKPOINT...")?;
    Ok(checkpoint)
}
