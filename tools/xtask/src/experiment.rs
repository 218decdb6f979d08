//! `cargo xtask experiment paper`: trains the networks of the paper's figure 3 on any folder of images
//! and compares them.
//!
//! Every run is a run of the program itself, in a folder of its own, OUT/MODEL-seed-SEED. The command
//! can be stopped and given again at any time: finished runs are passed over, begun ones go on.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::shell::{cargo, root, say};

const USAGE: &str = "\
usage: cargo xtask experiment paper --data-dir DIR [--out DIR] [--seeds 1,2,3] [--epochs N]
           [--image-size N] [--base-lr X] [--only MODEL,...]
           [--search X,... --search-epochs N] [--set KEY=VALUE]... [--dry-run]
Trains each model with each seed into OUT/MODEL-seed-SEED (OUT is checkpoints/paper unless given), and
compares them in OUT/compare. Given again, it goes on where it stopped. The rates are 1, 5 and 30 times
the base rate: that of --base-lr, or the best of --search, which trains `inception` for N epochs at each
rate, in OUT-search, or the paper's 0.0015. --set changes a setting of all runs.";

/// The learning rate of the paper's Inception (section 4.2.2).
const PAPER_RATE: f64 = 0.0015;

/// The exit code of a run whose loss is no longer finite.
const DIVERGED_CODE: i32 = 4;
/// Exit codes of a run that a signal stopped after it was saved.
const STOPPED_CODES: [i32; 2] = [130, 143];
/// The file that marks a run that has diverged; `bninception compare` knows it.
const DIVERGED_FILE: &str = "DIVERGED";

/// A network of the comparison.
#[derive(Debug, PartialEq)]
struct Model {
    name: &'static str,
    preset: &'static str,
    /// Its rate, as a multiple of the base rate.
    factor: f64,
    /// What differs from the preset besides.
    set: Option<&'static str>,
}

const fn model(name: &'static str, preset: &'static str, factor: f64) -> Model {
    Model { name, preset, factor, set: None }
}

/// The models of section 4.2.2, GoogLeNet, and three controls: the two that the section only tells of,
/// Inception at five times its rate and with sigmoids, and Inception from initial filters of half the
/// variance, 1 / fan-in, which Caffe's GoogLeNet calls Xavier's. Those of He et al., the default here,
/// came in the same month as the paper.
const MODELS: [Model; 9] = [
    model("inception", "inception", 1.0),
    model("googlenet", "googlenet", 1.0),
    model("bn-baseline", "bn-baseline", 1.0),
    model("bn-x5", "bn-x5", 5.0),
    model("bn-x30", "bn-x30", 30.0),
    model("bn-x5-sigmoid", "bn-x5-sigmoid", 5.0),
    model("inception-x5", "inception", 5.0),
    Model {
        name: "inception-sigmoid",
        preset: "inception",
        factor: 1.0,
        set: Some("network.activation=sigmoid"),
    },
    Model {
        name: "inception-xavier",
        preset: "inception",
        factor: 1.0,
        set: Some("network.init_gain=0.7071"),
    },
];

/// What the command line asks for.
#[derive(Debug, PartialEq)]
struct Options {
    data_dir: String,
    out: PathBuf,
    seeds: Vec<u64>,
    epochs: Option<u64>,
    image_size: Option<u64>,
    base_lr: Option<f64>,
    only: Vec<String>,
    search: Vec<f64>,
    search_epochs: Option<u64>,
    /// `KEY=VALUE`, for every run.
    set: Vec<String>,
    dry_run: bool,
}

/// A run to be made.
#[derive(Debug, PartialEq)]
struct Run {
    folder: PathBuf,
    preset: &'static str,
    lr: f64,
    seed: u64,
    epochs: Option<u64>,
    set: Option<&'static str>,
}

/// How a run ended.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// With this validation top-1, unless nothing was evaluated.
    Done(Option<f64>),
    Diverged,
}

/// Why the experiment ended early.
enum Failure {
    Message(String),
    Stopped,
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure::Message(message)
    }
}

/// Runs the command; `arguments` are those behind `experiment`.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    match experiment(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Message(message)) => {
            say(&format!("xtask: {message}"));
            ExitCode::FAILURE
        }
        Err(Failure::Stopped) => {
            say("stopped; the same command goes on from here");
            ExitCode::from(130)
        }
    }
}

