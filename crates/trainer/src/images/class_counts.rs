//! How many images the classes have, and what a person should know of it.

use crate::terminal::text::{counted, grouped};

/// How many times more images the largest class has than the smallest, from which on it is said. Image
/// sets are called imbalanced from about here on: Buda et al. 2018 study ratios of 10 to 100 where effects are
/// large (<https://arxiv.org/abs/1710.05381>, section 3).
pub const IMBALANCE: u64 = 10;

/// Classes that are named in a line.
const NAMED: usize = 5;

/// The images of each of `n_classes` classes, given the class of each image.
///
/// # Panics
/// A label is not below `n_classes`.
pub fn class_counts(labels: impl Iterator<Item = u32>, n_classes: usize) -> Vec<u64> {
    let mut counts = vec![0; n_classes];
    labels.for_each(|label| counts[label as usize] += 1);
    counts
}

/// One line if the largest class has ten or more times the images of the smallest that has any.
pub fn imbalance(classes: &[(&str, u64)]) -> Option<String> {
    let with_images = || classes.iter().filter(|(_, count)| *count > 0);
    // The first of equals in both.
    let (small, least) = with_images().min_by_key(|(_, count)| *count)?;
    let (large, most) = with_images().rev().max_by_key(|(_, count)| *count)?;
    (*most >= IMBALANCE * least).then(|| {
        format!(
            "classes are imbalanced: `{large}` has {}, {} times as many as `{small}` with {}",
            counted(*most, "training image"),
            grouped(most / least),
            grouped(*least)
        )
    })
}

/// One line if classes have no validation images, though others do.
pub fn without_validation(classes: &[(&str, u64)]) -> Option<String> {
    let without: Vec<String> = classes
        .iter()
        .filter(|(_, count)| *count == 0)
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    if without.is_empty() || without.len() == classes.len() {
        return None;
    }
    let (named, n) = (without.iter().take(NAMED).cloned().collect::<Vec<_>>(), without.len());
    let more = match n - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let have = if n == 1 { "has" } else { "have" };
    Some(format!(
        "{} of {} {have} no validation images, so nothing tells how well they are known: {}{more}",
        n,
        counted(classes.len() as u64, "class"),
        named.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_counted() {
        assert_eq!(class_counts([2, 0, 2].into_iter(), 4), [1, 0, 2, 0]);
        assert_eq!(class_counts([].into_iter(), 2), [0, 0]);
    }

    #[test]
    fn an_imbalance_is_told_from_ten_on() {
        let told = "classes are imbalanced: `bees` has 121 training images, 24 times as many as \
                    `ants` with 5";
        let edge =
            "classes are imbalanced: `b` has 10 training images, 10 times as many as `a` with 1";
        for (classes, expected) in [
            (&[("ants", 5), ("bees", 121)][..], Some(told)),
            (&[("ants", 13), ("bees", 121)], None),
            (&[("a", 1), ("b", 10), ("c", 1), ("d", 10)], Some(edge)),
            (&[("a", 1), ("b", 9)], None),
            // A class without images is another matter.
            (&[("a", 0), ("b", 9)], None),
            (&[("a", 0), ("b", 0)], None),
            (&[], None),
        ] {
            assert_eq!(imbalance(classes).as_deref(), expected, "{classes:?}");
        }
    }

    #[test]
    fn classes_without_validation_images_are_named() {
        let one = "1 of 2 classes has no validation images, so nothing tells how well they are known: `a`";
        assert_eq!(without_validation(&[("a", 0), ("b", 3)]).as_deref(), Some(one));
        let many: Vec<(&str, u64)> =
            ["a", "b", "c", "d", "e", "f", "g"].into_iter().map(|name| (name, 0)).collect();
        let text = without_validation(&[&many[..], &[("z", 1)]].concat()).unwrap();
        assert!(text.starts_with("7 of 8 classes have no validation images"), "{text}");
        assert!(text.ends_with("`a`, `b`, `c`, `d`, `e` and 2 more"), "{text}");
        // Without any validation image there is another message.
        assert_eq!(without_validation(&many), None);
        assert_eq!(without_validation(&[("a", 1)]), None);
    }
}
