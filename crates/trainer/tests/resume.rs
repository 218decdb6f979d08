//! Runs that go on with other settings, and the commands that messages advise.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::fs;
use std::process::Command;

use bninception::config::{Sources, resolve};
use bninception::run::checkpoint;
use bninception::training::course::Course;
use common::Place;

/// 40 pictures in batches of 8.
const SMOKE: [&str; 7] =
    ["train", "--preset", "smoke", "--data-dir", "pictures", "--set", "schedule.kind=constant"];

/// The first two columns of `summary.csv`: epoch and step.
fn epochs(place: &Place) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(place.path("run/summary.csv")).unwrap();
    let row = |row: &str| {
        let mut cells = row.split(',').map(|cell| cell.parse().unwrap());
        (cells.next().unwrap(), cells.next().unwrap())
    };
    text.lines().skip(1).map(row).collect()
}

#[test]
fn another_batch_size_goes_on_in_its_epoch() {
    let place = Place::with_pictures();
    place.succeed(&[&SMOKE[..], &["--steps", "7", "--run-dir", "run"]].concat());
    assert_eq!(epochs(&place), [(1, 5), (2, 7)]);
    let refused = ["resume", "run", "--epochs", "4", "-b", "4"];
    place.fail(
        &refused,
        2,
        &["train.batch_size: 8 in the run, 4 now", "--allow-change train.batch_size"],
    );

    // Step 7 is the end of the run in the middle of epoch 2, of whose 40 images 16 were seen.
    let permit = ["--allow-change", "train.batch_size"];
    let output = place.run(&[&refused[..], &permit].concat());
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{talk}");
    assert!(talk.contains("epoch 2 goes on behind 16 images of 40"), "{talk}");
    // 6 of 10 batches are left of epoch 2.
    assert_eq!(epochs(&place), [(1, 5), (2, 7), (2, 13), (3, 23), (4, 33)]);

    // Larger again, and stopped on the way: 24 of 40 images are seen, nearest to 20.
    let more = ["--epochs", "6", "-b", "20", "--set", "checkpoint.every_steps=1"];
    place.succeed(&[&["resume", "run"], &more[..], &permit].concat());
    assert_eq!(epochs(&place)[4..], [(4, 33), (5, 35), (6, 37)]);
    let metadata = checkpoint::load(&place.path("run/last.safetensors")).unwrap().metadata;
    assert_eq!((metadata.epoch, metadata.position, metadata.steps_per_epoch), (6, 0, 2));
    let course = Course::new(&metadata.config, 40, &metadata.progress);
    assert_eq!(course.total_steps, 37);
    // The rate follows the epochs.
    let rates = ["--set", "schedule.kind=exponential", "--set", "schedule.decay_epochs=1"];
    let permits = ["--allow-change", "schedule.kind", "--allow-change", "schedule.decay_epochs"];
    place.succeed(&[&["resume", "run", "--epochs", "8"], &rates[..], &permits].concat());
    let text = fs::read_to_string(place.path("run/summary.csv")).unwrap();
    let last: Vec<f64> =
        text.lines().last().unwrap().split(',').map(|x| x.parse().unwrap_or(0.0)).collect();
    let config = checkpoint::load(&place.path("run/last.safetensors")).unwrap().metadata.config;
    let expected = config.optimizer.lr * config.schedule.decay.powi(7);
    assert!((last[2] - expected).abs() < 1e-12, "{} in epoch 8, expected {expected}", last[2]);
}