fn experiment(arguments: &[String]) -> Result<(), Failure> {
    let options = parse(arguments)?;
    let program = Program::build()?;
    let presets = program.presets()?;
    let search = search_plan(&options);
    if options.dry_run {
        let unknown = options.base_lr.is_none() && !search.is_empty();
        let base = options.base_lr.unwrap_or(if unknown { 1.0 } else { PAPER_RATE });
        let mut lines: Vec<String> = search.iter().map(describe).collect();
        if unknown {
            lines.push("then, with the best of these as the base rate, here 1:".to_owned());
        }
        lines.extend(plan(&options, &presets, base)?.iter().map(describe));
        print(&lines.join("\n"));
        return Ok(());
    }

    let base = match (options.base_lr, search.is_empty()) {
        (Some(base), true) => base,
        (None, true) => PAPER_RATE,
        (given, false) => {
            let best = program.search(&options, &search)?;
            given.unwrap_or(best)
        }
    };
    let runs = plan(&options, &presets, base)?;
    for (index, run) in runs.iter().enumerate() {
        say(&format!("run {} of {}: {}", index + 1, runs.len(), describe(run)));
        match program.carry_out(&options, run)? {
            Outcome::Done(Some(top1)) => say(&format!("top-1 {:.2} %", 100.0 * top1)),
            Outcome::Done(None) => {}
            Outcome::Diverged => say("it has diverged"),
        }
        program.compare(&options.out);
    }
    Ok(())
}

/// The models and seeds in their order: all models of the first seed, then all of the second.
fn plan(options: &Options, presets: &[String], base: f64) -> Result<Vec<Run>, String> {
    for name in &options.only {
        if !MODELS.iter().any(|model| model.name == name) {
            let known: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
            return Err(format!("--only {name}: there are {}", known.join(", ")));
        }
    }
    let is_wanted = |model: &&Model| {
        let is_asked_for =
            options.only.is_empty() || options.only.iter().any(|name| name == model.name);
        is_asked_for && presets.iter().any(|preset| preset == model.preset)
    };
    let mut runs = Vec::new();
    for &seed in &options.seeds {
        for model in MODELS.iter().filter(is_wanted) {
            runs.push(Run {
                folder: options.out.join(format!("{}-seed-{seed}", model.name)),
                preset: model.preset,
                lr: product(base, model.factor),
                seed,
                epochs: options.epochs,
                set: model.set,
            });
        }
    }
    Ok(runs)
}

/// The short runs that look for the base rate. They lie beside the runs of the experiment, which are compared by their
/// folder.
fn search_plan(options: &Options) -> Vec<Run> {
    // Without a slash at its end.
    let mut beside = options.out.components().collect::<PathBuf>().into_os_string();
    beside.push("-search");
    let beside = PathBuf::from(beside);
    let run = |&lr: &f64| Run {
        folder: beside.join(format!("lr-{lr}")),
        preset: "inception",
        lr,
        seed: options.seeds[0],
        epochs: options.search_epochs,
        set: None,
    };
    options.search.iter().map(run).collect()
}

/// A product without the last digits that a float adds: 0.0075 for 5 x 0.0015.
fn product(base: f64, factor: f64) -> f64 {
    let exact = base * factor;
    format!("{exact:.12e}").parse().unwrap_or(exact)
}

fn describe(run: &Run) -> String {
    let Run { folder, preset, lr, seed, epochs, set } = run;
    let epochs = epochs.map(|epochs| format!(", {epochs} epochs")).unwrap_or_default();
    let set = set.map(|set| format!(", {set}")).unwrap_or_default();
    format!("{}: preset {preset}, lr {lr}, seed {seed}{epochs}{set}", folder.display())
}

