//! Examples at the end of each command's help.

use std::fmt::Write as _;

use clap::Command;
use clap::builder::{StyledStr, Styles};

/// A line that can be typed, and what it does.
pub type Example = (&'static str, &'static str);

/// The examples of each command, by the words behind `bninception` that name it. A test parses every line.
const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "",
        &[
            ("bninception train", "Try it out: train on pictures that the program draws itself"),
            ("bninception data check photos", "Look at your own pictures: photos/CLASS/*.jpg"),
            ("bninception train --data-dir photos", "Train on them; Ctrl-C saves and leaves"),
            ("bninception resume checkpoints/small", "Go on where a run was stopped"),
            ("bninception predict checkpoints/small some.jpg", "Name the class of a picture"),
        ],
    ),
    (
        "train",
        &[
            ("bninception train", "Train the demo on embedded pictures"),
            (
                "bninception train --data-dir photos --dry-run",
                "Say what a run on your pictures would be and take, and write nothing",
            ),
            (
                "bninception train --data-dir photos --run-dir checkpoints/photos",
                "Train on them; recipe and image size follow from their number and size",
            ),
            (
                "bninception train --init-from public.safetensors --data-dir photos",
                "Begin with the weights of another network",
            ),
        ],
    ),
    (
        "lr-find",
        &[
            (
                "bninception lr-find --data-dir photos",
                "Look for a rate for your pictures with the recipe that `train` would take",
            ),
            (
                "bninception lr-find --data-dir photos -p modern -b 64 --to 1",
                "The same with another recipe, larger batches, and rates up to 1",
            ),
        ],
    ),
    (
        "resume",
        &[
            ("bninception resume checkpoints/photos", "Go on at the step behind the last saved"),
            (
                "bninception resume checkpoints/photos --max-time 7h30m",
                "Go on, and save and leave in time",
            ),
            (
                "bninception resume checkpoints/photos --lr 0.001 --allow-change optimizer.lr",
                "Go on with a setting that changes the result",
            ),
        ],
    ),
    (
        "launch",
        &[
            (
                "bninception launch -n 2 -- train --data-dir photos",
                "Train in two processes on this machine",
            ),
            (
                "bninception launch -n 4 --restarts 3 -- train --data-dir photos --run-dir run",
                "Train in four, and go on up to three times after a failure",
            ),
        ],
    ),
    (
        "eval",
        &[
            ("bninception eval checkpoints/photos", "Evaluate the best state of a run"),
            (
                "bninception eval checkpoints/photos --data-dir test --crops 10 --out tables",
                "Ten crops of other pictures, with tables and the worst mistakes",
            ),
            (
                "bninception eval checkpoints/b --baseline checkpoints/a",
                "Say whether one run is better than another beyond chance",
            ),
        ],
    ),
    (
        "calibrate",
        &[
            (
                "bninception calibrate checkpoints/photos",
                "Write a checkpoint whose batch norm has statistics of the training images",
            ),
            (
                "bninception calibrate checkpoints/photos --image-size 128",
                "The same for images of another size than that of training",
            ),
        ],
    ),
    (
        "average",
        &[
            (
                "bninception average checkpoints/a checkpoints/b mean.safetensors",
                "Make one network of the best states of two runs",
            ),
            (
                "bninception average run/best.safetensors run/last.safetensors mean.safetensors",
                "Of two states of one run",
            ),
        ],
    ),
    (
        "predict",
        &[
            ("bninception predict checkpoints/photos some.jpg", "The five likeliest classes"),
            (
                "bninception predict checkpoints/photos new --topk 1 --threshold 0.8 --csv",
                "A row for each picture of a folder, `unsure` below 80 %",
            ),
            (
                "bninception predict checkpoints/photos 'new/**/*.jpg' --features new.npy",
                "Also write the features of the pictures for other programs",
            ),
        ],
    ),
    (
        "explain",
        &[
            (
                "bninception explain checkpoints/photos some.jpg",
                "Draw where the network sees the classes that it names",
            ),
            (
                "bninception explain checkpoints/photos new --class bees --out seen",
                "Also where it sees bees, into a folder of your choice",
            ),
        ],
    ),
    (
        "probe",
        &[
            (
                "bninception probe public.safetensors --data-dir photos",
                "Fit a classifier for your pictures to the features of another network",
            ),
            (
                "bninception probe public.safetensors --data-dir photos --image-size 224",
                "The same with images of another size",
            ),
        ],
    ),
    (
        "import",
        &[
            (
                "bninception import bn_inception.pth public.safetensors --classes names.txt",
                "Take over the weights of the public PyTorch port",
            ),
            (
                "bninception import weights.safetensors mine.safetensors --image-size 96",
                "Weights of a network that was trained on images of 96 px",
            ),
        ],
    ),
    (
        "export",
        &[
            (
                "bninception export checkpoints/photos --onnx photos.onnx --softmax",
                "An ONNX model that gives probabilities",
            ),
            (
                "bninception export checkpoints/photos --hub photos-model",
                "A folder for PyTorch and model hubs",
            ),
        ],
    ),
    (
        "compare",
        &[
            ("bninception compare checkpoints", "All runs of a folder side by side"),
            (
                "bninception compare checkpoints/a checkpoints/b --out compared",
                "Two of them, with curves and tables in files",
            ),
        ],
    ),
    (
        "runs",
        &[
            ("bninception runs", "The runs in checkpoints"),
            ("bninception runs /data/experiments --json", "Those of another folder, for a program"),
        ],
    ),
    (
        "runs prune",
        &[
            ("bninception runs prune", "Show which checkpoints could go"),
            ("bninception runs prune checkpoints --yes", "Remove them"),
        ],
    ),
    (
        "report",
        &[
            (
                "bninception report checkpoints/photos",
                "Evaluate the best checkpoint and write a page on the run",
            ),
            (
                "bninception report checkpoints/photos checkpoints/photos-2 --out both.html",
                "Two runs side by side on one page",
            ),
            (
                "bninception report checkpoints --format md",
                "Markdown and figures for each run of a folder, without an evaluation",
            ),
        ],
    ),
    (
        "dashboard",
        &[
            ("bninception dashboard", "Watch the runs in `checkpoints` in a browser"),
            ("bninception dashboard /data/runs --port 8080", "Another folder, at another port"),
        ],
    ),
    (
        "info",
        &[
            ("bninception info checkpoints/photos", "The network of a run"),
            ("bninception info -p googlenet --image-size 96", "The network of a recipe"),
        ],
    ),
    (
        "presets",
        &[
            ("bninception presets list", "The names of all presets"),
            ("bninception presets show bn-x5", "One of them, with the source of each value"),
        ],
    ),
    (
        "presets list",
        &[
            ("bninception presets list", "The names of all presets"),
            ("bninception presets list --color never", "Without colour on a terminal too"),
        ],
    ),
    (
        "presets show",
        &[
            ("bninception presets show bn-x5", "The recipe, with the source of each value"),
            (
                "bninception presets show small > mine.toml",
                "A file to change, for `train --config mine.toml`",
            ),
        ],
    ),
    (
        "config",
        &[
            ("bninception config show -p modern", "All settings of a recipe"),
            ("bninception config show --data-dir photos", "Those that your pictures would get"),
        ],
    ),
    (
        "config show",
        &[
            ("bninception config show -p modern", "All settings of a recipe"),
            (
                "bninception config show --data-dir photos --set train.label_smoothing=0",
                "Those that your pictures would get, with one of your own",
            ),
        ],
    ),
    (
        "data",
        &[
            ("bninception data check photos", "Read every picture and report what is amiss"),
            ("bninception data split photos --out split", "Set a tenth aside for validation"),
        ],
    ),
    (
        "data demo",
        &[
            ("bninception data demo pictures", "2,000 pictures to train on, 400 to validate"),
            (
                "bninception data demo pictures --train-per-class 20 --size 32",
                "Fewer and smaller ones",
            ),
        ],
    ),
    (
        "data index",
        &[
            ("bninception data index photos", "List a data set once; runs on it start sooner"),
            ("bninception data index photos --rebuild", "List every folder anew"),
        ],
    ),
    (
        "data check",
        &[
            ("bninception data check photos", "Read every picture and report what is amiss"),
            (
                "bninception data check photos --sheet photos.png --all",
                "Draw some of each class too, and show long lists whole",
            ),
        ],
    ),
    (
        "data split",
        &[
            ("bninception data split photos --out split", "Set a tenth aside for validation"),
            (
                "bninception data split photos --out split --val-fraction 0.2 --seed 1",
                "A fifth, and another choice of pictures",
            ),
        ],
    ),
    (
        "data pack",
        &[
            ("bninception data pack photos packed", "Decode once, at 256 px of the short side"),
            ("bninception data pack photos packed --short-side 128", "Smaller, for small images"),
        ],
    ),
    (
        "bench",
        &[
            ("bninception bench model --profile", "A training step, and where its time goes"),
            ("bninception bench data --data-dir photos", "How fast your pictures are read"),
        ],
    ),
    (
        "bench model",
        &[
            (
                "bninception bench model --profile",
                "A training step at 224 px, and where its time goes",
            ),
            (
                "bninception bench model --mode eval -b 32 --image-size 96 --dtype bf16",
                "Evaluation of 32 images of 96 px in bf16",
            ),
        ],
    ),
    (
        "bench ops",
        &[
            ("bninception bench ops", "Every convolution, and the share of the peak"),
            ("bninception bench ops --threads 1 --json", "On one core, for a program"),
        ],
    ),
    (
        "bench data",
        &[
            ("bninception bench data --data-dir photos", "How fast your pictures are read"),
            (
                "bninception bench data --data-dir packed --set augment.colour=none",
                "Packed ones, without changes of colour",
            ),
        ],
    ),
    (
        "bench collective",
        &[
            (
                "bninception bench collective --sizes 1MB,45MB --json",
                "What one process tells itself: a look at the form of the result",
            ),
            (
                "bninception launch -n 2 -- bench collective",
                "What two processes on this machine tell each other",
            ),
        ],
    ),
    (
        "doctor",
        &[
            ("bninception doctor", "What this machine has, and what to do about what is amiss"),
            ("bninception launch -n 2 -- doctor", "The same as two processes see it"),
        ],
    ),
    (
        "mnist",
        &[
            ("bninception mnist --data-dir mnist", "Both networks, with batch norm and without"),
            (
                "bninception mnist --data-dir mnist --model mlp --steps 1000",
                "The paper's network alone, for fewer steps",
            ),
        ],
    ),
    (
        "completions",
        &[
            (
                "bninception completions bash >> ~/.bash_completion",
                "For bash with bash-completion, from the next shell on",
            ),
            (
                "bninception completions zsh > ~/.zfunc/_bninception",
                "For zsh, where ~/.zfunc is in fpath",
            ),
            (
                "bninception completions fish > ~/.config/fish/completions/bninception.fish",
                "For fish",
            ),
        ],
    ),
    (
        "man",
        &[
            ("bninception man ~/.local/share/man/man1", "Pages that `man bninception-train` finds"),
            ("bninception man pages", "The same into a folder to look at"),
        ],
    ),
];

