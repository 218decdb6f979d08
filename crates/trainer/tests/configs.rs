//! The presets are the paper's, `base.toml` is complete, and mistakes are explained.

use bninception::config::{
    Activation, ClassWeights, Colour, Config, ConfigError, ConfigFile, Flag, MAX_FILE_BYTES,
    Mirror, NetworkKind, Origin, Resolved, ScheduleKind, Shuffle, Sources, preset_names,
    preset_text, preset_title, resolve,
};
use toml::Table;

fn preset(name: &str) -> Resolved {
    let sources = Sources { preset: Some(name), ..Sources::default() };
    resolve(&sources).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn file(text: &str) -> [ConfigFile; 1] {
    [ConfigFile { name: "my.toml".into(), text: text.into() }]
}

fn from_file(text: &str) -> Result<Resolved, ConfigError> {
    resolve(&Sources { files: &file(text), ..Sources::default() })
}

fn from_sets(sets: &[&str]) -> Result<Resolved, ConfigError> {
    let sets: Vec<String> = sets.iter().map(|&set| set.into()).collect();
    resolve(&Sources { sets: &sets, ..Sources::default() })
}

#[track_caller]
fn check_message(outcome: Result<Resolved, ConfigError>, expected: &str) {
    let error = outcome.expect_err("the config is wrong and was accepted");
    assert_eq!(error.to_string(), expected);
}

/// Keys of a document with their sections.
fn keys(document: &Table) -> Vec<String> {
    let fields = |(section, fields): (&String, &toml::Value)| {
        let fields = fields.as_table().unwrap_or_else(|| panic!("{section} is no section"));
        fields.keys().map(|field| format!("{section}.{field}")).collect::<Vec<_>>()
    };
    document.iter().flat_map(fields).collect()
}

#[test]
fn presets_are_the_papers() {
    use Activation::{Relu, Sigmoid};
    use Colour::{Full, Reduced};
    use Shuffle::{Shards, WithinShards};
    let slow = 8.0;
    let fast = 8.0 / 6.0;
    // name, batch norm, lr, LRN, dropout, weight decay, epochs a decay takes, shuffle, colour,
    // activation
    let table = [
        ("inception", false, 0.0015, true, 0.4, 2e-4, slow, Shards, Full, Relu),
        ("bn-baseline", true, 0.0015, true, 0.4, 2e-4, slow, Shards, Full, Relu),
        ("bn-x5", true, 0.0075, false, 0.0, 4e-5, fast, WithinShards, Reduced, Relu),
        ("bn-x30", true, 0.045, false, 0.0, 4e-5, fast, WithinShards, Reduced, Relu),
        ("bn-x5-sigmoid", true, 0.0075, false, 0.0, 4e-5, fast, WithinShards, Reduced, Sigmoid),
    ];
    for (name, bn, lr, lrn, dropout, weight_decay, decay_epochs, shuffle, colour, act) in table {
        let Config { network, data, augment, optimizer, schedule, train, .. } = preset(name).config;
        assert_eq!(network.batch_norm, bn, "{name}");
        assert_eq!(network.conv_bias, !bn, "{name}");
        assert_eq!((network.lrn, network.dropout), (lrn, dropout), "{name}");
        assert_eq!((network.activation, network.pool_proj_4c4d), (act, 96), "{name}");
        assert_eq!((optimizer.lr, optimizer.weight_decay), (lr, weight_decay), "{name}");
        assert_eq!((optimizer.momentum, optimizer.nesterov), (0.9, false), "{name}");
        assert_eq!(schedule.kind, ScheduleKind::Exponential, "{name}");
        assert_eq!((schedule.decay, schedule.decay_epochs), (0.96, decay_epochs), "{name}");
        assert!(schedule.staircase, "{name}");
        assert_eq!((schedule.warmup_epochs, schedule.min_lr), (0.0, 0.0), "{name}");
        assert_eq!((data.shuffle, augment.colour), (shuffle, colour), "{name}");
        assert_eq!(data.image_size, 224, "{name}");
        assert_eq!(augment.crop_area, [0.08, 1.0], "{name}");
        assert_eq!(augment.crop_aspect, [3.0 / 4.0, 4.0 / 3.0], "{name}");
        assert_eq!(augment.mirror, Mirror::Random, "{name}");
        assert_eq!(train.batch_size, 32, "{name}");
        assert_eq!((train.ema, train.label_smoothing), (0.0, 0.0), "{name}");
    }
}

#[test]
fn paper_presets_train_as_many_steps_as_the_paper() {
    // Figure 3 and section 4.2.2, in millions of steps.
    let table = [
        ("inception", 31.0),
        ("bn-baseline", 13.3),
        ("bn-x5", 6.0),
        ("bn-x30", 6.0),
        // BVLC's solver.prototxt: max_iter.
        ("googlenet", 10.0),
    ];
    for (name, million_steps) in table {
        let epochs = million_steps * 1e6 * 32.0 / 1_281_167.0;
        assert_eq!(preset(name).config.train.epochs as f64, f64::ceil(epochs), "{name}");
    }
}

#[test]
fn googlenet_is_bvlcs() {
    let base = preset("base").config;
    let Config { network, data, augment, optimizer, schedule, train, .. } =
        preset("googlenet").config;
    assert_eq!(network.kind, NetworkKind::GoogLeNet);
    assert_eq!((network.batch_norm, network.conv_bias, network.lrn), (false, true, true));
    assert_eq!((network.dropout, network.activation), (0.4, Activation::Relu));
    assert_eq!((network.aux, network.aux_weight, network.aux_dropout), (true, 0.3, 0.7));
    assert_eq!((optimizer.lr, optimizer.momentum, optimizer.weight_decay), (0.01, 0.9, 2e-4));
    assert_eq!((schedule.decay, schedule.decay_epochs, schedule.staircase), (0.96, 8.0, true));
    assert_eq!((train.batch_size, data.image_size), (32, 224));
    assert!(train.ema > 0.0);
    assert_eq!((augment.colour, augment.mirror), (Colour::Full, Mirror::Random));
    assert_eq!(augment, base.augment);
    assert!(!base.network.aux && base.network.kind == NetworkKind::BnInception);
}

#[test]
fn own_presets_are_what_they_promise() {
    let modern = preset("modern").config;
    assert_eq!(modern.schedule.kind, ScheduleKind::Cosine);
    assert!(modern.train.label_smoothing > 0.0 && modern.train.keeps_average());
    let demo = preset("demo").config;
    assert_eq!((demo.data.dir.as_str(), demo.data.image_size), ("", 64));
    assert_eq!(demo.augment.crop_area, [0.5, 1.0]);
    let smoke = preset("smoke").config;
    assert_eq!((smoke.data.dir.as_str(), smoke.data.image_size), ("", 32));
    assert!(smoke.train.epochs == 0 && smoke.train.steps <= 10);
}

#[test]
fn every_preset_resolves_and_says_what_it_is_for() {
    assert_eq!(preset_names().next(), Some("base"));
    for name in preset_names() {
        let resolved = preset(name);
        assert!(preset_title(name).unwrap().len() > 40, "{name}");
        let text = preset_text(name).unwrap();
        assert!(text.contains("#   bninception "), "{name} names no command");
        // A preset states only what differs.
        let mut document: Table = text.parse().unwrap();
        if document.remove("extends").is_some() {
            for key in keys(&document) {
                assert_eq!(resolved.origins[&key], Origin::Preset(name.into()), "{name}");
            }
        }
    }
}

#[test]
fn every_file_in_configs_is_embedded() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".toml").map(str::to_owned))
        .collect();
    files.sort();
    let mut names: Vec<&str> = preset_names().collect();
    names.sort_unstable();
    assert_eq!(files, names);
}

