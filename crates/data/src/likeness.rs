//! Names of classes that look alike and are written differently.

use std::collections::BTreeMap;

use unicode_normalization::UnicodeNormalization;

/// In what `a` and `b` differ, if a person may take them for the same name: the Unicode form of their
/// letters (`é` is one character on Linux and may be two from a Mac,
/// <https://www.unicode.org/reports/tr15/>), capital letters, or spaces.
fn likeness(a: &str, b: &str) -> Option<&'static str> {
    let composed = |name: &str| name.nfc().collect::<String>();
    let lower = |name: &str| composed(name).to_lowercase();
    if a == b || fold(a) != fold(b) {
        None
    } else if composed(a) == composed(b) {
        Some("the Unicode form of their letters")
    } else if lower(a) == lower(b) {
        Some("capital letters")
    } else {
        Some("spaces, invisible characters or the width of letters")
    }
}

/// Says of the names in `first` and `second` that look alike in what they differ and what to do; one
/// pair at the most, and how many more.
pub fn alike_between(first: &[String], second: &[String]) -> Option<String> {
    let mut folded: BTreeMap<String, &String> = BTreeMap::new();
    for name in first {
        folded.entry(fold(name)).or_insert(name);
    }
    let pairs = second.iter().filter_map(|b| Some((*folded.get(&fold(b))?, b)));
    describe(pairs.filter_map(|(a, b)| Some((a, b, likeness(a, b)?))).collect())
}

/// As [`alike_between`], of the names in one list.
pub(crate) fn alike_in(names: &[String]) -> Option<String> {
    let mut folded: BTreeMap<String, &String> = BTreeMap::new();
    let mut pairs = Vec::new();
    for b in names {
        match folded.get(&fold(b)) {
            Some(a) => pairs.extend(likeness(a, b).map(|what| (*a, b, what))),
            None => {
                folded.insert(fold(b), b);
            }
        }
    }
    describe(pairs)
}

fn describe(pairs: Vec<(&String, &String, &'static str)>) -> Option<String> {
    let (a, b, what) = pairs.first()?;
    let more = match pairs.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let (a, b) = (escaped(a), escaped(b));
    Some(format!(
        "`{a}` and `{b}` look alike and differ in {what}{more}: rename the folders where they are \
         one class"
    ))
}

/// What is the same for names that look alike.
fn fold(name: &str) -> String {
    let is_seen = |c: &char| {
        !c.is_whitespace() && !"\u{ad}\u{200b}\u{200c}\u{200d}\u{2060}\u{feff}".contains(*c)
    };
    name.nfkc().filter(is_seen).collect::<String>().to_lowercase().nfc().collect()
}

/// With every character beyond ASCII by its number, so that the names differ for the eye too.
fn escaped(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii() { c.to_string() } else { c.escape_unicode().to_string() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike_are_told_apart() {
        for (a, b, expected) in [
            ("caf\u{e9}", "cafe\u{301}", Some("Unicode")),
            ("Cat", "cat", Some("capital")),
            ("CAF\u{c9}", "cafe\u{301}", Some("capital")),
            ("cat ", "cat", Some("spaces")),
            ("c\u{200b}at", "cat", Some("spaces")),
            ("\u{ff43}at", "cat", Some("width")),
            ("cat", "cat", None),
            ("cat", "car", None),
            ("cafe", "caf\u{e9}", None),
        ] {
            let found = likeness(a, b);
            assert_eq!(found.is_some(), expected.is_some(), "{a:?} {b:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{found:?}");
        }
    }

    #[test]
    fn one_pair_is_named_by_its_characters() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (composed, both) = (names(&["a", "caf\u{e9}"]), names(&["Cat", "caf\u{e9}", "cat"]));
        let text = alike_between(&composed, &names(&["a", "cafe\u{301}"])).unwrap();
        assert!(text.starts_with(r"`caf\u{e9}` and `cafe\u{301}` look alike"), "{text}");
        assert_eq!(alike_between(&composed, &composed), None);
        assert!(alike_in(&both).unwrap().starts_with("`Cat` and `cat`"));
        assert_eq!(alike_in(&composed), None);
        let many = alike_in(&names(&["A", "a", "B", "b"])).unwrap();
        assert!(many.contains("(and 1 more)"), "{many}");
    }
}
