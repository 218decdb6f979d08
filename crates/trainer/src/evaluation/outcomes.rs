//! What an evaluation shows beyond its three numbers: by class, by pair of classes, by image, and how
//! far its probabilities can be believed.

use bninception_data::{Crops, Failure, Sample};

use crate::evaluation::evaluate::{ClassCount, Confusion, Evaluation};
use crate::evaluation::majority::Majority;
use bninception_engine::metrics::{Metrics, Score, top_k};

/// Bins of the expected calibration error.
const N_BINS: usize = 15;

/// Classes that are kept for each image.
pub const KEPT_CLASSES: usize = 5;

/// What was found for one image that could be read.
#[derive(Clone, Debug)]
pub struct ImageOutcome {
    /// Its place in the list of images.
    pub index: u32,
    /// Its class.
    pub label: u32,
    /// Rank of the class, and the loss.
    pub score: Score,
    /// Probability of its class.
    pub probability: f64,
    /// The likeliest classes with their probabilities, at most [`KEPT_CLASSES`]; none if a logit was
    /// not finite.
    pub top: Vec<(u32, f64)>,
}

impl ImageOutcome {
    /// The outcome of an image with the given logarithms of the probabilities of all classes.
    ///
    /// # Panics
    /// The label is not below the number of classes.
    pub fn new(index: u32, label: u32, score: Score, log_k: &[f64]) -> ImageOutcome {
        let top = match score.rank {
            Some(_) => top_k(log_k, KEPT_CLASSES),
            None => Vec::new(),
        };
        let with_probability = |class: usize| (class as u32, log_k[class].exp());
        ImageOutcome {
            index,
            label,
            score,
            probability: log_k[label as usize].exp(),
            top: top.into_iter().map(with_probability).collect(),
        }
    }

    /// The likeliest class and its probability, if there is one.
    pub fn predicted(&self) -> Option<(u32, f64)> {
        self.top.first().copied()
    }

    /// Whether another class was likeliest.
    fn is_mistake(&self) -> bool {
        self.predicted().is_some() && !self.score.is_in_top(1)
    }
}

/// One class: its images, and the images that were taken for it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClassRow {
    /// Its images and how many of them came out right.
    pub count: ClassCount,
    /// Images whose class was among the first five.
    pub top5: u64,
    /// Images of any class for which this one was likeliest.
    pub predicted: u64,
    /// Sum of the class's probability over the images that got an answer: that could be read, and
    /// with finite logits.
    probability: f64,
    answered: u64,
}

impl ClassRow {
    /// Fraction of all images whose class was among the first five; `None` without images.
    pub fn top5_rate(&self) -> Option<f64> {
        (self.count.images > 0).then(|| self.top5 as f64 / self.count.images as f64)
    }

    /// Fraction of the images that were taken for the class and are of it; `None` if none was.
    pub fn precision(&self) -> Option<f64> {
        (self.predicted > 0).then(|| self.count.right as f64 / self.predicted as f64)
    }

    /// The harmonic mean of precision and recall (van Rijsbergen 1979, chapter 7,
    /// <http://www.dcs.gla.ac.uk/Keith/Preface.html>), which is 2 right / (images + predicted) and so 0
    /// where one of them is none; `None` if there is neither an image nor an answer.
    pub fn f1(&self) -> Option<f64> {
        let both = self.count.images + self.predicted;
        (both > 0).then(|| 2.0 * self.count.right as f64 / both as f64)
    }

    /// Mean probability of the class, over the images that got an answer; `None` without such.
    pub fn mean_probability(&self) -> Option<f64> {
        (self.answered > 0).then(|| self.probability / self.answered as f64)
    }
}

/// Images of one class that were taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfusedPair {
    /// Their class.
    pub label: u32,
    /// The class that came first.
    pub predicted: u32,
    /// How many.
    pub count: u64,
}

/// Images whose likeliest class had a probability in one range.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// How many.
    pub images: u64,
    /// Sum of the probabilities of the likeliest class.
    confidence: f64,
    correct: u64,
}

impl Bin {
    /// Mean probability of the likeliest class; `None` without images.
    pub fn confidence(&self) -> Option<f64> {
        (self.images > 0).then(|| self.confidence / self.images as f64)
    }

    /// Fraction of the images whose likeliest class was right; `None` without images.
    pub fn accuracy(&self) -> Option<f64> {
        (self.images > 0).then(|| self.correct as f64 / self.images as f64)
    }
}

/// The lower and upper end of bin `index` of [`Outcomes::bins`].
pub fn bin_ends(index: usize) -> (f64, f64) {
    (index as f64 / N_BINS as f64, (index + 1) as f64 / N_BINS as f64)
}

/// All outcomes of an evaluation.
pub struct Outcomes {
    /// Names of the classes.
    pub classes: Vec<String>,
    /// The images that were to be evaluated.
    pub samples: Vec<Sample>,
    /// What of each image was looked at.
    pub crops: Crops,
    /// Counts and loss, and images that could not be read.
    pub evaluation: Evaluation,
    /// What was found for the others, in their order.
    pub images: Vec<ImageOutcome>,
}

