use super::*;
use crate::run::folder::RunFolder;

/// A made-up run of a preset; `rows` are (step, top-1).
fn run(name: &str, preset: &str, seed: u64, rows: &[(u64, f64)]) -> RecordedRun {
    let sources = Sources { preset: Some(preset), ..Sources::default() };
    let mut config = resolve(&sources).unwrap().config;
    config.train.seed = seed;
    config.data.dir = format!("pictures of {name}");
    let row = |&(step, top1): &(u64, f64)| EvalRow {
        step,
        epoch: 1.0,
        images: 100,
        loss: 1.0,
        top1,
        top5: 1.0,
        balanced: f64::NAN,
        seconds: f64::NAN,
    };
    RecordedRun {
        folder: RunFolder::at(&Path::new("out").join(name)),
        config,
        recipe: Default::default(),
        training: Vec::new(),
        evaluations: rows.iter().map(row).collect(),
        epochs: Vec::new(),
        watched: Vec::new(),
        diverged: false,
    }
}

fn names_of(comparison: &Comparison) -> Vec<&str> {
    comparison.models.iter().map(|model| model.name.as_str()).collect()
}

const SLOW: [(u64, f64); 4] = [(100, 0.3), (200, 0.5), (300, 0.6), (400, 0.6)];

#[test]
fn steps_are_those_of_the_first_evaluation_at_the_mark() {
    // (evaluations of a model beside SLOW, its steps to 0.6, ratio)
    type Row<'a> = (&'a [(u64, f64)], Option<u64>, Option<f64>);
    let table: [Row; 5] = [
        // A tie with the mark reaches it.
        (&[(100, 0.6), (200, 0.7)], Some(100), Some(3.0)),
        (&[(100, 0.5), (200, 0.59)], None, None),
        // Another interval: the step of the evaluation, nothing between.
        (&[(30, 0.59), (60, 0.9)], Some(60), Some(5.0)),
        // Later evaluations that fall below again do not count.
        (&[(150, 0.61), (300, 0.2)], Some(150), Some(2.0)),
        (&[(600, 0.61)], Some(600), Some(0.5)),
    ];
    for (rows, steps, ratio) in table {
        let runs = vec![run("fast", "bn-x5", 1, rows), run("slow", "inception", 1, &SLOW)];
        let comparison = Comparison::new(runs, None).unwrap();
        assert_eq!(names_of(&comparison), ["slow", "fast"]);
        assert_eq!((comparison.baseline, comparison.target), (0, 0.6));
        assert_eq!(comparison.steps_of_seeds(1), [steps], "{rows:?}");
        assert_eq!(comparison.ratio(1), ratio, "{rows:?}");
        // The baseline's own: the earlier of two equal evaluations.
        assert_eq!(comparison.steps_of_seeds(0), [Some(300)]);
        assert_eq!(comparison.ratio(0), Some(1.0));
        comparison.figure().to_svg().unwrap();
    }
}

#[test]
fn seeds_are_one_model() {
    let runs = vec![
        run("inception-seed-2", "inception", 2, &[(100, 0.5), (200, 0.7)]),
        run("bn-x5-seed-1", "bn-x5", 1, &[(100, 0.7), (200, 0.8)]),
        run("inception-seed-1", "inception", 1, &[(100, 0.5), (200, 0.4)]),
        run("bn-x5-seed-2", "bn-x5", 2, &[(100, 0.5), (200, 0.6)]),
        run("bn-x30-seed-1", "bn-x30", 1, &[(100, 0.7)]),
        run("bn-x30-seed-2", "bn-x30", 2, &[(100, 0.1)]),
    ];
    let comparison = Comparison::new(runs, None).unwrap();
    assert_eq!(names_of(&comparison), ["inception", "bn-x5", "bn-x30"]);
    // The mean of 0.5 and 0.7, and of the steps at which each is best.
    assert!((comparison.target - 0.6).abs() < 1e-12);
    assert_eq!(comparison.steps_of_seeds(0), [Some(100), Some(200)]);
    assert_eq!(comparison.steps_to_target(1), Some(Spread { mean: 150.0, min: 100.0, max: 200.0 }));
    assert_eq!(comparison.ratio(1), Some(1.0));
    // One seed of two reaches the mark: no mean.
    assert_eq!(comparison.steps_of_seeds(2), [Some(100), None]);
    assert_eq!(comparison.steps_to_target(2), None);
    assert_eq!(comparison.to_json()["models"][2]["n_reached"], 1);
    assert_eq!(comparison.models[0].mean_curve()[0], (100.0, 0.5));

    // In the legend: three models. Thin curves have no name there.
    let panel = &comparison.figure().panels[0];
    let named: Vec<&str> =
        panel.series.iter().map(|s| s.name.as_str()).filter(|name| !name.is_empty()).collect();
    assert_eq!(named, ["inception (lr 0.0015)", "bn-x5 (lr 0.0075)", "bn-x30 (lr 0.045)"]);
    assert_eq!(panel.series.len(), 3 + 6);
}

