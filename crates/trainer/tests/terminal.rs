//! What a person sees on a terminal, and what programs get in its place: colour, help, the line beside the bar,
//! manual pages, completions, and the log as JSON.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // helpers panic; a test says what it skips

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::process::Command;

use common::Place;
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

const ESCAPE: &str = "\u{1b}[";

/// Variables that choose colour, which the machine of the tests may have set.
const VARIABLES: [&str; 5] =
    ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI", "OMPI_COMM_WORLD_SIZE"];

fn command(place: &Place, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = place.command(arguments);
    VARIABLES.iter().for_each(|name| {
        command.env_remove(name);
    });
    command.env("TERM", "xterm-256color").envs(variables.iter().copied());
    command
}

/// All that the command writes to a terminal of so many columns.
fn on_terminal(
    place: &Place,
    columns: u16,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> String {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let side = File::from(open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap());
    let size = Winsize { ws_row: 40, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&side, size).unwrap();
    let mut command = command(place, arguments, variables);
    command.stdin(side.try_clone().unwrap());
    command.stdout(side.try_clone().unwrap()).stderr(side);
    let mut child = command.spawn().unwrap();
    // It holds the other side of the terminal, whose end shows only when nobody does.
    drop(command);
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    let mut terminal = File::from(terminal);
    // Linux ends it with an error.
    while let Ok(n @ 1..) = terminal.read(&mut part) {
        bytes.extend_from_slice(&part[..n]);
    }
    assert!(child.wait().unwrap().success(), "{arguments:?}");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn colour_is_for_terminals_and_for_who_asks() {
    let place = Place::new();
    // (arguments, variables, colour in a pipe, colour on a terminal)
    type Row<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], bool, bool);
    let table: [Row<'_>; 12] = [
        (&[], &[], false, true),
        (&[], &[("NO_COLOR", "1")], false, false),
        (&[], &[("TERM", "dumb")], false, false),
        (&[], &[("CLICOLOR", "0")], false, false),
        (&[], &[("CLICOLOR_FORCE", "1")], true, true),
        (&[], &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], false, false),
        (&["--color", "always"], &[("NO_COLOR", "1")], true, true),
        (&["--color=never"], &[("CLICOLOR_FORCE", "1")], false, false),
        (&["--color", "auto"], &[], false, true),
        // Open MPI's launcher gives its processes a terminal, and writes on to a pipe.
        (&[], &[("OMPI_COMM_WORLD_SIZE", "1")], false, false),
        (&[], &[("OMPI_COMM_WORLD_SIZE", "1"), ("CLICOLOR_FORCE", "1")], true, true),
        (&["--color", "always"], &[("OMPI_COMM_WORLD_SIZE", "1")], true, true),
    ];
    for (options, variables, in_pipe, at_terminal) in table {
        for arguments in [&["presets", "list"][..], &["eval", "--help"], &["help", "train"]] {
            let arguments = [arguments, options].concat();
            // `help` takes no option of its own.
            if arguments[0] == "help" && !options.is_empty() {
                continue;
            }
            let output = command(&place, &arguments, variables).output().unwrap();
            assert!(output.status.success(), "{arguments:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!(text.contains(ESCAPE), in_pipe, "{arguments:?} {variables:?} in a pipe");
            let text = on_terminal(&place, 80, &arguments, variables);
            assert_eq!(text.contains(ESCAPE), at_terminal, "{arguments:?} {variables:?}");
        }
    }
}

#[test]
fn colour_changes_no_word_and_no_column() {
    let place = Place::with_pictures();
    let smoke = ["train", "--preset", "smoke", "--data-dir", "pictures", "--run-dir", "a/run"];
    place.succeed(&smoke);
    for arguments in [
        &["presets", "list"][..],
        &["info", "--preset", "smoke"],
        &["runs", "a"],
        &["compare", "a/run"],
        &["doctor"],
        &["data", "check", "pictures"],
        &["eval", "a/run", "--top", "3"],
        &["predict", "a/run", "pictures/val"],
    ] {
        let plain = place.succeed(arguments);
        let painted = place.succeed(&[arguments, &["--color", "always"]].concat());
        assert!(painted.contains(ESCAPE), "{arguments:?} has no colour: {painted}");
        assert!(!plain.contains(ESCAPE), "{arguments:?} has colour: {plain}");
        let mut same = console::strip_ansi_codes(&painted).into_owned();
        let mut plain = plain;
        // Measured anew each time.
        for text in [&mut same, &mut plain] {
            let is_steady = |line: &&str| !line.contains("img/s") && !line.contains("  free ");
            *text = text.lines().filter(is_steady).collect::<Vec<_>>().join("\n");
        }
        assert_eq!(same, plain, "{arguments:?}");
    }
}

