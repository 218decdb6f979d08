//! The files of a run as its page describes them, `checkpoints/README.md`: every field, and nothing else.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use common::Place;
use serde_json::Value;

/// What the page says of a field.
struct Described {
    kind: String,
    may_be_null: bool,
}

/// The rows of the table below a heading, up to the next heading: the name in the first column, and the others.
fn table(page: &str, heading: &str) -> Vec<(String, Vec<String>)> {
    let (_, below) = page.split_once(&format!("\n{heading}\n")).unwrap();
    let row = |line: &str| {
        let line = line.strip_prefix("| ")?.strip_suffix('|')?;
        let cells: Vec<String> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
        let name = cells[0].strip_prefix('`')?.strip_suffix('`')?.to_owned();
        Some((name, cells[1..].to_vec()))
    };
    let rows: Vec<_> =
        below.lines().take_while(|line| !line.starts_with('#')).filter_map(row).collect();
    assert!(!rows.is_empty(), "no table below {heading}");
    rows
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../checkpoints/README.md");
    fs::read_to_string(path).unwrap()
}

fn is_of(value: &Value, described: &Described) -> bool {
    match described.kind.as_str() {
        _ if value.is_null() => described.may_be_null,
        "integer" => value.is_u64(),
        "number" => value.is_f64(),
        "text" => value.is_string(),
        other => panic!("the page has the type {other}"),
    }
}

/// A small run that writes lines of every kind.
fn run() -> Place {
    let place = Place::with_pictures();
    place.succeed(&[
        "train",
        "--preset",
        "smoke",
        "--data-dir",
        "pictures",
        "--run-dir",
        "run",
        "--set",
        "log.every_steps=1",
        "--set",
        "log.watch=[\"conv1_7x7_s2\"]",
        "--set",
        "log.watch_every=2",
    ]);
    place
}

#[test]
fn the_page_lists_the_files_of_a_run() {
    let (page, place) = (page(), run());

    // ---- metrics.jsonl
    let kinds = ["train", "eval", "watch"];
    let fields: BTreeMap<&str, BTreeMap<String, Described>> = kinds
        .into_iter()
        .map(|kind| {
            let row = |(name, cells): (String, Vec<String>)| {
                (name, Described { kind: cells[0].clone(), may_be_null: !cells[2].is_empty() })
            };
            (kind, table(&page, &format!("### `{kind}`")).into_iter().map(row).collect())
        })
        .collect();
    let headings = page.lines().filter(|line| line.starts_with("### `")).count();
    assert_eq!(headings, kinds.len(), "the page has other kinds of lines");

    let text = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    assert!(text.ends_with('\n'));
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut found = BTreeSet::new();
    let mut places = Vec::new();
    for row in &rows {
        let kind = kinds.into_iter().position(|kind| row["kind"] == kind).unwrap();
        found.insert(kind);
        let described = &fields[kinds[kind]];
        let names: BTreeSet<&String> = row.as_object().unwrap().keys().collect();
        assert_eq!(names, described.keys().collect(), "{row}");
        for (name, described) in described {
            assert!(is_of(&row[name], described), "{name} of {row} is no {}", described.kind);
        }
        // Of one step: watch, train, eval.
        places.push((row["step"].as_u64().unwrap(), [1, 2, 0][kind]));
    }
    assert_eq!(found.len(), kinds.len(), "lines of a kind are missing: {text}");
    assert!(places.is_sorted(), "{places:?}");

    // ---- summary.csv
    let text = fs::read_to_string(place.path("run/summary.csv")).unwrap();
    let columns: Vec<String> =
        table(&page, "## summary.csv").into_iter().map(|(name, _)| name).collect();
    assert_eq!(text.lines().next().unwrap(), columns.join(","));
    for row in text.lines().skip(1) {
        assert_eq!(row.split(',').count(), columns.len(), "{row}");
    }

    // ---- tensorboard/: the files hold every tag of the page.
    let mut events = String::new();
    for entry in fs::read_dir(place.path("run/tensorboard")).unwrap() {
        events.push_str(&String::from_utf8_lossy(&fs::read(entry.unwrap().path()).unwrap()));
    }
    let (_, section) = page.split_once("\n## tensorboard/\n").unwrap();
    let tags: Vec<&str> = section
        .lines()
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| line.split('|').nth(1).unwrap().split(','))
        .map(|tag| tag.trim().trim_matches('`'))
        .collect();
    assert_eq!(tags.len(), 14, "{tags:?}");
    for tag in tags {
        let tag = tag.replace("LAYER", "conv1_7x7_s2");
        assert!(events.contains(&tag), "no {tag} in the event files");
    }
}
