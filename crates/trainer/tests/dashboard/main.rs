//! `dashboard` and `train --dashboard`, as a browser meets them.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests; they say what they measure

mod client;
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod many_runs;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bninception::run::checkpoint;
use bninception::run::records::Record;
use rustix::process::Signal;
use serde_json::Value;

use client::{Server, ask, ids, request};
use common::Place;

pub(crate) fn line(step: u64) -> Record {
    Record::Train {
        step,
        epoch: step as f64 / 100.0,
        loss: 2.0 + (step as f64).sin(),
        top1: 0.5,
        lr: 0.01,
        grad_norm: 1.5,
        images_per_second: 320.0,
        data_wait: 0.01,
    }
}

/// A folder with settings and `n` lines of training.
fn write_run(folder: &Path, n: u64) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.toml"), "extends = \"smoke\"\n").unwrap();
    let lines = (1..=n).map(|step| serde_json::to_string(&line(step)).unwrap() + "\n");
    fs::write(folder.join("metrics.jsonl"), lines.collect::<String>()).unwrap();
    fs::write(folder.join("train.log"), "2026-11-28T00:40:59Z  INFO bninception\n").unwrap();
}

pub(crate) fn train(place: &Place, run: &str, more: &[&str]) {
    let smoke = ["train", "--preset", "smoke", "--data-dir", "pictures", "--run-dir", run];
    place.succeed(&[&smoke[..], more].concat());
}

#[test]
fn only_this_machine_reads_and_nobody_writes() {
    let place = Place::new();
    write_run(&place.path("runs/a"), 3);
    let before = common::listing(&place.path("runs"));
    let server = Server::start(&place, "runs");
    assert!(server.address.starts_with("127.0.0.1:"), "{}", server.address);
    for path in ["/", "/api/runs", "/api/charts?run=a", "/api/run?run=a", "/api/log?run=a"] {
        let answer = server.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        for header in [
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "cross-origin-resource-policy: same-origin",
            "content-security-policy: frame-ancestors 'none'",
        ] {
            assert!(answer.head.contains(header), "{path}: no `{header}` in\n{}", answer.head);
        }
        assert!(!answer.head.contains("access-control"), "{}", answer.head);
        let head = ask(&server.address, &request("HEAD", path, &[]));
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let answer = ask(&server.address, &request(method, path, &[]));
            assert_eq!(answer.status, 405, "{method} {path}");
        }
        for host in ["evil.example", "evil.example:6007", "127.0.0.1.evil.example", "0.0.0.0:1"] {
            let answer = ask(&server.address, &request("GET", path, &[("Host", host)]));
            assert_eq!(answer.status, 403, "{host} {path}");
            assert!(!answer.body.contains("loss") && answer.head.contains("nosniff"));
        }
    }
    // HTTP/1.0 knows no names.
    assert_eq!(ask(&server.address, "GET / HTTP/1.0\r\n\r\n").status, 403);
    for host in ["127.0.0.1:6007", "[::1]:80", "localhost"] {
        assert_eq!(ask(&server.address, &request("GET", "/", &[("Host", host)])).status, 200);
    }
    let page = server.get("/").body;
    assert!(page.contains("Runs in runs") && !page.contains("src=") && !page.contains("http://"));
    assert_eq!(common::listing(&place.path("runs")), before);
    assert_eq!(server.end(Signal::INT), Some(0));
}

#[test]
fn an_answer_that_is_known_is_not_sent_again() {
    let place = Place::new();
    write_run(&place.path("runs/a"), 3);
    let server = Server::start(&place, "runs");
    for path in ["/api/runs", "/api/charts?run=a", "/api/run?run=a"] {
        let answer = server.get(path);
        let tag = answer.head.split("etag: ").nth(1).unwrap().lines().next().unwrap();
        let again = ask(&server.address, &request("GET", path, &[("If-None-Match", tag)]));
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
        let other = ask(&server.address, &request("GET", path, &[("If-None-Match", "\"0\"")]));
        assert_eq!((other.status, other.body == answer.body), (200, true), "{path}");
    }
}

