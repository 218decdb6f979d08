//! The binary in a folder of its own, for the tests that run it.
#![allow(dead_code)] // not every test file needs all of it

pub(crate) mod mpi;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bninception::run::checkpoint;
use bninception_data::{DemoOptions, write_demo};
use bninception_engine::model::ParameterTable;
use serde_json::Value;

/// A temporary folder in which the binary runs.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Small pictures of ten classes: 4 training and 2 validation pictures of each.
    pub(crate) fn with_pictures() -> Place {
        let place = Place::new();
        let options = DemoOptions { train_per_class: 4, val_per_class: 2, size: 32, seed: 1 };
        write_demo(&place.path("pictures"), &options).unwrap();
        place
    }

    /// The binary with `arguments`, to be run in the folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bninception"));
        command.args(arguments).current_dir(self.dir.path()).env_remove("BNINCEPTION_LOG");
        // What is tested here are the bits of the processor, also on a machine with a GPU.
        command.env("CUDA_VISIBLE_DEVICES", "-1");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed, and gives its standard output.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {:?}\n{errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// The JSON value in the last line of a successful command's output.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.succeed(arguments);
        serde_json::from_str(output.lines().last().unwrap()).unwrap()
    }

    /// Runs a command that must fail with `code`, name each of `parts`, and write nothing.
    pub(crate) fn fail(&self, arguments: &[&str], code: i32, parts: &[&str]) {
        let before = listing(self.dir.path());
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{errors}");
        for part in parts {
            assert!(errors.contains(part), "{arguments:?}: no `{part}` in\n{errors}");
        }
        assert!(output.stdout.is_empty(), "{arguments:?} wrote to stdout");
        assert_eq!(listing(self.dir.path()), before, "{arguments:?} left something behind");
    }
}

pub(crate) fn listing(dir: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            paths.extend(listing(&path));
        }
        paths.push(path);
    }
    paths.sort();
    paths
}

/// Writes a copy of the checkpoint `from` with other class names: class `i` becomes class `order[i]` of the
/// old list, and the rows of the last layer move along.
pub(crate) fn reorder_classes(from: &Path, to: &Path, order: &[usize]) {
    let mut loaded = checkpoint::load(from).unwrap();
    let table = ParameterTable::new(&loaded.network);
    loaded.metadata.classes =
        order.iter().map(|&class| loaded.metadata.classes[class].clone()).collect();
    let mut all = vec![&mut loaded.state.model.weights.trainable];
    all.extend(loaded.state.model.ema.as_mut().map(|ema| &mut ema.trainable));
    for values in all {
        for spec in table.trainable.iter().filter(|spec| spec.name.starts_with("last_linear")) {
            let old = values[spec.range.clone()].to_vec();
            let row = old.len() / order.len();
            for (new, &class) in order.iter().enumerate() {
                let at = spec.range.start + new * row;
                values[at..at + row].copy_from_slice(&old[class * row..][..row]);
            }
        }
    }
    checkpoint::save(to, &loaded.metadata, &table, &loaded.state).unwrap();
}