#[test]
fn what_is_one_model() {
    type Edit = fn(&mut Config);
    // (change of the second of two runs, models)
    let table: [(Edit, usize); 6] = [
        (|c| c.train.seed = 2, 1),
        (|c| (c.train.seed, c.data.workers) = (2, 7), 1),
        (|c| (c.train.seed, c.checkpoint.dir) = (2, "elsewhere".to_owned()), 1),
        // The same run again, another length, another rate.
        (|_| {}, 2),
        (|c| (c.train.seed, c.train.epochs) = (2, 7), 2),
        (|c| (c.train.seed, c.optimizer.lr) = (2, 0.1), 2),
    ];
    for (index, (edit, n_models)) in table.into_iter().enumerate() {
        let mut second = run("b", "bn-x5", 1, &SLOW);
        edit(&mut second.config);
        let models = group(vec![run("a", "bn-x5", 1, &SLOW), second]).unwrap();
        assert_eq!(models.len(), n_models, "row {index}");
    }
}

#[test]
fn the_baseline_is_the_papers_inception_or_the_one_named() {
    let with = |name: &str, preset: &str, edit: fn(&mut Config)| {
        let mut run = run(name, preset, 1, &SLOW);
        edit(&mut run.config);
        run
    };
    let sigmoid: fn(&mut Config) = |c| c.network.activation = crate::config::Activation::Sigmoid;
    let chosen = |runs: Vec<RecordedRun>, name: Option<&str>| {
        let comparison = Comparison::new(runs, name)?;
        Ok::<String, Error>(comparison.models[comparison.baseline].name.clone())
    };
    let all = || {
        vec![
            with("inception-x5-seed-1", "inception", |c| c.optimizer.lr = 0.0075),
            with("bn-x30-seed-1", "bn-x30", |_| {}),
            with("inception-sigmoid-seed-1", "inception", sigmoid),
            with("inception-seed-1", "inception", |_| {}),
        ]
    };
    assert_eq!(chosen(all(), None).unwrap(), "inception");
    assert_eq!(chosen(all(), Some("bn-x30-seed-1")).unwrap(), "bn-x30");
    assert_eq!(chosen(all(), Some("inception-sigmoid")).unwrap(), "inception-sigmoid");
    assert_eq!(chosen(all(), Some("out/bn-x30-seed-1/")).ok(), None); // no such folder on the disk
    let error = chosen(all(), Some("resnet")).unwrap_err().to_string();
    assert!(error.contains("resnet") && error.contains("inception-x5, bn-x30"), "{error}");

    // Not the preset's network, but the only one without batch norm.
    let runs = vec![with("a", "bn-x5", |_| {}), with("b", "inception", sigmoid)];
    assert_eq!(chosen(runs, None).unwrap(), "b");
    // None without batch norm: the first, not the first preset.
    let runs = vec![with("a", "bn-x30", |_| {}), with("b", "bn-x5", |_| {})];
    assert_eq!(chosen(runs, None).unwrap(), "a");
}

#[test]
fn a_diverged_run_is_shown_and_a_baseline_needs_an_evaluation() {
    let diverged = || {
        let mut run = run("inception-x5", "inception", 1, &[]);
        (run.config.optimizer.lr, run.diverged) = (0.0075, true);
        run
    };
    let runs = vec![diverged(), run("inception", "inception", 1, &SLOW)];
    let comparison = Comparison::new(runs, None).unwrap();
    assert_eq!(names_of(&comparison), ["inception", "inception-x5"]);
    assert_eq!(comparison.models[1].best_top1(), None);
    assert_eq!(comparison.steps_to_target(1), None);
    assert_eq!(comparison.models[1].n_diverged(), 1);
    comparison.figure().to_svg().unwrap();

    let error = Comparison::new(vec![diverged()], None).unwrap_err().to_string();
    assert!(error.contains("inception-x5 has no evaluation"), "{error}");
    assert!(Comparison::new(vec![], None).is_err());
}

#[test]
fn equal_names_become_paths() {
    for (folder, name) in [
        ("bn-x5-seed-12", "bn-x5"),
        ("demo", "demo"),
        ("-seed-1", "-seed-1"),
        ("a-seed-b", "a-seed-b"),
    ] {
        assert_eq!(without_seed(folder), name);
    }
    let mut other = run("run", "bn-x5", 1, &SLOW);
    other.folder = RunFolder::at(Path::new("elsewhere/run"));
    let models = group(vec![run("run", "inception", 1, &SLOW), other]).unwrap();
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["out/run", "elsewhere/run"]);
}
