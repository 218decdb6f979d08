//! The page of `report`, as a user meets it.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use bninception::config::{Sources, resolve};
use common::{Place, listing};
use serde_json::Value;

/// A short run on small pictures.
fn train(place: &Place, name: &str, more: &[&str]) {
    let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--run-dir", name];
    place.succeed(&[&train, more].concat());
}

fn read(place: &Place, name: &str) -> String {
    fs::read_to_string(place.path(name)).unwrap()
}

/// The JSON in the script element `id`.
fn data(page: &str, id: &str) -> Value {
    let begin = format!("<script type=\"application/json\" id=\"{id}\">");
    let at = page.find(&begin).unwrap() + begin.len();
    let end = page[at..].find("</script>").unwrap();
    serde_json::from_str(&page[at..at + end]).unwrap()
}

/// The values of the attribute `name`.
fn attributes<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!(" {name}=\"");
    let values = page.split(begin.as_str()).skip(1);
    values.map(|rest| &rest[..rest.find('"').unwrap()]).collect()
}

/// What of a page stands in front of its scripts.
fn body(page: &str) -> &str {
    let from = page.find("<body>").unwrap();
    &page[from..page.find("<script").unwrap_or(page.len())]
}

fn contains(page: &str, parts: &[&str]) {
    for part in parts {
        assert!(page.contains(part), "no `{part}` in\n{}", body(page));
    }
}

/// What every page keeps: nothing from elsewhere, no id twice, links that lead somewhere, pictures with words,
/// elements that close in their order.
fn check_page(page: &str) {
    for name in ["src", "href"] {
        for value in attributes(body(page), name) {
            assert!(value.starts_with("data:") || value.starts_with('#'), "{name}={value}");
        }
    }
    let ids = attributes(page, "id");
    let unique: BTreeSet<&&str> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
    for link in attributes(body(page), "href").iter().filter_map(|link| link.strip_prefix('#')) {
        assert!(unique.contains(&link), "#{link} leads nowhere");
    }
    for image in body(page).split("<img ").skip(1) {
        let image = &image[..image.find('>').unwrap()];
        assert!(attributes(&format!(" {image}"), "alt").iter().all(|alt| !alt.is_empty()));
        assert!(image.contains("alt=\""), "{}", &image[image.len().saturating_sub(200)..]);
    }
    assert_eq!(page.matches("<h1").count(), 1);
    check_nesting(body(page));
}

fn check_nesting(html: &str) {
    const VOID: [&str; 6] = ["img", "br", "input", "meta", "link", "hr"];
    let mut open = Vec::new();
    for tag in html.split('<').skip(1) {
        let name = |text: &str| -> String {
            text.chars().take_while(char::is_ascii_alphanumeric).collect()
        };
        match tag.strip_prefix('/') {
            Some(tag) => {
                assert_eq!(open.pop(), Some(name(tag)), "near {}", &tag[..tag.len().min(80)])
            }
            None if VOID.contains(&name(tag).as_str()) => {}
            None => open.push(name(tag)),
        }
    }
    // The body ends behind the scripts.
    assert_eq!(open, ["body"]);
}

/// The curve of a chart with this role.
fn curve<'a>(curves: &'a Value, chart: &str, role: &str) -> &'a Value {
    let charts = curves["charts"].as_array().unwrap();
    let chart = charts.iter().find(|found| found["id"] == chart).unwrap();
    chart["curves"].as_array().unwrap().iter().find(|curve| curve["role"] == role).unwrap()
}

