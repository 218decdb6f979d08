//! Small texts that many messages need.

use std::path::Path;

pub use bninception_data::counted;

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

/// A count with a comma between thousands.
pub fn whole(count: f64) -> String {
    let digits = format!("{count:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A table with aligned columns; the first is aligned left, the others right.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([title.chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let header: Vec<String> = header.iter().map(|&title| title.to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            match column {
                0 => line.push_str(&format!("{cell:<width$}")),
                _ => line.push_str(&format!("  {cell:>width$}")),
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
    }
}
