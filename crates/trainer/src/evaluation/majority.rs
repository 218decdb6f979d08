//! What a network that learnt nothing would score: the line that every accuracy has to beat.

use crate::evaluation::interval::Interval;
use crate::terminal::text::percent;

/// The class with the most images. Always to answer it takes no look at an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Majority {
    /// Its place in the list of classes; of equals the first.
    pub class: u32,
    /// Its images.
    pub images: u64,
    /// The images of all classes, above 0.
    pub all: u64,
    /// Whether every class has as many images.
    is_tied: bool,
}

impl Majority {
    /// The largest of classes with these numbers of images; `None` without images.
    pub fn of_counts(counts: &[u64]) -> Option<Majority> {
        let all: u64 = counts.iter().sum();
        let images = counts.iter().copied().max().filter(|&images| images > 0)?;
        let class = counts.iter().position(|&count| count == images)?;
        let is_tied = counts.iter().all(|&count| count == images);
        Some(Majority { class: class as u32, images, all, is_tied })
    }

    /// The largest of `n_classes` classes among these labels, all below `n_classes`.
    pub fn of_labels(labels: impl Iterator<Item = u32>, n_classes: usize) -> Option<Majority> {
        let mut counts = vec![0; n_classes];
        labels.for_each(|label| counts[label as usize] += 1);
        Majority::of_counts(&counts)
    }

    /// The top-1 of whoever always answers this class.
    pub fn top1(&self) -> f64 {
        self.images as f64 / self.all as f64
    }

    /// How a result with this interval stands to it.
    pub fn standing(&self, interval: Interval) -> Standing {
        let line = self.top1();
        match () {
            () if interval.low > line => Standing::Above,
            () if interval.high < line => Standing::Below,
            () => Standing::Same,
        }
    }

    /// Such as: always `bees` would score 54.25 %.
    pub fn to_text(&self, classes: &[String]) -> String {
        let what = match classes.get(self.class as usize) {
            Some(class) if !self.is_tied => format!("`{class}`"),
            _ => "the same class".to_owned(),
        };
        format!("always {what} would score {}", percent(self.top1()))
    }

    /// [`Majority::to_text`], and if a top-1 counted on as many images is not above it.
    pub fn verdict(&self, classes: &[String], top1: f64) -> String {
        let line = self.to_text(classes);
        let standing = Interval::of_rate(top1, self.all).map(|found| self.standing(found));
        match standing {
            None | Some(Standing::Above) => line,
            Some(Standing::Same) => {
                format!(
                    "{line}: this result is not significantly above it, the interval includes it"
                )
            }
            Some(Standing::Below) => format!("{line}: this result is below it"),
        }
    }
}

/// Where a result lies beside the line that it has to beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The whole interval is above the line.
    Above,
    /// The interval includes the line: on so few images they cannot be told apart.
    Same,
    /// The whole interval is below the line.
    Below,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_result_has_to_beat_the_largest_class() {
        let classes = names("ants bees");
        let same = "not significantly above it";
        for (counts, top1, line, verdict) in [
            ([70, 83], 0.7255, "always `bees` would score 54.25 %", ""),
            ([70, 83], 0.61, "always `bees` would score 54.25 %", same),
            ([70, 83], 0.5425, "always `bees` would score 54.25 %", same),
            ([70, 83], 0.2, "always `bees` would score 54.25 %", "is below it"),
            // A network that says the same to all images.
            ([12, 1], 12.0 / 13.0, "always `ants` would score 92.31 %", same),
            ([20, 20], 0.75, "always the same class would score 50.00 %", ""),
        ] {
            let majority = Majority::of_counts(&counts).unwrap();
            assert_eq!(majority.to_text(&classes), line);
            let found = majority.verdict(&classes, top1);
            assert!(found.starts_with(line) && found.contains(verdict), "{found}");
            assert_eq!(found == line, verdict.is_empty(), "{found}");
        }
        assert_eq!(Majority::of_counts(&[]), None);
        assert_eq!(Majority::of_counts(&[0, 0]), None);
        let labels = [2, 0, 2, 1];
        let majority = Majority::of_labels(labels.into_iter(), 4).unwrap();
        assert_eq!((majority.class, majority.top1()), (2, 0.5));
    }
}
