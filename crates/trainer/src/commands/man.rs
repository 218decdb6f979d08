//! `man`: manual pages of all commands, made of what clap knows.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli;
use crate::commands::print;
use crate::error::Error;
use crate::file_error::FileError;
use crate::run::atomic_file;
use crate::terminal::text::{counted, quoted};

pub(super) fn man(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(FileError::of("create", dir))?;
    let mut command = cli::command().disable_help_subcommand(true);
    // Gives every command its own name and the options that all have.
    command.build();
    let n_pages = write_pages(dir, "", &command)?;
    print::text(&format!(
        "{} in {}; read one with: man {}",
        counted(n_pages, "page"),
        dir.display(),
        quoted(&dir.join("bninception-train.1"))
    ))
}

/// Writes the pages of `command`, whose words behind the program's name are `path`, and of all below it that help
/// shows. Gives how many.
fn write_pages(dir: &Path, path: &str, command: &Command) -> Result<u64, Error> {
    let name = format!("bninception {path}").trim_end().replace(' ', "-");
    let file = dir.join(format!("{name}.1"));
    let page = page(path, command).map_err(FileError::of("write", &file))?;
    atomic_file::write(&file, |out| out.write_all(&page)).map_err(FileError::of("write", &file))?;
    let mut n_pages = 1;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        let path = format!("{path} {}", below.get_name());
        n_pages += write_pages(dir, path.trim_start(), below)?;
    }
    Ok(n_pages)
}

/// One page. The parts of clap's own, with the examples as a section in the place of the end of the help.
fn page(path: &str, command: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone().after_help(None));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|below| !below.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let mut examples = Roff::default();
    examples.control("SH", ["EXAMPLES"]);
    for (line, what) in cli::examples_of(path) {
        examples.control("TP", []);
        examples.text([bold(*line)]);
        examples.text([roman(*what)]);
    }
    examples.to_writer(&mut page)?;
    man.render_version_section(&mut page)?;
    Ok(page)
}
