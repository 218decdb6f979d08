//! What two evaluations of the same images have in common and where they differ.

use std::path::Path;

use crate::evaluation::outcomes::{ImageOutcome, Outcomes};
use crate::evaluation::paired::PairedCounts;

/// An evaluation beside that of a baseline.
pub struct Changes<'a> {
    /// Images by who gets them right.
    pub counts: PairedCounts,
    /// Images that only one of the two gets right, in the order of the images.
    pub images: Vec<ChangedImage<'a>>,
    /// The evaluation.
    pub this: &'a Outcomes,
    /// That of the baseline.
    pub baseline: &'a Outcomes,
}

/// An image that only one of two evaluations gets right.
pub struct ChangedImage<'a> {
    /// Its place in the list of images.
    pub index: u32,
    /// Its class.
    pub label: u32,
    /// Whether this evaluation is the one that gets it right.
    pub is_gain: bool,
    /// Its outcome in this evaluation; `None` if it could not be read.
    pub this: Option<&'a ImageOutcome>,
    /// Its outcome in the baseline; `None` if it could not be read.
    pub baseline: Option<&'a ImageOutcome>,
}

impl<'a> Changes<'a> {
    /// Sets two evaluations of the same list of images and of the same classes in the same order side by
    /// side. An image that could not be read is wrong.
    ///
    /// # Panics
    /// The lists differ.
    pub fn between(this: &'a Outcomes, baseline: &'a Outcomes) -> Changes<'a> {
        assert!(this.samples == baseline.samples && this.classes == baseline.classes);
        let by_index = |outcomes: &'a Outcomes| {
            let mut all: Vec<Option<&ImageOutcome>> = vec![None; outcomes.samples.len()];
            for outcome in &outcomes.images {
                all[outcome.index as usize] = Some(outcome);
            }
            all
        };
        let is_right =
            |outcome: Option<&ImageOutcome>| outcome.is_some_and(|found| found.score.is_in_top(1));
        let mut counts = PairedCounts::default();
        let mut images = Vec::new();
        let pairs = by_index(this).into_iter().zip(by_index(baseline));
        for ((index, sample), (own, other)) in (0..).zip(&this.samples).zip(pairs) {
            let (is_gain, is_right_in_baseline) = (is_right(own), is_right(other));
            counts.add(is_gain, is_right_in_baseline);
            if is_gain != is_right_in_baseline {
                let label = sample.label;
                images.push(ChangedImage { index, label, is_gain, this: own, baseline: other });
            }
        }
        Changes { counts, images, this, baseline }
    }

    /// Images that changed to right (`true`) or to wrong, the greatest change of the probability of their
    /// class first.
    pub fn largest(&self, is_gain: bool) -> Vec<&ChangedImage<'a>> {
        let mut images: Vec<&ChangedImage<'a>> =
            self.images.iter().filter(|image| image.is_gain == is_gain).collect();
        // Stable: the order of the images decides between equals.
        images.sort_by(|a, b| b.shift().total_cmp(&a.shift()));
        images
    }

    /// The file of an image.
    pub fn path(&self, image: &ChangedImage<'_>) -> &'a Path {
        &self.this.samples[image.index as usize].path
    }
}

impl ChangedImage<'_> {
    /// By how much the probability of its class differs; an image that could not be read has 0.
    fn shift(&self) -> f64 {
        let probability =
            |outcome: Option<&ImageOutcome>| outcome.map_or(0.0, |found| found.probability);
        let shift = (probability(self.this) - probability(self.baseline)).abs();
        if shift.is_nan() { 0.0 } else { shift }
    }
}