#[test]
fn a_page_shows_what_the_run_recorded_and_what_its_best_checkpoint_does() {
    let place = Place::with_pictures();
    train(&place, "run", &[]);
    let before = listing(&place.path("run"));
    let output = place.succeed(&["report", "run"]);
    assert_eq!(output.trim_end(), "run/report.html");
    let after = listing(&place.path("run"));
    let new: Vec<&PathBuf> = after.iter().filter(|path| !before.contains(path)).collect();
    assert_eq!(new, [&place.path("run/report.html")]);
    let page = read(&place, "run/report.html");
    check_page(&page);

    // Every line of the record is a point of each curve.
    let curves = data(&page, "charts-data");
    let records: Vec<Value> = read(&place, "run/metrics.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of_kind = |kind: &str, key: &str| -> Value {
        records.iter().filter(|row| row["kind"] == kind).map(|row| row[key].clone()).collect()
    };
    for (chart, role, kind, key) in [
        ("loss", "training", "train", "loss"),
        ("loss", "validation", "eval", "loss"),
        ("top1", "training", "train", "top1"),
        ("top1", "validation", "eval", "top1"),
        ("lr", "value", "train", "lr"),
        ("grad_norm", "value", "train", "grad_norm"),
        ("images_per_second", "value", "train", "images_per_second"),
        ("data_wait", "value", "train", "data_wait"),
    ] {
        let curve = curve(&curves, chart, role);
        assert_eq!(curve["y"], of_kind(kind, key), "{chart}, {role}");
        assert_eq!(curve["step"], of_kind(kind, "step"), "{chart}, {role}");
    }

    // The numbers are those of `eval`, on the images that it counts.
    let eval = place.json(&["eval", "run", "--json"]);
    let top1 =
        format!("<dt>top-1</dt><dd>{:.2} %<small>95 %: ", 100.0 * eval["top1"].as_f64().unwrap());
    let ece = format!("<strong>{:.4}</strong>", eval["ece"].as_f64().unwrap());
    let step = eval["models"][0]["step"].as_u64().unwrap();
    let measured = format!(
        "Measured for this page: <code>best.safetensors</code> of step {step}, averaged weights (EMA)"
    );
    contains(
        &page,
        &[
            &top1,
            &ece,
            &measured,
            "all 20 validation images of the run in <code>pictures</code>",
            "The run's record has the same top-1 for this step.",
            "always the same class would score 10.00 %",
            "<span class=\"badge finished\">finished</span>",
        ],
    );
    // Each part is there, in its order, and has something.
    let parts = [
        "id=\"result\"",
        "id=\"curves\"",
        "id=\"mistakes\"",
        "id=\"confusion\"",
        "id=\"classes\"",
        "id=\"calibration\"",
        "id=\"training-images\"",
        "id=\"recipe\"",
        "id=\"data\"",
        "id=\"environment\"",
        "id=\"commands\"",
    ];
    let places: Vec<usize> = parts.iter().map(|part| page.find(part).unwrap()).collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(!page.contains("Not shown:"), "{}", body(&page));
    let pictures = attributes(&page, "src");
    let n_mistakes = eval["mistakes"].as_array().unwrap().len();
    // Of the batch of eight, and two for each mistake.
    assert_eq!(pictures.len(), 8 + 2 * n_mistakes.min(24));
    assert!(pictures.iter().all(|source| source.starts_with("data:image/jpeg;base64,/9j/")));
    for row in eval["per_class"].as_array().unwrap() {
        let cell = format!("<th scope=\"row\">{}</th>", row["class"].as_str().unwrap());
        assert!(page.matches(&cell).count() >= 3, "{cell}");
    }
    contains(
        &page,
        &[
            "Preset <code>smoke</code>",
            "<th scope=\"row\"><code>data.dir</code></th>",
            "<td>flag --data-dir</td>",
            "<tr><th scope=\"row\">training</th><td>40 images</td></tr>",
            "<tr><th scope=\"row\">validation</th><td>20 images</td></tr>",
            "fast engine, f32 on the CPU",
            "bninception predict run IMAGE...",
        ],
    );
    // What was made of the same settings is the same, but for times.
    place.succeed(&["report", "run", "--out", "again.html"]);
    let pictures_of = |page: &str| -> Vec<String> {
        attributes(page, "src").into_iter().map(str::to_owned).collect()
    };
    assert_eq!(pictures_of(&read(&place, "again.html")), pictures_of(&page));
    // The run goes on beside its page.
    let longer = ["--set", "train.steps=12", "--allow-change", "train.steps"];
    place.succeed(&[&["resume", "run"], &longer[..]].concat());
}

