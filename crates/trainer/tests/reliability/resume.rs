//! A run that was stopped and resumed is the run that was not.

use super::job::{Runs, STEPS_PER_EPOCH, tensors};
use bninception::distributed::Ranks;
use bninception::run::checkpoint;
use bninception::run::stop::Stop;
use bninception::training::train::train;

#[test]
fn wherever_it_was_stopped() {
    let runs = Runs::new();
    runs.train("whole", &[], None);
    let whole = runs.result("whole");
    let table: [&[u64]; 7] = [
        &[0],
        &[1],
        &[3],
        // The last step of the first epoch is still to do; it is done and evaluated.
        &[STEPS_PER_EPOCH - 1],
        &[STEPS_PER_EPOCH],
        // Twice, the second time inside the same epoch; and behind everything but the last step.
        &[6, 8],
        &[0, 5, 11],
    ];
    for (index, stops) in table.into_iter().enumerate() {
        let run = format!("stopped-{index}");
        for (nth, &stop) in stops.iter().enumerate() {
            // Another number of data workers each time.
            let workers = format!("data.workers={nth}");
            let outcome = runs.train(&run, &[&workers], Some(stop));
            assert!(!outcome.finished);
            assert_eq!(outcome.progress.step, stop);
        }
        let outcome = runs.train(&run, &["data.workers=3", "data.prefetch=1"], None);
        assert!(outcome.finished);
        runs.result(&run).assert_equals(&whole, &format!("stopped at {stops:?}"));
    }

    // What makes the comparison worth something: other runs differ.
    runs.train("other-seed", &["train.seed=7"], None);
    assert!(runs.result("other-seed") != whole);
    runs.train("skipped", &[], Some(3));
    let (job, mut state) = runs.job("skipped", &[], None);
    state.progress.step += 1;
    let mut executor = bninception::setup::executor(&job.config, job.network.clone()).unwrap();
    train(&job, executor.as_mut(), &mut Ranks::alone(), state).unwrap();
    assert!(runs.result("skipped").tensors[0] != whole.tensors[0]);

    // And every tensor has moved since the first step.
    runs.train("start", &[], Some(0));
    let load = |run: &str| checkpoint::load(&runs.path(run).join("last.safetensors")).unwrap();
    let (start, end) = (load("start").state, load("whole").state);
    let (job, _) = runs.job("start", &[], None);
    for spec in &job.table.trainable {
        let values = |state: &bninception::run::state::TrainState| {
            state.model.weights.trainable[spec.range.clone()].to_vec()
        };
        assert!(values(&start) != values(&end), "{} was not trained", spec.name);
    }
}

#[test]
fn in_bf16_and_by_the_reference_engine() {
    let runs = Runs::new();
    for (name, sets) in [
        ("bf16", vec!["train.dtype=bf16"]),
        ("reference", vec!["engine.kind=reference", "train.steps=6", "train.batch_size=4"]),
    ] {
        let whole = format!("{name}-whole");
        runs.train(&whole, &sets, None);
        let stopped = format!("{name}-stopped");
        runs.train(&stopped, &sets, Some(2));
        runs.train(&stopped, &sets, None);
        runs.result(&stopped).assert_equals(&runs.result(&whole), name);
    }
}

/// The sums since the last line of the log go on where they were.
#[test]
fn between_two_lines_of_the_log() {
    let runs = Runs::new();
    // Ten steps an epoch, two between two lines, whatever log.every_steps says.
    let sets = ["train.batch_size=4", "train.steps=6", "log.every_steps=1000"];
    runs.train("whole", &sets, None);
    let whole = runs.result("whole");
    assert_eq!(whole.metrics.matches("\"train\"").count(), 3, "{}", whole.metrics);
    runs.train("stopped", &sets, Some(3));
    runs.train("stopped", &sets, None);
    runs.result("stopped").assert_equals(&whole, "stopped between two lines");
}

#[test]
fn what_was_best_stays_best() {
    // A process killed behind the checkpoint of a best evaluation, before it had its name.
    let runs = Runs::new();
    runs.train("run", &[], Some(STEPS_PER_EPOCH));
    let best = runs.path("run").join("best.safetensors");
    let expected = tensors(&best);
    std::fs::remove_file(&best).unwrap();
    std::fs::remove_file(runs.path("run").join("epoch-0001.safetensors")).unwrap();
    runs.train("run", &[], Some(STEPS_PER_EPOCH));
    assert!(tensors(&best) == expected);
    assert!(runs.path("run").join("epoch-0001.safetensors").is_file());

    // A later evaluation that is no better leaves it alone, in this process and in the next: with a
    // learning rate of next to nothing, top-1 stays what it was.
    let (job, mut state) = runs.job("run", &[], None);
    if let Some(best) = &mut state.progress.best {
        best.top1 = 1.0;
    }
    job.folder.save_last(&job.metadata(&state.progress), &job.table, &state).unwrap();
    runs.train("run", &[], Some(2 * STEPS_PER_EPOCH));
    runs.train("run", &[], None);
    let stored = checkpoint::load(&best).unwrap().metadata;
    assert_eq!(stored.step, STEPS_PER_EPOCH);
    let summary = std::fs::read_to_string(runs.path("run").join("summary.csv")).unwrap();
    assert_eq!(summary.matches("epoch,step").count(), 1, "one header:\n{summary}");
    assert_eq!(summary.lines().count(), 4, "{summary}");
}

