//! What the last updates gave, and how the loss has gone, for the line beside the bar.

use std::collections::VecDeque;

use bninception_engine::metrics::Metrics;

/// Updates over which loss and top-1 are taken.
const WINDOW: usize = 50;

/// Parts of the curve, at the most.
const PARTS: usize = 12;

/// Loss and top-1 over the last [`WINDOW`] updates, and the curve of the loss since this process began to train.
#[derive(Debug)]
pub(super) struct RecentUpdates {
    window: VecDeque<Metrics>,
    /// The mean losses of equal parts of the updates; each has `per_part` of them.
    parts: Vec<f64>,
    per_part: usize,
    /// The losses of the part that is not full yet: how many, and their sum.
    open: (usize, f64),
}

impl Default for RecentUpdates {
    fn default() -> RecentUpdates {
        RecentUpdates { window: VecDeque::new(), parts: Vec::new(), per_part: 1, open: (0, 0.0) }
    }
}

impl RecentUpdates {
    /// Adds an update. One without images changes nothing.
    pub(super) fn push(&mut self, update: &Metrics) {
        let Some(loss) = update.loss() else { return };
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(*update);
        self.open = (self.open.0 + 1, self.open.1 + loss);
        if self.open.0 < self.per_part {
            return;
        }
        let (n, sum) = std::mem::take(&mut self.open);
        self.parts.push(sum / n as f64);
        if self.parts.len() > PARTS {
            // The odd one is the first of a part twice as long.
            let odd = self.parts.pop().map_or((0, 0.0), |mean| (n, mean * n as f64));
            self.parts = self.parts.chunks_exact(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
            self.per_part *= 2;
            self.open = odd;
        }
    }

    /// Mean loss and top-1 of the images of the last updates; `None` before the first.
    pub(super) fn loss_and_top1(&self) -> Option<(f64, f64)> {
        let mut all = Metrics::default();
        self.window.iter().for_each(|update| all.merge(update));
        all.loss().zip(all.top1())
    }

    /// The mean losses of equal parts of the updates, the oldest first; at most [`PARTS`].
    pub(super) fn curve(&self) -> &[f64] {
        &self.parts
    }
}

#[cfg(test)]
mod tests {
    use bninception_engine::metrics::Score;

    use super::*;

    fn update(loss: f64, right: usize, images: usize) -> Metrics {
        let mut metrics = Metrics::default();
        for image in 0..images {
            metrics.add(&Score { rank: Some(usize::from(image >= right)), loss });
        }
        metrics
    }

    #[test]
    fn old_updates_leave_the_window() {
        // (updates that are added, loss and top-1 over the window)
        type Row<'a> = (&'a [(usize, f64, usize)], Option<(f64, f64)>);
        let table: [Row<'_>; 5] = [
            (&[], None),
            (&[(1, 2.0, 1)], Some((2.0, 0.25))),
            (&[(1, 2.0, 0), (1, 1.0, 4)], Some((1.5, 0.5))),
            (&[(50, 2.0, 0), (25, 1.0, 4)], Some((1.5, 0.5))),
            (&[(500, 2.0, 0), (50, 1.0, 4)], Some((1.0, 1.0))),
        ];
        for (updates, expected) in table {
            let mut recent = RecentUpdates::default();
            for &(n, loss, right) in updates {
                (0..n).for_each(|_| recent.push(&update(loss, right, 4)));
            }
            assert_eq!(recent.loss_and_top1(), expected, "{updates:?}");
        }
        let mut recent = RecentUpdates::default();
        recent.push(&Metrics::default());
        assert_eq!((recent.loss_and_top1(), recent.curve().len()), (None, 0));
    }

    #[test]
    fn an_update_weighs_as_many_images_as_it_has() {
        let mut recent = RecentUpdates::default();
        recent.push(&update(1.0, 0, 1));
        recent.push(&update(2.0, 3, 3));
        assert_eq!(recent.loss_and_top1(), Some((1.75, 0.75)));
    }

    #[test]
    fn the_curve_covers_all_updates_in_equal_parts() {
        // (updates, whose losses are their numbers; parts; updates of a part)
        for (n, parts, per_part) in [
            (0, 0, 1),
            (12, 12, 1),
            (13, 6, 2),
            (14, 7, 2),
            (25, 12, 2),
            (26, 6, 4),
            (1000, 7, 128),
        ] {
            let mut recent = RecentUpdates::default();
            (0..n).for_each(|number| recent.push(&update(number as f64, 0, 1)));
            let mean = |part: usize| (part * per_part) as f64 + (per_part - 1) as f64 / 2.0;
            let expected: Vec<f64> = (0..parts).map(mean).collect();
            assert_eq!(recent.curve(), expected, "{n} updates");
            assert_eq!(recent.per_part, per_part);
        }
    }
}
