//! `presets list` and `presets show`.

use crate::cli::PresetsCommand;
use crate::commands::print;
use crate::config::{preset_names, preset_text, preset_title};
use crate::error::Error;
use crate::terminal::color::Accent;

pub(super) fn presets(command: &PresetsCommand) -> Result<(), Error> {
    match command {
        PresetsCommand::List => {
            let mut text = String::new();
            for name in preset_names() {
                let shown = Accent::Command.paint(&format!("{name:<15}"));
                text.push_str(&format!("{shown} {}\n", preset_title(name)?));
            }
            print::text(&text)
        }
        PresetsCommand::Show { name } => print::text(preset_text(name)?),
    }
}