impl Outcomes {
    /// Puts a report together.
    pub fn new(
        classes: Vec<String>,
        samples: Vec<Sample>,
        crops: Crops,
        images: Vec<ImageOutcome>,
        failed: Vec<Failure>,
        seconds: f64,
    ) -> Outcomes {
        let mut metrics = Metrics::default();
        let mut by_class = vec![ClassCount::default(); classes.len()];
        let mut confusion = Confusion::new();
        for outcome in &images {
            metrics.add(&outcome.score);
            by_class[outcome.label as usize].add(outcome.score.is_in_top(1));
            if let Some((predicted, _)) = outcome.predicted() {
                *confusion.entry((outcome.label, predicted)).or_default() += 1;
            }
        }
        for failure in &failed {
            by_class[samples[failure.index as usize].label as usize].add(false);
        }
        let evaluation = Evaluation { metrics, failed, by_class, confusion, seconds };
        Outcomes { classes, samples, crops, evaluation, images }
    }

    /// One row for each class, in their order.
    pub fn per_class(&self) -> Vec<ClassRow> {
        let row = |&count: &ClassCount| ClassRow { count, ..ClassRow::default() };
        let mut rows: Vec<ClassRow> = self.evaluation.by_class.iter().map(row).collect();
        for outcome in &self.images {
            if let Some((predicted, _)) = outcome.predicted() {
                rows[predicted as usize].predicted += 1;
            }
            let row = &mut rows[outcome.label as usize];
            row.top5 += u64::from(outcome.score.is_in_top(5));
            if outcome.score.rank.is_some() {
                row.probability += outcome.probability;
                row.answered += 1;
            }
        }
        rows
    }

    /// What a network that learnt nothing would score on these images.
    pub fn majority(&self) -> Option<Majority> {
        let counts: Vec<u64> = self.evaluation.by_class.iter().map(|class| class.images).collect();
        Majority::of_counts(&counts)
    }

