//! The time that calls take between the ranks at hand, measured on answers that are checked.
//!
//! Bandwidths are those of the NCCL tests, so that they compare:
//! <https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md>.

use std::time::Instant;

use crate::collective::{BUCKET, Collective, Reduce};
use crate::error::CollectiveError;
use crate::segments::segment;

/// Values of a sum that are checked, at the most: adding up all of them would take longer than the call.
const MOST_CHECKED: usize = 4096;

/// A call that can be timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The sum in the order of ranks, in buckets, as an update makes it.
    Sum,
    /// From rank 0 to all.
    Broadcast,
    /// From all to all; the message is what each rank ends up with.
    Gather,
    /// No message.
    Barrier,
}

impl Call {
    /// All of them.
    pub const ALL: [Call; 4] = [Call::Sum, Call::Broadcast, Call::Gather, Call::Barrier];

    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Call::Sum => "sum",
            Call::Broadcast => "broadcast",
            Call::Gather => "gather",
            Call::Barrier => "barrier",
        }
    }

    /// What part of the message each rank has to send at least, whatever the algorithm.
    fn sent_share(self, size: usize) -> f64 {
        let others = (size - 1) as f64 / size as f64;
        match self {
            Call::Sum => 2.0 * others,
            Call::Broadcast => 1.0,
            Call::Gather => others,
            Call::Barrier => 0.0,
        }
    }
}

/// A call with a message, and the time that it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The call.
    pub call: Call,
    /// Bytes of the message.
    pub bytes: usize,
    /// Ranks.
    pub size: usize,
    /// The seconds of each repeat, sorted: those of the slowest rank.
    pub seconds: Vec<f64>,
}

impl Measured {
    /// The median of the seconds.
    pub fn median(&self) -> f64 {
        self.seconds[self.seconds.len() / 2]
    }

    /// The least of them.
    pub fn least(&self) -> f64 {
        self.seconds[0]
    }

    /// Bytes of the message in a second.
    pub fn algorithm_bandwidth(&self) -> f64 {
        self.bytes as f64 / self.median()
    }

    /// Bytes that each rank sends in a second; compares with the speed of the connection, whatever the ranks.
    pub fn bus_bandwidth(&self) -> f64 {
        self.algorithm_bandwidth() * self.call.sent_share(self.size)
    }
}

/// Times a call with a message of `bytes`, in whole f32 values. All ranks call this together, and all get the same
/// result.
///
/// # Errors
/// A rank that cannot be reached, or a wrong answer.
///
/// # Panics
/// Without repeats.
pub fn measure(
    ranks: &mut dyn Collective,
    call: Call,
    bytes: usize,
    repeats: usize,
) -> Result<Measured, CollectiveError> {
    assert!(repeats > 0, "no repeats");
    let mut message = Message::new(ranks, call, bytes / size_of::<f32>());
    // One call untimed: libraries open connections at the first.
    message.send(ranks)?;
    let mut own = Vec::new();
    for _ in 0..repeats {
        message.reset();
        ranks.barrier()?;
        let start = Instant::now();
        message.send(ranks)?;
        own.push(start.elapsed().as_secs_f64());
        if !message.is_right(ranks) {
            let (call, rank) = (call.name(), ranks.rank());
            return Err(CollectiveError::Wrong { call, bytes, rank });
        }
    }
    let own: Vec<u8> = own.iter().flat_map(|seconds| seconds.to_le_bytes()).collect();
    let mut seconds = vec![0.0; repeats];
    for of_rank in ranks.gather(&own)? {
        let (times, _) = of_rank.as_chunks::<8>();
        for (slowest, time) in seconds.iter_mut().zip(times) {
            *slowest = f64::max(*slowest, f64::from_le_bytes(*time));
        }
    }
    seconds.sort_by(f64::total_cmp);
    Ok(Measured { call, bytes, size: ranks.size(), seconds })
}

/// What a rank sends and receives.
struct Message {
    call: Call,
    /// The rank's own values.
    own: Vec<f32>,
    /// What a sum is made in.
    values: Vec<f32>,
    /// The same for calls that know bytes only.
    bytes: Vec<u8>,
    gathered: Vec<Vec<u8>>,
}

impl Message {
    fn new(ranks: &dyn Collective, call: Call, n: usize) -> Message {
        let (rank, size) = (ranks.rank(), ranks.size());
        let n = match call {
            Call::Sum | Call::Broadcast => n,
            Call::Gather => segment(n, size, rank).len(),
            Call::Barrier => 0,
        };
        let own: Vec<f32> = (0..n).map(|at| value(rank, at)).collect();
        let mut message =
            Message { call, values: own.clone(), own, bytes: Vec::new(), gathered: Vec::new() };
        message.bytes = message.own.iter().flat_map(|value| value.to_le_bytes()).collect();
        message
    }

