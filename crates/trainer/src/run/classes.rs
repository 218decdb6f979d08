//! Two lists of class names, matched by name.

use std::collections::{BTreeMap, BTreeSet};

use bninception_data::likeness::alike_between;

/// For each class of `found`, its place in `expected`; `None` unless the two lists hold the same
/// names, each once, in whatever order.
pub fn places(expected: &[String], found: &[String]) -> Option<Vec<usize>> {
    let known: BTreeMap<&String, usize> =
        expected.iter().enumerate().map(|(place, name)| (name, place)).collect();
    let places: Vec<usize> =
        found.iter().map(|name| known.get(name).copied()).collect::<Option<_>>()?;
    let distinct: BTreeSet<usize> = places.iter().copied().collect();
    (found.len() == expected.len() && distinct.len() == expected.len()).then_some(places)
}

/// What `found` lacks and adds, compared with `expected`, in words.
pub fn difference(expected: &[String], found: &[String]) -> String {
    let only_in = |list: &[String], other: &[String]| -> String {
        let other: BTreeSet<&String> = other.iter().collect();
        let names: Vec<&String> = list.iter().filter(|name| !other.contains(name)).collect();
        let mut text: Vec<String> = names.iter().take(5).map(|name| format!("`{name}`")).collect();
        if names.len() > text.len() {
            text.push(format!("and {} more", names.len() - text.len()));
        }
        text.join(", ")
    };
    let (missing, added) = (only_in(expected, found), only_in(found, expected));
    let mut text = match (missing.is_empty(), added.is_empty()) {
        (true, true) => "the same names in another order or number".to_owned(),
        (false, true) => format!("it lacks {missing}"),
        (true, false) => format!("it adds {added}"),
        (false, false) => format!("it lacks {missing} and adds {added}"),
    };
    let others = |list: &[String], other: &[String]| -> Vec<String> {
        let other: BTreeSet<&String> = other.iter().collect();
        list.iter().filter(|name| !other.contains(name)).cloned().collect()
    };
    let alike = alike_between(&others(expected, found), &others(found, expected));
    if let Some(alike) = alike {
        text.push_str(&format!("; {alike}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn classes_are_matched_by_name() {
        let table: [(&str, &str, Option<&[usize]>, &str); 6] = [
            ("a b c", "a b c", Some(&[0, 1, 2]), "another order"),
            ("a b c", "c a b", Some(&[2, 0, 1]), "another order"),
            ("a b c", "a b", None, "it lacks `c`"),
            ("a b", "a b c", None, "it adds `c`"),
            ("a b c", "a x c", None, "it lacks `b` and adds `x`"),
            ("a b", "a a", None, "it lacks `b`"),
        ];
        for (expected, found, places_expected, text) in table {
            let (expected, found) = (names(expected), names(found));
            assert_eq!(places(&expected, &found).as_deref(), places_expected, "{found:?}");
            assert!(difference(&expected, &found).contains(text), "{found:?}");
        }
        let (composed, decomposed) = (names("a caf\u{e9}"), names("a cafe\u{301}"));
        let text = difference(&composed, &decomposed);
        assert!(text.contains("differ in the Unicode form of their letters"), "{text}");
        let many = names("a b c d e f g");
        assert_eq!(difference(&many, &[]), "it lacks `a`, `b`, `c`, `d`, `e`, and 2 more");
    }
}
