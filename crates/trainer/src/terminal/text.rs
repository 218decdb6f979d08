//! Small texts that many messages need.

use std::path::Path;

use console::measure_text_width;
use indicatif::HumanCount;

pub use bninception_data::counted;

use crate::terminal::color::Accent;

/// A path as a POSIX shell takes it, for commands that a person pastes. What is not UTF-8 in it is
/// replaced, as [`Path::display`] does.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Seconds as a person says them: `45s`, `12m05s`, `3h20m`, `2d04h`.
pub fn duration(seconds: f64) -> String {
    let seconds = if seconds.is_finite() { seconds.round() as u64 } else { 0 };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// A number of bytes as a person says it: `134 MB`, `1.26 GB`.
pub fn bytes(n: u64) -> String {
    let n = n as f64;
    match n {
        ..1e9 => format!("{:.0} MB", (n / 1e6).ceil()),
        _ => format!("{:.2} GB", n / 1e9),
    }
}

/// A fraction as a percentage.
pub fn percent(fraction: f64) -> String {
    format!("{:.2} %", 100.0 * fraction)
}

/// Whether the rate of the right class among the first five says anything: of five classes it is always
/// 100 %.
pub fn has_top5(n_classes: usize) -> bool {
    n_classes > 5
}

/// A name on one line, whatever is in it.
pub fn one_line(name: &str) -> String {
    match name.chars().any(char::is_control) {
        true => name.escape_debug().to_string(),
        false => name.to_owned(),
    }
}

/// A name in at most `width` columns of a terminal; what is cut off shows as `…`.
pub fn shortened(name: &str, width: usize) -> String {
    console::truncate_str(name, width, "…").into_owned()
}

/// A count with a comma between thousands.
pub fn grouped(count: u64) -> String {
    HumanCount(count).to_string()
}

/// A mean of counts, to the nearest whole one, as [`grouped`].
pub fn whole(mean: f64) -> String {
    grouped(mean.round_ties_even() as u64)
}

/// A table for stdout with aligned columns; the first is aligned left, the others right. The header stands out where
/// there is colour, and cells may be painted.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().map(|row| measure_text_width(&row[column]));
            cells.chain([measure_text_width(title)]).max().unwrap_or(0)
        })
        .collect();
    let header: Vec<String> = header.iter().map(|title| Accent::Strong.paint(title)).collect();
    let mut text = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            // A character of some scripts takes two columns, and colour none.
            let room = " ".repeat(width.saturating_sub(measure_text_width(cell)));
            match column {
                0 => line.push_str(&format!("{cell}{room}")),
                _ => line.push_str(&format!("  {room}{cell}")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_a_shell() {
        for (path, text) in [
            ("checkpoints/bn-x5", "checkpoints/bn-x5"),
            ("my runs/a", "'my runs/a'"),
            ("it's", r"'it'\''s'"),
            ("$HOME/a", "'$HOME/a'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(Path::new(path)), text);
        }
    }

    #[test]
    fn durations_read_well() {
        for (seconds, text) in [
            (0.4, "0s"),
            (59.4, "59s"),
            (60.0, "1m00s"),
            (725.0, "12m05s"),
            (12_000.0, "3h20m"),
            (187_200.0, "2d04h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn bytes_read_well() {
        for (n, text) in [(1, "1 MB"), (134_400_000, "135 MB"), (1_260_000_000, "1.26 GB")] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn thousands_have_commas() {
        for (count, text) in
            [(0.0, "0"), (999.0, "999"), (1000.0, "1,000"), (31e6, "31,000,000"), (1234.5, "1,234")]
        {
            assert_eq!(whole(count), text);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["name", "n"], &rows), "name   n\na      1\nbcd   22\n");
        let rows = [vec!["蚂蚁".to_owned(), "1".to_owned()], vec!["a".to_owned(), "2".to_owned()]];
        assert_eq!(table(&["", "n"], &rows), "      n\n蚂蚁  1\na     2\n");
        let red = "\u{1b}[31m1\u{1b}[0m";
        let rows = [vec!["a".to_owned(), red.to_owned()], vec!["b".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["", "n"], &rows), format!("    n\na   {red}\nb  22\n"));
    }

    #[test]
    fn names_fit_into_a_line() {
        for (name, width, text) in [
            ("ants", 4, "ants"),
            ("automobile", 4, "aut…"),
            ("蚂蚁和蜜蜂", 5, "蚂蚁…"),
            ("", 3, ""),
        ] {
            assert_eq!(shortened(name, width), text);
        }
        assert_eq!(one_line("a\nb"), "a\\nb");
        assert_eq!(one_line("a b"), "a b");
    }
}
