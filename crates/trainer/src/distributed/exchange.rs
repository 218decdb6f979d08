//! The sums of an update over ranks, in buckets: while the backward pass goes on, the gradients of the last layers
//! travel already.

use std::ops::Range;

use bninception_collective::{self as collective, BUCKET};
use bninception_engine::{EngineError, Exchange, Sums};

use crate::config::Reduce;
use crate::distributed::error::RanksError;
use crate::distributed::ranks::Ranks;
use crate::distributed::report::Report;

/// The gradients of the update under way, cut into buckets. The first bucket has the last values, because the
/// backward pass begins with the last layer.
#[derive(Debug)]
pub struct Buckets {
    /// Gradients of the network.
    n: usize,
    reduce: Reduce,
    /// Values that are not there yet, of each bucket; empty between two updates.
    missing: Vec<usize>,
    /// Buckets filled so far, and the memory of later ones.
    values: Vec<Vec<f32>>,
    /// Buckets whose sum has begun.
    started: usize,
    /// Why one could not begin, for [`Exchange::sum`] to tell.
    failed: Option<RanksError>,
}

/// Where bucket `index` of `n` values lies.
fn range_of(index: usize, n: usize) -> Range<usize> {
    let end = n - index * BUCKET;
    end.saturating_sub(BUCKET)..end
}

impl Buckets {
    /// For `n` gradients that are added as `reduce` says.
    pub fn new(n: usize, reduce: Reduce) -> Buckets {
        let (missing, values) = (Vec::new(), Vec::new());
        Buckets { n, reduce, missing, values, started: 0, failed: None }
    }

    fn begin(&mut self) {
        if !self.missing.is_empty() {
            return;
        }
        let n = self.n;
        let n_buckets = n.div_ceil(BUCKET);
        self.missing.extend((0..n_buckets).map(|index| range_of(index, n).len()));
        self.values.resize_with(n_buckets, Vec::new);
        for (values, missing) in self.values.iter_mut().zip(&self.missing) {
            values.resize(*missing, 0.0);
        }
    }

    /// Takes over the values of `range`.
    fn fill(&mut self, range: Range<usize>, values: &[f32]) {
        for index in 0..self.missing.len() {
            let bucket = range_of(index, self.n);
            let (start, end) = (range.start.max(bucket.start), range.end.min(bucket.end));
            if start < end {
                let to = &mut self.values[index][start - bucket.start..end - bucket.start];
                to.copy_from_slice(&values[start - range.start..end - range.start]);
                self.missing[index] -= end - start;
            }
        }
    }

    /// The next bucket, if it is full.
    fn next_full(&mut self) -> Option<Vec<f32>> {
        let is_full = *self.missing.get(self.started)? == 0;
        is_full.then(|| {
            self.started += 1;
            std::mem::take(&mut self.values[self.started - 1])
        })
    }

    fn end(&mut self) {
        self.missing.clear();
        self.started = 0;
    }
}

/// The exchange of an update.
#[derive(Debug)]
pub struct StepExchange<'a> {
    ranks: &'a mut Ranks,
    buckets: &'a mut Buckets,
    own: Report,
    all: Vec<Report>,
}

