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

/// A number with its noun: `1 step`, `2 steps`, `2 classes`.
pub fn counted(n: u64, noun: &str) -> String {
    let hisses = ["s", "x", "ch", "sh"].iter().any(|end| noun.ends_with(end));
    match n {
        1 => format!("1 {noun}"),
        _ if hisses => format!("{n} {noun}es"),
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
        for (n, noun, text) in [
            (0, "step", "0 steps"),
            (1, "step", "1 step"),
            (2, "step", "2 steps"),
            (1, "class", "1 class"),
            (2, "class", "2 classes"),
            (2, "batch", "2 batches"),
            (2, "path", "2 paths"),
        ] {
            assert_eq!(counted(n, noun), text);
        }
    }
}
