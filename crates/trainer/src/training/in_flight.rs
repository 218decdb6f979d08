//! Updates that a device was given and that are not known to be over.

use std::collections::VecDeque;

use bninception_engine::{Fate, Finished};

/// Updates that were started, the oldest first, with what it takes to make each again.
#[derive(Debug)]
pub(super) struct InFlight<T> {
    started: VecDeque<T>,
}

/// An update that is over.
#[derive(Debug)]
pub(super) enum Over<T> {
    /// It was made.
    Done(T, Finished),
    /// It was made, and a weight or a statistic is not finite behind it.
    Broken(T, Finished),
    /// It changed nothing, because a number in it or in one before was not finite. Made again in order, the first of
    /// these shows which number.
    Unmade(T),
}

impl<T> Default for InFlight<T> {
    fn default() -> InFlight<T> {
        InFlight { started: VecDeque::new() }
    }
}

impl<T> InFlight<T> {
    /// Whether all that was started is over.
    pub(super) fn is_empty(&self) -> bool {
        self.started.is_empty()
    }

    /// Adds one that was started.
    pub(super) fn push(&mut self, started: T) {
        self.started.push_back(started);
    }

    /// Takes out those that are over, the oldest first, by what the device tells of them.
    pub(super) fn over(&mut self, finished: Vec<Finished>) -> Vec<Over<T>> {
        let pairs = finished.into_iter().map_while(|told| Some((self.started.pop_front()?, told)));
        pairs
            .map(|(started, told)| match told.fate {
                Fate::Done => Over::Done(started, told),
                Fate::Broken => Over::Broken(started, told),
                Fate::Refused | Fate::Skipped => Over::Unmade(started),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use bninception_engine::metrics::Metrics;
    use bninception_engine::{StepResult, UpdateResult};

    use super::*;

    fn told(fate: Fate) -> Finished {
        Finished {
            step: StepResult { micro_batches: 1, loss: 1.0, metrics: Metrics::default() },
            update: UpdateResult { is_finite: fate == Fate::Done, gradient_norm: None },
            fate,
        }
    }

    #[test]
    fn what_is_over_leaves_in_order() {
        use Fate::{Broken, Done, Refused, Skipped};
        // (started, told in turns, what comes out in turns, left)
        type Row<'a> = (usize, &'a [&'a [Fate]], &'a [&'a str], usize);
        let table: [Row<'_>; 7] = [
            (0, &[&[]], &[""], 0),
            (3, &[&[]], &[""], 3),
            (3, &[&[Done], &[], &[Done, Done]], &["d0", "", "d1 d2"], 0),
            (3, &[&[Done, Refused, Skipped]], &["d0 u1 u2"], 0),
            (3, &[&[Refused], &[Skipped, Skipped]], &["u0", "u1 u2"], 0),
            (3, &[&[Done, Broken, Skipped]], &["d0 b1 u2"], 0),
            // More than were started are nobody's.
            (1, &[&[Done, Done]], &["d0"], 0),
        ];
        for (started, turns, expected, left) in table {
            let mut in_flight = InFlight::default();
            (0..started).for_each(|number| in_flight.push(number));
            for (fates, expected) in turns.iter().zip(expected) {
                let over = in_flight.over(fates.iter().map(|&fate| told(fate)).collect());
                let names = over.iter().map(|over| match over {
                    Over::Done(number, _) => format!("d{number}"),
                    Over::Broken(number, _) => format!("b{number}"),
                    Over::Unmade(number) => format!("u{number}"),
                });
                assert_eq!(names.collect::<Vec<_>>().join(" "), *expected, "{turns:?}");
            }
            assert_eq!((in_flight.started.len(), in_flight.is_empty()), (left, left == 0));
        }
    }
}