#[test]
fn no_path_outside_of_the_folder_is_served() {
    let place = Place::new();
    write_run(&place.path("runs/a"), 1);
    write_run(&place.path("outside/b"), 1);
    fs::write(place.path("outside/b/train.log"), "SECRET\n").unwrap();
    fs::write(place.path("runs/note.txt"), "SECRET\n").unwrap();
    symlink(place.path("outside"), place.path("runs/link")).unwrap();
    write_run(&place.path("runs/c"), 1);
    fs::remove_file(place.path("runs/c/train.log")).unwrap();
    symlink(place.path("outside/b/train.log"), place.path("runs/c/train.log")).unwrap();
    let server = Server::start(&place, "runs");
    let list = server.json("/api/runs");
    assert_eq!(ids(&list), ["a", "c"]);
    assert!(list["notes"][0].as_str().unwrap().starts_with("link is a link that leads out"));
    assert_eq!(list["runs"][1]["state"], "damaged");
    let reason = list["runs"][1]["reason"].as_str().unwrap();
    assert!(reason.contains("train.log is a link that leads out"), "{reason}");
    for id in [
        "..%2foutside%2fb",
        "../outside/b",
        "a/../../outside/b",
        "a%2f..%2f..%2foutside%2fb",
        "link/b",
        "link%2fb",
        "/etc",
        "%2fetc",
        ".",
        "",
        "a%00",
        "note.txt",
        "%ff",
    ] {
        for path in ["run", "log"] {
            let answer = server.get(&format!("/api/{path}?run={id}"));
            assert_eq!(answer.status, 404, "{path} {id}: {}", answer.body);
            assert!(!answer.body.contains("SECRET"), "{path} {id}");
        }
        let charts = server.json(&format!("/api/charts?run={id}"));
        assert_eq!(charts["charts"], Value::Array(Vec::new()), "{id}");
        assert!(charts["reasons"][0].as_str().unwrap().contains("no run"), "{id}");
    }
    // A run that is shown but must not be read.
    let answer = server.get("/api/log?run=c");
    assert!(answer.status == 500 && !answer.body.contains("SECRET"), "{}", answer.body);
    assert!(!server.get("/api/run?run=c").body.contains("SECRET"));
    for path in [
        "/../../etc/passwd",
        "/%2e%2e/note.txt",
        "/note.txt",
        "//etc/passwd",
        "/api/",
        "/api/run/a",
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    for path in ["/api/run", "/api/log", "/api/run?run=a&run=c"] {
        assert_eq!(server.get(path).status, 400, "{path}");
    }
    let many: Vec<String> = (0..9).map(|i| format!("run={i}")).collect();
    let answer = server.get(&format!("/api/charts?{}", many.join("&")));
    assert!(answer.status == 400 && answer.body.contains("at most 8"), "{}", answer.body);
}

#[test]
fn runs_appear_grow_and_vanish() {
    let place = Place::new();
    fs::create_dir(place.path("runs")).unwrap();
    let server = Server::start(&place, "runs");
    assert!(server.ids().is_empty());
    write_run(&place.path("runs/deep/a"), 2);
    write_run(&place.path("runs/b"), 5);
    server.wait_for("/api/runs", |list| ids(list) == ["b", "deep/a"]);
    let charts = server.json("/api/charts?run=deep/a&run=b");
    assert_eq!(charts["charts"][0]["curves"][0]["step"], serde_json::json!([1, 2]));
    write_run(&place.path("runs/deep/a"), 4);
    let has_grown =
        |charts: &Value| charts["charts"][0]["curves"][0]["step"].as_array().unwrap().len() == 4;
    server.wait_for("/api/charts?run=deep/a", has_grown);
    // Replaced by a shorter one.
    fs::remove_dir_all(place.path("runs/deep/a")).unwrap();
    write_run(&place.path("runs/deep/a"), 1);
    let is_new =
        |charts: &Value| charts["charts"][0]["curves"][0]["step"] == serde_json::json!([1]);
    server.wait_for("/api/charts?run=deep/a", is_new);
    fs::remove_dir_all(place.path("runs/deep/a")).unwrap();
    server.wait_for("/api/runs", |list| ids(list) == ["b"]);
    assert_eq!(server.get("/api/run?run=deep/a").status, 404);
    let left = server.json("/api/charts?run=deep/a&run=b");
    assert!(left["reasons"][1].is_null() && left["charts"][0]["curves"][0]["run"] == 1);
    fs::remove_dir_all(place.path("runs")).unwrap();
    let list = server.wait_for("/api/runs", |list| ids(list).is_empty());
    assert!(list["notes"][0].as_str().unwrap().contains("cannot be listed"));
}

#[test]
fn curves_are_the_rows_of_the_record() {
    let place = Place::with_pictures();
    train(&place, "runs/a", &["--steps", "12", "--set", "log.every_steps=1"]);
    let server = Server::start(&place, "runs");
    let row = server.json("/api/runs")["runs"][0].clone();
    assert_eq!(
        (&row["run"], &row["state"], &row["step"]),
        (&"a".into(), &"finished".into(), &12.into())
    );
    assert!(row["best_top1"].is_number() && row["started"].is_number() && row["ends_at"].is_null());
    let text = fs::read_to_string(place.path("runs/a/metrics.jsonl")).unwrap();
    let records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let charts = server.json("/api/charts?run=a");
    let mut n_compared = 0;
    for (id, key) in [("loss", "loss"), ("top1", "top1"), ("lr", "lr"), ("grad_norm", "grad_norm")]
    {
        let chart =
            charts["charts"].as_array().unwrap().iter().find(|chart| chart["id"] == id).unwrap();
        for curve in chart["curves"].as_array().unwrap() {
            let kind = match curve["role"].as_str().unwrap() {
                "training" | "value" => "train",
                "validation" => "eval",
                _ => continue,
            };
            let of_kind = records.iter().filter(|record| record["kind"] == kind);
            let rows: Vec<[&Value; 2]> =
                of_kind.map(|record| [&record["step"], &record[key]]).collect();
            let (steps, values) =
                (curve["step"].as_array().unwrap(), curve["y"].as_array().unwrap());
            let drawn: Vec<[&Value; 2]> = steps.iter().zip(values).map(|(a, b)| [a, b]).collect();
            assert_eq!(drawn, rows, "{id} {kind}");
            n_compared += rows.len();
        }
    }
    assert!(n_compared > 4 * 12, "{n_compared}");
    let details = server.json("/api/run?run=a");
    assert_eq!(details["settings"]["preset"], "smoke");
    let changes = details["settings"]["changes"].to_string();
    assert!(changes.contains("train.steps") && changes.contains("\"12\""), "{changes}");
    assert!(details["commands"].to_string().contains("bninception eval runs/a"));
    assert_eq!(details["checkpoint"]["classes"], 10);
}

#[test]
fn a_log_is_followed() {
    let place = Place::new();
    write_run(&place.path("runs/a"), 1);
    let log = place.path("runs/a/train.log");
    let server = Server::start(&place, "runs");
    let first = server.json("/api/log?run=a");
    assert_eq!(first["text"], fs::read_to_string(&log).unwrap());
    fs::File::options().append(true).open(&log).unwrap().write_all(b"more\nto").unwrap();
    let next = format!("/api/log?run=a&file={}&from={}", first["file"], first["to"]);
    let second = server.json(&next);
    assert_eq!((&second["text"], &second["goes_on"]), (&"more\n".into(), &true.into()));
    // A place that nobody gave is the end of the log.
    for place in ["file=1&from=2", "file=x&from=-1", "from=99999999999999999999"] {
        let part = server.json(&format!("/api/log?run=a&{place}"));
        assert_eq!((&part["from"], &part["goes_on"]), (&0.into(), &false.into()), "{place}");
    }
}

/// What may be wrong with a run: its name, how it comes about, its state, and a part of the reason.
type Damage = (&'static str, fn(&Path), &'static str, &'static str);

#[test]
fn a_run_that_is_half_written_leaves_the_others_as_they_are() {
    let place = Place::new();
    let table: [Damage; 11] = [
        (
            "empty-metrics",
            |run| fs::write(run.join("metrics.jsonl"), "").unwrap(),
            "damaged",
            "no last",
        ),
        (
            "torn-line",
            |run| {
                let path = run.join("metrics.jsonl");
                fs::File::options().append(true).open(path).unwrap().write_all(b"{\"ki").unwrap();
            },
            "damaged",
            "no last.safetensors",
        ),
        (
            "bad-line",
            |run| fs::write(run.join("metrics.jsonl"), "{}\n").unwrap(),
            "damaged",
            "no last",
        ),
        (
            "no-config",
            |run| fs::remove_file(run.join("config.toml")).unwrap(),
            "damaged",
            "no last",
        ),
        (
            "bad-config",
            |run| fs::write(run.join("config.toml"), "[[[").unwrap(),
            "damaged",
            "no last",
        ),
        (
            "bad-utf8",
            |run| fs::write(run.join("metrics.jsonl"), b"\xff\xfe\n").unwrap(),
            "damaged",
            "no last",
        ),
        (
            "no-numbers",
            |run| {
                let text = "{\"kind\":\"train\",\"step\":3,\"loss\":null,\"top1\":null}\n";
                fs::write(run.join("metrics.jsonl"), text).unwrap();
            },
            "damaged",
            "no last",
        ),
        (
            "torn-checkpoint",
            |run| fs::write(run.join("last.safetensors"), [9, 0, 0, 0, 0, 0, 0, 0, b'{']).unwrap(),
            "damaged",
            "last.safetensors",
        ),
        (
            "folder-for-a-file",
            |run| fs::create_dir(run.join("DIVERGED")).unwrap(),
            "damaged",
            "DIVERGED",
        ),
        (
            "looping-link",
            |run| {
                fs::remove_file(run.join("train.log")).unwrap();
                symlink("train.log", run.join("train.log")).unwrap();
            },
            "damaged",
            "train.log cannot be looked at",
        ),
        (
            "a-pipe",
            |run| {
                fs::remove_file(run.join("config.toml")).unwrap();
                let made =
                    std::process::Command::new("mkfifo").arg(run.join("config.toml")).status();
                assert!(made.unwrap().success());
            },
            "damaged",
            "config.toml is not a file",
        ),
    ];
    write_run(&place.path("runs/good"), 3);
    for (name, damage, ..) in table {
        let run = place.path(&format!("runs/{name}"));
        write_run(&run, 2);
        damage(&run);
    }
    let server = Server::start(&place, "runs");
    let list = server.json("/api/runs");
    assert_eq!(list["runs"].as_array().unwrap().len(), table.len() + 1);
    for (name, _, state, reason) in table {
        let row = list["runs"].as_array().unwrap().iter().find(|row| row["run"] == name).unwrap();
        assert_eq!(row["state"], state, "{row}");
        assert!(row["reason"].as_str().unwrap().contains(reason), "{row}");
        // Whatever is asked, there is an answer, and the good run is drawn.
        assert_eq!(server.get(&format!("/api/run?run={name}")).status, 200, "{name}");
        assert!([200, 500].contains(&server.get(&format!("/api/log?run={name}")).status), "{name}");
        let charts = server.json(&format!("/api/charts?run={name}&run=good"));
        let of_good = charts["charts"][0]["curves"].as_array().unwrap();
        assert!(
            of_good
                .iter()
                .any(|curve| curve["run"] == 1 && curve["step"].as_array().unwrap().len() == 3)
        );
    }
    let reason = |name: &str| server.json(&format!("/api/charts?run={name}"))["reasons"][0].clone();
    assert!(reason("bad-line").as_str().unwrap().contains("line 1 is not a record"));
    assert!(reason("no-config").as_str().unwrap().contains("neither config.toml"));
    assert!(reason("torn-line").is_null() && reason("no-numbers").is_null());
}

#[cfg(target_os = "linux")]
#[test]
fn what_may_not_be_read_is_named() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::new();
    write_run(&place.path("runs/a"), 1);
    write_run(&place.path("runs/closed/b"), 1);
    let closed = place.path("runs/closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let is_root = fs::read_dir(&closed).is_ok();
    let server = Server::start(&place, "runs");
    let list = server.json("/api/runs");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    if is_root {
        // Root reads everything.
        assert_eq!(ids(&list), ["a", "closed/b"]);
        return;
    }
    assert_eq!(ids(&list), ["a"]);
    assert!(list["notes"][0].as_str().unwrap().contains("closed cannot be listed"), "{list}");
}

#[test]
fn it_ends_when_it_is_asked_to() {
    let place = Place::new();
    fs::create_dir(place.path("runs")).unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        let server = Server::start(&place, "runs");
        // A browser that keeps its connection, and one that has asked for half a thing.
        let mut idle = TcpStream::connect(&server.address).unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut half = TcpStream::connect(&server.address).unwrap();
        half.write_all(b"GET / HT").unwrap();
        let start = Instant::now();
        assert_eq!(server.end(signal), Some(0), "{signal:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{signal:?}: {:?}", start.elapsed());
    }
}

#[test]
fn ports_and_folders_that_cannot_be_had() {
    let place = Place::new();
    place.fail(&["dashboard"], 2, &["checkpoints is no folder"]);
    place.fail(&["dashboard", "nowhere"], 2, &["nowhere is no folder"]);
    fs::create_dir(place.path("runs")).unwrap();
    let server = Server::start(&place, "runs");
    let port = server.address.rsplit_once(':').unwrap().1;
    place.fail(&["dashboard", "runs", "--port", port], 2, &["cannot be had", "name another"]);
}

#[test]
fn beside_a_run_it_changes_nothing() {
    let place = Place::with_pictures();
    train(&place, "plain/run", &["--steps", "10"]);
    let arguments = [
        "train",
        "--preset",
        "smoke",
        "--data-dir",
        "pictures",
        "--run-dir",
        "served/run",
        "--steps",
        "10",
        "--dashboard",
    ];
    let mut child =
        place.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    let address = loop {
        let before = said.len();
        assert!(reader.read_line(&mut said).unwrap() > 0, "it ended without an address:\n{said}");
        if let Some((_, rest)) = said[before..].split_once("dashboard http://") {
            break rest.split_whitespace().next().unwrap().to_owned();
        }
    };
    let list: Value =
        serde_json::from_str(&ask(&address, &request("GET", "/api/runs", &[])).body).unwrap();
    assert_eq!(ids(&list), ["run"]);
    assert_eq!(list["runs"][0]["state"], "training");
    reader.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    assert!(said.contains("see it again with: bninception dashboard served"), "{said}");
    assert!(TcpStream::connect(&address).is_err());

    let state =
        |run: &str| checkpoint::load(&place.path(run).join("last.safetensors")).unwrap().state;
    let (plain, served) = (state("plain/run"), state("served/run"));
    assert!(plain.model.weights == served.model.weights, "the weights differ");
    assert_eq!(plain.progress.best, served.progress.best);
    let losses = |run: &str| -> Vec<Value> {
        let text = fs::read_to_string(place.path(run).join("metrics.jsonl")).unwrap();
        let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.map(|record| record["loss"].clone()).collect()
    };
    assert_eq!(losses("plain/run"), losses("served/run"));
}
