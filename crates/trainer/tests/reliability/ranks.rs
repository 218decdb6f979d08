//! Several ranks train what one process trains that accumulates as many micro-batches, bit by bit. The ranks are
//! threads of this process; `mpi.rs` does the same with processes.

use std::fs;
use std::sync::{Arc, Mutex};

use bninception::distributed::Ranks;
use bninception::setup;
use bninception::training::train::train;
use bninception_collective::{Collective, Threads};

use super::job::{Runs, config};

/// Trains `run` on `n` ranks.
fn train_on_ranks(runs: &Arc<Runs>, run: &str, sets: &[&str], n: usize) -> Vec<Result<(), String>> {
    // Jobs are made one after the other; the first makes the folder of the run.
    let making = Mutex::new(());
    let ranks_set = format!("train.ranks={n}");
    let sets: Vec<&str> = sets.iter().copied().chain([ranks_set.as_str()]).collect();
    drop(runs.job(run, &sets, None));
    let one = |threads: Threads| {
        let (job, state) = {
            let _one_at_a_time = making.lock().unwrap();
            runs.job(run, &sets, None)
        };
        assert!(threads.size() == n);
        let mut ranks = Ranks::of(Box::new(threads));
        job.check_same(&mut ranks, &state).unwrap();
        let mut executor = setup::executor(&job.config, job.network.clone()).unwrap();
        let outcome = train(&job, executor.as_mut(), &mut ranks, state);
        outcome.map(|_| ()).map_err(|error| error.to_string())
    };
    std::thread::scope(|scope| {
        let one = &one;
        let start = |rank| scope.spawn(move || one(rank));
        let running: Vec<_> = Threads::group(n).into_iter().map(start).collect();
        running.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// That `n` ranks with these settings end as one process that accumulates `n` micro-batches.
#[track_caller]
fn check(runs: &Runs, sets: &[&str], n: usize) {
    let runs_of = Arc::new(Runs::beside(runs));
    for outcome in train_on_ranks(&runs_of, "ranks", sets, n) {
        outcome.unwrap();
    }
    let accumulate = format!("train.accumulate={n}");
    let alone: Vec<&str> = sets.iter().copied().chain([accumulate.as_str()]).collect();
    runs_of.train("alone", &alone, None);
    runs_of
        .result("ranks")
        .assert_equals(&runs_of.result("alone"), &format!("{n} ranks, {sets:?}"));
}

const SMALL: [&str; 4] =
    ["train.batch_size=4", "train.threads=1", "train.steps=0", "train.epochs=2"];

#[test]
fn ranks_end_as_one_process_that_accumulates() {
    let runs = Runs::new();
    // 40 pictures: 5 updates of 2 ranks, 3 of 3 and 2 of 4, with 0, 4 and 8 pictures left over.
    for (n, more) in [
        (2, &["train.eval_statistics=moving", "optimizer.clip_norm=0.5"][..]),
        (3, &["train.eval_statistics=population", "augment.mixup=0.2", "network.dropout=0.3"]),
        (4, &["train.dtype=bf16"]),
        (2, &["train.dtype=bf16", "train.ema=0", "data.balance=classes"]),
    ] {
        check(&runs, &[&SMALL[..], more].concat(), n);
    }
}

#[test]
fn a_picture_that_one_rank_cannot_read_is_known_to_all() {
    let runs = Runs::new();
    let class = fs::read_dir(runs.path("pictures/train")).unwrap().next().unwrap().unwrap().path();
    let file = fs::read_dir(class).unwrap().next().unwrap().unwrap().path();
    fs::write(file, b"\xff\xd8\xff no picture").unwrap();
    // Of two pictures it leaves one, which batch norm cannot use: the micro-batch is left out. Of four it leaves three.
    for batch_size in ["train.batch_size=2", "train.batch_size=4"] {
        let sets = [batch_size, "train.threads=1", "train.steps=0", "train.epochs=1"];
        check(&runs, &[&sets[..], &["data.check_headers=false"]].concat(), 3);
    }
}

#[test]
fn batch_norm_over_all_ranks_is_that_of_one_process_with_the_whole_batch() {
    let loss = |runs: &Runs, run: &str| {
        let rows = fs::read_to_string(runs.path(run).join("metrics.jsonl")).unwrap();
        let row: serde_json::Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
        row["loss"].as_f64().unwrap()
    };
    let runs = Arc::new(Runs::new());
    let sets =
        ["train.threads=1", "train.steps=1", "log.every_steps=1", "log.watch=[\"conv1_7x7_s2\"]"];
    let whole = [&sets[..], &["train.batch_size=8"]].concat();
    runs.train("whole", &whole, None);
    let whole = loss(&runs, "whole");
    for (run, sync, expected) in [("all", "true", true), ("own", "false", false)] {
        let sync = format!("network.sync_bn={sync}");
        let sets = [&sets[..], &["train.batch_size=4", &sync]].concat();
        train_on_ranks(&runs, run, &sets, 2).into_iter().for_each(|outcome| outcome.unwrap());
        let difference = (loss(&runs, run) - whole).abs() / whole;
        assert_eq!(difference < 1e-4, expected, "{run}: {difference}");
    }

    // A rank without a micro-batch takes part.
    let class = fs::read_dir(runs.path("pictures/train")).unwrap().next().unwrap().unwrap().path();
    let file = fs::read_dir(class).unwrap().next().unwrap().unwrap().path();
    fs::write(file, b"\xff\xd8\xff no picture").unwrap();
    let sets = ["train.batch_size=2", "train.threads=1", "train.steps=0", "train.epochs=1"];
    let more = ["network.sync_bn=true", "train.accumulate=2", "data.check_headers=false"];
    let outcomes = train_on_ranks(&runs, "fewer", &[&sets[..], &more].concat(), 2);
    outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    // Nor does a loss that is not finite on one rank let the others wait.
    let sets =
        [&sets[..], &["network.sync_bn=true", "train.accumulate=2", "optimizer.lr=1e30"]].concat();
    let outcomes = train_on_ranks(&runs, "diverged", &sets, 2);
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.as_ref().is_err_and(|error| error.contains("diverged")))
    );
}

#[test]
fn too_many_pictures_that_cannot_be_read_end_all_ranks() {
    let runs = Arc::new(Runs::new());
    let dir = fs::read_dir(runs.path("pictures/train")).unwrap().next().unwrap().unwrap().path();
    for file in fs::read_dir(dir).unwrap() {
        fs::write(file.unwrap().path(), b"no picture").unwrap();
    }
    let sets = [&SMALL[..], &["data.max_bad=1"]].concat();
    for outcome in train_on_ranks(&runs, "ranks", &sets, 2) {
        let error = outcome.unwrap_err();
        assert!(error.contains("training images could not be read, more than the"), "{error}");
    }
}

#[test]
fn a_loss_that_is_not_finite_ends_all_ranks_alike() {
    let runs = Arc::new(Runs::new());
    let sets = [&SMALL[..], &["optimizer.lr=1e30"]].concat();
    let outcomes = train_on_ranks(&runs, "ranks", &sets, 2);
    let errors: Vec<&String> =
        outcomes.iter().map(|outcome| outcome.as_ref().unwrap_err()).collect();
    assert!(errors[0].contains("the run has diverged"), "{}", errors[0]);
    assert_eq!(errors[0], errors[1]);
    // Back to the last checkpoint with half the rate, on all ranks, until no rollback is left.
    let sets = [&sets[..], &["train.on_divergence=rollback"]].concat();
    let outcomes = train_on_ranks(&runs, "again", &sets, 3);
    assert!(outcomes.iter().all(|outcome| outcome.is_err() && outcome == &outcomes[0]));
    let (_, state) = runs.job("again", &[&sets[..], &["train.ranks=3"]].concat(), None);
    assert_eq!(state.progress.rollbacks, 3);
}

#[test]
fn ranks_that_would_train_something_else_are_refused() {
    let runs = Runs::new();
    let sets = [&SMALL[..], &["train.ranks=2"]].concat();
    assert_eq!(config(&sets).train.images_per_update(), 8);
    let making = Mutex::new(());
    let one = |threads: Threads| {
        let mut ranks = Ranks::of(Box::new(threads));
        let seed = format!("train.seed={}", 5 + ranks.share().rank);
        let (job, state) = {
            let _one_at_a_time = making.lock().unwrap();
            runs.job("run", &[&sets[..], &[&seed]].concat(), None)
        };
        job.check_same(&mut ranks, &state).unwrap_err().to_string()
    };
    std::thread::scope(|scope| {
        let start = |rank| scope.spawn(|| one(rank));
        let running: Vec<_> = Threads::group(2).into_iter().map(start).collect();
        for rank in running {
            let said = rank.join().unwrap();
            assert!(said.contains("rank 1 has other settings than rank 0: `seed = 6`"), "{said}");
        }
    });
}
