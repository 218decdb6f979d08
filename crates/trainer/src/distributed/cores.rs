//! How many cores each rank may use: several on one machine share them.

use std::fs;
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

use crate::distributed::error::RanksError;
use crate::distributed::ranks::Ranks;

/// Where a rank runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seat {
    /// The machine: Linux draws a number at each start of it.
    machine: String,
    /// The cores that the rank may run on, as the system lists them. Launchers that bind ranks give each its own.
    allowed: String,
    /// How many those are, or fewer where a limit on time says so.
    cores: usize,
}

impl Seat {
    fn of_this_process() -> Seat {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        Seat {
            machine: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
            allowed: allowed.unwrap_or_default().trim().to_owned(),
            cores: available_parallelism().map_or(1, |cores| cores.get()),
        }
    }
}

/// Cores for each rank: those that it may run on, divided by the ranks that may run on the same; the fewest that any
/// rank has, so that none waits for a slower one, and all compute with as many threads.
///
/// # Errors
/// A rank that cannot be reached.
pub fn cores_of_each(ranks: &mut Ranks) -> Result<usize, RanksError> {
    Ok(fewest(&ranks.gather(Seat::of_this_process())?))
}

fn fewest(seats: &[Seat]) -> usize {
    let cores = |seat: &Seat| {
        let sharing = seats
            .iter()
            .filter(|other| (&other.machine, &other.allowed) == (&seat.machine, &seat.allowed));
        seat.cores / sharing.count().max(1)
    };
    seats.iter().map(cores).min().unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_on_the_same_cores_share_them() {
        let seat = |machine: &str, allowed: &str, cores| Seat {
            machine: machine.to_owned(),
            allowed: allowed.to_owned(),
            cores,
        };
        for (seats, expected) in [
            (vec![], 1),
            (vec![seat("a", "0-15", 16)], 16),
            (vec![seat("a", "0-15", 16), seat("a", "0-15", 16)], 8),
            // Bound by the launcher.
            (vec![seat("a", "0-7", 8), seat("a", "8-15", 8)], 8),
            // Two machines, the second with two ranks.
            (vec![seat("a", "0-7", 8), seat("b", "0-7", 8), seat("b", "0-7", 8)], 4),
            (vec![seat("a", "0-1", 2), seat("a", "0-1", 2), seat("a", "0-1", 2)], 1),
        ] {
            assert_eq!(fewest(&seats), expected, "{seats:?}");
        }
        let own = Seat::of_this_process();
        assert!(own.cores > 0 && !own.allowed.is_empty() && own.machine.len() > 30, "{own:?}");
    }
}