    /// Before a call: what the last one changed is as it was.
    fn reset(&mut self) {
        self.values.copy_from_slice(&self.own);
        if self.call == Call::Broadcast {
            let own = self.own.iter().flat_map(|value| value.to_le_bytes());
            self.bytes.iter_mut().zip(own).for_each(|(byte, own)| *byte = own);
        }
        self.gathered.clear();
    }

    fn send(&mut self, ranks: &mut dyn Collective) -> Result<(), CollectiveError> {
        match self.call {
            Call::Sum => {
                for values in self.values.chunks(BUCKET) {
                    ranks.start_sum(values.to_vec(), Reduce::Ordered)?;
                    ranks.advance()?;
                }
                for values in self.values.chunks_mut(BUCKET) {
                    values.copy_from_slice(&ranks.finish_sum()?);
                }
                Ok(())
            }
            Call::Broadcast => ranks.broadcast(&mut self.bytes),
            Call::Gather => {
                self.gathered = ranks.gather(&self.bytes)?;
                Ok(())
            }
            Call::Barrier => ranks.barrier(),
        }
    }

    fn is_right(&self, ranks: &dyn Collective) -> bool {
        let size = ranks.size();
        let is_at = |bytes: &[u8], at: usize, value: f32| {
            bytes.get(4 * at..4 * at + 4).is_some_and(|bytes| bytes == value.to_le_bytes())
        };
        match self.call {
            Call::Sum => places(self.values.len()).all(|at| {
                let sum = (1..size).fold(value(0, at), |sum, rank| sum + value(rank, at));
                self.values[at].to_bits() == sum.to_bits()
            }),
            Call::Broadcast => {
                places(self.own.len()).all(|at| is_at(&self.bytes, at, value(0, at)))
            }
            Call::Gather => {
                let is_of = |(rank, bytes): (usize, &Vec<u8>)| {
                    places(bytes.len() / 4).all(|at| is_at(bytes, at, value(rank, at)))
                };
                let own = self.gathered.get(ranks.rank());
                own.is_some_and(|own| *own == self.bytes)
                    && self.gathered.len() == size
                    && self.gathered.iter().enumerate().all(is_of)
            }
            Call::Barrier => true,
        }
    }
}

/// The places that are checked of `n`: all over them, the last too.
fn places(n: usize) -> impl Iterator<Item = usize> {
    (0..n).step_by(n.div_ceil(MOST_CHECKED).max(1)).chain(n.checked_sub(1))
}

/// The value of a rank at a place: of many magnitudes, so that the order of a sum shows in its bits.
fn value(rank: usize, at: usize) -> f32 {
    let mixed = (rank as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at as u64;
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let fraction = (mixed >> 40) as f32 / (1 << 24) as f32 - 0.5;
    fraction * f32::powi(2.0, (mixed >> 8 & 15) as i32 - 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::Threads;

    #[test]
    fn all_calls_are_timed_and_right() {
        for size in [1, 3] {
            let measure_all = |mut ranks: Threads| {
                for call in Call::ALL {
                    for bytes in [4, 40_000] {
                        let measured = measure(&mut ranks, call, bytes, 3).unwrap();
                        assert_eq!((measured.seconds.len(), measured.size), (3, size));
                        assert!(measured.least() <= measured.median());
                    }
                }
            };
            std::thread::scope(|scope| {
                for ranks in Threads::group(size) {
                    scope.spawn(move || measure_all(ranks));
                }
            });
        }
    }

    #[test]
    fn bandwidths_are_those_of_the_nccl_tests() {
        let of = |call| Measured { call, bytes: 1000, size: 4, seconds: vec![1.0, 2.0, 9.0] };
        assert!((of(Call::Sum).algorithm_bandwidth() - 500.0).abs() < 1e-9);
        assert!((of(Call::Sum).bus_bandwidth() - 750.0).abs() < 1e-9);
        assert!((of(Call::Broadcast).bus_bandwidth() - 500.0).abs() < 1e-9);
        assert!((of(Call::Gather).bus_bandwidth() - 375.0).abs() < 1e-9);
    }

    #[test]
    fn a_wrong_answer_is_seen() {
        let mut ranks = Threads::group(1).remove(0);
        let mut message = Message::new(&ranks, Call::Sum, 100);
        message.send(&mut ranks).unwrap();
        assert!(message.is_right(&ranks));
        message.values[99] += 1.0;
        assert!(!message.is_right(&ranks));
    }
}
