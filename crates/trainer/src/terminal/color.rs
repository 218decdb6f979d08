//! Colour on stdout and stderr: the one place that decides whether there is any.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::AutoStream;
use anstream::stream::RawStream;
use bninception_collective::{Family, Launcher};
use clap::ColorChoice;
use console::Style;

// Until something is decided there is none, so that text in tests is plain on any terminal.
static ON_STDOUT: AtomicBool = AtomicBool::new(false);
static ON_STDERR: AtomicBool = AtomicBool::new(false);

/// Decides for the whole process. `auto` is colour on a terminal, by the rules that clap follows for its own output:
/// not with NO_COLOR, CLICOLOR=0 or TERM=dumb, and elsewhere too with CLICOLOR_FORCE. Under Open MPI's
/// launcher nothing is taken for a terminal: it gives its processes one of its own, whatever it writes their words to.
pub fn choose(asked: ColorChoice) {
    let asked = match asked {
        // Bytes in memory are no terminal.
        ColorChoice::Auto if is_under_open_mpi() => AutoStream::choice(&Vec::<u8>::new()),
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    };
    // For clap, which prints help and what is wrong with a command line.
    asked.write_global();
    let (stdout, stderr) = (has_color(&io::stdout()), has_color(&io::stderr()));
    ON_STDOUT.store(stdout, Ordering::Relaxed);
    ON_STDERR.store(stderr, Ordering::Relaxed);
    // For progress bars, which stand on stderr; indicatif asks for the colours of stdout.
    console::set_colors_enabled(stderr);
    console::set_colors_enabled_stderr(stderr);
}

fn is_under_open_mpi() -> bool {
    Launcher::of_process().is_some_and(|launcher| launcher.family == Family::OpenMpi)
}

fn has_color<S: RawStream>(stream: &S) -> bool {
    AutoStream::choice(stream) != anstream::ColorChoice::Never
}

/// Whether the log on stderr has colour.
pub fn is_on_stderr() -> bool {
    ON_STDERR.load(Ordering::Relaxed)
}

/// What a piece of text is, for the eye. Its words say the same without colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accent {
    /// The header of a table, the title of a paragraph, the number that matters.
    Strong,
    /// What is as it should be: a run at its end, the best value, a right answer.
    Good,
    /// What goes on now.
    Active,
    /// What asks for a look.
    Caution,
    /// What has failed, or is wrong.
    Bad,
    /// What is there for completeness.
    Faint,
    /// A command to type.
    Command,
}

impl Accent {
    /// `text` for stdout.
    pub fn paint(self, text: &str) -> String {
        self.painted(text, ON_STDOUT.load(Ordering::Relaxed))
    }

    /// `text` for stderr.
    pub fn paint_on_stderr(self, text: &str) -> String {
        self.painted(text, is_on_stderr())
    }

    fn painted(self, text: &str, has_color: bool) -> String {
        let style = Style::new();
        let style = match self {
            Accent::Strong => style.bold(),
            Accent::Good => style.green(),
            Accent::Active => style.cyan(),
            Accent::Caution => style.yellow().bold(),
            Accent::Bad => style.red().bold(),
            Accent::Faint => style.dim(),
            Accent::Command => style.cyan().bold(),
        };
        match text.is_empty() {
            true => String::new(),
            false => style.force_styling(has_color).apply_to(text).to_string(),
        }
    }
}

/// What a command line of this program begins with, in a sentence that names one.
const COMMAND: &str = ": bninception ";

/// `text`, with `paint` over each command of this program in it: from `bninception` behind a colon to the end of the
/// line or the next semicolon.
pub fn mark_commands(text: &str, paint: impl Fn(&str) -> String) -> String {
    let mut marked = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(COMMAND) {
        let (before, command) = rest.split_at(at + 2);
        let end = command.find(['\n', ';']).unwrap_or(command.len());
        marked.push_str(before);
        marked.push_str(&paint(&command[..end]));
        rest = &command[end..];
    }
    marked.push_str(rest);
    marked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_sentences() {
        for (text, marked) in [
            ("", ""),
            ("bninception 0.1.0", "bninception 0.1.0"),
            ("go on with: bninception resume run", "go on with: <bninception resume run>"),
            (
                "saved: bninception resume a; or: bninception runs\nand more",
                "saved: <bninception resume a>; or: <bninception runs>\nand more",
            ),
        ] {
            assert_eq!(mark_commands(text, |command| format!("<{command}>")), marked);
        }
    }

    #[test]
    fn text_is_painted_where_there_is_colour() {
        assert_eq!(Accent::Bad.painted("wrong", true), "\u{1b}[31m\u{1b}[1mwrong\u{1b}[0m");
        assert_eq!(Accent::Bad.painted("wrong", false), "wrong");
        assert_eq!(Accent::Strong.painted("", true), "");
        // Nobody has decided in this process.
        assert_eq!(Accent::Good.paint("well"), "well");
    }
}
