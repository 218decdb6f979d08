//! Small texts that many messages need.

use std::fmt::Display;

/// How many names an error or a note lists.
const MAX_NAMES: usize = 10;

/// A number with its noun: `1 step`, `2 steps`, `2 classes`.
pub fn counted<N: Display + From<u8> + PartialEq>(n: N, noun: &str) -> String {
    let hisses = ["s", "x", "ch", "sh"].iter().any(|end| noun.ends_with(end));
    // An epoch ends in a k, not in a hiss.
    let hisses = hisses && noun != "epoch";
    match n == N::from(1) {
        true => format!("1 {noun}"),
        false if hisses => format!("{n} {noun}es"),
        false => format!("{n} {noun}s"),
    }
}

/// `a`, `b`, `c`; at most [`MAX_NAMES`], then how many more.
pub(crate) fn name_list(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(MAX_NAMES).map(|name| format!("`{name}`")).collect();
    match names.len().saturating_sub(MAX_NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_follow_their_number() {
        for (n, noun, text) in [
            (0_u64, "step", "0 steps"),
            (1, "step", "1 step"),
            (2, "step", "2 steps"),
            (1, "class", "1 class"),
            (2, "class", "2 classes"),
            (2, "batch", "2 batches"),
            (2, "path", "2 paths"),
            (2, "epoch", "2 epochs"),
        ] {
            assert_eq!(counted(n, noun), text);
        }
    }
}
