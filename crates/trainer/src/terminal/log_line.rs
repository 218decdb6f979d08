//! A line of the log as a person reads it.

use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::terminal::color::{Accent, mark_commands};

/// Writes the message alone: what stands in the other fields of a line, a person reads in its message.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageAlone;

impl<'w> FormatFields<'w> for MessageAlone {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut message = Message(String::new());
        fields.record(&mut message);
        writer.write_str(&message.0)
    }
}

/// The message of a line, without what could move the cursor or colour the terminal: paths stand in messages.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = harmless(&format!("{value:?}"));
        }
    }
}

/// `text` with control characters as they are written in a program. Ends of lines and tabulators stay.
fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() && c != '\n' && c != '\t' {
            true => harmless.extend(c.escape_default()),
            false => harmless.push(c),
        }
    }
    harmless
}

/// Lines for stderr, like those of clap: `error: ` and `warning: ` in front, and nothing in front of what is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForPeople;

impl<S, N> FormatEvent<S, N> for ForPeople
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut message = String::new();
        context.format_fields(Writer::new(&mut message), event)?;
        writer.write_str(&lead(*event.metadata().level()))?;
        let paint = |command: &str| Accent::Command.paint_on_stderr(command);
        writeln!(writer, "{}", mark_commands(&message, paint))
    }
}

/// What stands in front of a message.
fn lead(level: Level) -> String {
    let (word, tone) = match level {
        Level::ERROR => ("error:", Accent::Bad),
        Level::WARN => ("warning:", Accent::Caution),
        Level::INFO => return String::new(),
        Level::DEBUG => ("debug:", Accent::Faint),
        Level::TRACE => ("trace:", Accent::Faint),
    };
    format!("{} ", tone.paint_on_stderr(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_cannot_steer_the_terminal() {
        for (text, shown) in [
            ("plain", "plain"),
            ("two\nlines\tand ä 蚂蚁", "two\nlines\tand ä 蚂蚁"),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\rb\u{9b}c", "a\\rb\\u{9b}c"),
        ] {
            assert_eq!(harmless(text), shown);
        }
    }

    #[test]
    fn a_level_is_named_unless_it_is_talk() {
        for (level, text) in [
            (Level::ERROR, "error: "),
            (Level::WARN, "warning: "),
            (Level::INFO, ""),
            (Level::DEBUG, "debug: "),
        ] {
            assert_eq!(lead(level), text);
        }
    }
}
