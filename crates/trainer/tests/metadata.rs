//! Whatever a run accepts goes through the text of its checkpoints and back.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

use std::collections::BTreeMap;

use bninception::config::{Config, ConfigFile, Recipe, Sources, preset_names, resolve};
use bninception::run::image_lists::{ClassImages, ImageLists};
use bninception::run::metadata::{
    AveragedSource, FORMAT_VERSION, InitialSource, Metadata, StoredDirs,
};
use bninception::run::state::{DeviceSince, EvaluationResult, RanksSince, RunProgress, Statistics};
use bninception::setup;
use bninception_data::check_class_name;
use bninception_data::random::{Purpose, sample_rng};
use bninception_engine::metrics::{Metrics, Score};
use rand::{Rng, RngExt};

const CASES: u64 = 1000;

#[test]
fn whatever_is_accepted_reads_back() {
    let presets: Vec<&str> = preset_names().collect();
    let (mut edits, mut odd) = (0, 0);
    for case in 0..CASES {
        let rng = &mut sample_rng(7, 0, case, Purpose::Augment);
        let preset = presets[rng.random_range(0..presets.len())];
        let mut config =
            resolve(&Sources { preset: Some(preset), ..Sources::default() }).unwrap().config;
        for _ in 0..6 {
            let mut edited = config.clone();
            edit(&mut edited, rng);
            if is_accepted(&edited) {
                config = edited;
                edits += 1;
            }
        }
        let metadata = metadata(config, rng);
        odd += usize::from(metadata.progress.best.is_some_and(|best| best.loss.is_none()));
        let json = serde_json::to_string(&metadata).unwrap();
        Metadata::check(&json).unwrap_or_else(|reason| panic!("case {case}: {reason}\n{json}"));
    }
    // The test tests something.
    assert!(edits > CASES && odd > 5, "{edits} edits, {odd} losses that are not finite");
}

#[test]
fn what_no_reader_takes_is_not_written() {
    let rng = &mut sample_rng(7, 1, 0, Purpose::Augment);
    let config = resolve(&Sources::default()).unwrap().config;
    let good = metadata(config, rng);
    let check = |metadata: &Metadata| Metadata::check(&serde_json::to_string(metadata).unwrap());
    check(&good).unwrap();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut seconds = good.clone();
    seconds.progress.seconds = f64::NAN;
    let mut rate = good.clone();
    rate.config.optimizer.lr = -1.0;
    let mut mean = good.clone();
    mean.preprocessing.mean[0] = f32::INFINITY;
    for (bad, part) in [
        (Metadata { classes: names(&["big\\cat", "dog"]), ..good.clone() }, "backslash"),
        (Metadata { classes: names(&["cat", "cat"]), ..good.clone() }, "twice"),
        (Metadata { classes: names(&[]), ..good.clone() }, "no class"),
        (Metadata { format_version: FORMAT_VERSION + 1, ..good.clone() }, "format version"),
        (seconds, "null"),
        (mean, "null"),
        (rate, "optimizer.lr"),
    ] {
        let message = check(&bad).unwrap_err();
        assert!(message.contains(part), "no `{part}` in {message}");
    }
}

fn is_accepted(config: &Config) -> bool {
    let Ok(text) = config.to_toml() else { return false };
    let files = [ConfigFile { name: String::new(), text }];
    resolve(&Sources { files: &files, ..Sources::default() }).is_ok()
}

/// Any number that has 64 bits, now and then one that has a short name.
fn any_f64(rng: &mut impl Rng) -> f64 {
    match rng.random_range(0..5) {
        0 => [0.0, -0.0, 1.0, 0.1 + 0.2, 1e-308, f64::MIN_POSITIVE, f64::MAX, f64::NAN]
            [rng.random_range(0..8)],
        1 => rng.random_range(0.0..1.0),
        _ => f64::from_bits(rng.random()),
    }
}

/// A count up to the greatest.
fn any_u64(rng: &mut impl Rng) -> u64 {
    rng.random::<u64>() >> rng.random_range(0..64)
}

/// A text of any characters.
fn any_text(rng: &mut impl Rng) -> String {
    let n = rng.random_range(0..20);
    (0..n)
        .map(|_| match rng.random_range(0..3) {
            0 => rng.random_range(' '..='~'),
            1 => rng.random_range('\u{0}'..='\u{2fff}'),
            _ => rng.random(),
        })
        .collect()
}

