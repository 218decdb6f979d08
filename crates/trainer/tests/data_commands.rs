//! The `data` commands as a user meets them.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use bninception_data::{DemoOptions, write_demo};
use serde_json::Value;

fn run(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bninception"))
        .args(arguments)
        .current_dir(dir)
        .env("BNINCEPTION_CACHE", dir.join("cache"))
        .output()
        .unwrap()
}

fn json(dir: &Path, arguments: &[&str]) -> Value {
    let output = run(dir, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn pictures() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let options = DemoOptions { train_per_class: 4, val_per_class: 2, size: 32, seed: 1 };
    write_demo(&dir.path().join("pictures"), &options).unwrap();
    dir
}

#[test]
fn check_reports_and_ends_with_code_3_if_a_run_would_break() {
    let dir = pictures();
    let good = json(dir.path(), &["data", "check", "pictures", "--json"]);
    assert_eq!((&good["images"], &good["breaks_a_run"]), (&60.into(), &false.into()));
    assert_eq!(good["formats"]["PNG"], 60);

    let class = fs::read_dir(dir.path().join("pictures/train")).unwrap().next().unwrap().unwrap();
    fs::write(class.path().join("odd\nname.jpg"), "no picture").unwrap();
    let output = run(dir.path(), &["data", "check", "pictures"]);
    let (text, errors) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(text.contains("cannot be read: 1") && text.contains("odd\\nname.jpg"), "{text}");
    assert!(errors.contains("1 file that cannot be read"), "{errors}");
    let output = run(dir.path(), &["data", "check", "pictures", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["unreadable"].as_array().unwrap().len(), 1);
    assert_eq!(run(dir.path(), &["data", "check", "nowhere"]).status.code(), Some(3));
}

#[test]
fn check_draws_a_sheet_of_any_pictures() {
    let dir = pictures();
    let class = fs::read_dir(dir.path().join("pictures/train")).unwrap().next().unwrap().unwrap();
    fs::write(class.path().join("broken.jpg"), "no picture").unwrap();
    bninception_data::RgbImage::new(2, 3000).save(class.path().join("thin.png")).unwrap();
    fs::create_dir_all(dir.path().join("pictures/train/蚂蚁")).unwrap();
    let odd = format!("pictures/train/蚂蚁/{}.png", "very long ".repeat(20));
    bninception_data::RgbImage::new(40, 40).save(dir.path().join(odd)).unwrap();
    let output = run(dir.path(), &["data", "check", "pictures", "--sheet", "sheet.png"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "a file cannot be read: {errors}");
    assert!(errors.contains("sheet.png"), "{errors}");
    let sheet = fs::read(dir.path().join("sheet.png")).unwrap();
    let sheet = bninception_data::decode(&sheet, &Default::default()).unwrap();
    // A row of ten pictures, and one row for each of 11 classes.
    assert!(sheet.width() > 10 * 176 && sheet.height() > 11 * 176, "{:?}", sheet.dimensions());

    for (file, part) in [("pictures/sheet.png", "--sheet"), ("nowhere/sheet.png", "does not exist")]
    {
        let output = run(dir.path(), &["data", "check", "pictures", "--sheet", file]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(part), "{errors}");
        assert!(!dir.path().join(file).exists());
    }
}

#[test]
fn split_makes_a_folder_to_train_on() {
    let dir = pictures();
    let split = ["data", "split", "pictures/train", "--out", "halves", "--val-fraction", "0.5"];
    let made = json(dir.path(), &[&split[..], &["--json"]].concat());
    assert_eq!((&made["train"], &made["val"]), (&20.into(), &20.into()));
    let again = run(dir.path(), &split);
    assert_eq!(again.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&again.stderr).contains("it exists"));
    let train = ["train", "--preset", "smoke", "--data-dir", "halves", "--steps", "1", "--json"];
    assert!(json(dir.path(), &train).is_object());
}

#[test]
fn commands_to_paste_name_no_preset_and_quote_the_folder() {
    let dir = pictures();
    for (args, command) in [
        (&["data", "pack", "pictures", "my pack"][..], "train --data-dir 'my pack'"),
        (
            &["data", "split", "pictures/train", "--out", "my split", "--val-fraction", "0.5"],
            "train --data-dir 'my split'",
        ),
        (&["data", "demo", "my demo"], "train --preset demo --data-dir 'my demo'"),
    ] {
        let output = run(dir.path(), args);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&format!(" with: bninception {command}\n")), "{text}");
    }
}

#[test]
fn index_keeps_listings_and_uses_them() {
    let dir = pictures();
    let index = ["data", "index", "pictures", "--json"];
    let first = json(dir.path(), &index);
    assert_eq!((&first["images"], &first["classes"]), (&60.into(), &10.into()));
    let file = first["cache"].as_str().unwrap();
    assert!(fs::metadata(dir.path().join(file)).is_ok(), "{file}");
    // The folders have just been written: their listings are not to be trusted yet.
    assert_eq!(json(dir.path(), &index)["folders_reused"], 0);
}

#[test]
fn pack_makes_a_folder_that_trains_and_evaluates_as_its_source() {
    let dir = pictures();
    let pack = ["data", "pack", "pictures", "packed", "--json"];
    let made = json(dir.path(), &pack);
    assert_eq!((&made["images"], &made["shards_made"]), (&60.into(), &20.into()));
    let again = json(dir.path(), &pack);
    assert_eq!((&again["shards_made"], &again["shards_kept"]), (&0.into(), &20.into()));

    // No picture is larger than its pack, so not a bit may differ.
    let results = ["pictures", "packed"].map(|data| {
        let train = ["train", "--preset", "smoke", "--data-dir", data, "--steps", "3", "--json"];
        let trained =
            json(dir.path(), &[&train[..], &["--run-dir", &format!("run-{data}")]].concat());
        let checkpoint = format!("run-{data}/last.safetensors");
        let eval = json(dir.path(), &["eval", &checkpoint, "--data-dir", data, "--json"]);
        assert_eq!(eval["images"], 20);
        (trained["val_loss"].clone(), eval["loss"].clone(), eval["top1"].clone())
    });
    assert!(results[0].1.is_number());
    assert_eq!(results[0], results[1]);

    let half = run(dir.path(), &["data", "pack", "pictures", "pictures/inside"]);
    assert_eq!(half.status.code(), Some(2));
    fs::write(dir.path().join("packed/.packing"), b"").unwrap();
    let refused = run(dir.path(), &["train", "--preset", "smoke", "--data-dir", "packed"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("run `data pack` with it to the end")
    );
}