#[test]
fn base_has_every_field_in_order_with_a_comment() {
    let text = preset_text("base").unwrap();
    let config = preset("base").config.to_toml().unwrap();
    let names = |text: &str| -> Vec<String> {
        let name = |line: &str| line.split([' ', '=']).next().unwrap_or_default().to_owned();
        text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(name).collect()
    };
    assert_eq!(names(text), names(&config));
    assert_eq!(keys(&text.parse().unwrap()), keys(&config.parse().unwrap()));

    // A field stands behind a comment, or behind a field that shares its comment.
    let shared = [
        "std",
        "crop_aspect",
        "decay_epochs",
        "warmup_fraction",
        "steps",
        "ema_epochs",
        "every_minutes",
        "aux_dropout",
    ];
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.windows(2) {
        let is_field = pair[1].contains(" = ") && !pair[1].starts_with('#');
        if is_field && !pair[0].starts_with('#') {
            assert!(shared.iter().any(|name| pair[1].starts_with(name)), "{}", pair[1]);
        }
    }
}

#[test]
fn later_sources_win() {
    let files = [
        ConfigFile {
            name: "one.toml".into(),
            text: "[optimizer]\nlr = 1\nmomentum = 0.1\n[log]\nevery_steps = 7".into(),
        },
        ConfigFile {
            name: "two.toml".into(),
            text: "optimizer = { lr = 2, nesterov = true }".into(),
        },
    ];
    let sets = ["optimizer.lr=3".to_owned(), "train.seed = 5".to_owned()];
    let flags = [Flag { name: "--seed", key: "train.seed", value: 6.into() }];
    let sources = Sources {
        preset: Some("bn-x30"),
        of_images: &[],
        of_checkpoint: &[],
        files: &files,
        sets: &sets,
        flags: &flags,
    };
    let Resolved { config, origins, .. } = resolve(&sources).unwrap();

    let table = [
        ("train.seed", config.train.seed as f64, 6.0, Origin::Flag("--seed".into())),
        ("optimizer.lr", config.optimizer.lr, 3.0, Origin::Set),
        ("optimizer.momentum", config.optimizer.momentum, 0.1, Origin::File("one.toml".into())),
        ("log.every_steps", config.log.every_steps as f64, 7.0, Origin::File("one.toml".into())),
        ("train.epochs", config.train.epochs as f64, 150.0, Origin::Preset("bn-x30".into())),
        ("network.dropout", config.network.dropout, 0.0, Origin::Preset("bn-x5".into())),
        ("schedule.decay", config.schedule.decay, 0.96, Origin::Base),
    ];
    for (key, found, expected, origin) in table {
        assert_eq!((found, &origins[key]), (expected, &origin), "{key}");
    }
    assert!(config.optimizer.nesterov);
}

