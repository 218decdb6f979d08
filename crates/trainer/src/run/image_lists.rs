//! Which images a run is on: enough to tell, when it goes on elsewhere or later, whether they are the
//! same and which class differs.

use std::path::Path;

use bninception_data::{Sample, Splits};
use serde::{Deserialize, Serialize};

/// Hexadecimal digits kept of a digest: 64 bits, enough to notice any accident.
const DIGITS: usize = 16;

/// The images of both splits, class by class. Names count and their order, content does not: a copy
/// on another machine has other times and perhaps other folders above.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageLists {
    /// Training images, in the order of the classes; empty if unknown.
    pub train: Vec<ClassImages>,
    /// Validation images, in the order of the classes; empty if unknown.
    pub val: Vec<ClassImages>,
}

/// The images of one class: their number, and a digest of their paths inside the class folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassImages(pub u64, pub String);

impl ImageLists {
    /// The lists of what was found in `dir`, or for validation in `val_dir`.
    pub fn of(splits: &Splits, dir: &Path, val_dir: &Path) -> ImageLists {
        ImageLists {
            train: digests(&splits.classes, &splits.train, dir),
            val: digests(&splits.classes, &splits.val, val_dir),
        }
    }

    /// What differs between the images of the run and those `found`, in words; `None` if nothing
    /// does, or the run is older than these lists.
    pub fn difference(&self, found: &ImageLists, classes: &[String]) -> Option<String> {
        let parts = [self.train_difference(found, classes), self.val_difference(found, classes)];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// [`ImageLists::difference`] of the training images alone.
    pub fn train_difference(&self, found: &ImageLists, classes: &[String]) -> Option<String> {
        difference("training", &self.train, &found.train, classes)
    }

    /// [`ImageLists::difference`] of the validation images alone.
    pub fn val_difference(&self, found: &ImageLists, classes: &[String]) -> Option<String> {
        difference("validation", &self.val, &found.val, classes)
    }
}

fn digests(classes: &[String], samples: &[Sample], dir: &Path) -> Vec<ClassImages> {
    let mut classes: Vec<(&String, u64, blake3::Hasher)> =
        classes.iter().map(|name| (name, 0, blake3::Hasher::new())).collect();
    for sample in samples {
        let Some((name, count, hasher)) = classes.get_mut(sample.label as usize) else { continue };
        *count += 1;
        let inside = sample.path.strip_prefix(dir).unwrap_or(&sample.path);
        let mut parts = inside.components();
        // What stands in front of the class folder depends on the layout of the data.
        let in_class = parts.clone().any(|part| part.as_os_str() == name.as_str());
        while in_class && parts.next().is_some_and(|part| part.as_os_str() != name.as_str()) {}
        for part in parts {
            hasher.update(part.as_os_str().as_encoded_bytes());
            hasher.update(b"/");
        }
        hasher.update(b"\0");
    }
    let digest = |hasher: &blake3::Hasher| hasher.finalize().to_hex()[..DIGITS].to_owned();
    classes.iter().map(|(_, count, hasher)| ClassImages(*count, digest(hasher))).collect()
}

fn difference(
    what: &str,
    run: &[ClassImages],
    found: &[ClassImages],
    classes: &[String],
) -> Option<String> {
    if run.is_empty() {
        return None;
    }
    let differing: Vec<usize> =
        (0..classes.len()).filter(|&class| run.get(class) != found.get(class)).collect();
    let first = *differing.first()?;
    let count = |list: &[ClassImages]| list.get(first).map_or(0, |images| images.0);
    let (before, now) = (count(run), count(found));
    let counts = match before == now {
        true => format!("{now} as in the run, but of other names"),
        false => format!("{now}, and the run had {before}"),
    };
    let more = match differing.len() - 1 {
        0 => String::new(),
        1 => " (and 1 more class differs)".to_owned(),
        more => format!(" (and {more} more classes differ)"),
    };
    Some(format!("{what} images of `{}`: {counts}{more}", classes[first]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(dir: &str, train: &[(&str, u32)]) -> ImageLists {
        let sample =
            |&(path, label): &(&str, u32)| Sample { path: Path::new(dir).join(path), label };
        let splits = Splits {
            classes: vec!["cat".into(), "dog".into()],
            train: train.iter().map(sample).collect(),
            val: Vec::new(),
            ignored: 0,
            notes: Vec::new(),
        };
        ImageLists::of(&splits, Path::new(dir), Path::new(dir))
    }

    #[test]
    fn the_same_images_elsewhere_are_the_same() {
        let here = lists(
            "/here",
            &[("train/cat/1.jpg", 0), ("train/cat/a/2.jpg", 0), ("train/dog/1.jpg", 1)],
        );
        let there = lists("there/x", &[("cat/1.jpg", 0), ("cat/a/2.jpg", 0), ("dog/1.jpg", 1)]);
        assert_eq!(here, there);
        assert_eq!(here.train[0].0, 2);
        // Nothing is known of an older run.
        assert_eq!(ImageLists::default().difference(&there, &["cat".into(), "dog".into()]), None);
    }

    #[test]
    fn what_differs_is_named() {
        let classes = ["cat".to_owned(), "dog".to_owned()];
        let run = lists("d", &[("cat/1.jpg", 0), ("cat/2.jpg", 0), ("dog/1.jpg", 1)]);
        let table: [(&[(&str, u32)], &str); 4] = [
            (
                &[("cat/1.jpg", 0), ("dog/1.jpg", 1)],
                "training images of `cat`: 1, and the run had 2",
            ),
            (&[("cat/2.jpg", 0), ("cat/1.jpg", 0), ("dog/1.jpg", 1)], "other names"),
            (&[("cat/1.jpg", 0), ("cat/2.jpg", 0), ("dog/b/1.jpg", 1)], "`dog`: 1 as in the run"),
            (&[("cat/1.jpg", 0)], "(and 1 more class differs)"),
        ];
        for (found, part) in table {
            let difference = run.difference(&lists("e", found), &classes).unwrap();
            assert!(difference.contains(part), "{difference}");
        }
    }
}
