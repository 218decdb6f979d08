//! The learning rate over time.

use std::f64::consts::PI;

use crate::config::{ScaleLr, ScheduleConfig, ScheduleKind};

/// A step and the length of its run, counted in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepOf {
    /// Updates done before it.
    pub step: u64,
    /// Those of the whole run.
    pub total_steps: u64,
}

/// Learning rate of one update.
///
/// `base_lr` is `optimizer.lr`; `steps_per_epoch` is above 0. What goes by epochs looks at `by_epochs`,
/// and what goes by the length of the run, the cosine and a `warmup_fraction`, at `by_length`. They are
/// the same unless the run's length is given in steps and its batch size was changed.
///
/// With e = step / `steps_per_epoch`, T = `total_steps` and w = `warmup_epochs` * `steps_per_epoch` or
/// `warmup_fraction` * T, rounded:
/// - warm-up, step < w: `base_lr` * (step + 1) / w, so that the first update moves already;
/// - exponential: max(`min_lr`, `base_lr` * decay^(e / `decay_epochs`)), the exponent rounded down
///   with `staircase`. Epochs count from the start of training, warm-up included, as the paper's do;
/// - cosine (Loshchilov & Hutter 2016, <https://arxiv.org/abs/1608.03983>, without restarts):
///   `min_lr` + (`base_lr` - `min_lr`) * (1 + cos(pi * (step - w) / (T - w))) / 2, and `min_lr` from
///   step T on;
/// - constant: `base_lr`.
pub fn learning_rate(
    schedule: &ScheduleConfig,
    base_lr: f64,
    steps_per_epoch: u64,
    by_epochs: StepOf,
    by_length: StepOf,
) -> f64 {
    let at = match schedule.follows_length() {
        true => by_length,
        false => by_epochs,
    };
    let warmup_steps = match schedule.warmup_fraction > 0.0 {
        true => (schedule.warmup_fraction * at.total_steps as f64).round(),
        false => (schedule.warmup_epochs * steps_per_epoch as f64).round(),
    };
    let step = at.step as f64;
    if step < warmup_steps {
        return base_lr * (step + 1.0) / warmup_steps;
    }
    match schedule.kind {
        ScheduleKind::Exponential => {
            let epoch = by_epochs.step as f64 / steps_per_epoch as f64;
            let mut decays = epoch / schedule.decay_epochs;
            if schedule.staircase {
                // A fall that is due exactly at this step must not wait for the next one because a
                // fraction such as 8/6 epochs is rounded.
                decays = (decays + 1e-9).floor();
            }
            (base_lr * schedule.decay.powf(decays)).max(schedule.min_lr)
        }
        ScheduleKind::Cosine => {
            let length = at.total_steps as f64 - warmup_steps;
            let progress = if length > 0.0 { (step - warmup_steps) / length } else { 1.0 };
            let height = (1.0 + (PI * progress.min(1.0)).cos()) / 2.0;
            schedule.min_lr + (base_lr - schedule.min_lr) * height
        }
        ScheduleKind::Constant => base_lr,
    }
}

/// Epochs over which the rate of several processes rises (Goyal et al. 2017, section 2.2).
pub const RISE_EPOCHS: f64 = 5.0;

/// The longest rise, as a fraction of the run. Our choice: theirs is 5 of 90 epochs.
const MOST_OF_RUN: f64 = 0.2;

