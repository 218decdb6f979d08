//! `import`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use bninception_data::check_class_name;
use bninception_engine::model::ParameterTable;
use serde_json::json;

use crate::cli::ImportArgs;
use crate::commands::print;
use crate::error::Error;
use crate::file_error::FileError;
use crate::import::checkpoint::{ImportChoices, ImportedCheckpoint};
use crate::run::checkpoint;
use crate::terminal::output::with_path;
use crate::terminal::text::{counted, quoted};

pub(super) fn import(args: &ImportArgs) -> Result<(), Error> {
    if args.out.exists() && !args.overwrite {
        return Err(Error::Usage(format!(
            "{} is there already; name another file, or replace it with --overwrite",
            args.out.display()
        )));
    }
    let choices = ImportChoices {
        classes: args.classes.as_deref().map(class_names).transpose()?,
        input: args.preprocessing,
        image_size: args.image_size,
        fold_biases: args.fold_biases,
    };
    let imported = ImportedCheckpoint::read(&args.file, choices)?;
    let ImportedCheckpoint { metadata, network, state, left_out, are_named } = imported;
    let table = ParameterTable::new(&network);
    checkpoint::save(&args.out, &metadata, &table, &state)?;
    let (classes, parameters) = (metadata.classes.len(), table.n_trainable());
    if args.json {
        let result = json!({
            "classes": classes,
            "parameters": parameters,
            "pool_proj_4c4d": network.options.pool_proj_4c4d,
            "conv_bias": network.options.conv_bias,
            "left_out": left_out,
        });
        return print::json(&with_path("checkpoint", &args.out, result));
    }
    if !are_named {
        tracing::warn!(
            "without --classes the classes are called {} to {}: give a file with a name a line, and they \
             are found in folders of images",
            metadata.classes[0],
            metadata.classes[classes - 1]
        );
    }
    if !left_out.is_empty() {
        tracing::warn!(
            "the network has no place for {}: {}",
            counted(left_out.len() as u64, "tensor"),
            left_out.join(", ")
        );
    }
    let out = quoted(&args.out);
    print::text(&format!(
        "{}: {}, {:.2} M parameters, pool projections of {} in 4c and 4d, {} biases\n\
         evaluate it with: bninception eval {out} --data-dir DIR\n\
         train it on other images with: bninception train --init-from {out} --data-dir DIR",
        args.out.display(),
        counted(classes as u64, "class"),
        parameters as f64 / 1e6,
        network.options.pool_proj_4c4d,
        if network.options.conv_bias { "with" } else { "without" },
    ))
}

/// The names in a file, one a line.
fn class_names(path: &Path) -> Result<Vec<String>, Error> {
    let text = fs::read_to_string(path).map_err(FileError::of("read", path))?;
    let mut names: Vec<String> = Vec::new();
    let mut lines: HashMap<String, usize> = HashMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let name = line.trim();
        if let Err(problem) = check_class_name(name) {
            return Err(Error::Usage(format!(
                "--classes: line {number} of {} is not the name of a class: it {problem}",
                path.display()
            )));
        }
        if let Some(earlier) = lines.insert(name.to_owned(), number) {
            return Err(Error::Usage(format!(
                "--classes: lines {earlier} and {number} of {} both say `{name}`; a class is found by its \
                 name",
                path.display()
            )));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}
