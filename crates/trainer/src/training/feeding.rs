//! Whether images come as fast as a device takes them, and what would keep up.

use crate::config::Config;
use crate::machine::allotment::Allotment;
use crate::setup;
use crate::terminal::text::counted;

/// The share of its time that a device may wait for images before anything is said: what a few more workers bring is
/// then worth a change.
const MOST_WAITING: f64 = 0.1;

/// Updates after which it is judged, if no epoch ends before.
const STEPS: u64 = 200;

/// What happened between two lines of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Fed {
    /// Seconds that it took.
    pub(super) seconds: f64,
    /// Seconds of these in which the device had nothing to do for want of images.
    pub(super) waited: f64,
    /// Images that were trained on.
    pub(super) images: u64,
}

/// The same since training began, without the first line, in which the device is set up. It is judged once.
#[derive(Clone, Debug, Default)]
pub(super) struct Feeding {
    lines: u64,
    sum: Fed,
    is_judged: bool,
}

impl Feeding {
    /// Adds what happened since the last line. At the end of an epoch or behind some hundred updates it says what
    /// would keep up, if the loader does not.
    pub(super) fn advice(
        &mut self,
        fed: &Fed,
        config: &Config,
        is_epoch_end: bool,
    ) -> Option<String> {
        self.lines += 1;
        if self.lines > 1 {
            self.sum.seconds += fed.seconds;
            self.sum.waited += fed.waited;
            self.sum.images += fed.images;
        }
        let is_due = is_epoch_end || self.sum.images >= STEPS * config.train.batch_size as u64;
        if self.is_judged || !is_due || self.sum.images == 0 {
            return None;
        }
        self.is_judged = true;
        let workers = setup::load_options(config, config.train.batch_size).workers;
        self.sum.advice(workers, Allotment::of_process().cores)
    }
}

impl Fed {
    fn advice(&self, workers: usize, cores: usize) -> Option<String> {
        let Fed { seconds, waited, images } = *self;
        let share = waited / seconds;
        if workers == 0 || share.is_nan() || share <= MOST_WAITING {
            return None;
        }
        // While a device waits, all that the workers make is taken at once.
        let made = images as f64 / seconds;
        let taken = images as f64 / (seconds - waited).max(1e-3 * seconds);
        let each = made / workers as f64;
        let enough = (taken / each).ceil();
        let remedy = match enough <= cores as f64 {
            true => format!("--workers {enough:.0} would keep up"),
            false => format!(
                "about {enough:.0} workers would keep up, and this process may use {}: images that are packed once, \
                 with `bninception data pack`, need not be decoded again",
                counted(cores as u64, "core")
            ),
        };
        Some(format!(
            "the device waits for images {:.0} % of the time: {} make {made:.0} img/s, {each:.0} each, and it takes \
             {taken:.0}; {remedy}",
            100.0 * share,
            counted(workers as u64, "worker")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, resolve};

    #[test]
    fn what_would_keep_up_follows_from_the_rates() {
        // (seconds, waited, images, workers, cores, part of what is said)
        for (seconds, waited, images, workers, cores, part) in [
            (10.0, 0.0, 1000, 4, 16, None),
            (10.0, 1.0, 1000, 4, 16, None),
            (
                10.0,
                5.0,
                4000,
                4,
                16,
                Some(
                    "50 % of the time: 4 workers make 400 img/s, 100 each, and it takes 800; --workers 8 would",
                ),
            ),
            (10.0, 7.5, 4000, 4, 16, Some("it takes 1600; --workers 16 would keep up")),
            (
                10.0,
                7.6,
                4000,
                4,
                16,
                Some("about 17 workers would keep up, and this process may use 16 cores"),
            ),
            // Nothing but waiting.
            (10.0, 10.0, 4000, 1, 16, Some("data pack")),
            (10.0, 5.0, 4000, 0, 16, None),
            (0.0, 0.0, 0, 4, 16, None),
        ] {
            let said = Fed { seconds, waited, images }.advice(workers, cores);
            match (&said, part) {
                (None, None) => {}
                (Some(said), Some(part)) => assert!(said.contains(part), "{said}"),
                _ => panic!("{seconds} {waited} {workers} {cores}: {said:?}"),
            }
        }
    }

    #[test]
    fn it_is_judged_once_and_not_by_the_first_line() {
        let sets = ["train.batch_size=10".to_owned(), "data.workers=2".to_owned()];
        let config = resolve(&Sources { sets: &sets, ..Sources::default() }).unwrap().config;
        let slow = Fed { seconds: 1.0, waited: 0.9, images: 500 };
        let quick = Fed { waited: 0.0, ..slow };
        // Lines with the ends of epochs, and the line with which something is said.
        for (lines, said_at) in [
            (vec![(slow, true), (slow, true), (slow, true)], Some(1)),
            (vec![(slow, false); 12], Some(4)),
            (vec![(slow, false), (quick, false), (quick, true), (slow, true)], None),
            (vec![(slow, true)], None),
        ] {
            let mut feeding = Feeding::default();
            let said: Vec<usize> = lines
                .iter()
                .enumerate()
                .filter_map(|(index, (fed, end))| feeding.advice(fed, &config, *end).map(|_| index))
                .collect();
            assert_eq!(said, Vec::from_iter(said_at));
        }
    }
}
