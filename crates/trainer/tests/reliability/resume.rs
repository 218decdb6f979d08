//! A run that was stopped and resumed is the run that was not.

use super::job::{Runs, STEPS_PER_EPOCH, tensors};
use bninception::run::checkpoint;

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
            assert_eq!(outcome.state.progress.step, stop);
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
    bninception::training::train::train(&job, executor.as_mut(), state).unwrap();
    assert!(runs.result("skipped").tensors[0] != whole.tensors[0]);

    // And every tensor has moved since the first step.
    runs.train("start", &[], Some(0));
    let load = |run: &str| checkpoint::load(&runs.path(run).join("last.safetensors")).unwrap();
    let (start, end) = (load("start").state, load("whole").state);
    let (job, _) = runs.job("start", &[], None);
    for spec in &job.table.trainable {
        let values = |state: &bninception::run::state::TrainState| {
            state.weights.trainable[spec.range.clone()].to_vec()
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
    job.folder.save_last(&job.metadata(&state), &job.table, &state).unwrap();
    runs.train("run", &[], Some(2 * STEPS_PER_EPOCH));
    runs.train("run", &[], None);
    let stored = checkpoint::load(&best).unwrap().metadata;
    assert_eq!(stored.step, STEPS_PER_EPOCH);
    let summary = std::fs::read_to_string(runs.path("run").join("summary.csv")).unwrap();
    assert_eq!(summary.matches("epoch,step").count(), 1, "one header:\n{summary}");
    assert_eq!(summary.lines().count(), 4, "{summary}");
}