/// What the program is given to begin a run or, where there is a checkpoint, to go on with it.
fn arguments(options: &Options, run: &Run, go_on: bool) -> Vec<String> {
    let folder = run.folder.display().to_string();
    let mut arguments: Vec<String> = match go_on {
        true => vec!["resume".to_owned(), folder],
        // A folder without a checkpoint may hold what a run left that was stopped before its first.
        false => {
            let text = format!(
                "train --overwrite --preset {} --set log.tensorboard=false \
                 --set checkpoint.every_epochs=0 --run-dir",
                run.preset
            );
            text.split(' ').map(str::to_owned).chain([folder]).collect()
        }
    };
    // A run that was begun with another recipe is refused when these are given again.
    let mut give = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    give("--lr", run.lr.to_string());
    give("--seed", run.seed.to_string());
    for set in options.set.iter().map(String::as_str).chain(run.set) {
        give("--set", set.to_owned());
    }
    if let Some(size) = options.image_size {
        give("--image-size", size.to_string());
    }
    if let Some(epochs) = run.epochs {
        give("--epochs", epochs.to_string());
    }
    give("--data-dir", options.data_dir.clone());
    arguments.push("--json".to_owned());
    arguments
}

/// The binary `bninception`, and whether a signal has come.
struct Program {
    path: PathBuf,
    stop: Arc<AtomicBool>,
}

