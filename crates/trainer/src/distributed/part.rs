//! What of its machine each rank may use: several on one machine share its cores and its memory.

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
    /// Cores of the machine.
    of_machine: usize,
}

impl Seat {
    /// Ranks on this machine.
    fn here(&self, seats: &[Seat]) -> usize {
        seats.iter().filter(|other| other.machine == self.machine).count()
    }

    fn of_this_process() -> Seat {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        Seat {
            machine: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
            allowed: allowed.unwrap_or_default().trim().to_owned(),
            cores: available_parallelism().map_or(1, |cores| cores.get()),
            of_machine: read("/proc/cpuinfo")
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
        }
    }
}

/// What each rank may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Cores: those that it may run on, divided by the ranks that may run on the same; the fewest that any rank has,
    /// so that none waits for a slower one, and all compute with as many threads.
    pub cores: usize,
    /// Ranks that share a machine's memory, on the machine with the most.
    pub of_machine: usize,
}

/// What each of the ranks may use.
///
/// # Errors
/// A rank that cannot be reached.
pub fn part_of_each(ranks: &mut Ranks) -> Result<Part, RanksError> {
    let seats = ranks.gather(Seat::of_this_process())?;
    let cores = fewest(&seats);
    if let (true, Some(idle)) = (ranks.is_first(), idle(&seats, cores)) {
        tracing::warn!("{idle}");
    }
    Ok(Part { cores, of_machine: seats.iter().map(|seat| seat.here(&seats)).max().unwrap_or(1) })
}

/// What to say of cores that no rank may use, on the first machine whose ranks are bound to cores of their own; none
/// where more than half of them are used. Ranks with the same cores are not bound, but in a container, or limited.
fn idle(seats: &[Seat], cores: usize) -> Option<String> {
    seats.iter().find_map(|seat| {
        let here = seat.here(seats);
        let is_other = |other: &Seat| other.machine == seat.machine && other.allowed != seat.allowed;
        let is_bound = seats.iter().any(is_other);
        (is_bound && 2 * here * cores <= seat.of_machine).then(|| {
            format!(
                "{here} of the ranks run on a machine of {} cores, and each may use {cores}: where the launcher binds \
                 ranks to cores, tell it not to (mpirun --bind-to none) or to give each more (--map-by \
                 slot:PE=N; srun --cpus-per-task=N)",
                seat.of_machine
            )
        })
    })
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
            of_machine: 16,
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
        let said = idle(&[seat("a", "0", 1), seat("a", "1", 1)], 1).unwrap();
        assert!(
            said.starts_with("2 of the ranks run on a machine of 16 cores, and each may use 1:"),
            "{said}"
        );
        assert_eq!(idle(&[seat("a", "0-15", 16), seat("a", "0-15", 16)], 8), None);
        assert_eq!(
            idle(&[seat("a", "0-7", 8), seat("b", "0-15", 16)], 8),
            idle(&[seat("a", "0-7", 8)], 8)
        );
        let own = Seat::of_this_process();
        assert!(own.of_machine >= own.cores, "{own:?}");
        assert!(own.cores > 0 && !own.allowed.is_empty() && own.machine.len() > 30, "{own:?}");
    }
}
