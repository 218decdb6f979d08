//! `import`: weights of other programs, as a user meets them, and files that are none.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests; says when it skips

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::PathBuf;

use bninception::import::tensors::ForeignTensors;
use bninception::run::checkpoint::{self, Checkpoint};
use bninception_engine::model::init::initial_weights;
use bninception_engine::model::{Kind, Network, NetworkOptions, ParameterTable, Weights};
use bninception_engine::{EvaluationWeights, Executor, Fast, FastOptions, Images};
use common::Place;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const CLASSES: usize = 10;

/// A tensor with its numbers as they are stored.
#[derive(Clone)]
struct Stored {
    shape: Vec<usize>,
    class: &'static str,
    bytes: Vec<u8>,
}

impl Stored {
    fn f32(shape: &[usize], values: &[f32]) -> Stored {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Stored { shape: shape.to_vec(), class: "FloatStorage", bytes }
    }

    fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

type Named = BTreeMap<String, Stored>;

/// The network of the public weights for ten classes, with weights of which none is a default.
fn network() -> (Network, Weights) {
    let options = NetworkOptions {
        classes: CLASSES,
        image_size: 64,
        conv_bias: true,
        pool_proj_4c4d: 128,
        ..NetworkOptions::default()
    };
    let network = Network::new(Kind::BnInception, options).unwrap();
    let table = ParameterTable::new(&network);
    let mut weights = initial_weights(&network, &table, 3);
    let noise = |index: usize| (index as f32 * 0.618_034).fract() * 0.2;
    for (index, value) in weights.trainable.iter_mut().enumerate() {
        *value += 0.1 * noise(index);
    }
    for (index, value) in weights.statistics.iter_mut().enumerate() {
        *value += noise(index);
    }
    (network, weights)
}

/// Its tensors, named by `name`, with batch norm's of the shape `[1, channels]` if `wide`.
fn tensors(name: impl Fn(&str) -> String, wide: bool) -> Named {
    let (network, weights) = network();
    let table = ParameterTable::new(&network);
    let trainable = table.trainable.iter().map(|spec| (spec, &weights.trainable));
    let statistics = table.statistics.iter().map(|spec| (spec, &weights.statistics));
    let mut named = Named::new();
    for (spec, values) in trainable.chain(statistics) {
        let is_norm = spec.name.contains("_bn.");
        let shape = match is_norm && wide {
            true => [&[1], &spec.shape[..]].concat(),
            false => spec.shape.clone(),
        };
        named.insert(name(&spec.name), Stored::f32(&shape, &values[spec.range.clone()]));
        if is_norm {
            let counter = format!("{}.num_batches_tracked", spec.name.split_once('.').unwrap().0);
            let bytes = 7_u64.to_le_bytes().to_vec();
            named.insert(name(&counter), Stored { shape: vec![], class: "LongStorage", bytes });
        }
    }
    named
}

fn ours(name: &str) -> String {
    name.to_owned()
}

/// Writes the opcodes of a pickle.
#[derive(Default)]
struct Pickle(Vec<u8>);

impl Pickle {
    fn raw(&mut self, bytes: &[u8]) -> &mut Pickle {
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Pickle {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    fn int(&mut self, value: usize) -> &mut Pickle {
        self.raw(b"J").raw(&(value as i32).to_le_bytes())
    }

    fn ints(&mut self, values: &[usize]) -> &mut Pickle {
        self.raw(b"(");
        values.iter().for_each(|&value| {
            self.int(value);
        });
        self.raw(b"t")
    }

    /// As `torch.save` describes a tensor.
    fn tensor(&mut self, key: &str, tensor: &Stored) -> &mut Pickle {
        let mut strides = vec![1; tensor.shape.len()];
        for axis in (1..strides.len()).rev() {
            strides[axis - 1] = strides[axis] * tensor.shape[axis];
        }
        self.raw(b"ctorch._utils\n_rebuild_tensor_v2\n((").text("storage");
        self.raw(b"ctorch\n").raw(tensor.class.as_bytes()).raw(b"\n");
        self.text(key).text("cpu").int(tensor.count()).raw(b"tQ").int(0);
        self.ints(&tensor.shape).ints(&strides).raw(b"\x89ccollections\nOrderedDict\n)RtR")
    }

    fn dictionary(&mut self, named: &Named) -> &mut Pickle {
        self.raw(b"ccollections\nOrderedDict\n)R(");
        for (key, (name, tensor)) in named.iter().enumerate() {
            self.text(name).tensor(&key.to_string(), tensor);
        }
        self.raw(b"u")
    }

    /// The weights under `state_dict`, beside the epoch and another tensor, which lies in a storage of theirs.
    fn nested(&mut self, named: &Named) -> &mut Pickle {
        let best = Stored::f32(&[1], &[0.5]);
        self.raw(b"}(").text("epoch").int(3).text("best_prec1").tensor("0", &best);
        self.text("state_dict").dictionary(named).raw(b"u")
    }

    fn end(&mut self) -> Vec<u8> {
        [b"\x80\x02", &std::mem::take(&mut self.0)[..], b"."].concat()
    }
}

fn archive(pickle: &[u8], named: &Named, method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    let mut add = |name: &str, bytes: &[u8]| {
        zip.start_file(format!("weights/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    };
    add("data.pkl", pickle);
    for (key, tensor) in named.values().enumerate() {
        add(&format!("data/{key}"), &tensor.bytes);
    }
    zip.finish().unwrap().into_inner()
}

/// As `torch.save` writes since version 1.6.
fn torch_zip(named: &Named) -> Vec<u8> {
    archive(&Pickle::default().dictionary(named).end(), named, CompressionMethod::Stored)
}

/// As `torch.save` wrote before, with the weights inside of another dictionary.
fn torch_legacy(named: &Named) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";
    let mut file = magic.to_vec();
    file.extend(Pickle::default().raw(b"M\xe9\x03").end());
    file.extend(Pickle::default().raw(b"}(").text("little_endian").raw(b"\x88u").end());
    file.extend(Pickle::default().nested(named).end());
    let mut keys: Vec<(String, &Stored)> =
        named.values().enumerate().map(|(key, tensor)| (key.to_string(), tensor)).collect();
    keys.sort_by(|a, b| a.0.cmp(&b.0));
    let mut list = Pickle::default();
    list.raw(b"](");
    keys.iter().for_each(|(key, _)| {
        list.text(key);
    });
    file.extend(list.raw(b"e").end());
    for (_, tensor) in keys {
        file.extend((tensor.count() as u64).to_le_bytes());
        file.extend(&tensor.bytes);
    }
    file
}

fn in_safetensors(named: &Named) -> Vec<u8> {
    let view = |stored: &'_ Stored| {
        let dtype = if stored.class == "LongStorage" { Dtype::I64 } else { Dtype::F32 };
        (dtype, stored.shape.clone(), stored.bytes.clone())
    };
    let owned: Vec<_> = named.iter().map(|(name, stored)| (name.clone(), view(stored))).collect();
    let views = owned.iter().map(|(name, (dtype, shape, bytes))| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

fn load(place: &Place, name: &str) -> Checkpoint {
    checkpoint::load(&place.path(name)).unwrap()
}

/// The norm of the difference over that of the expected values.
fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let norm = |values: &[f32]| values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    assert_eq!(found.len(), expected.len());
    let difference: Vec<f32> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
    norm(&difference) / norm(expected)
}

#[test]
fn every_form_of_the_public_weights_is_read() {
    let place = Place::with_pictures();
    let (network, weights) = network();
    let old = |name: &str| format!("module.{}", name.replace("last_linear", "fc"));
    let tsn = |name: &str| format!("module.base_model.{}", name.replace("last_linear", "new_fc"));
    let forms = [
        ("weights.safetensors", in_safetensors(&tensors(ours, false))),
        ("weights.pth", torch_zip(&tensors(ours, false))),
        ("old.pth", torch_legacy(&tensors(old, true))),
        ("tsn.pth", torch_zip(&tensors(tsn, true))),
    ];
    for (name, bytes) in forms {
        fs::write(place.path(name), bytes).unwrap();
        let import = ["import", name, "out.safetensors", "--image-size", "64", "--overwrite"];
        let imagenet = ["--preprocessing", "imagenet"];
        let output = place.run(&[&import[..], &imagenet].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
        assert!(said.contains("called class-0 to class-9"), "{said}");
        let found = load(&place, "out.safetensors");
        assert_eq!(found.network, network, "{name}");
        assert_eq!(found.state.model.weights, weights, "{name}");
        let file = fs::read(place.path(name)).unwrap();
        let initial = found.metadata.initial.unwrap();
        assert_eq!(initial.blake3, blake3::hash(&file).to_hex().to_string());
        assert_eq!(initial.path, name);
    }
}

#[test]
fn an_imported_network_is_evaluated_and_trained() {
    let place = Place::with_pictures();
    fs::write(place.path("weights.pth"), torch_legacy(&tensors(ours, false))).unwrap();
    let mut classes: Vec<String> = fs::read_dir(place.path("pictures/train"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    classes.sort();
    classes.reverse();
    fs::write(place.path("classes.txt"), classes.join("\n")).unwrap();
    let import = ["import", "weights.pth", "--image-size", "64", "--classes", "classes.txt"];
    let told = place.json(&[&import[..], &["kept.safetensors", "--json"]].concat());
    assert_eq!((&told["classes"], &told["conv_bias"]), (&10.into(), &true.into()));
    place.succeed(&[&import[..], &["folded.safetensors", "--fold-biases"]].concat());
    let [kept, folded] =
        ["kept", "folded"].map(|name| load(&place, &format!("{name}.safetensors")));
    assert_eq!(kept.metadata.classes, classes);
    assert!(kept.network.options.conv_bias && !folded.network.options.conv_bias);

    // Both answer alike, also when blue is not turned into red.
    let answers = |name: &str| {
        let eval = ["eval", name, "--data-dir", "pictures", "--json", "-b", "4"];
        place.json(&eval)["loss"].as_f64().unwrap()
    };
    let (a, b) = (answers("kept.safetensors"), answers("folded.safetensors"));
    assert!((a - b).abs() < 1e-4 * a, "{a} {b}");

    for command in [&["eval"][..], &["calibrate"]] {
        let reason = "kept.safetensors was imported, so it has no images of its own";
        place.fail(&[command, &["kept.safetensors"]].concat(), 2, &[reason, "--data-dir"]);
    }
    let begin = ["train", "--init-from", "kept.safetensors", "--data-dir", "pictures"];
    let short = ["--run-dir", "run", "--steps", "2", "--batch-size", "8"];
    let output = place.run(&[&begin[..], &short].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("10 of 10 classes kept by name"), "{said}");
    let run = load(&place, "run/last.safetensors");
    assert_eq!(run.metadata.preprocessing.std, [1.0 / 255.0; 3]);
    assert_eq!(run.network.options.pool_proj_4c4d, 128);
}

/// Caffe's order of colours: blue comes first.
#[test]
fn a_network_trained_on_blue_first_sees_what_it_knows() {
    let place = Place::new();
    fs::write(place.path("weights.pth"), torch_zip(&tensors(ours, false))).unwrap();
    let logits = |preprocessing: &str, images: &[f32]| {
        let out = format!("{preprocessing}.safetensors");
        let import = ["import", "weights.pth", &out, "--image-size", "64", "--overwrite"];
        place.succeed(&[&import[..], &["--preprocessing", preprocessing]].concat());
        let checkpoint = load(&place, &out);
        let mut fast = Fast::new(checkpoint.network, FastOptions::default()).unwrap();
        let weights = EvaluationWeights::Given(&checkpoint.state.model.weights);
        fast.prepare_evaluation(weights).unwrap();
        let mut logits = Vec::new();
        fast.evaluate(Images::Values(images), &mut logits).unwrap();
        logits
    };
    let plane = 64 * 64;
    let images: Vec<f32> =
        (0..3 * plane).map(|index| ((index * 7919) % 255) as f32 / 100.0 - 1.0).collect();
    let reversed: Vec<f32> = images.chunks_exact(plane).rev().flatten().copied().collect();
    let (rgb, bgr) = (logits("imagenet", &images), logits("caffe", &reversed));
    let off = relative_error(&bgr, &rgb);
    assert!(off < 1e-5, "relative error {off}");
    assert_ne!(rgb, logits("caffe", &images));
}

/// The independent port's own weights and logits, through the command line.
#[test]
fn logits_are_those_of_the_pytorch_port() {
    let Some(shared) = std::env::var_os("BNINCEPTION_SHARED") else {
        println!("skipped: BNINCEPTION_SHARED does not name the folder with the fixture");
        return;
    };
    let folder = PathBuf::from(shared).join("reference/bn_inception_torch");
    let place = Place::new();
    let file = folder.join("weights.safetensors");
    let file = file.to_str().unwrap();
    let import = ["import", file, "out.safetensors", "--preprocessing", "imagenet"];
    let said = place.succeed(&import);
    assert!(said.contains("1000 classes") && said.contains("128 in 4c and 4d"), "{said}");
    let tensors = fs::read(folder.join("tensors.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&tensors).unwrap();
    let values = |name: &str| -> Vec<f32> {
        let bytes = tensors.tensor(name).unwrap().data().to_vec();
        bytes.chunks_exact(4).map(|at| f32::from_le_bytes(at.try_into().unwrap())).collect()
    };
    let checkpoint = load(&place, "out.safetensors");
    let mut fast = Fast::new(checkpoint.network, FastOptions::default()).unwrap();
    fast.prepare_evaluation(EvaluationWeights::Given(&checkpoint.state.model.weights)).unwrap();
    let mut found = Vec::new();
    fast.evaluate(Images::Values(&values("input")), &mut found).unwrap();
    let expected = values("eval_logits");
    let off = relative_error(&found, &expected);
    assert!(off < 1e-3, "relative error {off}");
}

#[test]
fn other_files_are_refused_with_a_reason() {
    let place = Place::new();
    let good = tensors(ours, false);
    let with = |change: &dyn Fn(&mut Named)| {
        let mut named = good.clone();
        change(&mut named);
        torch_zip(&named)
    };
    let conv = "inception_4a_3x3.weight";
    let zero = Stored::f32(&[1], &[0.0]);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "neither a safetensors file nor"),
        ("text", b"not a network, but a text".to_vec(), "neither a safetensors file nor"),
        (
            "another zip",
            archive(b"", &Named::new(), CompressionMethod::Stored)[..40].to_vec(),
            "no valid zip",
        ),
        (
            "a lone tensor",
            {
                let pickle = Pickle::default().tensor("0", &zero).end();
                archive(&pickle, &good, CompressionMethod::Stored)
            },
            "state_dict()",
        ),
        (
            "without a tensor",
            with(&|named| drop(named.remove(conv))),
            "inception_4a_3x3.weight is missing",
        ),
        (
            "another shape",
            with(&|named| drop(named.insert(conv.into(), zero.clone()))),
            "inception_4a_3x3.weight has the shape [1] in place of [96, 64, 3, 3]",
        ),
        (
            "not a number",
            with(&|named| {
                named.get_mut("conv1_7x7_s2.weight").unwrap().bytes[..4]
                    .copy_from_slice(&f32::NAN.to_le_bytes());
            }),
            "conv1_7x7_s2.weight is not finite at value 0",
        ),
        (
            "a short storage",
            with(&|named| named.get_mut(conv).unwrap().bytes.truncate(100)),
            "does not fit into its storage of 100 bytes",
        ),
        (
            "integers",
            with(&|named| named.get_mut(conv).unwrap().class = "ComplexFloatStorage"),
            "numbers of the type ComplexFloatStorage",
        ),
        (
            "torchvision",
            {
                let named = [("inception3a.branch1.conv.weight".to_owned(), zero.clone())].into();
                torch_zip(&named)
            },
            "torchvision's GoogLeNet",
        ),
        (
            "a classifier without values",
            with(&|named| {
                let shape = vec![1 << 30, 0];
                let empty = Stored { shape, class: "FloatStorage", bytes: Vec::new() };
                named.insert("last_linear.weight".into(), empty);
            }),
            "expected [classes, 1024]",
        ),
        (
            "resnet",
            {
                let named = [("layer1.0.conv1.weight".to_owned(), zero.clone())].into();
                torch_zip(&named)
            },
            "it has layer1.0.conv1.weight, ...",
        ),
    ];
    for (what, bytes, reason) in cases {
        fs::write(place.path("file"), bytes).unwrap();
        println!("{what}");
        place.fail(&["import", "file", "out.safetensors"], 3, &["file: ", reason]);
    }
    fs::write(place.path("file"), torch_zip(&good)).unwrap();
    fs::write(place.path("few.txt"), "a\nb\n").unwrap();
    fs::write(place.path("twice.txt"), "a\nb\na\n").unwrap();
    fs::write(place.path("path.txt"), "a\n../b\n").unwrap();
    let import = ["import", "file", "out.safetensors"];
    for (classes, reason) in [
        ("few.txt", "2 names, but file has 10 classes"),
        ("twice.txt", "lines 1 and 3 of twice.txt both say `a`"),
        ("path.txt", "line 2 of path.txt"),
    ] {
        place.fail(&[&import[..], &["--classes", classes]].concat(), 2, &[reason]);
    }
    place.fail(&[&import[..], &["--image-size", "31"]].concat(), 3, &["image_size", "32 to 512"]);
    place.fail(&["import", "nothing.pth", "out.safetensors"], 3, &["cannot read nothing.pth"]);
    place.succeed(&import);
    place.fail(&import, 2, &["out.safetensors is there already", "--overwrite"]);
}

/// Bytes from outside end in a result or in an error, and take neither all memory nor the stack.
#[test]
fn damaged_and_hostile_files_end_in_an_error() {
    let small: Named = [
        ("a.weight".to_owned(), Stored::f32(&[2, 3], &[1.0; 6])),
        ("b.bias".to_owned(), Stored::f32(&[4], &[2.0; 4])),
    ]
    .into();
    for file in [torch_zip(&small), torch_legacy(&small), in_safetensors(&small)] {
        let whole = ForeignTensors::parse(&file).unwrap().tensors;
        assert_eq!((whole.len(), &whole["b.bias"].values), (2, &vec![2.0; 4]));
        for end in 0..file.len() {
            let cut = ForeignTensors::parse(&file[..end]);
            assert!(cut.is_err() || cut.unwrap().tensors == whole, "cut at {end}");
        }
        for at in 0..file.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut changed = file.clone();
                changed[at] ^= mask;
                drop(ForeignTensors::parse(&changed));
            }
        }
    }
    let hostile = |pickle: &mut Pickle| {
        let file = archive(&pickle.end(), &Named::new(), CompressionMethod::Stored);
        ForeignTensors::parse(&file).unwrap_err()
    };
    let mut doubling = Pickle::default();
    doubling.raw(b")q\x00");
    for _ in 0..60 {
        doubling.raw(b"h\x00h\x00\x86q\x00");
    }
    assert!(hostile(&mut doubling).contains("repeats too many objects"));
    let deep = |end: &[u8]| {
        let mut pickle = Pickle::default();
        pickle.raw(b")").raw(&vec![0x85; 500_000]).raw(end);
        hostile(&mut pickle)
    };
    assert!(deep(b"").contains("no dictionary"));
    assert!(deep(b"q\x00").contains("no dictionary"), "it is copied whole");
    assert!(deep(b"Na").contains("no list or dictionary"));
    assert!(hostile(Pickle::default().raw(b"NNNs")).contains("no list or dictionary"));
    assert!(hostile(Pickle::default().raw(b"N(NNu")).contains("no list or dictionary"));
    let mut long = Pickle::default();
    long.text(&"x".repeat(400_000)).raw(b"q\x00").raw(&b"h\x00".repeat(1000));
    assert!(hostile(&mut long).contains("repeats too many objects"));
    // Many tensors on one storage.
    let shared = Stored::f32(&[1000], &[1.0; 1000]);
    let mut many = Pickle::default();
    many.raw(b"}(");
    for index in 0..100 {
        many.text(&format!("t{index}")).tensor("0", &shared);
    }
    let one: Named = [("t".to_owned(), shared)].into();
    let file = archive(&many.raw(b"u").end(), &one, CompressionMethod::Stored);
    assert!(ForeignTensors::parse(&file).unwrap_err().contains("more bytes than the file"));
    assert!(hostile(Pickle::default().raw(&vec![b')'; 1 << 21])).contains("more than"));
    assert!(hostile(Pickle::default().raw(b"X\xff\xff\xff\xff")).contains("inside of a text"));
    assert!(
        hostile(Pickle::default().raw(b"\x8a\xff").raw(&[1; 255])).contains("too large a number")
    );
    // Descriptions of tensors with too few parts, or with parts of another kind.
    for parts in [&b")"[..], b"(t", b"(K\x01K\x02K\x03K\x04t", b"(NNNNt", b"((tQK\x00))t"] {
        let mut pickle = Pickle::default();
        pickle
            .raw(b"}(")
            .text("a")
            .raw(b"ctorch._utils\n_rebuild_tensor_v2\n")
            .raw(parts)
            .raw(b"Ru");
        let reason = hostile(&mut pickle);
        assert!(reason.contains("of tensor a cannot be understood"), "{reason}");
    }
}