    /// Pairs of different classes, the most frequent first.
    pub fn confused_pairs(&self) -> Vec<ConfusedPair> {
        let cells = self.evaluation.confusion.iter();
        let mut pairs: Vec<ConfusedPair> = cells
            .filter(|((label, predicted), _)| label != predicted)
            .map(|(&(label, predicted), &count)| ConfusedPair { label, predicted, count })
            .collect();
        // Stable: the order of the classes decides between equals.
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.count));
        pairs
    }

    /// Images for which another class was likeliest; first those whose own class got the lowest
    /// probability, which is the greatest loss.
    pub fn mistakes(&self) -> Vec<&ImageOutcome> {
        let is_mistake = |outcome: &&ImageOutcome| outcome.is_mistake();
        let mut mistakes: Vec<&ImageOutcome> = self.images.iter().filter(is_mistake).collect();
        mistakes.sort_by(|a, b| b.score.loss.total_cmp(&a.score.loss));
        mistakes
    }

    /// Images by the probability of their likeliest class, in 15 ranges of equal width, each without
    /// its lower end and with its upper one (Guo et al. 2017, section 2,
    /// <https://arxiv.org/abs/1706.04599>). Images without a likeliest class are in none.
    pub fn bins(&self) -> Vec<Bin> {
        let mut bins = vec![Bin::default(); N_BINS];
        for outcome in &self.images {
            let Some((_, confidence)) = outcome.predicted() else { continue };
            let above = (confidence * N_BINS as f64).ceil() as usize;
            let bin = &mut bins[above.clamp(1, N_BINS) - 1];
            bin.images += 1;
            bin.confidence += confidence;
            bin.correct += u64::from(outcome.score.is_in_top(1));
        }
        bins
    }

    /// Expected calibration error: the mean over [`Outcomes::bins`], weighted by their images, of
    /// |accuracy - confidence| (Guo et al. 2017, equation 3). `None` without images.
    pub fn ece(&self) -> Option<f64> {
        let bins = self.bins();
        let images: u64 = bins.iter().map(|bin| bin.images).sum();
        let gap = |bin: &Bin| (bin.correct as f64 - bin.confidence).abs();
        (images > 0).then(|| bins.iter().map(gap).sum::<f64>() / images as f64)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A report on images with the given labels and probabilities, behind which come unreadable
    /// images with the given labels.
    fn report(classes: usize, images: &[(u32, &[f64])], unreadable: &[u32]) -> Outcomes {
        let labels = images.iter().map(|(label, _)| *label).chain(unreadable.iter().copied());
        let sample = |(index, label)| Sample { path: PathBuf::from(format!("{index}")), label };
        let samples = labels.enumerate().map(sample).collect();
        let outcome = |(index, (label, probabilities)): (usize, &(u32, &[f64]))| {
            let log_k: Vec<f64> =
                probabilities.iter().map(|probability| probability.ln()).collect();
            let score = Score::of_log_probabilities(&log_k, *label as usize);
            ImageOutcome::new(index as u32, *label, score, &log_k)
        };
        let failure = |index: usize| Failure {
            index: (images.len() + index) as u32,
            path: PathBuf::new(),
            error: String::new(),
        };
        let names = (0..classes).map(|class| format!("class {class}")).collect();
        let failed = (0..unreadable.len()).map(failure).collect();
        let images = images.iter().enumerate().map(outcome).collect();
        Outcomes::new(names, samples, Crops::One, images, failed, 1.0)
    }

    #[test]
    fn classes_pairs_and_mistakes_are_counted() {
        let outcomes = report(
            3,
            &[
                (0, &[0.7, 0.2, 0.1]),
                (0, &[0.3, 0.6, 0.1]),
                (0, &[0.1, 0.8, 0.1]),
                (1, &[0.2, 0.3, 0.5]),
                (1, &[f64::NAN, 0.5, 0.5]),
            ],
            &[1, 2],
        );
        let rows = outcomes.per_class();
        let counts: Vec<(u64, u64, u64, u64)> = rows
            .iter()
            .map(|row| (row.count.images, row.count.right, row.top5, row.predicted))
            .collect();
        assert_eq!(counts, [(3, 1, 3, 1), (3, 0, 1, 2), (1, 0, 0, 1)]);
        assert_eq!(
            rows.iter().map(ClassRow::precision).collect::<Vec<_>>(),
            [1.0, 0.0, 0.0].map(Some)
        );
        // 2 x 1 right / (3 images + 1 answer).
        assert_eq!(rows.iter().map(ClassRow::f1).collect::<Vec<_>>(), [0.5, 0.0, 0.0].map(Some));
        assert_eq!(ClassRow::default().f1(), None);
        assert_eq!(ClassRow { predicted: 2, ..ClassRow::default() }.f1(), Some(0.0));
        assert_eq!(
            outcomes.majority().map(|majority| (majority.class, majority.images)),
            Some((0, 3))
        );
        assert!((rows[0].mean_probability().unwrap() - 1.1 / 3.0).abs() < 1e-12);
        assert!((rows[1].mean_probability().unwrap() - 0.3).abs() < 1e-12);
        assert_eq!(rows[2].mean_probability(), None);
        assert_eq!(rows[2].count.recall(), Some(0.0));
        let confusion: Vec<((u32, u32), u64)> =
            outcomes.evaluation.confusion.clone().into_iter().collect();
        assert_eq!(confusion, [((0, 0), 1), ((0, 1), 2), ((1, 2), 1)]);
        let pairs: Vec<(u32, u32, u64)> = outcomes
            .confused_pairs()
            .iter()
            .map(|pair| (pair.label, pair.predicted, pair.count))
            .collect();
        assert_eq!(pairs, [(0, 1, 2), (1, 2, 1)]);
        let mistakes: Vec<u32> = outcomes.mistakes().iter().map(|outcome| outcome.index).collect();
        assert_eq!(mistakes, [2, 1, 3], "by the probability of their class: 0.1, 0.3, 0.3");
        assert_eq!(outcomes.evaluation.images(), 7);
        assert!((outcomes.evaluation.top1() - 1.0 / 7.0).abs() < 1e-12);
        assert!((outcomes.evaluation.balanced_accuracy() - 1.0 / 9.0).abs() < 1e-12);
    }

    /// Two images at 0.9, one right: |1 - 1.8|. Three at 0.59, two right: |2 - 1.77|.
    #[test]
    fn the_calibration_error_is_that_of_a_hand_count() {
        let (high, low): ([f64; 2], [f64; 2]) = ([0.9, 0.1], [0.59, 0.41]);
        let mut images: Vec<(u32, &[f64])> =
            vec![(0, &high), (1, &high), (0, &low), (0, &low), (1, &low)];
        let found = report(2, &images, &[0]).ece().unwrap();
        assert!((found - (0.8 + 0.23) / 5.0).abs() < 1e-12, "{found}");

        // 0.59 is in (8/15, 9/15], 0.61 in (9/15, 10/15]; 1 is the upper end of the last.
        let (next, sure): ([f64; 2], [f64; 2]) = ([0.61, 0.39], [1.0, 1e-300]);
        images.extend([(1, &next[..]), (0, &sure[..])]);
        let outcomes = report(2, &images, &[]);
        let filled: Vec<(usize, u64)> = outcomes
            .bins()
            .iter()
            .enumerate()
            .filter(|(_, bin)| bin.images > 0)
            .map(|(index, bin)| (index, bin.images))
            .collect();
        assert_eq!(filled, [(8, 3), (9, 1), (13, 2), (14, 1)]);
        let expected = (0.8 + 0.23 + 0.61) / 7.0;
        assert!((outcomes.ece().unwrap() - expected).abs() < 1e-12);
    }

    #[test]
    fn nothing_seen_has_no_error() {
        let outcomes = report(2, &[(0, &[f64::NAN, f64::NAN])], &[0]);
        assert_eq!(outcomes.ece(), None);
        assert!(outcomes.mistakes().is_empty() && outcomes.confused_pairs().is_empty());
    }
}
