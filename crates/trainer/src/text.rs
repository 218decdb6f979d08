//! Small texts that many messages need.

use std::path::Path;

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

/// A number with its noun: `1 step`, `2 steps`.
pub fn counted(n: u64, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        _ => format!("{n} {noun}s"),
    }
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
    fn nouns_follow_their_number() {
        for (n, text) in [(0, "0 steps"), (1, "1 step"), (2, "2 steps")] {
            assert_eq!(counted(n, "step"), text);
        }
    }
}
