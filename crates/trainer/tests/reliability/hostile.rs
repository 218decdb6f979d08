//! Files from strangers: an error each, with its reason, and nothing else.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use bninception::config::{Sources, resolve};
use bninception::run::checkpoint::{self, CheckpointError};
use bninception::run::metadata::Metadata;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::common::Place;
use super::job::Runs;

type Tensors = Vec<(String, Dtype, Vec<usize>, Vec<u8>)>;

/// A checkpoint taken apart.
struct Parts {
    json: String,
    tensors: Tensors,
}

impl Parts {
    fn of(bytes: &[u8]) -> Parts {
        let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
        let json = header.metadata().as_ref().unwrap()["bninception"].clone();
        let file = SafeTensors::deserialize(bytes).unwrap();
        let tensor = |(name, tensor): (String, TensorView<'_>)| {
            (name, tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec())
        };
        let mut tensors: Tensors = file.tensors().into_iter().map(tensor).collect();
        tensors.sort();
        Parts { json, tensors }
    }

    /// A file of these parts, whose checksum says what it says.
    fn bytes(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, dtype, shape, data)| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        let about = HashMap::from([("bninception".to_owned(), self.json.clone())]);
        safetensors::serialize(views, Some(about)).unwrap()
    }
}

/// Loads `bytes` as a file and gives the message of its error.
#[track_caller]
fn refused(dir: &Path, bytes: &[u8]) -> String {
    let path = dir.join("strange.safetensors");
    fs::write(&path, bytes).unwrap();
    match checkpoint::load(&path) {
        Ok(_) => panic!("it was accepted"),
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error} {}", source.unwrap_or_default())
        }
    }
}

#[test]
fn damaged_and_forged_checkpoints() {
    let runs = Runs::new();
    let (job, _) = runs.job("run", &["train.ema=0"], None);
    let good = fs::read(job.folder.last()).unwrap();
    let dir = runs.path("run");
    let header_end = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;

    // Cut off anywhere.
    for len in [0, 1, 7, 8, 9, 100, header_end - 1, header_end, header_end + 4, good.len() - 1] {
        let message = refused(&dir, &good[..len]);
        assert!(message.contains("is not a checkpoint"), "{len} bytes: {message}");
    }
    // A header of any claimed length.
    for length in [0, 1, good.len() as u64, 1 << 26, 1 << 40, u64::MAX] {
        let mut bytes = good.clone();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        let message = refused(&dir, &bytes);
        assert!(message.contains("is not a checkpoint"), "{length}: {message}");
    }
    // One bit, in a tensor and in the metadata.
    for place in [header_end + 1_000_001, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[place] ^= 4;
        assert!(refused(&dir, &bytes).contains("it is damaged"), "byte {place}");
    }
    let parts = Parts::of(&good);
    let other_rate = parts.json.replace("\"lr\":0.015", "\"lr\":0.016");
    assert_ne!(other_rate, parts.json);
    let bytes = Parts { json: other_rate, tensors: parts.tensors.clone() }.bytes();
    assert!(refused(&dir, &bytes).contains("it is damaged"));

    // Tensors that do not fit the network. Version 1 had no checksum in the way.
    let checksum = format!(",\"checksum\":\"{}\"", job_checksum(&parts.json));
    let json =
        parts.json.replace(&checksum, "").replace("\"format_version\":3", "\"format_version\":1");
    let forge = |edit: &dyn Fn(&mut Tensors)| {
        let mut tensors = parts.tensors.clone();
        edit(&mut tensors);
        refused(&dir, &Parts { json: json.clone(), tensors }.bytes())
    };
    let filter = |tensors: &mut Tensors| {
        tensors.iter().position(|tensor| tensor.0 == "conv1_7x7_s2.weight").unwrap()
    };
    type Forgery<'a> = (&'a dyn Fn(&mut Tensors), &'a str);
    let table: [Forgery<'_>; 6] = [
        (
            &|tensors| {
                let index = filter(tensors);
                tensors.remove(index);
            },
            "tensor conv1_7x7_s2.weight is missing",
        ),
        (
            &|tensors| tensors.push(("extra".into(), Dtype::F32, vec![1], vec![0; 4])),
            "tensors, found",
        ),
        (
            &|tensors| {
                let index = filter(tensors);
                tensors[index].2 = vec![3, 64, 7, 7];
            },
            "expected F32 [64, 3, 7, 7], found F32 [3, 64, 7, 7]",
        ),
        (
            &|tensors| {
                let index = filter(tensors);
                tensors[index].1 = Dtype::U32;
            },
            "found U32",
        ),
        (
            &|tensors| {
                let index = filter(tensors);
                tensors[index].3[..4].copy_from_slice(&f32::NAN.to_le_bytes());
            },
            "conv1_7x7_s2.weight is not finite at value 0",
        ),
        (&|tensors| tensors.truncate(3), "its tensors hold"),
    ];
    for (edit, part) in table {
        let message = forge(edit);
        assert!(message.contains(part), "no `{part}` in: {message}");
    }
    // The same parts untouched are a checkpoint of version 1.
    fs::write(dir.join("old.safetensors"), Parts { json, tensors: parts.tensors }.bytes()).unwrap();
    checkpoint::load(&dir.join("old.safetensors")).unwrap();
}