/// Forty pictures in updates of three times four: three updates an epoch, four pictures left over.
#[test]
fn updates_of_several_micro_batches_resume_exactly() {
    let runs = Runs::new();
    let sets = ["train.batch_size=4", "train.accumulate=3", "train.steps=8", "train.ema=0.5"];
    let train = |run: &str, stop| runs.train(run, &sets, stop);
    assert!(train("whole", None).finished);
    let whole = runs.result("whole");
    for stops in [&[1_u64, 4][..], &[3], &[7]] {
        let run = format!("stopped-{stops:?}");
        for &stop in stops {
            assert_eq!(train(&run, Some(stop)).progress.step, stop);
        }
        assert!(train(&run, None).finished);
        runs.result(&run).assert_equals(&whole, &run);
    }
    // Steps and epochs count updates, and all images of an update are counted.
    let last = checkpoint::load(&runs.path("whole").join("last.safetensors")).unwrap().metadata;
    assert_eq!((last.step, last.steps_per_epoch, last.epoch, last.position), (8, 3, 2, 2));
    let seen = whole.summary.lines().count() - 1;
    assert_eq!(seen, 3, "two epochs and the end of the run:\n{}", whole.summary);
    // Another number of micro-batches is another run.
    let other = ["train.batch_size=12", "train.steps=8", "train.ema=0.5"];
    assert!(runs.train("at-once", &other, None).finished);
    assert!(runs.result("at-once").tensors[0] != whole.tensors[0]);
}

/// An average over epochs, a warm-up over half of the run, and mirroring by turns.
#[test]
fn what_goes_by_epochs_and_by_the_length_resumes_exactly() {
    let runs = Runs::new();
    let sets =
        ["train.ema_epochs=1.5", "schedule.warmup_fraction=0.5", "augment.mirror=alternating"];
    assert!(runs.train("whole", &sets, None).finished);
    let whole = runs.result("whole");
    for stops in [&[3_u64, 8][..], &[STEPS_PER_EPOCH]] {
        let run = format!("stopped-{stops:?}");
        for &stop in stops {
            runs.train(&run, &sets, Some(stop));
        }
        assert!(runs.train(&run, &sets, None).finished);
        runs.result(&run).assert_equals(&whole, &run);
    }
    // Each of them makes another run.
    for others in [[sets[0], sets[1], "augment.mirror=random"], ["train.ema=0.5", sets[1], sets[2]]]
    {
        let run = others.concat();
        assert!(runs.train(&run, &others, None).finished);
        assert!(runs.result(&run).tensors[0] != whole.tensors[0], "{others:?}");
    }
}

/// A reason to stop that comes inside an update leaves the state behind the one before.
#[test]
fn a_stop_inside_an_update_loses_nothing() {
    let runs = Runs::new();
    let sets = ["train.batch_size=4", "train.accumulate=3", "train.steps=5"];
    assert!(runs.train("whole", &sets, None).finished);
    let (mut job, state) = runs.job("stopped", &sets, None);
    let asked = std::cell::Cell::new(0);
    // Asked once before each micro-batch.
    job.stop = Box::new(move |_| {
        asked.set(asked.get() + 1);
        (asked.get() == 3 * 2 + 2).then_some(Stop::TimeIsUp)
    });
    let mut executor = bninception::setup::executor(&job.config, job.network.clone()).unwrap();
    let outcome = train(&job, executor.as_mut(), &mut Ranks::alone(), state).unwrap();
    assert_eq!((outcome.progress.step, outcome.finished), (2, false));
    assert!(runs.train("stopped", &sets, None).finished);
    runs.result("stopped").assert_equals(&runs.result("whole"), "stopped inside an update");
}