#[test]
fn a_file_may_extend_a_preset() {
    let resolved = from_file("extends = \"bn-x5\"\n[optimizer]\nmomentum = 0.8").unwrap();
    assert_eq!(resolved.config.optimizer.lr, 0.0075);
    assert_eq!(resolved.origins["optimizer.lr"], Origin::Preset("bn-x5".into()));
    assert_eq!(resolved.origins["optimizer.momentum"], Origin::File("my.toml".into()));

    let files = file("extends = \"bn-x5\"");
    let with =
        |preset| resolve(&Sources { preset: Some(preset), files: &files, ..Sources::default() });
    assert_eq!(with("bn-x5").unwrap().config, preset("bn-x5").config);
    check_message(
        with("demo"),
        "file my.toml: `extends = \"bn-x5\"`: the preset is already `demo`; choose one of the two",
    );
    check_message(
        from_file("extends = 5"),
        "file my.toml: `extends = 5`: expected a preset's name, such as \"bn-x5\"",
    );
}

#[test]
fn values_of_set_are_toml_or_bare_strings() {
    let config = from_sets(&[
        "data.dir=my pictures/a=b",
        "network.activation=sigmoid",
        "data.shuffle=\"none\"",
        "augment.crop_area=[0.5, 1]",
        "augment.mirror=false",
        " log.every_steps = 1_000 ",
        "checkpoint={ keep = 9, dir = \"runs\" }",
    ])
    .unwrap()
    .config;
    assert_eq!(config.data.dir, "my pictures/a=b");
    assert_eq!(config.network.activation, Activation::Sigmoid);
    assert_eq!(config.data.shuffle, Shuffle::None);
    assert_eq!(config.augment.crop_area, [0.5, 1.0]);
    assert_eq!(config.augment.mirror, Mirror::None);
    assert_eq!(from_file("augment.mirror = true").unwrap().config.augment.mirror, Mirror::Random);
    assert_eq!(config.log.every_steps, 1000);
    assert_eq!((config.checkpoint.keep, config.checkpoint.dir.as_str()), (9, "runs"));
    for argument in ["optimizer.lr", "=3", ""] {
        check_message(
            from_sets(&[argument]),
            &format!("`--set {argument}`: expected key=value, such as `--set optimizer.lr=0.01`"),
        );
    }
}