/// What `ranks` processes make of the learning rate of one update (Goyal et al. 2017, sections 2.1 and 2.2): a rise
/// from 1 to their number over 5 epochs or the warm-up, if that is longer, but at most a fifth of the run.
pub fn scale_of_ranks(
    schedule: &ScheduleConfig,
    ranks: usize,
    steps_per_epoch: u64,
    at: StepOf,
) -> f64 {
    if schedule.scale_lr == ScaleLr::None || ranks == 1 {
        return 1.0;
    }
    let warmup = (schedule.warmup_epochs * steps_per_epoch as f64)
        .max(schedule.warmup_fraction * at.total_steps as f64);
    let rise = RISE_EPOCHS * steps_per_epoch as f64;
    let rise = warmup.max(rise.min(MOST_OF_RUN * at.total_steps as f64)).round();
    let share = if rise > 0.0 { ((at.step as f64 + 1.0) / rise).min(1.0) } else { 1.0 };
    1.0 + (ranks as f64 - 1.0) * share
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSTANT: ScheduleConfig = ScheduleConfig {
        kind: ScheduleKind::Constant,
        decay: 0.96,
        decay_epochs: 8.0,
        staircase: true,
        warmup_epochs: 0.0,
        warmup_fraction: 0.0,
        min_lr: 0.0,
        scale_lr: ScaleLr::None,
    };
    const EXPONENTIAL: ScheduleConfig =
        ScheduleConfig { kind: ScheduleKind::Exponential, ..CONSTANT };
    const COSINE: ScheduleConfig = ScheduleConfig { kind: ScheduleKind::Cosine, ..CONSTANT };

    /// Compares with `base_lr` = 1, 63 steps an epoch (a number that no fraction suits), 6,300 steps.
    #[track_caller]
    fn check(schedule: &ScheduleConfig, table: &[(u64, f64)]) {
        for &(step, expected) in table {
            let lr = rate(schedule, step);
            assert!((lr - expected).abs() < 1e-12, "step {step}: {lr}, expected {expected}");
        }
    }

    fn rate(schedule: &ScheduleConfig, step: u64) -> f64 {
        let at = StepOf { step, total_steps: 6300 };
        learning_rate(schedule, 1.0, 63, at, at)
    }

    #[test]
    fn several_processes_rise_to_their_number() {
        let linear = ScheduleConfig { scale_lr: ScaleLr::Linear, ..CONSTANT };
        let scale = |schedule: &ScheduleConfig, ranks, step, total_steps| {
            scale_of_ranks(schedule, ranks, 10, StepOf { step, total_steps })
        };
        let long = ScheduleConfig { warmup_epochs: 8.0, ..linear.clone() };
        for (schedule, ranks, step, total_steps, expected) in [
            (&CONSTANT, 8, 100, 900, 1.0),
            (&linear, 1, 100, 900, 1.0),
            // 5 epochs of 10 steps.
            (&linear, 5, 0, 900, 1.0 + 4.0 / 50.0),
            (&linear, 5, 24, 900, 3.0),
            (&linear, 5, 49, 900, 5.0),
            (&linear, 5, 899, 900, 5.0),
            // A short run: a fifth of it.
            (&linear, 5, 1, 20, 3.0),
            (&linear, 5, 3, 20, 5.0),
            (&long, 5, 39, 900, 3.0),
            (&long, 5, 79, 900, 5.0),
        ] {
            let found = scale(schedule, ranks, step, total_steps);
            assert!((found - expected).abs() < 1e-12, "{ranks}, {step} of {total_steps}: {found}");
        }
    }

    #[test]
    fn constant_stays() {
        check(&CONSTANT, &[(0, 1.0), (6299, 1.0), (1_000_000, 1.0)]);
    }

    #[test]
    fn staircase_falls_every_8_epochs() {
        check(
            &EXPONENTIAL,
            &[
                (0, 1.0),
                (63 * 8 - 1, 1.0), // the last step of the eighth epoch
                (63 * 8, 0.96),    // the first of the ninth
                (63 * 16 - 1, 0.96),
                (63 * 16, 0.9216),   // 0.96^2
                (63 * 24, 0.884736), // 0.96^3
            ],
        );
    }

    #[test]
    fn six_times_faster_falls_on_the_exact_step() {
        // 8/6 epochs are 84 steps.
        let schedule = ScheduleConfig { decay_epochs: 1.3333333333333333, ..EXPONENTIAL };
        for decays in 0..1000 {
            let factor = 0.96_f64.powi(decays);
            let step = 84 * decays as u64;
            check(&schedule, &[(step, factor), (step + 83, factor)]);
        }
        // In 8 epochs it falls as far as the slow schedule in 48.
        let slow = rate(&EXPONENTIAL, 48 * 63);
        check(&schedule, &[(8 * 63, slow)]);
    }

    #[test]
    fn smooth_decay_moves_every_step() {
        let schedule = ScheduleConfig { staircase: false, ..EXPONENTIAL };
        check(
            &schedule,
            &[
                (0, 1.0),
                (63 * 4, 0.96_f64.sqrt()), // half of the 8 epochs
                (63 * 8, 0.96),
            ],
        );
    }

    #[test]
    fn exponential_stops_at_min_lr() {
        let schedule = ScheduleConfig { decay: 0.5, decay_epochs: 1.0, min_lr: 0.2, ..EXPONENTIAL };
        check(
            &schedule,
            &[
                (63, 0.5),
                (126, 0.25),
                (189, 0.2), // 0.125 without the floor
            ],
        );
    }

    #[test]
    fn cosine_ends_at_min_lr() {
        let schedule = ScheduleConfig { min_lr: 0.1, ..COSINE };
        check(
            &schedule,
            &[
                (0, 1.0),
                (2100, 0.1 + 0.9 * 0.75), // a third of the way: cos 60 degrees = 1/2
                (3150, 0.55),             // halfway: the middle of 1 and 0.1
                (4200, 0.1 + 0.9 * 0.25), // two thirds
                (6300, 0.1),
                (9000, 0.1), // past the end
            ],
        );
    }

    #[test]
    fn warmup_rises_to_the_base() {
        let warmup_epochs = 2.0; // 126 steps
        let rise = [(0, 1.0 / 126.0), (62, 0.5), (125, 1.0)];
        for schedule in [&CONSTANT, &EXPONENTIAL, &COSINE] {
            check(&ScheduleConfig { warmup_epochs, ..schedule.clone() }, &rise);
        }
        // The cosine starts behind the warm-up: at 3,213 it is halfway from 126 to 6,300.
        check(&ScheduleConfig { warmup_epochs, ..COSINE }, &[(126, 1.0), (3213, 0.5), (6300, 0.0)]);
        // The decay counts epochs from the start of training.
        check(&ScheduleConfig { warmup_epochs, ..EXPONENTIAL }, &[(126, 1.0), (63 * 8, 0.96)]);
    }

    #[test]
    fn a_warmup_as_long_as_the_run_ends_at_the_base() {
        let schedule = ScheduleConfig { warmup_epochs: 100.0, ..COSINE };
        check(&schedule, &[(6299, 1.0), (6300, 0.0)]);
    }

    #[test]
    fn a_warmup_may_be_a_fraction_of_the_run() {
        // 2 % of 6,300 steps are 126, as 2 epochs are.
        for schedule in [&CONSTANT, &EXPONENTIAL, &COSINE] {
            let by_epochs = ScheduleConfig { warmup_epochs: 2.0, ..schedule.clone() };
            let by_length = ScheduleConfig { warmup_fraction: 0.02, ..schedule.clone() };
            for step in [0, 62, 125, 126, 504, 3213, 6299, 6300] {
                assert_eq!(rate(&by_length, step), rate(&by_epochs, step), "step {step}");
            }
        }
        // (fraction, step, learning rate) of a constant one.
        for (warmup_fraction, step, expected) in [
            (0.5, 0, 1.0 / 3150.0),
            (0.5, 3149, 1.0),
            (0.5, 6299, 1.0),
            (1.0, 3149, 0.5),
            (1.0, 6299, 1.0),
            (1e-9, 0, 1.0), // no whole step
        ] {
            check(&ScheduleConfig { warmup_fraction, ..CONSTANT }, &[(step, expected)]);
        }
        // Behind a warm-up over the whole run nothing is left for a cosine.
        check(&ScheduleConfig { warmup_fraction: 1.0, ..COSINE }, &[(6299, 1.0), (6300, 0.0)]);
        // A run given in steps whose batches were halved: the warm-up goes by its steps, the decay by
        // its epochs.
        let schedule = ScheduleConfig { warmup_fraction: 0.1, ..EXPONENTIAL };
        let lr = |step| {
            let by_epochs = StepOf { step: step + 504, total_steps: 1504 };
            learning_rate(&schedule, 1.0, 63, by_epochs, StepOf { step, total_steps: 1000 })
        };
        assert_eq!((lr(49), lr(99), lr(100)), (0.5, 1.0, 0.96));
    }
}