#[test]
fn errors_and_warnings_stand_out() {
    let place = Place::new();
    let missing = ["eval", "missing.safetensors"];
    let plain = command(&place, &missing, &[]).output().unwrap();
    let plain = String::from_utf8(plain.stderr).unwrap();
    assert!(plain.starts_with("error: ") && plain.contains("missing.safetensors"), "{plain}");
    let painted = [&missing[..], &["--color", "always"]].concat();
    let painted = command(&place, &painted, &[]).output().unwrap();
    let painted = String::from_utf8(painted.stderr).unwrap();
    assert!(painted.starts_with("\u{1b}[31m\u{1b}[1merror:\u{1b}[0m "), "{painted}");
    assert_eq!(console::strip_ansi_codes(&painted), plain);
    // The same word in front of what clap says.
    let usage = command(&place, &["eval", "--frobnicate"], &[]).output().unwrap();
    assert!(String::from_utf8(usage.stderr).unwrap().starts_with("error: "));

    // Paths from outside cannot steer the terminal.
    let path = "red\u{1b}[31m.safetensors";
    let output = command(&place, &["eval", path, "--color", "never"], &[]).output().unwrap();
    assert!(!String::from_utf8(output.stderr).unwrap().contains('\u{1b}'));
}

#[test]
fn without_arguments_the_first_steps_are_shown() {
    let place = Place::new();
    let output = place.run(&[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let steps = text.split("Examples:").nth(1).unwrap();
    for step in ["bninception train\n", "train --data-dir photos", "resume", "predict"] {
        assert!(steps.contains(step), "{text}");
    }
}

/// A run of two epochs.
const RUN: [&str; 9] = [
    "train",
    "--preset",
    "smoke",
    "--data-dir",
    "pictures",
    "--steps",
    "10",
    "--set",
    "checkpoint.every_epochs=0",
];

#[test]
fn a_bar_has_loss_and_top1_beside_it() {
    let place = Place::with_pictures();
    for (columns, has_curve) in [(80, false), (120, true)] {
        let text = on_terminal(&place, columns, &RUN, &[]);
        let plain = console::strip_ansi_codes(&text).into_owned();
        // 40 pictures in batches of 8; the last epochs know of those before.
        let drawn: Vec<&str> =
            plain.split(['\r', '\n']).filter(|line| line.contains("ETA")).collect();
        let last = drawn.iter().rev().find(|line| line.contains("epoch 2/2")).unwrap();
        assert!(last.contains("/40 loss ") && last.contains(" top-1 "), "{last}");
        assert_eq!(last.contains('▁'), has_curve, "{columns}: {last}");
        for line in drawn {
            assert!(console::measure_text_width(line) <= usize::from(columns), "{line}");
        }
    }
    // A terminal that cannot draw over a line, and a log for programs, get none.
    for (arguments, variables) in
        [(&[][..], &[("TERM", "dumb")][..]), (&["--log-format", "json"], &[])]
    {
        let text = on_terminal(&place, 80, &[&RUN[..], arguments].concat(), variables);
        assert!(!text.contains("ETA"), "{text}");
        assert!(text.contains("epoch 2/2"), "{text}");
    }
}

#[test]
fn the_log_is_json_for_who_asks() {
    let place = Place::with_pictures();
    let output = place.run(&[&RUN[..], &["--run-dir", "run", "--log-format", "json"]].concat());
    assert!(output.status.success());
    let lines = |bytes: Vec<u8>| -> Vec<Value> {
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let log = lines(output.stderr);
    for line in &log {
        for key in ["timestamp", "level", "message"] {
            assert!(line[key].is_string(), "{line}");
        }
    }
    let epochs: Vec<&Value> = log.iter().filter(|line| line["epoch"].is_u64()).collect();
    assert_eq!(epochs.len(), 2);
    assert_eq!((&epochs[1]["epoch"], &epochs[1]["step"]), (&2.into(), &10.into()));
    for key in ["lr", "train_loss", "train_top1", "val_loss", "val_top1", "val_top5", "seconds"] {
        assert!(epochs[1][key].is_f64(), "no {key} in {}", epochs[1]);
    }
    // The run's own file is for people, and the fields stand in its messages.
    let own = fs::read_to_string(place.path("run/train.log")).unwrap();
    assert!(own.contains("  INFO epoch 2/2: train loss "), "{own}");
    assert!(!own.contains("train_loss=") && !own.contains("{\""), "{own}");

    // Errors too, those of the command line among them.
    for (arguments, code, part) in [
        (&["eval", "missing.safetensors"][..], 3, "missing.safetensors"),
        (&["train", "--preset", "bn-x50"], 2, "did you mean"),
        (&["eval", "--frobnicate"], 2, "--frobnicate"),
    ] {
        let output = place.run(&[arguments, &["--log-format=json"]].concat());
        assert_eq!(output.status.code(), Some(code));
        let log = lines(output.stderr);
        let last = log.last().unwrap();
        assert_eq!((&last["level"], &last["exit_code"]), (&"ERROR".into(), &code.into()));
        assert!(last["message"].as_str().unwrap().contains(part), "{last}");
    }
}

#[test]
fn the_demo_says_what_it_does_and_what_comes_next() {
    let place = Place::new();
    let output = place.run(&["train", "--preset", "smoke", "--steps", "2"]);
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{talk}");
    assert!(talk.starts_with("no --data-dir is given: this is the demo"), "{talk}");
    for part in [
        "bninception resume checkpoints/smoke\n",
        "train --data-dir photos\n",
        "bninception report",
    ] {
        assert!(talk.contains(part), "no `{part}` in {talk}");
    }
    let place = Place::with_pictures();
    let talk = place.run(&RUN).stderr;
    let talk = String::from_utf8(talk).unwrap();
    assert!(!talk.contains("demo") && !talk.contains("photos"), "{talk}");
}

#[test]
fn every_command_has_a_manual_page() {
    let place = Place::new();
    let said = place.succeed(&["man", "pages/man1"]);
    let pages: Vec<_> = common::listing(&place.path("pages/man1"));
    assert!(said.starts_with(&format!("{} pages", pages.len())), "{said}");
    assert!(pages.len() > 30, "{pages:?}");
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for part in [".TH bninception", ".SH NAME", ".SH SYNOPSIS", ".SH EXAMPLES", ".TP"] {
            assert!(text.contains(part), "no {part} in {page:?}");
        }
    }
    let page = fs::read_to_string(place.path("pages/man1/bninception-data-pack.1")).unwrap();
    assert!(page.contains("bninception data pack photos packed"), "{page}");
    assert!(!place.path("pages/man1/bninception-check-device.1").exists());
    // Again: pages are replaced.
    place.succeed(&["man", "pages/man1"]);
    fs::write(place.path("file"), "").unwrap();
    place.fail(&["man", "file"], 3, &["file"]);
}

#[test]
fn shells_complete_what_clap_knows() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.succeed(&["completions", shell]);
        for word in ["log-format", "prune"] {
            assert!(script.contains(word), "no {word} for {shell}");
        }
    }
    let bash = place.succeed(&["completions", "bash"]);
    for values in ["auto cpu cuda", "f32 bf16 tf32", "bn-x5", "auto always never"] {
        assert!(bash.contains(values), "no {values}");
    }
    let zsh = place.succeed(&["completions", "zsh"]);
    assert!(zsh.contains("--data-dir=[") && zsh.contains(":DIR:_files -/"), "{zsh}");
    let fish = place.succeed(&["completions", "fish"]);
    assert!(fish.contains("__fish_complete_directories"), "{fish}");
    assert!(zsh.contains("bn-x5-sigmoid") && fish.contains("bn-x5-sigmoid"));

    // Bash itself, where there is one: it takes the script, and completes a preset and a device.
    fs::write(place.path("script.bash"), &bash).unwrap();
    for (words, expected) in [
        ("bninception train --preset bn-x5-", "bn-x5-sigmoid"),
        ("bninception train --device cu", "cuda"),
        ("bninception data pa", "pack"),
    ] {
        let n = words.split(' ').count() - 1;
        let ask = format!(
            "source ./script.bash && COMP_WORDS=({words}) && COMP_CWORD={n} && _bninception bninception \
             \"${{COMP_WORDS[{n}]}}\" \"${{COMP_WORDS[{n}-1]}}\" && echo \"${{COMPREPLY[@]}}\""
        );
        let shell =
            Command::new("bash").args(["--norc", "-c", &ask]).current_dir(place.path("")).output();
        let Ok(answer) = shell else {
            eprintln!("skipped: there is no bash");
            return;
        };
        let errors = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert!(answer.status.success(), "{words}: {errors}");
        assert_eq!(String::from_utf8(answer.stdout).unwrap().trim(), expected, "{words}");
    }
}