/// A batch that is larger than what was seen of the epoch lets it begin again: nothing is evaluated or
/// named there, and what goes back to the last checkpoint goes back to this place.
#[test]
fn an_epoch_that_begins_again_is_no_end_of_one() {
    let place = Place::with_pictures();
    let epochs = ["--set", "checkpoint.every_epochs=1", "--set", "train.steps=0", "--epochs", "2"];
    let keep = ["--set", "checkpoint.keep=3", "--run-dir", "run"];
    place.succeed(&[&SMOKE[..], &epochs, &keep].concat());
    // One step into epoch 3.
    let stop = ["--set", "checkpoint.every_steps=1", "--set", "train.epochs=0", "--steps", "11"];
    place.succeed(&[&["resume", "run"], &stop[..]].concat());
    let load = |name: &str| checkpoint::load(&place.path("run").join(name)).unwrap().metadata;
    let before = fs::read(place.path("run/epoch-0002.safetensors")).unwrap();
    fs::remove_file(place.path("run/epoch-0003.safetensors")).unwrap();
    let larger = ["--set", "train.steps=0", "--epochs", "4", "-b", "40", "--max-time", "0s"];
    let permit = ["--allow-change", "train.batch_size"];
    place.succeed(&[&["resume", "run"], &larger[..], &permit].concat());
    let last = load("last.safetensors");
    assert_eq!((last.epoch, last.position, last.progress.step), (2, 0, 11));
    assert!(fs::read(place.path("run/epoch-0002.safetensors")).unwrap() == before);
    // A run that diverges behind the change does not go back before it.
    for file in common::listing(&place.path("run")).iter().filter(|path| path.is_file()) {
        let target = place.path("other").join(file.strip_prefix(place.path("run")).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
    let rollback = ["--set", "train.on_divergence=rollback", "--lr", "1e38"];
    let rate = ["--allow-change", "optimizer.lr"];
    let output = place.run(&[&["resume", "other"], &rollback[..], &rate].concat());
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    let other = load("../other/last.safetensors");
    assert_eq!(other.epoch, other.progress.step - 9, "{:?}", other.progress);
    // The run itself ends behind epoch 4: two batches of 40.
    place.succeed(&["resume", "run"]);
    let last = load("last.safetensors");
    assert_eq!((last.epoch, last.progress.step), (4, 13));
    assert!(!place.path("run/epoch-0000.safetensors").exists());
}

/// What a run is offered, it can do: every setting that would change its result is changed, and either
/// the change is said to make another network, or it is permitted as shown and a step goes through.
#[test]
fn what_is_offered_works() {
    let place = Place::with_pictures();
    place.succeed(&[&SMOKE[..], &["--steps", "1", "--run-dir", "run"]].concat());
    let base = resolve(&Sources { preset: Some("smoke"), ..Sources::default() }).unwrap();
    // Another value of each setting, where doubling it is none.
    let others = [
        ("network.kind", "googlenet"),
        ("network.classes", "10"),
        ("network.activation", "sigmoid"),
        ("network.pool_proj_4c4d", "128"),
        ("network.lrn", "true"),
        ("network.dropout", "0.3"),
        ("network.conv_bias", "true"),
        ("network.aux", "true"),
        ("network.aux_weight", "0.2"),
        ("network.batch_norm", "false"),
        ("network.bn_momentum", "0.2"),
        ("data.image_size", "48"),
        ("data.crop_ratio", "0.5"),
        ("data.mean", "[0.4, 0.4, 0.4]"),
        ("data.exif", "false"),
        ("data.shuffle", "none"),
        ("data.max_pixels", "1000000"),
        ("augment.mirror", "false"),
        ("augment.colour", "none"),
        ("augment.interpolation", "bicubic"),
        ("augment.crop_area", "[0.5, 1.0]"),
        ("optimizer.lr", "0.001"),
        ("optimizer.momentum", "0.5"),
        ("optimizer.weight_decay", "0.001"),
        ("optimizer.nesterov", "true"),
        ("train.batch_size", "5"),
        ("train.ema", "0"),
        ("train.eval_statistics", "moving"),
        ("train.label_smoothing", "0.1"),
        ("train.dtype", "bf16"),
        ("train.seed", "3"),
        // Last, since a cosine asks for a permit for more steps too.
        ("schedule.kind", "cosine"),
    ];
    let mut works = 0;
    let mut steps = 2;
    for (key, value) in others {
        assert!(base.origins.contains_key(key), "{key} is a setting");
        let set = format!("{key}={value}");
        let resume = ["resume", "run", "--steps", &steps.to_string(), "--set", &set];
        let output = place.run(&resume);
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() || talk.contains("expected ") {
            continue; // it has the value already, or holds only with another setting
        }
        let offer = format!("(--allow-change {key})");
        if !talk.contains(&offer) {
            assert!(talk.contains("another network: begin a new run"), "{key}: {talk}");
            assert!(key.starts_with("network."), "{key}: {talk}");
            // It is refused whatever is permitted.
            place.fail(&[&resume[..], &["--allow-change", key]].concat(), 2, &["begin a new run"]);
            continue;
        }
        place.succeed(&[&resume[..], &["--allow-change", key]].concat());
        works += 1;
        steps += 1;
    }
    assert!(works >= 20, "{works} changes worked");
}

/// The command behind the last `with: ` or `for example: ` of a message.
fn advised(talk: &str) -> String {
    let at = talk.rfind("with: bninception").map(|at| at + "with: ".len());
    let at =
        at.or_else(|| talk.rfind("for example: bninception").map(|at| at + "for example: ".len()));
    let command = &talk[at.unwrap_or_else(|| panic!("no command in {talk}"))..];
    command.lines().next().unwrap().trim_end_matches(',').to_owned()
}

/// Runs what a message advises as it stands there, in a shell.
fn follow(place: &Place, command: &str) -> String {
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_bninception")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-c", command])
        .env("PATH", path)
        .current_dir(place.path("."))
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {talk}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &talk
}

