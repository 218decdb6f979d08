//! The pages of `report` and `dashboard` in headless Chromium, by the scripts of `tools/browser`. Says that it
//! skips where Node.js, their packages or Chromium are missing; `tools/browser/install.sh` installs them.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // helpers of tests, which fail by panicking, and say why they skip

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::Place;

/// What keeps the scripts from running, if anything does.
fn missing() -> Option<&'static str> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    let has_browser = named.into_iter().chain(usual.map(PathBuf::from)).any(|path| path.is_file());
    let has_node = Command::new("node").arg("--version").output().is_ok();
    match (has_node, scripts().join("node_modules/playwright-core").is_dir(), has_browser) {
        (false, ..) => Some("there is no Node.js"),
        (_, false, _) => Some("its npm packages are not installed"),
        (.., false) => Some("there is no Chromium"),
        _ => None,
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/browser")
}

/// Runs the tests of a script.
fn node(script: &str, environment: &[(&str, String)]) {
    let output = Command::new("node")
        .args(["--test", "--test-reporter=spec", script])
        .current_dir(scripts())
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    eprintln!("{text}");
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Trains two short runs of different rates in `runs`.
fn trained() -> Place {
    let place = Place::with_pictures();
    for (name, rate) in [("runs/first", "0.015"), ("runs/second", "0.03")] {
        place.succeed(&[
            "train",
            "--preset",
            "smoke",
            "--data-dir",
            "pictures",
            "--run-dir",
            name,
            "--epochs",
            "3",
            "--batch-size",
            "4",
            "--lr",
            rate,
            "--set",
            "log.every_steps=1",
        ]);
    }
    place
}

fn text_of(path: PathBuf) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_page_of_a_run_and_that_of_several() {
    if let Some(reason) = missing() {
        eprintln!(
            "skipped: {reason}; tools/browser/install.sh installs what the tests of pages need"
        );
        return;
    }
    let place = trained();
    place.succeed(&["report", "runs/first"]);
    place.succeed(&["report", "runs/first", "runs/second", "--out", "both.html"]);
    let found = place.json(&["eval", "runs/first", "--json"]);
    node(
        "report.test.mjs",
        &[
            ("REPORT", text_of(place.path("runs/first/report.html"))),
            ("REPORTS", text_of(place.path("both.html"))),
            ("METRICS", text_of(place.path("runs/first/metrics.jsonl"))),
            ("TOP1", found["top1"].to_string()),
        ],
    );
}

/// A dashboard, which ends with the test.
struct Dashboard {
    child: Child,
    url: String,
}

impl Dashboard {
    fn of(place: &Place, dir: &str) -> Dashboard {
        let mut child = place
            .command(&["dashboard", dir, "--port", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
        let url = format!("{}/", url.trim_end_matches('/'));
        Dashboard { child, url }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_live_page() {
    if let Some(reason) = missing() {
        eprintln!(
            "skipped: {reason}; tools/browser/install.sh installs what the tests of pages need"
        );
        return;
    }
    let place = trained();
    make_many(&place.path("many"));
    let (few, many) = (Dashboard::of(&place, "runs"), Dashboard::of(&place, "many"));
    node(
        "dashboard.test.mjs",
        &[
            ("URL", few.url.clone()),
            ("FOLDER", text_of(place.path("runs"))),
            ("RUN", "first".to_owned()),
            ("MANY", many.url.clone()),
            ("N_MANY", MANY.to_string()),
            // The bar is 2 s on an idle machine; that of the tests is busy.
            ("MOST_SECONDS", "6".to_owned()),
        ],
    );
}

/// Runs of the folder `many`.
const MANY: usize = 200;

/// Writes [`MANY`] runs of 10,000 lines each.
fn make_many(dir: &Path) {
    let mut metrics = String::new();
    for step in 1..=10_000 {
        let loss = 2.3 * (-f64::from(step) / 3000.0).exp() + 0.01 * f64::from(step % 7);
        metrics.push_str(&format!(
            "{{\"kind\":\"train\",\"step\":{step},\"epoch\":{},\"loss\":{loss},\"top1\":0.5,\"lr\":0.015,\
             \"grad_norm\":1.5,\"images_per_second\":212.4,\"data_wait\":0.01}}\n",
            f64::from(step) / 100.0
        ));
    }
    for run in 0..MANY {
        let folder = dir.join(format!("run-{run:03}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("metrics.jsonl"), &metrics).unwrap();
        fs::write(folder.join("config.toml"), "extends = \"demo\"\n").unwrap();
    }
}
