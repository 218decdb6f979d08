//! The ranks of a run, as one of them sees them.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use bninception_collective::{Choice, Collective, Solo, connect};
use bninception_data::Share;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::distributed::error::RanksError;

/// The processes that work together, of which this is one. Every call that tells something is made by all of them,
/// in the same order.
pub struct Ranks {
    collective: Box<dyn Collective>,
}

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.collective.rank(), self.collective.size())
    }
}

impl Ranks {
    /// One process.
    pub fn alone() -> Ranks {
        Ranks::of(Box::new(Solo::default()))
    }

    /// The processes that a launcher started, by `choice`.
    ///
    /// # Errors
    /// No MPI library, or one that is not the launcher's.
    pub fn connect(choice: Choice) -> Result<Ranks, RanksError> {
        Ok(Ranks::of(connect(choice)?))
    }

    /// Those of a collective.
    pub fn of(collective: Box<dyn Collective>) -> Ranks {
        Ranks { collective }
    }

    /// This process among the others.
    pub fn share(&self) -> Share {
        Share { rank: self.collective.rank(), ranks: self.collective.size() }
    }

    /// Whether there are several.
    pub fn are_many(&self) -> bool {
        self.collective.size() > 1
    }

    /// Whether this is rank 0, which writes and speaks for all.
    pub fn is_first(&self) -> bool {
        self.collective.rank() == 0
    }

    /// What connects them.
    pub fn describe(&self) -> String {
        self.collective.describe()
    }

    /// What the calls that follow are made for; a rank that waits long says so.
    pub fn at(&mut self, place: &str) {
        self.collective.set_place(place);
    }

    /// What each rank has to say, in their order.
    ///
    /// # Errors
    /// A rank that cannot be reached or understood.
    pub fn gather<T: Serialize + DeserializeOwned>(
        &mut self,
        own: T,
    ) -> Result<Vec<T>, RanksError> {
        if !self.are_many() {
            return Ok(vec![own]);
        }
        let all = self.collective.gather(&encode(&own)?)?;
        all.iter().map(|bytes| decode(bytes)).collect()
    }

    /// Gives all ranks what rank 0 makes.
    ///
    /// # Errors
    /// It cannot be made on rank 0; the other ranks then wait until the job is ended. A rank that cannot be reached.
    pub fn from_first<T, E>(&mut self, make: impl FnOnce() -> Result<T, E>) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<RanksError>,
    {
        if !self.are_many() {
            return make();
        }
        let bytes = self.bytes_from_first(|| Ok::<_, E>(encode(&make()?)?))?;
        Ok(decode(&bytes)?)
    }

    /// [`Ranks::from_first`] of bytes.
    ///
    /// # Errors
    /// As there.
    pub fn bytes_from_first<E: From<RanksError>>(
        &mut self,
        make: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let mut bytes = if self.is_first() { make()? } else { Vec::new() };
        let mut len = (bytes.len() as u64).to_le_bytes();
        self.tell(&mut len)?;
        bytes.resize(u64::from_le_bytes(len) as usize, 0);
        self.tell(&mut bytes)?;
        Ok(bytes)
    }

    /// [`Ranks::from_first`] of a path, whatever its bytes.
    ///
    /// # Errors
    /// As there.
    pub fn path_from_first<E: From<RanksError>>(
        &mut self,
        make: impl FnOnce() -> Result<PathBuf, E>,
    ) -> Result<PathBuf, E> {
        if !self.are_many() {
            return make();
        }
        let bytes = self.bytes_from_first(|| Ok::<_, E>(make()?.into_os_string().into_vec()))?;
        Ok(PathBuf::from(OsString::from_vec(bytes)))
    }

    fn tell(&mut self, bytes: &mut [u8]) -> Result<(), RanksError> {
        Ok(self.collective.broadcast(bytes)?)
    }

    /// Does something on rank 0 and then on all others, which find what it left on the disk.
    ///
    /// # Errors
    /// Those of `make`; the other ranks then wait until the job is ended. A rank that cannot be reached.
    pub fn first_and_then_others<T, E: From<RanksError>>(
        &mut self,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if self.is_first() {
            let made = make()?;
            self.wait_for_all()?;
            return Ok(made);
        }
        self.wait_for_all()?;
        make()
    }

    /// Waits until all ranks are here.
    ///
    /// # Errors
    /// A rank that cannot be reached.
    pub fn wait_for_all(&mut self) -> Result<(), RanksError> {
        Ok(self.collective.barrier()?)
    }

    /// The calls behind all this.
    pub fn collective(&mut self) -> &mut dyn Collective {
        self.collective.as_mut()
    }

    /// Ends all processes, with this exit code of each.
    pub fn abort(&self, code: u8) -> ! {
        self.collective.abort(code)
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, RanksError> {
    rmp_serde::to_vec_named(value).map_err(|error| RanksError::Message(error.to_string()))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RanksError> {
    rmp_serde::from_slice(bytes).map_err(|error| RanksError::Message(error.to_string()))
}

#[cfg(test)]
mod tests {
    use bninception_collective::Threads;
    use bninception_engine::metrics::{Metrics, Score};

    use super::*;

    /// What each of three ranks makes of `run`.
    fn on_three<T: Send>(run: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let run = &run;
            let start = |threads| scope.spawn(move || run(Ranks::of(Box::new(threads))));
            let running: Vec<_> = Threads::group(3).into_iter().map(start).collect();
            running.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn messages_keep_every_bit() {
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        for values in on_three(|mut ranks| {
            let rank = ranks.share().rank;
            ranks.gather([0.1, f64::NAN, f64::NEG_INFINITY, -0.0][rank]).unwrap()
        }) {
            assert_eq!(bits(&values), bits(&[0.1, f64::NAN, f64::NEG_INFINITY]));
        }
        let mut metrics = Metrics::default();
        metrics.add(&Score { rank: Some(1), loss: 0.3 });
        let told = on_three(|mut ranks| ranks.gather(metrics).unwrap());
        assert_eq!(told, vec![vec![metrics; 3]; 3]);
        metrics.add(&Score { rank: None, loss: f64::NAN });
        let told = on_three(|mut ranks| ranks.gather(metrics).unwrap());
        assert!(
            told.concat().iter().all(|told| told.images() == 2 && told.loss().unwrap().is_nan())
        );
    }

    #[test]
    fn what_the_first_makes_all_have() {
        let made = on_three(|mut ranks| {
            let rank = ranks.share().rank;
            ranks.from_first(|| Ok::<_, RanksError>((rank, "a path".to_owned()))).unwrap()
        });
        assert_eq!(made, vec![(0, "a path".to_owned()); 3]);
    }
}