fn job_checksum(json: &str) -> String {
    let metadata: serde_json::Value = serde_json::from_str(json).unwrap();
    metadata["checksum"].as_str().unwrap().to_owned()
}

#[test]
fn headers_with_wrong_places() {
    let dir = tempfile::tempdir().unwrap();
    let with_header = |header: &str| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 16]);
        refused(dir.path(), &bytes)
    };
    let tensor =
        |offsets: &str| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}"#);
    for (a, b) in [
        ("[0,8]", "[4,12]"),
        ("[0,8]", "[8,1000000]"),
        ("[8,0]", "[8,16]"),
        ("[0,8]", "[18446744073709551608,16]"),
        ("[0,8]", "[12,16]"),
    ] {
        let message = with_header(&format!(r#"{{"a":{},"b":{}}}"#, tensor(a), tensor(b)));
        assert!(message.contains("no valid safetensors file"), "{a} {b}: {message}");
    }
    let many = "9".repeat(30);
    for header in ["", "null", "[]", "{\"a\":1}", "{", &"[".repeat(100_000), &many] {
        let message = with_header(header);
        assert!(message.contains("is not a checkpoint"), "{message}");
    }
}

#[test]
fn hostile_metadata() {
    let runs = Runs::new();
    let (job, state) = runs.job("run", &["train.ema=0"], None);
    let good = serde_json::to_string(&job.metadata(&state)).unwrap();
    let read = |json: &str| Metadata::from_json(json).unwrap_err();

    // With a checksum in its place, it is well.
    let good = good.replace("\"checksum\":\"\"", "\"checksum\":\"0\"");
    Metadata::from_json(&good).unwrap();
    let first = &job.classes[0];
    let with_class = |name: &str| {
        let name = serde_json::to_string(name).unwrap();
        read(&good.replacen(&format!("\"{first}\""), &name, 1))
    };
    let long = "x".repeat(300);
    for name in
        ["", ".", "..", "../../etc/passwd", "a/b", "a\\b", "\u{1b}[2J", "a\nb", "a\0b", &long]
    {
        assert!(with_class(name).contains("is not the name of a folder"), "{name:?}");
    }
    assert!(with_class(&job.classes[1]).contains("twice"));

    let nested = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
    for (json, part) in [
        (nested.clone(), "cannot be understood"),
        (good.replacen("\"step\":0", &format!("\"step\":{nested}"), 1), "cannot be understood"),
        (good.replacen("\"step\":0", "\"step\":-1", 1), "cannot be understood"),
        (good.replacen("\"step\":0", "\"step\":1e99", 1), "cannot be understood"),
        (good.replacen("\"step\":0", "\"surprise\":0", 1), "cannot be understood"),
        (good.replacen("\"format_version\":3", "\"format_version\":4", 1), "version 4"),
        (good.replacen("\"checksum\":\"0\"", "\"checksum\":\"\"", 1), "no checksum"),
        (String::new(), "cannot be understood"),
    ] {
        let message = read(&json);
        assert!(message.contains(part), "no `{part}` in {message}");
        assert!(message.len() < 1000, "a message of {} bytes", message.len());
    }

    // More classes than the tensors have rows for: refused before anything of that size is made.
    let classes: Vec<String> = (0..900_000).map(|n| format!("c{n}")).collect();
    let metadata = Metadata { classes, ..job.metadata(&state) };
    let json = serde_json::to_string(&metadata)
        .unwrap()
        .replace("\"format_version\":3", "\"format_version\":1");
    let bytes = Parts { json, tensors: Vec::new() }.bytes();
    let error = checkpoint::parse(&bytes, Path::new("wide")).unwrap_err();
    assert!(matches!(error, CheckpointError::Format { .. }));
    assert!(error.to_string().contains("its tensors hold 0"), "{error}");
}

#[test]
fn a_strangers_checkpoint_writes_nothing() {
    let place = Place::with_pictures();
    let train = ["train", "--preset", "smoke", "--data-dir", "pictures", "--steps", "1"];
    place.succeed(&[&train[..], &["--run-dir", "run"]].concat());
    // It names no images, which means the embedded ones, and a place of its own for them.
    let mut checkpoint = checkpoint::load(&place.path("run/last.safetensors")).unwrap();
    checkpoint.metadata.config.data.dir = String::new();
    checkpoint.metadata.config.checkpoint.dir = place.path("elsewhere").display().to_string();
    let path = place.path("run/last.safetensors");
    let table = bninception_engine::model::ParameterTable::new(&checkpoint.network);
    checkpoint::save(&path, &checkpoint.metadata, &table, &checkpoint.state).unwrap();
    place.run(&["eval", "run/last.safetensors"]);
    place.run(&["resume", "run", "--max-time", "0s"]);
    assert!(!place.path("elsewhere").exists(), "the checkpoint chose where to write");
}

#[test]
fn hostile_configs() {
    let place = Place::with_pictures();
    let deep = format!("x = {}1{}", "[".repeat(50_000), "]".repeat(50_000));
    let tables = format!("[{}]\n", vec!["a"; 20_000].join("."));
    let long = format!("[network]\nactivation = \"{}\"", "z".repeat(900_000));
    for (text, part) in [
        (deep.as_str(), "strange.toml"),
        (&tables, "strange.toml"),
        (&long, "network.activation"),
        ("extends = \"../../etc/passwd\"", "there is no preset"),
        ("extends = [1]", "extends"),
        ("[checkpoint]\ndir = \"a\\nb\"", "checkpoint.dir"),
        ("[data]\nworkers = 9223372036854775807", "data.workers"),
        ("[train]\nepochs = 99999999999999999999", "strange.toml"),
        ("network = 3", "network"),
        ("\u{0}", "strange.toml"),
    ] {
        fs::write(place.path("strange.toml"), text).unwrap();
        let output = place.run(&["config", "show", "-c", "strange.toml"]);
        let talk = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{talk}");
        assert!(talk.contains(part), "no `{part}` in {talk}");
        assert!(talk.len() < 10_000, "a message of {} bytes", talk.len());
    }
    fs::write(place.path("strange.toml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    place.fail(&["config", "show", "-c", "strange.toml"], 2, &["larger than"]);
    assert!(resolve(&Sources { preset: Some("../base"), ..Sources::default() }).is_err());
}