#[test]
fn a_page_says_of_how_many_images_and_why_a_part_is_not_there() {
    let place = Place::with_pictures();
    train(&place, "run", &[]);
    place.succeed(&["report", "run", "--images", "10"]);
    let page = read(&place, "run/report.html");
    check_page(&page);
    contains(
        &page,
        &[
            "10 of 20 validation images of the run in <code>pictures</code>, spread evenly over the classes",
            "on 10 images",
            "of 10 images.",
        ],
    );
    assert!(!page.contains("same top-1 for this step"), "another sample is no comparison");

    place.succeed(&["report", "run", "--no-eval"]);
    let page = read(&place, "run/report.html");
    check_page(&page);
    let left_out = "it was left out with --no-eval; make the page without it";
    assert_eq!(page.matches(left_out).count(), 5, "the result and four parts");
    contains(&page, &["those of the run's best evaluation", "A training image of class"]);

    // The images are gone: the page is made, and says so.
    fs::rename(place.path("pictures"), place.path("moved")).unwrap();
    let output = place.run(&["report", "run"]);
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && talk.contains("not evaluated: pictures is not a folder"),
        "{talk}"
    );
    let page = read(&place, "run/report.html");
    check_page(&page);
    contains(&page, &["pictures is not a folder", "say where they are with --data-dir DIR"]);
    assert!(attributes(&page, "src").is_empty());
    // What it advises works.
    place.succeed(&["report", "run", "--data-dir", "moved"]);
    let page = read(&place, "run/report.html");
    contains(&page, &["all 20 validation images of the run in <code>moved</code>"]);
    contains(&page, &["A training image of class", "same top-1 for this step"]);
    // A folder that was named must be there, and so must a format.
    place.fail(&["report", "run", "--data-dir", "nowhere"], 3, &["nowhere"]);
    place.fail(&["report", "run", "--images", "0"], 2, &["--images 0"]);
    place.fail(&["report", "run", "--out", "moved"], 2, &["moved is a folder"]);
    let inside = ["report", "run", "--data-dir", "moved", "--out", "moved/report.html"];
    place.fail(&inside, 2, &["lies in the folder of images"]);
    place.fail(&["report", "run", "--format", "md", "--no-eval"], 2, &["--no-eval"]);
    place.fail(&["report", "nowhere"], 2, &["nowhere is no folder"]);

    // A checkpoint that is damaged is told, and what was recorded is shown.
    for name in ["run/best.safetensors", "run/last.safetensors"] {
        fs::write(place.path(name), "no checkpoint").unwrap();
    }
    place.succeed(&["report", "run", "--data-dir", "moved"]);
    let page = read(&place, "run/report.html");
    check_page(&page);
    contains(&page, &["badge damaged", "best.safetensors", "From the run's record."]);
}

