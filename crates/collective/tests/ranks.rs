//! Ranks through real MPI libraries, on one machine (see `common`).
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)] // a test, and the program of a rank

mod common;

use std::env;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use bninception_collective::Threads;

use self::common::{Installed, RANK_ARGUMENTS, check_all_calls, run_as_rank, set_variables};

#[test]
fn the_program_of_a_rank() {
    run_as_rank();
}

#[test]
fn threads_do_the_same() {
    for size in [1, 2, 3] {
        let ranks = Threads::group(size).into_iter();
        let running = ranks.map(|mut ranks| thread::spawn(move || check_all_calls(&mut ranks)));
        running.collect::<Vec<_>>().into_iter().for_each(|rank| rank.join().unwrap());
    }
}

/// Runs this executable's rank program on `n` ranks with `library`.
fn run(mpi: &Installed, n: usize, role: &str, library: &Path) -> Output {
    let mut command = Command::new(mpi.0.join("bin/mpiexec"));
    command.args(["-n", &n.to_string()]).arg(env::current_exe().unwrap()).args(RANK_ARGUMENTS);
    set_variables(&mut command, role, library);
    // Open MPI refuses more ranks than cores unless it is told.
    command
        .env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "true");
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    let both = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    both.concat()
}

#[test]
fn ranks_add_up_in_order_on_every_library() {
    for mpi in Installed::all() {
        for n in [1, 2, 3, 4] {
            let output = run(&mpi, n, "", &mpi.library());
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
        let output = run(&mpi, 3, "late", &mpi.library());
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
        for role in ["abort", "panic", "die"] {
            let start = Instant::now();
            let output = run(&mpi, 2, role, &mpi.library());
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
            let output = run(launcher, 2, "", &other.library());
            let text = text(&output);
            assert!(!output.status.success() && !text.contains("is content"), "{text}");
        }
    }
}