/// Rare classes that come more often and weigh more, and gradients that are clipped: all follow from the
/// settings and the place in the run.
#[test]
fn balanced_weighted_clipped_and_mixed_runs_resume_exactly() {
    let runs = Runs::new();
    // The first class keeps one of its four pictures: 37 are left, in four batches of eight.
    let classes = std::fs::read_dir(runs.path("pictures/train")).unwrap();
    let rare = classes.map(|entry| entry.unwrap().path()).min().unwrap();
    let mut pictures: Vec<_> =
        std::fs::read_dir(rare).unwrap().map(|entry| entry.unwrap().path()).collect();
    pictures.sort();
    pictures[1..].iter().for_each(|picture| std::fs::remove_file(picture).unwrap());
    let plain = ["data.shuffle=full", "log.every_steps=1"];
    let own = [
        "data.balance=sqrt",
        "train.class_weights=balanced",
        "optimizer.clip_norm=2.0",
        "augment.mixup=0.4",
    ];
    let sets = [&plain[..], &own, &["checkpoint.best_by=balanced"]].concat();
    assert!(runs.train("whole", &sets, None).finished);
    let whole = runs.result("whole");
    for stops in [&[1_u64, 6][..], &[4], &[11]] {
        let run = format!("stopped-{stops:?}");
        for &stop in stops {
            assert_eq!(runs.train(&run, &sets, Some(stop)).progress.step, stop);
        }
        assert!(runs.train(&run, &sets, None).finished);
        runs.result(&run).assert_equals(&whole, &run);
    }
    // Each of the four makes another run, and the norm is written down without a limit too.
    for without in own {
        let others: Vec<&str> = sets.iter().copied().filter(|&set| set != without).collect();
        let run = format!("without {without}");
        assert!(runs.train(&run, &others, None).finished);
        let other = runs.result(&run);
        assert!(other.tensors[0] != whole.tensors[0], "{run} is the same");
        for metrics in [&other.metrics, &whole.metrics] {
            let trained = || metrics.lines().filter(|line| line.contains("\"kind\":\"train\""));
            assert_eq!(trained().count(), 12);
            for line in trained() {
                let row: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(row["grad_norm"].as_f64().is_some_and(|norm| norm > 0.0), "{line}");
            }
        }
    }
}

/// A run whose first evaluation nothing beats ends when its patience does, wherever it was stopped.
#[test]
fn a_run_that_stops_early_is_at_its_end() {
    let runs = Runs::new();
    let sets = ["train.steps=40", "train.patience=2", "checkpoint.every_steps=1"];
    // The same beginning for all: the evaluation of epoch 1 is called perfect.
    let begin = |run: &str| {
        runs.train(run, &sets, Some(STEPS_PER_EPOCH));
        let (job, mut state) = runs.job(run, &sets, None);
        state.progress.best.as_mut().unwrap().top1 = 1.0;
        job.folder.save_last(&job.metadata(&state.progress), &job.table, &state).unwrap();
    };
    begin("whole");
    let outcome = runs.train("whole", &sets, None);
    assert!(outcome.finished && outcome.stopped_early);
    let end = 3 * STEPS_PER_EPOCH;
    assert_eq!((outcome.progress.step, outcome.progress.evaluated_step), (end, Some(end)));
    let whole = runs.result("whole");
    assert!(runs.path("whole").join("epoch-0003.safetensors").is_file(), "the end has its name");

    // Resumed, it is still at its end.
    let outcome = runs.train("whole", &sets, None);
    assert!(outcome.finished && outcome.stopped_early && outcome.progress.step == end);
    runs.result("whole").assert_equals(&whole, "resumed at its end");
    for stop in [STEPS_PER_EPOCH + 1, end - 1] {
        let run = format!("stopped-{stop}");
        begin(&run);
        assert!(!runs.train(&run, &sets, Some(stop)).finished);
        assert!(runs.train(&run, &sets, None).stopped_early);
        runs.result(&run).assert_equals(&whole, &run);
    }
    // Killed in front of the evaluation, which is then made again: the state is that of the last step.
    begin("killed");
    let (job, _) = runs.job("killed", &sets, None);
    let mut before = checkpoint::load(&runs.path("whole").join("last.safetensors")).unwrap().state;
    let earlier = before.progress.clone();
    runs.train("killed", &sets, Some(end - 1));
    let reached = runs.job("killed", &sets, None).1.progress;
    before.progress.evaluated_step = reached.evaluated_step;
    before.progress.evaluation = reached.evaluation;
    assert!(before.progress != earlier);
    // Sums of an epoch are emptied at its end; a row is then written of none.
    job.folder.save_last(&job.metadata(&before.progress), &job.table, &before).unwrap();
    let outcome = runs.train("killed", &sets, None);
    assert!(outcome.stopped_early);
    assert_eq!(outcome.progress.evaluation, earlier.evaluation);
    assert_eq!(outcome.progress.step, end);

    // With more patience it goes on, as if there had been no end.
    let patient = ["train.steps=20", "train.patience=0", "checkpoint.every_steps=1"];
    begin("patient");
    runs.train("patient", &patient, None);
    let outcome = runs.train("whole", &patient, None);
    assert!(outcome.finished && !outcome.stopped_early);
    runs.result("whole").assert_equals(&runs.result("patient"), "went on with more patience");
}