#[test]
fn weights_of_classes_are_a_word_or_a_table() {
    let weights =
        |resolved: Result<Resolved, ConfigError>| resolved.unwrap().config.train.class_weights;
    let table = ClassWeights::Table([("Honey Bees".into(), 1.0), ("a.b".into(), 3.0)].into());
    let inline = "{ \"a.b\" = 3, \"Honey Bees\" = 1.0 }";
    for (text, expected) in [
        ("\"none\"", &ClassWeights::None),
        ("\"balanced\"", &ClassWeights::Balanced),
        (inline, &table),
    ] {
        let file = format!("[train]\nclass_weights = {text}");
        assert_eq!(weights(from_file(&file)), *expected, "{text}");
        assert_eq!(weights(from_sets(&[&format!("train.class_weights={text}")])), *expected);
        let resolved = from_file(&file).unwrap();
        let (written, annotated) =
            (resolved.config.to_toml().unwrap(), resolved.to_annotated_toml().unwrap());
        assert_eq!(weights(from_file(&written)), *expected, "{written}");
        assert_eq!(weights(from_file(&annotated)), *expected, "{annotated}");
    }
    let section = "[train.class_weights]\n\"a.b\" = 3\n\"Honey Bees\" = 1.0";
    assert_eq!(weights(from_file(section)), table);
    let shown = from_file(section).unwrap().to_annotated_toml().unwrap();
    let line = shown.lines().find(|line| line.starts_with("\"a.b\" = 3.0")).unwrap();
    assert!(line.ends_with("  # file my.toml"), "{line}");
    // A later source replaces the whole.
    assert_eq!(
        weights(from_sets(&["train.class_weights={a=1}", "train.class_weights=none"])),
        ClassWeights::None
    );

    let expected = "expected \"none\", \"balanced\", or a weight for every class, such as \
                    { ants = 3.0, bees = 1.0 }";
    for (text, found) in [
        ("\"even\"", "\"even\""),
        ("{ ants = \"3\" }", "{ ants = \"3\" }"),
        ("{ ants = { bees = 1 } }", "{ ants = { bees = 1 } }"),
        ("{}", "{}"),
    ] {
        check_message(
            from_sets(&[&format!("train.class_weights={text}")]),
            &format!(
                "the config has a problem:\n  `train.class_weights = {found}` (--set): {expected}"
            ),
        );
    }
    // No other string may be a table.
    check_message(
        from_sets(&["data.dir={ a = 1 }"]),
        "the config has a problem:\n  `data.dir = { a = 1 }` (--set): expected a string, in quotes",
    );
    check_message(
        from_sets(&["data.shuffle={}"]),
        "the config has a problem:\n  `data.shuffle = {}` (--set): expected a string, in quotes",
    );
}