/// The examples of the command that `path` names.
pub fn of(path: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(of, _)| *of == path).map_or(&[], |(_, examples)| examples)
}

/// `command` and all below it with their examples at the end of their help.
pub(super) fn added(command: Command, styles: &Styles) -> Command {
    added_below("", command, styles)
}

fn added_below(path: &str, command: Command, styles: &Styles) -> Command {
    let command = command.mut_subcommands(|below| {
        let path = format!("{path} {}", below.get_name());
        added_below(path.trim_start(), below, styles)
    });
    match of(path) {
        [] => command,
        examples => command.after_help(shown(examples, styles)),
    }
}

/// Lines as clap writes options: what to type, and below it what that does.
fn shown(examples: &[Example], styles: &Styles) -> StyledStr {
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let mut text = format!("{header}Examples:{header:#}");
    for (line, what) in examples {
        // Writing to a string does not fail.
        let _ = write!(text, "\n  {literal}{line}{literal:#}\n      {what}");
    }
    StyledStr::from(text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsString;

    use super::*;
    use crate::cli::{command, parse};

    /// Columns of help: a narrow terminal.
    const WIDTH: usize = 80;

    /// The paths of all commands that help shows.
    fn visible(path: &str, command: &Command, paths: &mut BTreeSet<String>) {
        paths.insert(path.to_owned());
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            visible(format!("{path} {}", below.get_name()).trim_start(), below, paths);
        }
    }

    #[test]
    fn every_command_has_two_examples_that_parse() {
        let mut paths = BTreeSet::new();
        visible("", &command(), &mut paths);
        assert!(paths.len() > 30, "{paths:?}");
        for path in &paths {
            let examples = of(path);
            assert!(examples.len() >= 2, "`{path}` has {} examples; give it two", examples.len());
            let mut names_it = false;
            for (line, what) in examples {
                // A shell takes what stands behind `>`, and the quotes.
                let words = line.split(" >").next().unwrap_or_default().split(' ');
                let words = words.map(|word| OsString::from(word.trim_matches('\'')));
                if let Err(error) = parse(words) {
                    panic!("`{line}`: {error}");
                }
                names_it |= line.starts_with(format!("bninception {path}").trim_end());
                assert!(2 + line.len() <= WIDTH, "{line}");
                assert!(6 + what.len() <= WIDTH && !what.ends_with('.'), "{what}");
            }
            assert!(names_it, "no example of `{path}` shows it");
        }
        for (path, _) in EXAMPLES {
            let is_there = paths.contains(*path) || (*path == "mnist" && !cfg!(feature = "mnist"));
            assert!(is_there, "there are examples of `{path}`, but no such command");
        }
    }

    #[test]
    fn help_ends_with_the_examples() {
        let mut command = command();
        command.build();
        let eval = command.find_subcommand_mut("eval").unwrap();
        for help in [eval.render_help(), eval.render_long_help()] {
            let text = help.to_string();
            let (_, examples) = text.split_once("\nExamples:\n").unwrap();
            let line =
                "  bninception eval checkpoints/photos\n      Evaluate the best state of a run\n";
            assert!(examples.starts_with(line), "{text}");
            assert!(help.ansi().to_string().contains("\u{1b}["));
        }
    }
}
