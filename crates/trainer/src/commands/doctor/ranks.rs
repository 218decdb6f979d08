//! The ranks that this process is one of.

use bninception_collective::{Choice, CollectiveError, Launcher, connect};

use super::libraries::{Found, Libraries};
use super::problem::Problem;
use crate::machine;

/// What connects this process with others.
#[derive(Debug)]
pub(super) struct Ranks {
    /// What started it, if anything did.
    pub launcher: Option<Launcher>,
    /// The library through which it speaks, if it is to speak.
    pub library: Option<Found>,
    /// Processes that found each other.
    pub size: usize,
    /// Whether this one writes for all.
    pub is_first: bool,
    pub connected_by: String,
    pub hosts: Vec<Host>,
    /// Why they cannot work together.
    pub problem: Option<Problem>,
}

/// A machine with ranks on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub name: String,
    pub n_ranks: usize,
    /// Its cores.
    pub cores: usize,
}

impl Ranks {
    /// Joins the others if a launcher started this process. MPI is not started without one, nor with a library
    /// that cannot be the launcher's.
    pub(super) fn join(libraries: &mut Libraries, cores: usize) -> Ranks {
        let launcher = Launcher::of_process();
        let mut ranks = Ranks {
            launcher,
            library: None,
            size: 1,
            is_first: launcher.and_then(|launcher| launcher.rank).is_none_or(|rank| rank == 0),
            connected_by: "one process".to_owned(),
            hosts: vec![Host { name: machine::host_name(), n_ranks: 1, cores }],
            problem: None,
        };
        let Some(launcher) = launcher.filter(|launcher| launcher.size != Some(1)) else {
            return ranks;
        };
        let library = libraries.first_of(&Launcher::library_names(Some(launcher)));
        ranks.problem = match &library {
            None => Some(Problem::no_library(launcher)),
            Some(found) if !found.family.fits(launcher.family) => {
                Some(Problem::other_family(launcher, found))
            }
            Some(_) => None,
        };
        ranks.library = library;
        if ranks.problem.is_none()
            && let Err(error) = ranks.connect(cores)
        {
            ranks.problem = Some(Problem::not_connected(&error));
        }
        if ranks.problem.is_some() {
            ranks.connected_by = "nothing".to_owned();
        }
        ranks
    }

    fn connect(&mut self, cores: usize) -> Result<(), CollectiveError> {
        let mut others = connect(Choice::Auto)?;
        let own = format!("{cores} {}", machine::host_name());
        let hosts = others.gather(own.as_bytes())?;
        self.size = others.size();
        self.is_first = others.rank() == 0;
        self.connected_by = others.describe();
        self.hosts = Host::all_of(hosts.iter().map(|bytes| String::from_utf8_lossy(bytes)));
        Ok(())
    }
}

impl Host {
    /// The machines that ranks told of, with `CORES NAME`, in the order of the ranks.
    fn all_of(told: impl Iterator<Item = impl AsRef<str>>) -> Vec<Host> {
        let mut hosts: Vec<Host> = Vec::new();
        for text in told {
            let (cores, name) = text.as_ref().split_once(' ').unwrap_or(("", text.as_ref()));
            match hosts.iter_mut().find(|host| host.name == name) {
                Some(host) => host.n_ranks += 1,
                None => hosts.push(Host {
                    name: name.to_owned(),
                    n_ranks: 1,
                    cores: cores.parse().unwrap_or(1),
                }),
            }
        }
        hosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_counted_by_machine() {
        let host = |name: &str, n_ranks, cores| Host { name: name.to_owned(), n_ranks, cores };
        let hosts = Host::all_of(["4 a", "8 b", "4 a"].into_iter());
        assert_eq!(hosts, [host("a", 2, 4), host("b", 1, 8)]);
    }
}
