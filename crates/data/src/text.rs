//! Small texts that many messages need.

/// How many names an error or a note lists.
const MAX_NAMES: usize = 10;

/// A number with its noun: `1 file`, `2 files`.
pub(crate) fn counted(n: usize, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        _ => format!("{n} {noun}s"),
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
