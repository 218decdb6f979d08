//! What a class may be called: the one rule for folders that are scanned and for checkpoints that are
//! read.

/// Longest name in bytes, that of a file on common file systems (`NAME_MAX`,
/// <https://man7.org/linux/man-pages/man7/path_resolution.7.html>).
const MAX_BYTES: usize = 255;

/// Checks that `name` can be a folder on every system and a line in a list of classes.
///
/// # Errors
/// What is wrong with it, to be put behind "its name".
pub fn check_class_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("is empty"),
        "." | ".." => Err("means another folder"),
        _ if name.len() > MAX_BYTES => Err("is longer than 255 bytes"),
        _ if name.contains(char::is_control) => {
            Err("has control characters, which no list of classes can hold")
        }
        _ if name.contains(['/', '\\']) => {
            Err("has a slash or backslash, which separates folders on other systems")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_folders() {
        let long = "é".repeat(127);
        for name in ["cat", "big cat", "n01440764", "c'est ça", "...", "🐱", " ", &long] {
            assert_eq!(check_class_name(name), Ok(()), "{name:?}");
        }
        let too_long = "é".repeat(128);
        for name in ["", ".", "..", "a/b", "big\\cat", "a\nb", "a\0", "\u{7f}", "\u{85}", &too_long]
        {
            assert!(check_class_name(name).is_err(), "{name:?}");
        }
    }
}
