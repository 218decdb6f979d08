//! What the checkpoint of a run says of images, for its page. Nothing is written.

use std::path::PathBuf;

use bninception_data::{Crops, Sample};

use crate::comparison::recorded_run::{EvalRow, RecordedRun};
use crate::distributed::Ranks;
use crate::error::Error;
use crate::evaluation::ensemble::{self, Member};
use crate::evaluation::outcomes::{ImageOutcome, Outcomes};
use crate::evaluation::pictures;
use crate::evaluation::statistics::Statistics;
use crate::figure::Thumbnail;

/// The images that a checkpoint is evaluated on.
#[derive(Clone, Debug)]
pub struct JudgedImages {
    /// The folder that they are in.
    pub place: PathBuf,
    /// All of them.
    pub samples: Vec<Sample>,
    /// Whether they are those that the run set aside.
    pub are_of_run: bool,
}

/// How much is looked at.
#[derive(Clone, Copy, Debug)]
pub struct JudgementSize {
    /// Images that are evaluated at most; `None` for all.
    pub images: Option<usize>,
    /// Mistakes that are shown at most.
    pub mistakes: usize,
}

/// A checkpoint, evaluated.
pub struct Judgement {
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// Updates behind its weights.
    pub step: u64,
    /// Whether its weights are the moving average of those of training.
    pub ema: bool,
    /// The statistics of batch norm that were used.
    pub statistics: Option<Statistics>,
    /// Rows and columns of the network's input.
    pub image_size: usize,
    /// What computed it.
    pub engine: String,
    /// The folder of the images.
    pub place: PathBuf,
    /// Images that are there, of which those in `outcomes` were evaluated.
    pub n_there: usize,
    /// Whether they are those that the run set aside.
    pub are_of_run: bool,
    /// What was found.
    pub outcomes: Outcomes,
    /// The worst mistakes, the worst first.
    pub mistakes: Vec<Mistake>,
}

/// An image that was taken for another class.
#[derive(Clone, Debug)]
pub struct Mistake {
    /// What was found for it.
    pub outcome: ImageOutcome,
    /// The image as the network sees it, and where in it the network sees the class that it was taken for;
    /// `None` if it can no longer be read.
    pub pictures: Option<[Thumbnail; 2]>,
}

/// Evaluates a checkpoint on the centre crop of images.
///
/// # Errors
/// No image at all, an executor or loader that fails, or a signal that asks to stop.
pub fn judge(
    member: Member,
    images: JudgedImages,
    size: JudgementSize,
) -> Result<Judgement, Error> {
    let JudgedImages { place, samples, are_of_run } = images;
    let n_there = samples.len();
    let samples = match size.images {
        Some(most) if most < n_there => evenly(samples, most),
        _ => samples,
    };
    let classes = member.classes().to_vec();
    let models = std::slice::from_ref(&member);
    let outcomes = ensemble::evaluate(models, &classes, samples, Crops::One, &mut Ranks::alone())?;
    let worst = outcomes.mistakes();
    let worst = &worst[..worst.len().min(size.mistakes)];
    let pairs = pictures::pairs(&outcomes, worst, &member)?;
    let mistake = |(&outcome, pictures): (&&ImageOutcome, Option<[Thumbnail; 2]>)| Mistake {
        outcome: outcome.clone(),
        pictures,
    };
    let mistakes = worst.iter().zip(pairs).map(mistake).collect();
    let (executor, _) = member.explainer()?;
    Ok(Judgement {
        engine: executor.describe(),
        step: member.step,
        ema: member.ema,
        statistics: member.statistics,
        image_size: member.preprocessing.image_size,
        checkpoint: member.path,
        place,
        n_there,
        are_of_run,
        outcomes,
        mistakes,
    })
}

impl Judgement {
    /// Images that were evaluated, those that could not be read included.
    pub fn n_images(&self) -> u64 {
        self.outcomes.evaluation.images()
    }

    /// Whether every image that is there was evaluated.
    pub fn is_of_all(&self) -> bool {
        self.n_images() == self.n_there as u64
    }

    /// What the run's record says of the same weights on the same images.
    pub fn recorded<'a>(&self, run: &'a RecordedRun) -> Option<&'a EvalRow> {
        let is_same = self.are_of_run && self.is_of_all();
        let row = run.evaluations.iter().find(|row| row.step == self.step)?;
        (is_same && row.images == self.n_images()).then_some(row)
    }

    /// The name of the file of its weights.
    pub fn file_name(&self) -> String {
        let name = self.checkpoint.file_name();
        name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }
}

/// `n` samples of all, spread evenly over the classes and over the list of each: always the same ones.
fn evenly(mut samples: Vec<Sample>, n: usize) -> Vec<Sample> {
    samples.sort_by_key(|sample| sample.label);
    let all = samples.len().max(1);
    let numbered = samples.into_iter().enumerate();
    let chosen = numbered.filter(|(place, _)| (place + 1) * n / all > place * n / all);
    chosen.map(|(_, sample)| sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_over_the_classes() {
        let samples: Vec<Sample> = (0..90)
            .map(|i| Sample { path: PathBuf::from(format!("{i}")), label: u32::from(i % 9 == 0) })
            .collect();
        let count = |chosen: &[Sample], label| chosen.iter().filter(|s| s.label == label).count();
        for (n, of_first, of_second) in [(90, 80, 10), (45, 40, 5), (9, 8, 1), (1, 0, 1), (0, 0, 0)]
        {
            let chosen = evenly(samples.clone(), n);
            assert_eq!((count(&chosen, 0), count(&chosen, 1)), (of_first, of_second), "{n}");
            assert_eq!(chosen, evenly(samples.clone(), n));
        }
        assert!(evenly(Vec::new(), 3).is_empty());
    }
}