/// Sets some setting to anything.
fn edit(config: &mut Config, rng: &mut impl Rng) {
    let (x, n) = (any_f64(rng), any_u64(rng));
    match rng.random_range(0..39) {
        0 => config.network.bn_epsilon = x,
        1 => config.network.bn_momentum = x,
        2 => config.network.dropout = x,
        3 => config.network.aux_weight = x,
        4 => config.network.aux_dropout = x,
        5 => config.network.init_gain = x,
        6 => config.data.val_fraction = x,
        7 => config.data.crop_ratio = x,
        8 => config.data.mean = [x, any_f64(rng), 0.5],
        9 => config.data.std = [x, any_f64(rng), 0.5],
        10 => config.augment.crop_area = [x, 1.0],
        11 => config.augment.crop_aspect = [x, any_f64(rng)],
        12 => config.optimizer.lr = x,
        13 => config.optimizer.momentum = x,
        14 => config.optimizer.weight_decay = x,
        15 => config.schedule.decay = x,
        16 => config.schedule.decay_epochs = x,
        17 => config.schedule.warmup_epochs = x,
        18 => config.schedule.min_lr = x,
        19 => (config.train.epochs, config.train.steps) = (n, 0),
        20 => (config.train.epochs, config.train.steps) = (0, n),
        21 => config.train.batch_size = n as usize,
        22 => config.train.val_batch_size = n as usize,
        23 => config.train.seed = n,
        24 => config.train.ema = x,
        25 => config.train.label_smoothing = x,
        26 => config.train.threads = n as usize,
        27 => config.data.max_bad = n as usize,
        28 => config.data.max_pixels = n,
        29 => config.data.max_bytes = n,
        30 => config.data.shard_size = n as usize,
        31 => config.checkpoint.every_steps = n,
        32 => config.checkpoint.keep = n as usize,
        33 => config.data.dir = any_text(rng),
        34 => config.checkpoint.dir = any_text(rng),
        35 => config.schedule.warmup_fraction = x,
        36 => config.train.ema_epochs = x,
        37 => config.augment.mixup = x,
        _ => config.log.watch = vec![any_text(rng), any_text(rng)],
    }
}

fn metadata(config: Config, rng: &mut impl Rng) -> Metadata {
    let mut classes: Vec<String> =
        (0..20).map(|_| any_text(rng)).filter(|name| check_class_name(name).is_ok()).collect();
    classes.push("cat".to_owned());
    classes.sort();
    classes.dedup();
    let lists =
        |rng: &mut _| classes.iter().map(|_| ClassImages(any_u64(rng), any_text(rng))).collect();
    let finite = |x: f64| Some(x).filter(|x| x.is_finite());
    let result = |rng: &mut _| EvaluationResult {
        step: any_u64(rng),
        epoch: Some(any_u64(rng)).filter(|epoch| epoch % 2 == 0),
        images: any_u64(rng),
        failed: any_u64(rng),
        top1: finite(any_f64(rng)).unwrap_or(1.0),
        top5: finite(any_f64(rng)).unwrap_or(0.0),
        balanced: finite(any_f64(rng)),
        loss: finite(any_f64(rng)),
        statistics: [None, Some(Statistics::Moving), Some(Statistics::Population)]
            [any_u64(rng) as usize % 3],
    };
    // The loss of a training image may be anything.
    let sums = |rng: &mut _| {
        let mut metrics = Metrics::default();
        metrics.add(&Score { rank: Some(0), loss: any_f64(rng) });
        metrics.add(&Score { rank: None, loss: any_f64(rng) });
        metrics
    };
    let mut config = config;
    config.network.classes = 0;
    Metadata {
        format_version: FORMAT_VERSION,
        program: "bninception 0".to_owned(),
        preprocessing: setup::preprocessing(&config),
        config,
        recipe: Recipe {
            preset: any_text(rng),
            changed: BTreeMap::from([(any_text(rng), any_text(rng))]),
        },
        step: any_u64(rng),
        epoch: any_u64(rng),
        position: any_u64(rng),
        steps_per_epoch: any_u64(rng),
        progress: RunProgress {
            step: any_u64(rng),
            evaluated_step: rng.random::<bool>().then(|| any_u64(rng)),
            evaluation: Some(result(rng)),
            best: rng.random::<bool>().then(|| result(rng)),
            epoch_metrics: sums(rng),
            log_metrics: sums(rng),
            bad_images: (0..5).map(|_| rng.random()).collect(),
            seconds: finite(any_f64(rng)).unwrap_or(0.0),
            epoch_start_seconds: finite(any_f64(rng)).unwrap_or(0.0),
            rollbacks: rng.random(),
            batch_shift: rng.random(),
            epoch_begun_again: rng.random::<bool>().then(|| any_u64(rng)),
            skipped_batches: any_u64(rng),
            ranks: (0..rng.random_range(0..3))
                .map(|_| RanksSince { step: any_u64(rng), ranks: rng.random_range(1..1000) })
                .collect(),
            devices: (0..rng.random_range(0..3))
                .map(|_| DeviceSince { step: any_u64(rng), device: any_text(rng) })
                .collect(),
        },
        images: ImageLists { train: lists(rng), val: lists(rng) },
        data_dirs: StoredDirs { dir: any_text(rng), val_dir: any_text(rng) },
        classes,
        initial: rng.random::<bool>().then(|| InitialSource {
            path: any_text(rng),
            blake3: any_text(rng),
            step: any_u64(rng),
            kept_classes: vec![any_text(rng)],
        }),
        averaged: (0..rng.random_range(0..3))
            .map(|_| AveragedSource {
                path: any_text(rng),
                blake3: any_text(rng),
                step: any_u64(rng),
            })
            .collect(),
        trained_image_size: rng.random::<bool>().then(|| rng.random_range(0..1000)),
        calibration: None,
        checksum: "0".to_owned(),
    }
}