#[test]
fn epochs_and_steps_replace_each_other() {
    let length = |resolved: Resolved| {
        let train = resolved.config.train;
        (train.epochs, train.steps)
    };
    assert_eq!(length(from_sets(&["train.steps=100"]).unwrap()), (0, 100));
    assert_eq!(length(from_file("train.steps = 100").unwrap()), (0, 100));
    assert_eq!(length(from_file("train = { steps = 100, epochs = 0 }").unwrap()), (0, 100));
    let smoke = Sources { preset: Some("smoke"), ..Sources::default() };
    let sets = ["train.epochs=2".to_owned()];
    assert_eq!(length(resolve(&Sources { sets: &sets, ..smoke }).unwrap()), (2, 0));
    assert_eq!(
        from_sets(&["train.steps=100"]).unwrap().origins["train.epochs"],
        Origin::Set,
        "the origin tells who set it to 0"
    );

    let both = "the config has a problem:\n  `train.steps = 100` (file my.toml): \
                expected 0, because train.epochs = 5 already says how long";
    check_message(from_file("train = { epochs = 5, steps = 100 }"), both);
    let flags = [
        Flag { name: "--epochs", key: "train.epochs", value: 5.into() },
        Flag { name: "--steps", key: "train.steps", value: 100.into() },
    ];
    check_message(
        resolve(&Sources { flags: &flags, ..Sources::default() }),
        &both.replace("file my.toml", "flag --steps"),
    );
    check_message(
        from_sets(&["train.epochs=0"]),
        "the config has a problem:\n  `train.epochs = 0` (--set): \
         expected at least 1, because train.steps is 0",
    );
}

/// What a preset says in one way, a flag or `--set` may say in the other.
#[test]
fn the_other_way_to_say_a_thing_replaces_the_first() {
    let of = |preset: &str, sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|&set| set.into()).collect();
        let config = resolve(&Sources { preset: Some(preset), sets: &sets, ..Sources::default() });
        let Config { schedule, train, .. } = config.unwrap().config;
        let warmup = (schedule.warmup_epochs, schedule.warmup_fraction);
        (warmup, (train.ema, train.ema_epochs))
    };
    let base = of("base", &[]);
    assert_eq!(base, ((0.0, 0.0), (0.0, 0.0)));
    assert_eq!(of("demo", &["schedule.warmup_fraction=0.1"]).0, (0.0, 0.1));
    assert_eq!(of("smoke", &["train.ema_epochs=2"]).1, (0.0, 2.0));
    let there_and_back = ["train.ema_epochs=2", "train.ema=0.5"];
    // One source that says both is not understood; a 0 takes nothing back.
    let both = resolve(&Sources { sets: &there_and_back.map(String::from), ..Sources::default() });
    check_message(
        both,
        "the config has a problem:\n  `train.ema_epochs = 2.0` (--set): expected 0, because train.ema = 0.5 \
         is set too",
    );
    check_message(
        from_file("schedule = { warmup_epochs = 1, warmup_fraction = 0.5 }"),
        "the config has a problem:\n  `schedule.warmup_fraction = 0.5` (file my.toml): expected 0, because \
         schedule.warmup_epochs = 1 is set too",
    );
    let kept = of("smoke", &["train.ema_epochs=0", "schedule.warmup_fraction=0.0"]);
    assert_eq!(kept, of("smoke", &[]));
    // The config of a run has every setting, and loads as it is.
    let sets = ["train.ema_epochs=2".to_owned()];
    let run = resolve(&Sources { preset: Some("smoke"), sets: &sets, ..Sources::default() });
    let run = run.unwrap().config;
    assert_eq!(from_file(&run.to_toml().unwrap()).unwrap().config, run);
}

