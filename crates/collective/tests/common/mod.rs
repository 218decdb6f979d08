//! What a rank does in tests of real MPI libraries, and where these libraries are.
//!
//! `BNINCEPTION_MPI_DIRS` names their folders, each with `bin/mpiexec` and `lib`, separated by colons; without it the
//! tests say that they skip.
#![allow(dead_code)] // each test file uses a part of it

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use bninception_collective::{Choice, Collective, Flags, Reduce, connect};

/// Says to a test's executable what it shall do as a rank.
pub(crate) const ROLE: &str = "BNINCEPTION_TEST_ROLE";

/// Seconds after which a waiting rank says so.
pub(crate) const PATIENCE: &str = "BNINCEPTION_MPI_PATIENCE";

/// The library that ranks open.
pub(crate) const LIBRARY: &str = "BNINCEPTION_MPI_LIB";

/// What a test's executable is called with as a rank. Every test file with ranks has such a test.
pub(crate) const RANK_ARGUMENTS: [&str; 5] =
    ["--exact", "the_program_of_a_rank", "--nocapture", "--test-threads", "1"];

/// What ranks of the role `long` say before they tell each other something for some seconds.
pub(crate) const BEGUN: &str = "the long work begins";

/// Values of the sums that are under way at once, as the buckets of an update are.
const LENS: [usize; 6] = [0, 1, 2, 3, 300, 1_000_003];

/// Bytes of all sums of a rank.
pub(crate) fn bytes_of_sums() -> u64 {
    let values: usize = LENS.iter().sum();
    (2 * size_of::<f32>() * values) as u64
}

/// The value of a rank at a place: of many magnitudes, so that the order of a sum shows.
fn value(rank: usize, at: usize) -> f32 {
    let mut bits = (rank as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at as u64;
    for shift in [13, 7, 17] {
        bits = (bits ^ (bits >> shift)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    }
    let fraction = (bits >> 40) as f32 / (1 << 24) as f32 - 0.5;
    fraction * f32::powi(2.0, ((bits >> 8) % 24) as i32 - 12)
}

/// Makes every call of a collective and compares what comes of it with plain loops.
pub(crate) fn check_all_calls(ranks: &mut dyn Collective) {
    let (rank, size) = (ranks.rank(), ranks.size());
    for reduce in [Reduce::Ordered, Reduce::Fast] {
        for n in LENS {
            ranks.start_sum((0..n).map(|at| value(rank, at)).collect(), reduce).unwrap();
            ranks.advance().unwrap();
        }
        for n in LENS {
            let found = ranks.finish_sum().unwrap();
            assert_eq!(found.len(), n);
            let sum = |at| (1..size).fold(value(0, at), |sum, rank| sum + value(rank, at));
            for (at, found) in found.iter().enumerate() {
                match reduce {
                    Reduce::Ordered => {
                        assert_eq!(found.to_bits(), sum(at).to_bits(), "{n} values, at {at}")
                    }
                    Reduce::Fast => {
                        let largest = (0..size).map(|rank| value(rank, at).abs()).sum::<f32>();
                        assert!((found - sum(at)).abs() <= 1e-6 * largest, "{n} values, at {at}");
                    }
                }
            }
        }
        assert!(ranks.finish_sum().unwrap().is_empty(), "no sum is under way");
    }
    let mut bytes = vec![if rank == 0 { 7 } else { 0 }; 100];
    ranks.broadcast(&mut bytes).unwrap();
    assert_eq!(bytes, vec![7; 100]);
    let all = ranks.gather(&vec![rank as u8; 3 * rank]).unwrap();
    let expected: Vec<Vec<u8>> = (0..size).map(|rank| vec![rank as u8; 3 * rank]).collect();
    assert_eq!(all, expected);
    let own = if rank + 1 == size { Flags::STOP } else { Flags::default() };
    assert_eq!(ranks.agree(own).unwrap(), Flags::STOP);
    ranks.barrier().unwrap();
}

/// The program of a rank; alone it is a test like others.
pub(crate) fn run_as_rank() {
    let role = env::var(ROLE).unwrap_or_default();
    let mut ranks = connect(Choice::Auto).unwrap_or_else(|error| panic!("refused: {error}"));
    check_all_calls(ranks.as_mut());
    let (rank, size) = (ranks.rank(), ranks.size());
    match role.as_str() {
        "abort" if rank + 1 == size => ranks.abort(0),
        "panic" if rank + 1 == size => panic!("on purpose"),
        // A signal ends it, as when memory runs out.
        "die" if rank + 1 == size => std::process::abort(),
        "abort" | "panic" | "die" => ranks.barrier().unwrap(),
        "long" => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).init();
            println!("{BEGUN}");
            let start = Instant::now();
            loop {
                let is_over = start.elapsed() > Duration::from_secs(4);
                let own = if is_over { Flags::STOP } else { Flags::default() };
                if ranks.agree(own).unwrap().has(Flags::STOP) {
                    break;
                }
            }
            println!("rank {rank} of {size} has come to its end");
        }
        "late" => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).init();
            ranks.set_place("update 7");
            if rank + 1 == size {
                thread::sleep(Duration::from_secs(2));
            }
            ranks.barrier().unwrap();
        }
        _ => println!("rank {rank} of {size} is content: {}", ranks.describe()),
    }
}

/// The folder of an MPI library.
pub(crate) struct Installed(pub(crate) PathBuf);

impl Installed {
    pub(crate) fn all() -> Vec<Installed> {
        let dirs = env::var_os("BNINCEPTION_MPI_DIRS").unwrap_or_default();
        let found: Vec<Installed> = env::split_paths(&dirs)
            .filter(|dir| dir.join("bin/mpiexec").exists())
            .map(Installed)
            .collect();
        if found.is_empty() {
            eprintln!("skipped: BNINCEPTION_MPI_DIRS names no folder with bin/mpiexec");
        }
        found
    }

    pub(crate) fn library(&self) -> PathBuf {
        let names = ["lib/libmpi_abi.so.1", "lib/libmpi.so.40", "lib/libmpi.so.12"];
        names.iter().map(|name| self.0.join(name)).find(|path| path.exists()).unwrap()
    }

    pub(crate) fn is_open_mpi(&self) -> bool {
        self.0.join("lib/libmpi.so.40").exists()
    }
}

/// Variables for a launcher and its ranks, which take the part of `role` and open `library`.
pub(crate) fn set_variables(command: &mut Command, role: &str, library: &Path) {
    command
        .env(ROLE, role)
        .env(PATIENCE, if ["late", "long"].contains(&role) { "1" } else { "60" })
        .env(LIBRARY, library)
        // Open MPI refuses root unless it is told twice.
        .envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
}
