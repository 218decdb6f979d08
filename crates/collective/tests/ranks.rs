//! Ranks through real MPI libraries. `BNINCEPTION_MPI_DIRS` names their folders, each with `bin/mpiexec` and `lib`,
//! separated by colons; without it the tests say that they skip.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)] // a test, and the program of a rank

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use bninception_collective::{Choice, Collective, Flags, Reduce, Threads, connect};

/// Says to this executable that it is a rank.
const ROLE: &str = "BNINCEPTION_TEST_ROLE";

/// The value of a rank at a place: of many magnitudes, so that the order of a sum shows.
fn value(rank: usize, at: usize) -> f32 {
    let mut bits = (rank as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at as u64;
    for shift in [13, 7, 17] {
        bits = (bits ^ (bits >> shift)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    }
    let fraction = (bits >> 40) as f32 / (1 << 24) as f32 - 0.5;
    fraction * f32::powi(2.0, ((bits >> 8) % 24) as i32 - 12)
}

fn check_all_calls(ranks: &mut dyn Collective) {
    let (rank, size) = (ranks.rank(), ranks.size());
    // Several at once, as the buckets of an update are.
    let lens = [0, 1, 2, 3, 300, 1_000_003];
    for reduce in [Reduce::Ordered, Reduce::Fast] {
        for n in lens {
            ranks.start_sum((0..n).map(|at| value(rank, at)).collect(), reduce).unwrap();
            ranks.advance().unwrap();
        }
        for n in lens {
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

/// What a rank does; alone it is a test like others.
#[test]
fn the_program_of_a_rank() {
    let role = env::var(ROLE).unwrap_or_default();
    let mut ranks = connect(Choice::Auto).unwrap_or_else(|error| panic!("refused: {error}"));
    check_all_calls(ranks.as_mut());
    let (rank, size) = (ranks.rank(), ranks.size());
    match role.as_str() {
        "abort" if rank + 1 == size => ranks.abort(0),
        "panic" if rank + 1 == size => panic!("on purpose"),
        "abort" | "panic" => ranks.barrier().unwrap(),
        "late" => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).init();
            ranks.set_place("update 7");
            if rank + 1 == size {
                std::thread::sleep(Duration::from_secs(2));
            }
            ranks.barrier().unwrap();
        }
        _ => println!("rank {rank} of {size} is content: {}", ranks.describe()),
    }
}

#[test]
fn threads_do_the_same() {
    for size in [1, 2, 3] {
        let ranks = Threads::group(size).into_iter();
        let running =
            ranks.map(|mut ranks| std::thread::spawn(move || check_all_calls(&mut ranks)));
        running.collect::<Vec<_>>().into_iter().for_each(|rank| rank.join().unwrap());
    }
}

struct Installed(PathBuf);

impl Installed {
    fn all() -> Vec<Installed> {
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

    fn library(&self) -> PathBuf {
        let names = ["lib/libmpi_abi.so.1", "lib/libmpi.so.40", "lib/libmpi.so.12"];
        names.iter().map(|name| self.0.join(name)).find(|path| path.exists()).unwrap()
    }

    /// Runs this executable's rank program on `n` ranks with `library`.
    fn run(&self, n: usize, role: &str, library: &Path) -> Output {
        let mut command = Command::new(self.0.join("bin/mpiexec"));
        command.args(["-n", &n.to_string()]).arg(env::current_exe().unwrap());
        command.args(["--exact", "the_program_of_a_rank", "--nocapture", "--test-threads", "1"]);
        command
            .env(ROLE, role)
            .env("BNINCEPTION_MPI_PATIENCE", if role == "late" { "1" } else { "60" })
            .env("BNINCEPTION_MPI_LIB", library)
            // Open MPI refuses root and more ranks than cores unless it is told.
            .envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")])
            .envs([("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")])
            .envs([("OMPI_MCA_rmaps_base_oversubscribe", "true")]);
        command.output().unwrap()
    }
}

fn text(output: &Output) -> String {
    let both = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    both.concat()
}

#[test]
fn ranks_add_up_in_order_on_every_library() {
    for mpi in Installed::all() {
        for n in [1, 2, 3, 4] {
            let output = mpi.run(n, "", &mpi.library());
            let text = text(&output);
            assert!(output.status.success(), "{n} ranks of {}: {text}", mpi.0.display());
            for rank in 0..n {
                assert!(text.contains(&format!("rank {rank} of {n} is content")), "{text}");
            }
        }
    }
}

#[test]
fn a_rank_that_waits_says_for_whom() {
    for mpi in Installed::all() {
        let output = mpi.run(3, "late", &mpi.library());
        let text = text(&output);
        assert!(output.status.success(), "{}: {text}", mpi.0.display());
        for rank in [0, 1] {
            let said = format!("rank {rank} has waited 1 s in a barrier of update 7, for rank 2");
            assert!(text.contains(&said), "{}: {text}", mpi.0.display());
        }
        assert!(!text.contains("rank 2 has waited"), "{text}");
    }
}

#[test]
fn a_rank_that_fails_ends_the_job() {
    for mpi in Installed::all() {
        for role in ["abort", "panic"] {
            let start = Instant::now();
            let output = mpi.run(2, role, &mpi.library());
            let text = text(&output);
            assert!(!output.status.success(), "{role} in {}: {text}", mpi.0.display());
            assert!(start.elapsed() < Duration::from_secs(10), "{role}: {text}");
        }
    }
}

#[test]
fn the_library_of_another_launcher_is_refused() {
    let all = Installed::all();
    for launcher in &all {
        for other in all.iter().filter(|other| other.0 != launcher.0) {
            let output = launcher.run(2, "", &other.library());
            let text = text(&output);
            assert!(!output.status.success() && !text.contains("is content"), "{text}");
        }
    }
}