impl Program {
    fn build() -> Result<Program, String> {
        cargo(&["build", "--release", "--package", "bninception"])?;
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let target = target.unwrap_or_else(|| root().join("target"));
        let name = format!("bninception{}", std::env::consts::EXE_SUFFIX);
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .map_err(|error| format!("cannot listen for signals: {error}"))?;
        }
        Ok(Program { path: target.join("release").join(name), stop })
    }

    /// The names of the presets that the program has.
    fn presets(&self) -> Result<Vec<String>, String> {
        let output = Command::new(&self.path)
            .args(["presets", "list"])
            .output()
            .map_err(|error| format!("cannot run {}: {error}", self.path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let first_words = text.lines().filter_map(|line| line.split_whitespace().next());
        Ok(first_words.map(str::to_owned).collect())
    }

    /// Trains at each rate and gives the one with the best top-1 at its end, the first of equals.
    fn search(&self, options: &Options, runs: &[Run]) -> Result<f64, Failure> {
        let mut best: Option<(f64, f64)> = None;
        let mut table = "rate        top-1 at the end\n".to_owned();
        for run in runs {
            say(&format!("search: {}", describe(run)));
            let cell = match self.carry_out(options, run)? {
                Outcome::Done(Some(top1)) => {
                    if best.is_none_or(|(_, most)| top1 > most) {
                        best = Some((run.lr, top1));
                    }
                    format!("{:.2} %", 100.0 * top1)
                }
                Outcome::Done(None) => "not evaluated".to_owned(),
                Outcome::Diverged => "diverged".to_owned(),
            };
            table.push_str(&format!("{:<10}  {cell}\n", run.lr));
        }
        print(&table);
        let (lr, _) = best.ok_or_else(|| {
            "no rate of --search gave a top-1; try lower rates, or give --base-lr".to_owned()
        })?;
        Ok(lr)
    }

    /// Begins a run or goes on with it, to its end; one that is finished or has diverged stays as it is.
    fn carry_out(&self, options: &Options, run: &Run) -> Result<Outcome, Failure> {
        let mark = run.folder.join(DIVERGED_FILE);
        if mark.exists() {
            return Ok(Outcome::Diverged);
        }
        let go_on = run.folder.join("last.safetensors").is_file();
        let mut command = Command::new(&self.path);
        command.args(arguments(options, run, go_on)).stdout(Stdio::piped());
        let child = command
            .spawn()
            .map_err(|error| format!("cannot run {}: {error}", self.path.display()))?;
        let (code, output) = self.wait(child)?;
        match code {
            Some(0) => Ok(Outcome::Done(top1(&output))),
            // The run has left its mark.
            Some(DIVERGED_CODE) => Ok(Outcome::Diverged),
            Some(code) if STOPPED_CODES.contains(&code) => Err(Failure::Stopped),
            _ if self.stop.load(Ordering::Relaxed) => Err(Failure::Stopped),
            code => {
                let code = code.map_or("a signal".to_owned(), |code| format!("code {code}"));
                Err(Failure::Message(format!(
                    "the run {} ended with {code}, for the reason above; the same command goes on \
                     from here when that is mended",
                    run.folder.display()
                )))
            }
        }
    }

    /// Waits for a child; a signal that reaches this process makes the child save and leave. Gives its
    /// exit code and what it wrote to stdout.
    fn wait(&self, mut child: Child) -> Result<(Option<i32>, String), String> {
        let mut told = false;
        loop {
            match child.try_wait() {
                Ok(None) => {}
                Ok(Some(_)) => break,
                Err(error) => return Err(format!("cannot wait for the run: {error}")),
            }
            if self.stop.load(Ordering::Relaxed) && !told {
                told = true;
                // Ctrl-C reaches the child by itself, a signal to this process alone does not. Asked
                // twice, the child still saves.
                let pid = child.id().to_string();
                let _ = Command::new("kill").args(["-TERM", &pid]).status();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        // The result is one line: the pipe holds it.
        let output =
            child.wait_with_output().map_err(|error| format!("cannot read a result: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.code(), text))
    }

    /// Compares what there is; too little for it, such as a run without an evaluation, is no failure.
    fn compare(&self, out: &Path) {
        let status = Command::new(&self.path)
            .arg("compare")
            .arg(out)
            .arg("--out")
            .arg(out.join("compare"))
            .status();
        if !status.is_ok_and(|status| status.success()) {
            say("there is nothing to compare yet");
        }
    }
}

/// `top1` of the JSON object in the last line of a run's output.
fn top1(output: &str) -> Option<f64> {
    let value: serde_json::Value = serde_json::from_str(output.lines().last()?).ok()?;
    value.get("top1")?.as_f64()
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut arguments = arguments.iter().map(String::as_str);
    if arguments.next() != Some("paper") {
        return Err(USAGE.to_owned());
    }
    let mut options = Options {
        data_dir: String::new(),
        out: PathBuf::from("checkpoints/paper"),
        seeds: vec![1, 2, 3],
        epochs: None,
        image_size: None,
        base_lr: None,
        only: Vec::new(),
        search: Vec::new(),
        search_epochs: None,
        set: Vec::new(),
        dry_run: false,
    };
    while let Some(flag) = arguments.next() {
        if flag == "--dry-run" {
            options.dry_run = true;
            continue;
        }
        let known = [
            "--data-dir",
            "--out",
            "--seeds",
            "--epochs",
            "--image-size",
            "--base-lr",
            "--only",
            "--search",
            "--search-epochs",
            "--set",
        ];
        if !known.contains(&flag) {
            return Err(format!("`{flag}` is not known\n{USAGE}"));
        }
        let value = arguments.next().ok_or_else(|| format!("{flag} needs a value\n{USAGE}"))?;
        match flag {
            "--data-dir" => options.data_dir = value.to_owned(),
            "--out" => options.out = PathBuf::from(value),
            "--seeds" => options.seeds = numbers(flag, value)?,
            "--epochs" => options.epochs = Some(number(flag, value)?),
            "--image-size" => options.image_size = Some(number(flag, value)?),
            "--base-lr" => options.base_lr = Some(number(flag, value)?),
            "--only" => options.only = value.split(',').map(str::to_owned).collect(),
            "--search" => options.search = numbers(flag, value)?,
            "--set" => options.set.push(value.to_owned()),
            _ => options.search_epochs = Some(number(flag, value)?),
        }
    }
    if options.data_dir.is_empty() {
        return Err(format!("--data-dir DIR is missing\n{USAGE}"));
    }
    if options.search.is_empty() != options.search_epochs.is_none() {
        return Err("--search and --search-epochs belong together".to_owned());
    }
    let rates = options.search.iter().chain(&options.base_lr);
    if let Some(rate) = rates.into_iter().find(|rate| !(rate.is_finite() && **rate > 0.0)) {
        return Err(format!("a learning rate must be above 0, found {rate}"));
    }
    Ok(options)
}

fn number<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T, String> {
    value.trim().parse().map_err(|_| format!("{flag}: expected a number, found `{value}`"))
}

fn numbers<T: std::str::FromStr>(flag: &str, value: &str) -> Result<Vec<T>, String> {
    value.split(',').map(|part| number(flag, part)).collect()
}

#[expect(clippy::print_stdout, reason = "results, in a tool for the terminal")]
fn print(text: &str) {
    println!("{}", text.trim_end());
}

#[cfg(test)]
mod tests;
