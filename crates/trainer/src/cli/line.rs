//! The command line before and while clap parses it.

use std::ffi::OsString;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Command, CommandFactory, FromArgMatches, ValueEnum, ValueHint};

use super::{Cli, examples};

/// Colours of help and errors: those of cargo.
const STYLES: Styles = Styles::styled()
    .header(AnsiColor::BrightGreen.on_default().bold())
    .usage(AnsiColor::BrightGreen.on_default().bold())
    .literal(AnsiColor::BrightCyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default())
    .error(AnsiColor::BrightRed.on_default().bold())
    .valid(AnsiColor::BrightCyan.on_default().bold())
    .invalid(AnsiColor::BrightYellow.on_default().bold());

/// The command line as clap has it, with examples: what is parsed, completed and written as manual pages.
pub fn command() -> Command {
    examples::added(with_hints(Cli::command().styles(STYLES)), &STYLES)
}

/// `command` and all below it, with what shells complete for arguments that are paths, by their names.
fn with_hints(command: Command) -> Command {
    let command = command.mut_args(|argument| {
        let names = argument.get_value_names().and_then(|names| names.first());
        let name = names.map_or(argument.get_id().as_str().to_uppercase(), |name| name.to_string());
        match name.as_str() {
            "DIR" | "RUN" | "RUNS" => argument.value_hint(ValueHint::DirPath),
            "CHECKPOINT" => argument.value_hint(ValueHint::AnyPath),
            "FILE" => argument.value_hint(ValueHint::FilePath),
            _ => argument,
        }
    });
    command.mut_subcommands(with_hints)
}

/// Parses `words`, of which the first names the program.
///
/// # Errors
/// What clap says of them; help and the version too.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = command();
    let mut matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// The value of `option`, which is `--NAME`, in `words` that are not parsed: it decides how to tell what is wrong with
/// them.
pub fn value_in<T: ValueEnum>(words: &[OsString], option: &str) -> Option<T> {
    let mut words = words.iter().map(|word| word.to_str().unwrap_or_default());
    let mut found = None;
    while let Some(word) = words.next().filter(|&word| word != "--") {
        let value = match word.strip_prefix(option) {
            Some("") => words.next(),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        };
        found = value.and_then(|value| T::from_str(value, false).ok()).or(found);
    }
    found
}

#[cfg(test)]
mod tests {
    use clap::ColorChoice;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        command().debug_assert();
    }

    /// Of all commands, `path` the names before this one.
    fn check_values(path: &str, command: &Command) {
        for argument in command.get_arguments() {
            for value in argument.get_possible_values() {
                let help = value.get_help().map(ToString::to_string).unwrap_or_default();
                let (name, id) = (command.get_name(), argument.get_id());
                // Fish takes it for the end of the list of values.
                assert!(!help.contains('"'), "{path} {name}, {id}: a quotation mark in `{help}`");
            }
        }
        let path = format!("{path} {}", command.get_name());
        command.get_subcommands().for_each(|below| check_values(&path, below));
    }

    #[test]
    fn no_value_breaks_a_completion_script() {
        check_values("", &command());
    }

    #[test]
    fn an_option_is_found_before_all_is_parsed() {
        for (words, expected) in [
            ("", None),
            ("train --frobnicate", None),
            ("--color always train", Some(ColorChoice::Always)),
            ("train --color=never", Some(ColorChoice::Never)),
            ("train --color", None),
            ("train --color blue", None),
            ("train --colors always", None),
            ("launch -n 2 -- train --color always", None),
        ] {
            let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
            assert_eq!(value_in::<ColorChoice>(&words, "--color"), expected, "{words:?}");
        }
    }
}
