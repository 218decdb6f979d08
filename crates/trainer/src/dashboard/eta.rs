//! When a run ends, from how far it is and how fast it goes.

/// How far a run is and what is left costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Updates done.
    pub step: u64,
    /// Updates of the whole run.
    pub steps: u64,
    /// Updates of an epoch; 0 where that is not known.
    pub steps_per_epoch: u64,
    /// Passes over the training images done.
    pub epoch: f64,
    /// Seconds of an update.
    pub step_seconds: f64,
    /// Seconds of the evaluation behind an epoch; 0 without validation images.
    pub evaluation_seconds: f64,
}

/// Seconds from that step to the end of the run, evaluations included; `None` without a finite, positive time of
/// an update. A run that stops early ends before.
pub fn seconds_left(pace: &Pace) -> Option<f64> {
    let Pace { step, steps, steps_per_epoch, epoch, step_seconds, evaluation_seconds } = *pace;
    if !(step_seconds.is_finite() && step_seconds > 0.0) {
        return None;
    }
    let left = steps.saturating_sub(step) as f64;
    let mut seconds = left * step_seconds;
    if steps_per_epoch > 0 && epoch.is_finite() && evaluation_seconds.is_finite() {
        // The end of the run is that of its last epoch, also where it lies inside one.
        let last = (epoch + left / steps_per_epoch as f64 - ROUNDING).ceil();
        let evaluations = (last - (epoch + ROUNDING).floor()).max(0.0);
        seconds += evaluations * evaluation_seconds;
    }
    Some(seconds)
}

/// A fraction of an epoch that rounding may make of nothing.
const ROUNDING: f64 = 1e-6;

/// Seconds of an update, from lines of the log: each the updates done and the images per second since the line
/// before. The mean over the updates between the lines; `None` if no two lines tell.
pub fn step_seconds(lines: &[(u64, f64)], images_per_update: usize) -> Option<f64> {
    let (mut seconds, mut steps) = (0.0, 0);
    for pair in lines.windows(2) {
        let [(before, _), (step, speed)] = *pair else { continue };
        if step > before && speed.is_finite() && speed > 0.0 {
            let n = step - before;
            seconds += (n as f64) * images_per_update as f64 / speed;
            steps += n;
        }
    }
    if steps == 0 {
        // One line tells its speed, though not how many updates it stands for.
        let &(_, speed) = lines.last()?;
        return (speed.is_finite() && speed > 0.0).then(|| images_per_update as f64 / speed);
    }
    Some(seconds / steps as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_updates_and_evaluations() {
        let pace = Pace {
            step: 0,
            steps: 100,
            steps_per_epoch: 10,
            epoch: 0.0,
            step_seconds: 2.0,
            evaluation_seconds: 5.0,
        };
        let table = [
            // Ten epochs are ahead, each with its evaluation.
            (pace, Some(250.0)),
            (Pace { step: 95, epoch: 9.5, ..pace }, Some(15.0)),
            // Behind the last update its evaluation is still to come, or done: nobody can tell.
            (Pace { step: 100, epoch: 10.0, ..pace }, Some(0.0)),
            // A run that ends inside an epoch is evaluated there.
            (Pace { step: 10, steps: 15, epoch: 1.0, ..pace }, Some(15.0)),
            (Pace { step: 12, steps: 15, epoch: 1.2, ..pace }, Some(11.0)),
            // 0.1 + 0.2 is not 0.3.
            (Pace { step: 3, steps: 10, epoch: 0.1 + 0.2, ..pace }, Some(19.0)),
            (Pace { evaluation_seconds: 0.0, ..pace }, Some(200.0)),
            (Pace { steps_per_epoch: 0, ..pace }, Some(200.0)),
            (Pace { epoch: f64::NAN, ..pace }, Some(200.0)),
            // More is done than the checkpoint knew of.
            (Pace { step: 120, epoch: 12.0, ..pace }, Some(0.0)),
            (Pace { step_seconds: f64::NAN, ..pace }, None),
            (Pace { step_seconds: 0.0, ..pace }, None),
        ];
        for (pace, seconds) in table {
            assert_eq!(seconds_left(&pace), seconds, "{pace:?}");
        }
    }

    #[test]
    fn the_time_of_an_update_is_the_mean_over_updates() {
        type Case<'a> = (&'a [(u64, f64)], Option<f64>);
        let table: [Case<'_>; 7] = [
            (&[], None),
            // 32 images in an update.
            (&[(5, 64.0)], Some(0.5)),
            (&[(5, 0.0)], None),
            (&[(5, 1.0), (15, 64.0)], Some(0.5)),
            // Ten updates of half a second, thirty of a second.
            (&[(0, 1.0), (10, 64.0), (40, 32.0)], Some(0.875)),
            (&[(0, 1.0), (10, f64::NAN), (40, 32.0)], Some(1.0)),
            // A run that went back to a checkpoint.
            (&[(30, 1.0), (10, 1.0), (20, 64.0)], Some(0.5)),
        ];
        for (lines, seconds) in table {
            assert_eq!(step_seconds(lines, 32), seconds, "{lines:?}");
        }
    }
}