#[cfg(unix)]
#[test]
fn advice_can_be_followed() {
    let place = Place::with_pictures();
    let talk_of = |arguments: &[&str]| {
        let output = place.run(arguments);
        let (talk, result) = (&output.stderr, &output.stdout);
        String::from_utf8_lossy(talk).into_owned() + &String::from_utf8_lossy(result)
    };
    let train =
        ["train", "--preset", "smoke", "--data-dir", "pictures", "--set", "schedule.kind=cosine"];
    let moving = ["--set", "train.eval_statistics=moving"];
    let dir = "my runs/it's mine";
    let run = |more: &[&str]| talk_of(&[&train[..], &moving, &["--run-dir", dir], more].concat());
    // Out of time, then to the end.
    let talk = run(&["--steps", "6", "--max-time", "0s"]);
    assert!(talk.contains("the time is up"), "{talk}");
    let talk = follow(&place, &advised(&talk));
    let picture = common::listing(&place.path("pictures/val"))
        .into_iter()
        .find(|path| path.is_file())
        .unwrap();
    let predict = advised(&talk).replace("IMAGE...", picture.to_str().unwrap());
    assert!(follow(&place, &predict).contains(" %"));
    // There is a run already.
    let talk = run(&[]);
    let command = advised(&talk);
    let talk =
        follow(&place, command.split_once(", choose").map_or(command.as_str(), |(first, _)| first));
    // It is at its end; so is the rate of a cosine, and another run takes its weights.
    assert!(talk.contains("the run is at its end"), "{talk}");
    let talk = follow(&place, &format!("{} -b 8 --steps 2", advised(&talk)));
    assert!(talk.contains("2 steps in"), "{talk}");
    talk_of(&[
        "train",
        "--preset",
        "smoke",
        "--data-dir",
        "pictures",
        "--epochs",
        "1",
        "--run-dir",
        "epochs",
        "--set",
        "schedule.kind=exponential",
        "--set",
        "schedule.warmup_fraction=0",
    ]);
    let talk = talk_of(&["resume", "epochs"]);
    assert!(follow(&place, &advised_example(&talk)).contains("10 steps in"), "{talk}");
    // Statistics that are not there.
    let talk = talk_of(&["eval", dir, "--statistics", "population"]);
    follow(&place, &format!("{} -b 4", advised(&talk)));
    // What `report` writes.
    place.succeed(&["report", dir, "--format", "md"]);
    let page = fs::read_to_string(place.path(dir).join("report.md")).unwrap();
    let commands = page.lines().filter(|line| line.starts_with("bninception "));
    let commands: Vec<String> =
        commands.map(|line| line.replace("IMAGE...", picture.to_str().unwrap())).collect();
    assert_eq!(commands.len(), 3);
    commands.iter().for_each(|command| _ = follow(&place, command));
}

fn advised_example(talk: &str) -> String {
    let at = talk.rfind("for example: ").unwrap() + "for example: ".len();
    talk[at..].lines().next().unwrap().to_owned()
}