#[test]
fn unknown_names_are_answered_with_the_nearest() {
    let table = [
        ("optimizer.momentun=0.9", "optimizer.momentun", "optimizer.momentum"),
        ("train.lr=0.9", "train.lr", "optimizer.lr"),
        ("lr=0.9", "lr", "optimizer.lr"),
        ("optimiser.lr=0.9", "optimiser.lr", "optimizer.lr"),
        ("augment.color=full", "augment.color", "augment.colour"),
        ("data.imagesize=64", "data.imagesize", "data.image_size"),
        ("network.batchnorm=true", "network.batchnorm", "network.batch_norm"),
    ];
    for (set, key, nearest) in table {
        check_message(
            from_sets(&[set]),
            &format!(
                "the config has a problem:\n  \
                 `{key}` (--set) is not a setting; did you mean `{nearest}`?"
            ),
        );
    }
    check_message(
        resolve(&Sources { preset: Some("bn-x50"), ..Sources::default() }),
        "there is no preset `bn-x50`; did you mean `bn-x5`? There are: base, inception, \
         bn-baseline, bn-x5, bn-x30, bn-x5-sigmoid, googlenet, small, modern, finetune, demo, smoke",
    );
    let message = from_file("extends = \"bnx30\"").unwrap_err().to_string();
    assert!(message.starts_with("there is no preset `bnx30`; did you mean `bn-x30`?"), "{message}");
}

#[test]
fn all_problems_are_reported_at_once() {
    // Names and types first.
    check_message(
        from_file(
            "data = 3\n[optimizer]\nlr = \"fast\"\nmomentum = true\n[train]\nepochs = 1.5\n\
             seed = -1\ndtype = \"f16\"\n[augment]\ncrop_area = [1]\nmirror = \"yes\"\n[checkpoint]\ndir = 4\n\
             [checkpoint.keep]\nbest = 3",
        ),
        "the config has 10 problems:\n  \
         `augment.crop_area = [1]` (file my.toml): expected a list of 2 numbers\n  \
         `augment.mirror = \"yes\"` (file my.toml): expected one of `none`, `random`, `alternating`\n  \
         `checkpoint.dir = 4` (file my.toml): expected a string, in quotes\n  \
         `checkpoint.keep = { best = 3 }` (file my.toml): expected a whole number, 0 or more\n  \
         `data = 3` (file my.toml): expected a section, `[data]`\n  \
         `optimizer.lr = \"fast\"` (file my.toml): expected a number\n  \
         `optimizer.momentum = true` (file my.toml): expected a number\n  \
         `train.dtype = \"f16\"` (file my.toml): expected one of `f32`, `tf32`, `bf16`\n  \
         `train.epochs = 1.5` (file my.toml): expected a whole number, 0 or more\n  \
         `train.seed = -1` (file my.toml): expected a whole number, 0 or more",
    );
    // Then ranges, each with the source of its value.
    let files = file("[network]\nbatch_norm = false\n[data]\nimage_size = 16");
    let sets = ["optimizer.lr=nan".to_owned(), "data.shuffle=full".to_owned()];
    check_message(
        resolve(&Sources {
            preset: Some("bn-x5"),
            files: &files,
            sets: &sets,
            ..Sources::default()
        }),
        "the config has 3 problems:\n  \
         `network.conv_bias = false` (preset bn-baseline): expected true, because with \
         network.batch_norm = false nothing else shifts the activations\n  \
         `data.image_size = 16` (file my.toml): expected 32 to 512 pixels\n  \
         `optimizer.lr = nan` (--set): expected a finite number above 0",
    );
}

#[test]
fn a_mistake_counts_even_if_it_is_overridden() {
    let files = file("[optimizer]\nlr = \"fast\"");
    let sets = ["optimizer.lr=0.1".to_owned()];
    check_message(
        resolve(&Sources { files: &files, sets: &sets, ..Sources::default() }),
        "the config has a problem:\n  `optimizer.lr = \"fast\"` (file my.toml): expected a number",
    );
}

#[test]
fn syntax_errors_name_the_place() {
    let message = from_file("[train]\nseed = = 3").unwrap_err().to_string();
    assert!(message.starts_with("file my.toml, line 2, column 8: not valid TOML: "), "{message}");
    let message = from_file("[train]\nseed = 1\nseed = 2").unwrap_err().to_string();
    assert!(message.starts_with("file my.toml, line 3, column 1: not valid TOML: "), "{message}");
}

