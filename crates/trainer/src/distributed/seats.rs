//! What of its machine each rank may use: several on one machine share its cores and its memory.

use serde::{Deserialize, Serialize};

use crate::distributed::error::RanksError;
use crate::distributed::ranks::Ranks;
use crate::machine;
use crate::machine::allotment::Allotment;
use crate::machine::processor::Processor;

/// Where a rank runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seat {
    /// The machine.
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
        let Processor { cores, allowed, usable_cores, .. } = Processor::of_machine();
        Seat { machine: machine::boot_id(), allowed, cores: usable_cores, of_machine: cores }
    }
}

/// What each of the ranks may use: the cores that it may run on, divided by the ranks that may run on the same; the
/// fewest that any rank has, so that none waits for a slower one, and all compute with as many threads. Its part
/// of the memory is that on the machine with the most ranks.
///
/// # Errors
/// A rank that cannot be reached.
pub fn allotment_of_each(ranks: &mut Ranks) -> Result<Allotment, RanksError> {
    let seats = ranks.gather(Seat::of_this_process())?;
    let cores = fewest(&seats);
    if let (true, Some(idle)) = (ranks.is_first(), idle(&seats, cores)) {
        tracing::warn!("{idle}");
    }
    Ok(Allotment {
        cores,
        processes: seats.iter().map(|seat| seat.here(&seats)).max().unwrap_or(1),
        place: place(&seats, ranks.share().rank),
    })
}

/// The number of `rank` among those on its machine.
fn place(seats: &[Seat], rank: usize) -> usize {
    let before = &seats[..rank.min(seats.len())];
    seats.get(rank).map_or(0, |seat| seat.here(before))
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
        let seats = ["a", "b", "a", "a", "b"].map(|machine| seat(machine, "0", 1));
        let places: Vec<usize> = (0..seats.len()).map(|rank| place(&seats, rank)).collect();
        assert_eq!(places, [0, 0, 1, 2, 1]);
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