#[test]
fn a_recipe_is_named_stored_and_the_same_everywhere() {
    let place = Place::with_pictures();
    let talk_of = |arguments: &[&str]| {
        let output = place.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout)
    };
    // One command line, one recipe.
    let short = ["--data-dir", "pictures", "-b", "8", "--steps", "2"];
    let shown = talk_of(&[&["config", "show"], &short[..]].concat());
    let recipe = "recipe: small; flag --batch-size: train.batch_size; flag --data-dir: data.dir; \
                  flag --steps: train.epochs, train.steps; the images: augment.crop_area, data.image_size";
    assert!(shown.contains(&format!("\n# {recipe}\n")), "{shown}");
    let planned = place.json(&[&["train", "--dry-run", "--json"], &short[..]].concat());
    assert_eq!(planned["recipe"]["preset"], "small");
    assert_eq!(planned["recipe"]["changed"]["data.image_size"], "the images");
    assert_eq!((&planned["steps"], &planned["training_images"]), (&2.into(), &40.into()));
    let talk = talk_of(&[&["train"], &short[..]].concat());
    let reason = "no preset was named, so this is small at 64 px, for 40 training images of 10 classes \
                  with short sides of 32 px (median); below 5000 images it is small";
    assert!(talk.contains(reason), "{talk}");
    assert!(talk.contains(&recipe.replace("recipe:", "recipe")), "{talk}");
    assert!(place.path("checkpoints/small").is_dir());
    assert!(talk_of(&["config", "show"]).starts_with("# recipe: demo\n"));
    let set = talk_of(&["config", "show", "--set", "data.dir=pictures", "--image-size", "32"]);
    assert!(set.contains(
        "; --set: data.dir; flag --image-size: data.image_size; the images: augment.crop_area\n"
    ));
    let help = talk_of(&["train", "--help"]);
    for preset in ["small", "modern", "demo"] {
        assert!(help.contains(preset), "{help}");
    }
    // Who names a preset gets that, and advice where its size does not suit the images.
    let talk = talk_of(&["config", "show", "--preset", "bn-x5", "--data-dir", "pictures"]);
    assert!(talk.starts_with("# recipe: bn-x5; flag --data-dir: data.dir\n"), "{talk}");
    let own = ["train", "--dry-run", "--preset", "bn-x5", "--data-dir", "pictures", "-b", "8"];
    let talk = talk_of(&own);
    assert!(talk.contains("--image-size 64 shows all of it"), "{talk}");

    // A file gives a run its name, whatever it extends.
    fs::write(place.path("mine.toml"), "extends = \"smoke\"\n[optimizer]\nlr = 0.01\n").unwrap();
    let own = ["train", "-c", "mine.toml", "--data-dir", "pictures", "--steps", "2"];
    let talk = talk_of(&own);
    assert!(talk.contains("recipe smoke; file mine.toml: optimizer.lr; flag --data-dir"), "{talk}");
    let run = place.path("checkpoints/mine");
    assert!(run.is_dir());
    talk_of(&[
        "resume",
        "checkpoints/mine",
        "--steps",
        "3",
        "--set",
        "train.label_smoothing=0.1",
        "--allow-change",
        "train.steps",
        "--allow-change",
        "train.label_smoothing",
    ]);
    let about = talk_of(&["info", "checkpoints/mine/last.safetensors"]);
    let recipe = "recipe smoke; --set: train.label_smoothing; file mine.toml: optimizer.lr; flag --data-dir: data.dir; flag --steps: train.steps";
    assert!(about.contains(recipe), "{about}");
    // A file may name other images, and its preset is not the run's.
    let other = format!("extends = \"bn-x5\"\n[data]\ndir = {:?}\n", place.path("pictures"));
    fs::write(place.path("other.toml"), other).unwrap();
    let last = "checkpoints/mine/last.safetensors";
    talk_of(&["resume", "checkpoints/mine", "-c", "other.toml"]);
    let about = talk_of(&["info", last]);
    assert!(
        about.contains("recipe smoke; ") && about.contains("file other.toml: data.dir"),
        "{about}"
    );
    talk_of(&["report", "checkpoints/mine", "--format", "md"]);
    let page = fs::read_to_string(run.join("report.md")).unwrap();
    assert!(
        page.contains("Preset: `smoke`") && page.contains("Settings that differ from `smoke`"),
        "{page}"
    );
    // Its config begins another run of the same recipe.
    let shown = talk_of(&["config", "show", "-c", "checkpoints/mine/config.toml"]);
    assert!(
        shown.starts_with(
            "# recipe: smoke; file checkpoints/mine/config.toml: data.dir, optimizer.lr"
        ),
        "{shown}"
    );
}
