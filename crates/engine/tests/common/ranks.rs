//! Ranks of one process, one after the other or as threads.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // helpers of tests; each test uses some of them

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bninception_engine::{EngineError, Exchange, NormExchange, StepResult, Sums};

/// What one rank hands to the others.
#[derive(Clone)]
pub struct Sent {
    pub gradients: Vec<f32>,
    pub statistics: Vec<f32>,
    pub result: StepResult,
}

/// A rank that keeps its sums.
#[derive(Default)]
pub struct Sends(pub Option<Sent>);

impl Exchange for Sends {
    fn ready(&mut self, _: Range<usize>, _: &[f32]) {}

    fn sum(&mut self, sums: Sums<'_>) -> Result<(), EngineError> {
        let (micro_batches, loss, metrics) = (*sums.micro_batches, *sums.loss, *sums.metrics);
        self.0 = Some(Sent {
            gradients: sums.gradients.to_vec(),
            statistics: sums.statistics.to_vec(),
            result: StepResult { micro_batches, loss, metrics },
        });
        Ok(())
    }
}

/// A rank that has got the sums of all ranks.
pub struct Receives(pub Vec<Sent>);

impl Exchange for Receives {
    fn ready(&mut self, _: Range<usize>, _: &[f32]) {}

    fn sum(&mut self, sums: Sums<'_>) -> Result<(), EngineError> {
        let (first, others) = self.0.split_first().unwrap();
        sums.gradients.copy_from_slice(&first.gradients);
        sums.statistics.copy_from_slice(&first.statistics);
        *sums.micro_batches = first.result.micro_batches;
        *sums.loss = first.result.loss;
        *sums.metrics = first.result.metrics;
        for sent in others {
            let add = |to: &mut [f32], from: &[f32]| {
                to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            };
            add(sums.gradients, &sent.gradients);
            add(sums.statistics, &sent.statistics);
            *sums.micro_batches += sent.result.micro_batches;
            *sums.loss += sent.result.loss;
            sums.metrics.merge(&sent.result.metrics);
        }
        Ok(())
    }
}

/// Numbers of batch norm that ranks, each a thread, tell each other.
pub struct NormRank {
    rank: usize,
    /// Gathers so far.
    round: usize,
    /// The gather that fails on this rank, and on the others because it does not take part.
    pub fails_at: usize,
    shared: Arc<Shared>,
}

struct Shared {
    size: usize,
    /// What each rank told, gather by gather.
    rounds: Mutex<Vec<Vec<Option<Vec<f64>>>>>,
    told: Condvar,
    patience: Duration,
}

impl NormRank {
    /// `size` ranks, each for a thread of its own, that wait for each other as long as `patience`.
    pub fn group(size: usize, patience: Duration) -> Vec<NormRank> {
        let (rounds, told) = (Mutex::new(Vec::new()), Condvar::new());
        let shared = Arc::new(Shared { size, rounds, told, patience });
        let rank = |rank| {
            let shared = Arc::clone(&shared);
            NormRank { rank, round: 0, fails_at: usize::MAX, shared }
        };
        (0..size).map(rank).collect()
    }

    /// Gathers that this rank took part in.
    pub fn gathers(&self) -> usize {
        self.round
    }
}

impl NormExchange for NormRank {
    fn gather(&mut self, own: &[f64], all: &mut Vec<f64>) -> Result<(), EngineError> {
        if self.round == self.fails_at {
            return Err(EngineError::Exchange("rank gone".into()));
        }
        let Shared { size, rounds, told, patience } = self.shared.as_ref();
        let (round, mut rounds) = (self.round, rounds.lock().unwrap());
        self.round += 1;
        if rounds.len() == round {
            rounds.push(vec![None; *size]);
        }
        rounds[round][self.rank] = Some(own.to_vec());
        told.notify_all();
        let (rounds, waited) = told
            .wait_timeout_while(rounds, *patience, |rounds| {
                rounds[round].iter().any(Option::is_none)
            })
            .unwrap();
        if waited.timed_out() {
            return Err(EngineError::Exchange("a rank does not come".into()));
        }
        all.clear();
        rounds[round].iter().flatten().for_each(|values| all.extend_from_slice(values));
        Ok(())
    }
}
