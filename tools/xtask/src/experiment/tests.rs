use super::*;

fn options(extra: &str) -> Result<Options, String> {
    let text = format!("paper --data-dir pictures --out out {extra}");
    parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
}

fn presets() -> Vec<String> {
    MODELS.iter().map(|model| model.preset.to_owned()).collect()
}

fn names(runs: &[Run]) -> Vec<String> {
    runs.iter().map(|run| run.folder.display().to_string()).collect()
}

#[test]
fn the_plan_has_the_papers_models_and_rates() {
    let runs = plan(&options("--seeds 7").unwrap(), &presets(), PAPER_RATE).unwrap();
    let found: Vec<(String, &str, f64, Option<&str>)> = runs
        .iter()
        .map(|run| (run.folder.display().to_string(), run.preset, run.lr, run.set))
        .collect();
    let row = |name: &str, preset, lr, set| (format!("out/{name}-seed-7"), preset, lr, set);
    let expected = [
        row("inception", "inception", 0.0015, None),
        row("googlenet", "googlenet", 0.0015, None),
        row("bn-baseline", "bn-baseline", 0.0015, None),
        row("bn-x5", "bn-x5", 0.0075, None),
        row("bn-x30", "bn-x30", 0.045, None),
        row("bn-x5-sigmoid", "bn-x5-sigmoid", 0.0075, None),
        row("inception-x5", "inception", 0.0075, None),
        row("inception-sigmoid", "inception", 0.0015, Some("network.activation=sigmoid")),
        row("inception-xavier", "inception", 0.0015, Some("network.init_gain=0.7071")),
    ];
    assert_eq!(found, expected);
}

#[test]
fn seeds_are_outermost_and_models_can_be_chosen() {
    let asked = options("--seeds 1,2 --only bn-x5,inception").unwrap();
    let runs = plan(&asked, &presets(), 0.003).unwrap();
    let expected =
        ["out/inception-seed-1", "out/bn-x5-seed-1", "out/inception-seed-2", "out/bn-x5-seed-2"];
    assert_eq!(names(&runs), expected);
    assert_eq!(runs[3].lr, 0.015);

    // A program without the preset googlenet.
    let without: Vec<String> = presets().into_iter().filter(|name| name != "googlenet").collect();
    let runs = plan(&options("--seeds 1").unwrap(), &without, PAPER_RATE).unwrap();
    assert_eq!(runs.len(), MODELS.len() - 1);
    let error = plan(&options("--only resnet").unwrap(), &presets(), PAPER_RATE).unwrap_err();
    assert!(error.contains("resnet") && error.contains("bn-x30"), "{error}");
}

#[test]
fn rates_are_searched_with_inception() {
    let asked = options("--search 0.0015,0.005 --search-epochs 3 --seeds 4,5").unwrap();
    let runs = search_plan(&asked);
    // Beside the runs that are compared, also where the folder is named with a slash.
    assert_eq!(names(&runs), ["out-search/lr-0.0015", "out-search/lr-0.005"]);
    let slashed = options("--search 0.0015 --search-epochs 3 --out out/").unwrap();
    assert_eq!(names(&search_plan(&slashed)), ["out-search/lr-0.0015"]);
    assert!(runs.iter().all(|run| run.preset == "inception" && run.epochs == Some(3)));
    assert_eq!((runs[1].lr, runs[1].seed), (0.005, 4));
}

#[test]
fn a_run_begins_and_goes_on_with_its_settings() {
    let asked = options(
        "--seeds 1 --epochs 30 --image-size 64 --only inception-sigmoid --set augment.mirror=false \
         --set train.batch_size=16",
    )
    .unwrap();
    let run = &plan(&asked, &presets(), PAPER_RATE).unwrap()[0];
    let settings = "--lr 0.0015 --seed 1 --set augment.mirror=false --set train.batch_size=16 \
                    --set network.activation=sigmoid --image-size 64 --epochs 30 --data-dir \
                    pictures --json";
    let begin = "train --overwrite --preset inception --set log.tensorboard=false \
                 --set checkpoint.every_epochs=0 --run-dir out/inception-sigmoid-seed-1";
    assert_eq!(arguments(&asked, run, false).join(" "), format!("{begin} {settings}"));
    let go_on = "resume out/inception-sigmoid-seed-1";
    assert_eq!(arguments(&asked, run, true).join(" "), format!("{go_on} {settings}"));
}

#[test]
fn wrong_arguments_are_named() {
    for (extra, part) in [
        ("--epoch 3", "`--epoch` is not known"),
        ("--epochs", "--epochs needs a value"),
        ("--epochs many", "expected a number, found `many`"),
        ("--seeds 1,,2", "--seeds: expected a number"),
        ("--search 0.1", "belong together"),
        ("--search-epochs 1", "belong together"),
        ("--base-lr -1", "above 0, found -1"),
        ("--data-dir", "--data-dir needs a value"),
    ] {
        let error = options(extra).unwrap_err();
        assert!(error.contains(part), "{extra}: {error}");
    }
    assert!(parse(&[]).unwrap_err().starts_with("usage"));
}

#[test]
fn results_are_read() {
    for (output, expected) in [
        ("{\"steps\":8,\"top1\":0.25}\n", Some(0.25)),
        ("{\"steps\":8,\"top1\":null}\n", None),
        ("", None),
        ("nonsense", None),
    ] {
        assert_eq!(top1(output), expected, "{output}");
    }
}