#[test]
fn several_runs_stand_side_by_side() {
    let place = Place::with_pictures();
    train(&place, "runs/a", &[]);
    train(&place, "runs/b", &["--lr", "0.001"]);
    let output = place.json(&["report", "runs", "--json"]);
    let reports = output["reports"].as_array().unwrap();
    assert_eq!(reports.len(), 2);
    assert!(reports.iter().all(|report| report["report"] == "runs/report.html"), "{output}");
    let page = read(&place, "runs/report.html");
    check_page(&page);
    contains(
        &page,
        &[
            "<h1>2 runs side by side</h1>",
            "id=\"run-1-mistakes\"",
            "id=\"run-2-commands\"",
            "Settings that differ",
            "optimizer.lr",
        ],
    );
    let curves = data(&page, "charts-data");
    assert_eq!(curves["runs"], serde_json::json!(["a", "b"]));
    let lr = curves["charts"].as_array().unwrap().iter().find(|chart| chart["id"] == "lr").unwrap();
    assert_eq!(lr["curves"].as_array().unwrap().len(), 2);

    assert_eq!(
        place.succeed(&["report", "runs/b", "runs/a", "--no-eval"]).trim_end(),
        "runs/report.html"
    );
    let output = place.succeed(&["report", "runs", "--no-eval", "--out", "pages/both.html"]);
    assert_eq!(output.trim_end(), "pages/both.html");
    check_page(&read(&place, "pages/both.html"));
    assert_eq!(
        place.succeed(&["report", "runs", "--format", "md"]),
        "runs/a/report.md\nruns/b/report.md\n"
    );

    // The pages of a run that is replaced go with it.
    let names = || -> BTreeSet<String> {
        let entries = fs::read_dir(place.path("runs/a")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    place.succeed(&["report", "runs/a", "--no-eval"]);
    let before = names();
    train(&place, "runs/a", &["--overwrite"]);
    let gone: Vec<String> = before.difference(&names()).cloned().collect();
    assert_eq!(gone, ["curves.png", "curves.svg", "report.html", "report.md"]);
}

/// The folder of a run that nothing trained: its settings and its record.
fn made_up(place: &Place, name: &str, metrics: &str, head: &str) -> PathBuf {
    let path = place.path(name);
    fs::create_dir_all(&path).unwrap();
    let config = resolve(&Sources { preset: Some("bn-x5"), ..Sources::default() }).unwrap().config;
    fs::write(path.join("config.toml"), format!("{head}{}", config.to_toml().unwrap())).unwrap();
    fs::write(path.join("metrics.jsonl"), metrics).unwrap();
    path
}

fn page_of(place: &Place, name: &str) -> String {
    place.succeed(&["report", name]);
    let page = fs::read_to_string(place.path(name).join("report.html")).unwrap();
    check_page(&page);
    page
}

#[test]
fn odd_runs_have_a_page_too() {
    let place = Place::new();
    let train = |step: u64, loss: &str| {
        format!(
            "{{\"kind\":\"train\",\"step\":{step},\"epoch\":0.5,\"loss\":{loss},\"top1\":0.5,\"lr\":0.1}}\n"
        )
    };
    // Nothing was recorded, and the recipe is not known.
    made_up(&place, "empty", "", "");
    let page = page_of(&place, "empty");
    contains(
        &page,
        &[
            "Nothing has been recorded yet.",
            "Nothing has been evaluated yet.",
            "the run has no checkpoint yet",
            "The run does not say its preset; the nearest is <code>bn-x5</code>",
        ],
    );
    assert!(!page.contains("id=\"charts\""));

    // One line, with a loss that was no number, of a run that diverged.
    let path = made_up(&place, "one", &train(1, "null"), "extends = \"bn-x5\"\n");
    fs::write(path.join("DIVERGED"), "").unwrap();
    let page = page_of(&place, "one");
    contains(&page, &["id=\"charts\"", "Preset <code>bn-x5</code>"]);
    let curves = data(&page, "charts-data");
    assert!(curves["charts"].as_array().unwrap().iter().all(|chart| chart["id"] != "loss"));
    assert_eq!(curve(&curves, "top1", "training")["y"], serde_json::json!([0.5]));

    // A gap in a curve, an evaluation of unknown images, a torn last line.
    let text = [
        train(1, "2.5"),
        train(2, "null"),
        train(3, "1.5"),
        "{\"kind\":\"eval\",\"step\":3,\"epoch\":1.0,\"loss\":null,\"top1\":0.75}\n".to_owned(),
        "{\"kind\":\"tra".to_owned(),
    ];
    made_up(&place, "gap", &text.concat(), "");
    let curves = data(&page_of(&place, "gap"), "charts-data");
    assert_eq!(curve(&curves, "loss", "training")["y"], serde_json::json!([2.5, null, 1.5]));
}

#[test]
fn names_are_text_and_nothing_else() {
    let place = Place::with_pictures();
    let odd = "<script>alert(1)<!-- \"'&";
    for split in ["train", "val"] {
        let folder = place.path("pictures").join(split);
        let mut classes: Vec<PathBuf> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        classes.sort();
        fs::rename(&classes[0], folder.join(odd)).unwrap();
        let file = fs::read_dir(&classes[1]).unwrap().next().unwrap().unwrap().path();
        fs::rename(&file, classes[1].join("\" onload=alert(1) <b>.png")).unwrap();
    }
    train(&place, odd, &[]);
    let page = page_of(&place, odd);
    assert_eq!(data(&page, "charts-data")["runs"], serde_json::json!([odd]));
    assert!(page.matches("&lt;script&gt;alert(1)&lt;!-- &quot;").count() > 5);
    // The data and the four scripts of every page.
    assert_eq!(page.matches("<script").count(), 5);
    for part in ["<b>", "<script>alert", "<!--", " onload=\""] {
        assert!(!body(&page).contains(part), "{part}");
    }
}