#[test]
fn hostile_files_give_errors() {
    let many = 200_000;
    let hostile = [
        format!("a = {}{}", "[".repeat(many), "]".repeat(many)),
        format!("a = {}", "[".repeat(many)),
        format!("a = {}b = 1{}", "{ b = ".repeat(many), "}".repeat(many)),
        format!("{}a = 1", "a.".repeat(many)),
        format!("[{}a]\nb = 1", "a.".repeat(many)),
        format!("[train]\nseed = {}", "9".repeat(many)),
        format!("[train]\nseed = \"{}\"", "x".repeat(many)),
        "\0\u{feff}\u{202e}".to_owned(),
        "[[train]]\nseed = 1".to_owned(),
        "train = []".to_owned(),
        "\"\" = 1".to_owned(),
        format!("\"{}\" = 1", "k".repeat(many)),
        format!("[network]\n\"{}\" = 1", "\u{1b}".repeat(9)),
        (0..many / 10).map(|i| format!("k{i} = 1\n")).collect(),
        "[data]\ndir = \"a\\nb\"".to_owned(),
    ];
    for text in hostile {
        let start: String = text.chars().take(40).collect();
        let message = from_file(&text).expect_err(&start).to_string();
        assert!(message.len() < 3000, "{start}: a message of {} bytes", message.len());
        let lines = message.replace('\n', "");
        assert!(!lines.contains(char::is_control), "{start}: {message:?}");
        from_sets(&[&text]).expect_err(&start);
    }
}

#[test]
fn files_are_read_with_care() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let message = ConfigFile::read(&path).unwrap_err().to_string();
    assert!(message.starts_with("cannot read the config file "), "{message}");
    assert!(message.contains("config.toml"), "{message}");

    std::fs::write(&path, b"\xff\xfe").unwrap();
    assert!(ConfigFile::read(&path).is_err());

    let text = "#".repeat(MAX_FILE_BYTES as usize);
    std::fs::write(&path, &text).unwrap();
    assert_eq!(ConfigFile::read(&path).unwrap().text.len(), text.len());
    std::fs::write(&path, text + "#").unwrap();
    assert!(matches!(ConfigFile::read(&path), Err(ConfigError::TooLarge { .. })));
    // A multi-byte character across the limit is no reason to call the file unreadable.
    std::fs::write(&path, "é".repeat(MAX_FILE_BYTES as usize)).unwrap();
    assert!(matches!(ConfigFile::read(&path), Err(ConfigError::TooLarge { .. })));
}

#[test]
fn a_config_written_loads_back_equal() {
    for name in preset_names() {
        let mut config = preset(name).config;
        config.data.dir = "a \"b\" [train] # c\\d = 'é'".into();
        config.train.seed = i64::MAX as u64;
        config.optimizer.lr = 0.1 + 0.2;
        let text = config.to_toml().unwrap();
        assert_eq!(from_file(&text).unwrap().config, config, "{name}");
    }
}

#[test]
fn annotated_toml_names_every_origin() {
    let sets = ["data.dir=a = \"b\"  # [c]".to_owned(), "optimizer.lr=0.02".to_owned()];
    let sources = Sources { preset: Some("bn-x5"), sets: &sets, ..Sources::default() };
    let resolved = resolve(&sources).unwrap();
    let text = resolved.to_annotated_toml().unwrap();
    assert_eq!(from_file(&text).unwrap().config, resolved.config);

    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap();
    assert!(line("lr = 0.02 ").ends_with("  # --set"));
    assert!(line("dir = 'a = \"b\"  # [c]' ").ends_with("  # --set"));
    assert!(line("weight_decay = ").ends_with("  # preset bn-x5"));
    assert!(line("momentum = 0.9 ").ends_with("  # base"));
    let settings = text.lines().filter(|line| line.contains(" = "));
    let columns: Vec<usize> = settings.map(|line| line.rfind("  # ").unwrap()).collect();
    assert_eq!(columns.len(), resolved.origins.len());
    assert!(columns.iter().all(|&column| column == columns[0]), "not aligned: {columns:?}");
}