impl<'a> StepExchange<'a> {
    /// An exchange over `ranks` through `buckets`, which live longer; `own` is what this rank has to say.
    pub fn new(ranks: &'a mut Ranks, buckets: &'a mut Buckets, own: Report) -> StepExchange<'a> {
        StepExchange { ranks, buckets, own, all: Vec::new() }
    }

    /// What all ranks said with their sums, in their order.
    pub fn into_reports(self) -> Vec<Report> {
        self.all
    }

    fn start_full(&mut self) -> Result<(), RanksError> {
        let reduce = match self.buckets.reduce {
            Reduce::Ordered => collective::Reduce::Ordered,
            Reduce::Fast => collective::Reduce::Fast,
        };
        while let Some(values) = self.buckets.next_full() {
            self.ranks.collective().start_sum(values, reduce)?;
        }
        Ok(self.ranks.collective().advance()?)
    }

    fn sum_all(&mut self, sums: Sums<'_>) -> Result<(), RanksError> {
        let Sums { gradients, statistics, micro_batches, loss, metrics } = sums;
        let n = gradients.len();
        self.buckets.begin();
        // What the backward pass has not handed over, such as all of a rank without a micro-batch.
        for index in self.buckets.started..self.buckets.missing.len() {
            self.buckets.values[index].copy_from_slice(&gradients[range_of(index, n)]);
            self.buckets.missing[index] = 0;
            self.start_full()?;
        }
        self.ranks.collective().start_sum(statistics.to_vec(), collective::Reduce::Ordered)?;
        let own = Report {
            micro_batches: *micro_batches,
            loss: *loss,
            metrics: *metrics,
            ..std::mem::take(&mut self.own)
        };
        self.all = self.ranks.gather(own)?;
        for index in 0..self.buckets.started {
            let values = self.ranks.collective().finish_sum()?;
            gradients[range_of(index, n)].copy_from_slice(&values);
            self.buckets.values[index] = values;
        }
        statistics.copy_from_slice(&self.ranks.collective().finish_sum()?);
        self.buckets.end();
        let (first, others) = self.all.split_first().ok_or_else(no_report)?;
        (*micro_batches, *loss, *metrics) = (first.micro_batches, first.loss, first.metrics);
        for report in others {
            *micro_batches += report.micro_batches;
            *loss += report.loss;
            metrics.merge(&report.metrics);
        }
        Ok(())
    }
}

fn no_report() -> RanksError {
    RanksError::Message("no rank has said anything".to_owned())
}

impl Exchange for StepExchange<'_> {
    fn has_others(&self) -> bool {
        self.ranks.are_many()
    }

    fn ready(&mut self, range: Range<usize>, gradients: &[f32]) {
        if !self.ranks.are_many() || self.buckets.failed.is_some() {
            return;
        }
        self.buckets.begin();
        self.buckets.fill(range, gradients);
        self.buckets.failed = self.start_full().err();
    }

    fn sum(&mut self, sums: Sums<'_>) -> Result<(), EngineError> {
        if !self.ranks.are_many() {
            self.all = vec![std::mem::take(&mut self.own)];
            return Ok(());
        }
        let failed = self.buckets.failed.take();
        let outcome = failed.map_or(Ok(()), Err).and_then(|()| self.sum_all(sums));
        outcome.map_err(|error| EngineError::Exchange(Box::new(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_all_values_from_the_last_on() {
        for n in [1, BUCKET - 1, BUCKET, BUCKET + 1, 3 * BUCKET + 5] {
            let ranges: Vec<_> = (0..n.div_ceil(BUCKET)).map(|index| range_of(index, n)).collect();
            assert_eq!(ranges[0].end, n);
            assert!(ranges.windows(2).all(|pair| pair[1].end == pair[0].start), "{n}");
            assert_eq!(ranges.last().unwrap().start, 0);
        }
    }

    #[test]
    fn a_bucket_is_sent_once_it_is_full_and_in_its_turn() {
        let n = 2 * BUCKET + 10;
        let values: Vec<f32> = (0..n).map(|at| at as f32).collect();
        let mut buckets = Buckets::new(n, Reduce::Ordered);
        buckets.begin();
        let fill = |buckets: &mut Buckets, range: Range<usize>| {
            buckets.fill(range.clone(), &values[range]);
        };
        // The first values fill the last bucket, which waits for its turn.
        fill(&mut buckets, 0..10);
        assert!(buckets.next_full().is_none());
        fill(&mut buckets, BUCKET + 5..n);
        let first = buckets.next_full().unwrap();
        assert_eq!((first.len(), first[0]), (BUCKET, (BUCKET + 10) as f32));
        assert!(buckets.next_full().is_none());
        fill(&mut buckets, 10..BUCKET + 5);
        assert_eq!(buckets.next_full().unwrap()[0], 10.0);
        assert_eq!(buckets.next_full().unwrap(), (0..10).map(|at| at as f32).collect::<Vec<_>>());
        assert!(buckets.next_full().is_none());
    }
}
