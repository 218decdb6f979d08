//! The range of every setting, and the settings that depend on each other.

use bninception_engine::model::NetworkOptions;

use bninception_data::{Balance, Shuffle};

use super::sections::{Config, NetworkKind, OptimizerConfig};

/// A setting that is out of range.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Violation {
    /// The key, with its section.
    pub(super) key: &'static str,
    /// What is accepted.
    pub(super) expected: String,
}

/// All settings that are out of range or at odds with another, in the order of the sections.
pub(super) fn validate(config: &Config) -> Vec<Violation> {
    let mut check = Check { violations: Vec::new() };
    network(config, &mut check);
    data(config, &mut check);
    augment(config, &mut check);
    optimizer(&config.optimizer, &mut check);
    schedule(config, &mut check);
    train(config, &mut check);
    bookkeeping(config, &mut check);
    check.violations
}

/// Counts above this are mistakes: they ask for more threads, batches or images than memory holds.
pub(crate) const MAX_COUNT: usize = 65_536;

/// Most processes of a run: with one image each, an update has as many images as one process may have.
const MAX_RANKS: usize = MAX_COUNT;

/// Longest run, in epochs or steps; above it an f64 no longer tells two steps apart.
const MAX_STEPS: u64 = 1 << 53;

struct Check {
    violations: Vec<Violation>,
}

impl Check {
    /// Notes a violation of `key` unless the condition holds.
    fn that(&mut self, holds: bool, key: &'static str, expected: impl Into<String>) {
        if !holds {
            self.violations.push(Violation { key, expected: expected.into() });
        }
    }
}

fn network(config: &Config, check: &mut Check) {
    let network = &config.network;
    check.that(network.classes <= 1_000_000, "network.classes", "0 (from the data) to 1000000");
    check.that(positive(network.bn_epsilon), "network.bn_epsilon", "a finite number above 0");
    check.that(
        network.bn_momentum > 0.0 && network.bn_momentum <= 1.0,
        "network.bn_momentum",
        "above 0, at most 1: the weight of the newest batch",
    );
    check.that(below_1(network.dropout), "network.dropout", "at least 0, below 1");
    check.that(
        [96, 128].contains(&network.pool_proj_4c4d),
        "network.pool_proj_4c4d",
        "96 (the paper's output column) or 128 (the public weights)",
    );
    check.that(
        network.kind == NetworkKind::BnInception || network.pool_proj_4c4d != 128,
        "network.pool_proj_4c4d",
        "96, because network.kind = \"googlenet\" has widths of its own",
    );
    check.that(positive(network.aux_weight), "network.aux_weight", "a finite number above 0");
    check.that(below_1(network.aux_dropout), "network.aux_dropout", "at least 0, below 1");
    check.that(positive(network.init_gain), "network.init_gain", "a finite number above 0");
    check.that(
        network.batch_norm || network.conv_bias,
        "network.conv_bias",
        "true, because with network.batch_norm = false nothing else shifts the activations",
    );
}

fn data(config: &Config, check: &mut Check) {
    let data = &config.data;
    check.that(on_one_line(&data.dir), "data.dir", ON_ONE_LINE);
    check.that(on_one_line(&data.val_dir), "data.val_dir", ON_ONE_LINE);
    check.that(
        data.val_fraction > 0.0 && data.val_fraction < 1.0,
        "data.val_fraction",
        "above 0, below 1",
    );
    let sizes = NetworkOptions::IMAGE_SIZES;
    check.that(
        sizes.contains(&data.image_size),
        "data.image_size",
        format!("{} to {} pixels", sizes.start(), sizes.end()),
    );
    check.that(
        (0.1..=1.0).contains(&data.crop_ratio),
        "data.crop_ratio",
        "0.1 to 1: the part of the short side that the centre crop keeps",
    );
    check.that(
        data.mean.iter().all(|mean| (0.0..=1.0).contains(mean)),
        "data.mean",
        "0 to 1 for each colour, in units of the full range",
    );
    check.that(
        // Images are normalised in f32, in which the least and greatest numbers are 0 and infinite.
        data.std.iter().all(|std| positive(f64::from(*std as f32))),
        "data.std",
        "above 0 for each colour, in units of the full range, within f32",
    );
    check.that(data.workers <= 1024, "data.workers", "0 (the number of cores) to 1024");
    check.that((1..=1024).contains(&data.prefetch), "data.prefetch", "1 to 1024 batches");
    check.that(data.shard_size >= 1, "data.shard_size", "at least 1 image");
    check.that(
        data.balance == Balance::None || data.shuffle == Shuffle::Full,
        "data.balance",
        "\"none\" unless data.shuffle = \"full\": in the other orders a place in the list says which \
         images meet in a batch, and balanced classes have no such places",
    );
    check.that(data.max_pixels >= 1, "data.max_pixels", "at least 1 pixel");
    check.that(data.max_bytes >= 1, "data.max_bytes", "at least 1 byte");
}

fn augment(config: &Config, check: &mut Check) {
    let [smallest, largest] = config.augment.crop_area;
    check.that(
        0.0 < smallest && smallest <= largest && largest <= 1.0,
        "augment.crop_area",
        "[smallest, largest] with 0 < smallest <= largest <= 1",
    );
    let [narrowest, widest] = config.augment.crop_aspect;
    check.that(
        0.0 < narrowest && narrowest <= widest && widest.is_finite(),
        "augment.crop_aspect",
        "[narrowest, widest] with 0 < narrowest <= widest, finite",
    );
    check.that(
        (0.0..=1.0).contains(&config.augment.mixup),
        "augment.mixup",
        "a number from 0 (no mixing) to 1",
    );
}

fn optimizer(optimizer: &OptimizerConfig, check: &mut Check) {
    check.that(positive(optimizer.lr), "optimizer.lr", "a finite number above 0");
    check.that(below_1(optimizer.momentum), "optimizer.momentum", "at least 0, below 1");
    check.that(
        optimizer.weight_decay >= 0.0 && optimizer.weight_decay.is_finite(),
        "optimizer.weight_decay",
        "a finite number, 0 or more",
    );
    check.that(
        !optimizer.nesterov || optimizer.momentum > 0.0,
        "optimizer.nesterov",
        "false, because optimizer.momentum is 0",
    );
    check.that(
        optimizer.clip_norm >= 0.0 && optimizer.clip_norm.is_finite(),
        "optimizer.clip_norm",
        "a finite number, 0 (no limit) or more",
    );
    check.that(
        positive(optimizer.head_lr_factor),
        "optimizer.head_lr_factor",
        "a finite number above 0",
    );
    check.that(
        optimizer.layer_decay > 0.0 && optimizer.layer_decay <= 1.0,
        "optimizer.layer_decay",
        "above 0, at most 1: the factor from a part to the one in front of it",
    );
}

fn schedule(config: &Config, check: &mut Check) {
    let schedule = &config.schedule;
    check.that(
        schedule.decay > 0.0 && schedule.decay <= 1.0,
        "schedule.decay",
        "above 0, at most 1: the factor on the learning rate",
    );
    check.that(
        positive(schedule.decay_epochs),
        "schedule.decay_epochs",
        "a finite number of epochs above 0",
    );
    check.that(
        schedule.warmup_epochs >= 0.0 && schedule.warmup_epochs.is_finite(),
        "schedule.warmup_epochs",
        "a finite number of epochs, 0 or more",
    );
    check.that(
        (0.0..=1.0).contains(&schedule.warmup_fraction),
        "schedule.warmup_fraction",
        "0 (schedule.warmup_epochs says how long) to 1: the part of the run's steps",
    );
    check.that(
        !(schedule.warmup_epochs > 0.0 && schedule.warmup_fraction > 0.0),
        "schedule.warmup_fraction",
        format!("0, because schedule.warmup_epochs = {} is set too", schedule.warmup_epochs),
    );
    if config.train.epochs > 0 {
        let epochs = config.train.epochs;
        check.that(
            schedule.warmup_epochs.is_nan() || schedule.warmup_epochs <= epochs as f64,
            "schedule.warmup_epochs",
            format!("at most train.epochs = {epochs}"),
        );
    }
    // A learning rate that is wrong itself has been reported.
    let lr = if positive(config.optimizer.lr) { config.optimizer.lr } else { f64::MAX };
    check.that(
        (0.0..=lr).contains(&schedule.min_lr),
        "schedule.min_lr",
        format!("0 to optimizer.lr = {lr}"),
    );
}

fn train(config: &Config, check: &mut Check) {
    let train = &config.train;
    match (train.epochs, train.steps) {
        (0, 0) => check.that(false, "train.epochs", "at least 1, because train.steps is 0"),
        (0, steps) => check.that(steps <= MAX_STEPS, "train.steps", "at most 2^53"),
        (epochs, 0) => check.that(epochs <= MAX_STEPS, "train.epochs", "at most 2^53"),
        (epochs, _) => check.that(
            false,
            "train.steps",
            format!("0, because train.epochs = {epochs} already says how long"),
        ),
    }
    let fewest = config.network.fewest_images();
    let why = if config.network.batch_norm {
        ": batch norm needs two images to have a variance"
    } else {
        ""
    };
    check.that(
        (fewest..=MAX_COUNT).contains(&train.batch_size),
        "train.batch_size",
        format!("{fewest} to {MAX_COUNT}{why}"),
    );
    let most = MAX_COUNT / train.batch_size.max(1);
    check.that(
        (1..=most.max(1)).contains(&train.accumulate),
        "train.accumulate",
        format!("1 to {most}, so that an update has at most {MAX_COUNT} images"),
    );
    check.that((1..=MAX_RANKS).contains(&train.ranks), "train.ranks", format!("1 to {MAX_RANKS}"));
    check.that(
        train.val_batch_size <= MAX_COUNT,
        "train.val_batch_size",
        format!("0 (as train.batch_size) to {MAX_COUNT}"),
    );
    check.that(on_one_line(&train.init_from), "train.init_from", ON_ONE_LINE);
    check.that(train.seed <= i64::MAX as u64, "train.seed", "0 to 2^63 - 1");
    check.that(train.threads <= 1024, "train.threads", "0 (the number of cores) to 1024");
    check.that(below_1(train.ema), "train.ema", "at least 0 (no average), below 1");
    check.that(
        train.ema_epochs >= 0.0 && train.ema_epochs.is_finite(),
        "train.ema_epochs",
        "a finite number of epochs, 0 (no average) or more",
    );
    check.that(
        !(train.ema > 0.0 && train.ema_epochs > 0.0),
        "train.ema_epochs",
        format!("0, because train.ema = {} is set too", train.ema),
    );
    check.that(below_1(train.label_smoothing), "train.label_smoothing", "at least 0, below 1");
    if let Some(expected) = train.class_weights.expected() {
        check.that(false, "train.class_weights", expected);
    }
}

fn bookkeeping(config: &Config, check: &mut Check) {
    let dir = &config.checkpoint.dir;
    check.that(!dir.is_empty(), "checkpoint.dir", "the name of a folder");
    check.that(on_one_line(dir), "checkpoint.dir", ON_ONE_LINE);
    check.that(config.log.every_steps >= 1, "log.every_steps", "at least 1 step");
    check.that(config.log.watch_every >= 1, "log.watch_every", "at least 1 step");
}

/// Names of folders stand in line-based files and messages.
const ON_ONE_LINE: &str = "a name without line breaks or other control characters";

fn on_one_line(name: &str) -> bool {
    !name.contains(char::is_control)
}

/// Above zero and finite; false for NaN.
fn positive(x: f64) -> bool {
    x > 0.0 && x.is_finite()
}

/// In [0, 1); false for NaN.
fn below_1(x: f64) -> bool {
    (0.0..1.0).contains(&x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClassWeights, Sources, resolve};

    /// Changes one setting of `base` at a time.
    type Edit = fn(&mut Config);

    fn violations(edit: impl Fn(&mut Config)) -> Vec<&'static str> {
        let mut config = resolve(&Sources::default()).unwrap().config;
        edit(&mut config);
        validate(&config).iter().map(|violation| violation.key).collect()
    }

    #[test]
    fn the_edges_of_ranges_are_accepted() {
        let edits: [Edit; 30] = [
            |c| c.network.bn_momentum = 1.0,
            |c| c.network.dropout = 0.999,
            |c| c.network.pool_proj_4c4d = 128,
            |c| c.network.conv_bias = true,
            |c| (c.network.batch_norm, c.network.conv_bias, c.train.batch_size) = (false, true, 1),
            |c| c.data.image_size = 32,
            |c| c.data.image_size = 512,
            |c| c.data.crop_ratio = 1.0,
            |c| c.data.max_bad = 0,
            |c| c.augment.crop_area = [1.0, 1.0],
            |c| c.augment.crop_aspect = [1.0, 1.0],
            |c| c.augment.mixup = 1.0,
            |c| c.optimizer.momentum = 0.0,
            |c| c.optimizer.weight_decay = 0.0,
            |c| c.optimizer.nesterov = true,
            |c| c.schedule.decay = 1.0,
            |c| c.schedule.decay_epochs = 0.1,
            |c| c.schedule.warmup_epochs = 90.0,
            |c| (c.train.epochs, c.train.steps, c.schedule.warmup_epochs) = (0, 1, 1.0),
            |c| c.schedule.min_lr = c.optimizer.lr,
            |c| c.train.batch_size = 2,
            |c| c.train.ema = 0.9999,
            |c| c.train.ema_epochs = 1e6,
            |c| c.schedule.warmup_fraction = 1.0,
            |c| c.checkpoint.keep = 0,
            |c| c.log.every_steps = 1,
            |c| c.optimizer.clip_norm = 1e-9,
            |c| (c.data.balance, c.data.shuffle) = (Balance::Sqrt, Shuffle::Full),
            |c| c.train.patience = u64::MAX >> 1,
            |c| c.train.class_weights = ClassWeights::Table([("a".to_owned(), 1e-9)].into()),
        ];
        for (i, edit) in edits.iter().enumerate() {
            assert_eq!(violations(edit), [] as [&str; 0], "edit {i}");
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        let table: [(&str, &[Edit]); 46] = [
            ("network.classes", &[|c| c.network.classes = 1_000_001]),
            (
                "network.bn_epsilon",
                &[|c| c.network.bn_epsilon = 0.0, |c| c.network.bn_epsilon = f64::NAN],
            ),
            (
                "network.bn_momentum",
                &[|c| c.network.bn_momentum = 0.0, |c| c.network.bn_momentum = 1.1],
            ),
            (
                "network.dropout",
                &[
                    |c| c.network.dropout = 1.0,
                    |c| c.network.dropout = -0.1,
                    |c| c.network.dropout = f64::NAN,
                ],
            ),
            (
                "network.pool_proj_4c4d",
                &[
                    |c| c.network.pool_proj_4c4d = 127,
                    |c| {
                        let googlenet = NetworkKind::GoogLeNet;
                        (c.network.kind, c.network.pool_proj_4c4d) = (googlenet, 128);
                    },
                ],
            ),
            (
                "network.aux_weight",
                &[|c| c.network.aux_weight = 0.0, |c| c.network.aux_weight = f64::INFINITY],
            ),
            (
                "network.aux_dropout",
                &[|c| c.network.aux_dropout = 1.0, |c| c.network.aux_dropout = -0.1],
            ),
            (
                "network.init_gain",
                &[|c| c.network.init_gain = 0.0, |c| c.network.init_gain = f64::NAN],
            ),
            ("network.conv_bias", &[|c| c.network.batch_norm = false]),
            ("data.val_fraction", &[|c| c.data.val_fraction = 0.0, |c| c.data.val_fraction = 1.0]),
            ("data.image_size", &[|c| c.data.image_size = 31, |c| c.data.image_size = 513]),
            ("data.crop_ratio", &[|c| c.data.crop_ratio = 0.0, |c| c.data.crop_ratio = 1.01]),
            ("data.mean", &[|c| c.data.mean[1] = 123.0, |c| c.data.mean[2] = f64::NAN]),
            (
                "data.std",
                &[
                    |c| c.data.std[0] = 0.0,
                    |c| c.data.std[2] = f64::INFINITY,
                    |c| c.data.std[1] = 1e-60,
                    |c| c.data.std[1] = 1e60,
                ],
            ),
            ("data.workers", &[|c| c.data.workers = 1025]),
            ("data.prefetch", &[|c| c.data.prefetch = 0, |c| c.data.prefetch = 1025]),
            ("data.shard_size", &[|c| c.data.shard_size = 0]),
            ("data.max_pixels", &[|c| c.data.max_pixels = 0]),
            ("data.max_bytes", &[|c| c.data.max_bytes = 0]),
            (
                "augment.crop_area",
                &[
                    |c| c.augment.crop_area = [0.0, 1.0],
                    |c| c.augment.crop_area = [0.5, 0.4],
                    |c| c.augment.crop_area = [0.5, 1.1],
                    |c| c.augment.crop_area = [f64::NAN, 1.0],
                ],
            ),
            (
                "augment.crop_aspect",
                &[
                    |c| c.augment.crop_aspect = [0.0, 1.0],
                    |c| c.augment.crop_aspect = [1.3, 0.7],
                    |c| c.augment.crop_aspect = [0.7, f64::INFINITY],
                ],
            ),
            (
                "augment.mixup",
                &[
                    |c| c.augment.mixup = -0.1,
                    |c| c.augment.mixup = 1.1,
                    |c| c.augment.mixup = f64::NAN,
                ],
            ),
            (
                "optimizer.lr",
                &[
                    |c| c.optimizer.lr = 0.0,
                    |c| c.optimizer.lr = -1.0,
                    |c| c.optimizer.lr = f64::NAN,
                    |c| c.optimizer.lr = f64::INFINITY,
                ],
            ),
            ("optimizer.momentum", &[|c| c.optimizer.momentum = 1.0]),
            (
                "optimizer.weight_decay",
                &[|c| c.optimizer.weight_decay = -1e-4, |c| c.optimizer.weight_decay = f64::NAN],
            ),
            (
                "optimizer.nesterov",
                &[|c| (c.optimizer.nesterov, c.optimizer.momentum) = (true, 0.0)],
            ),
            (
                "optimizer.clip_norm",
                &[
                    |c| c.optimizer.clip_norm = -1.0,
                    |c| c.optimizer.clip_norm = f64::NAN,
                    |c| c.optimizer.clip_norm = f64::INFINITY,
                ],
            ),
            (
                "data.balance",
                &[
                    |c| (c.data.balance, c.data.shuffle) = (Balance::Sqrt, Shuffle::Shards),
                    |c| (c.data.balance, c.data.shuffle) = (Balance::Classes, Shuffle::None),
                ],
            ),
            (
                "train.class_weights",
                &[
                    |c| c.train.class_weights = ClassWeights::Table([("a".to_owned(), 0.0)].into()),
                    |c| c.train.class_weights = ClassWeights::Table([].into()),
                ],
            ),
            ("schedule.decay", &[|c| c.schedule.decay = 0.0, |c| c.schedule.decay = 1.5]),
            ("schedule.decay_epochs", &[|c| c.schedule.decay_epochs = 0.0]),
            (
                "schedule.warmup_epochs",
                &[
                    |c| c.schedule.warmup_epochs = -1.0,
                    |c| c.schedule.warmup_epochs = 90.1,
                    |c| c.schedule.warmup_epochs = f64::NAN,
                ],
            ),
            ("schedule.min_lr", &[|c| c.schedule.min_lr = 0.1, |c| c.schedule.min_lr = -0.1]),
            ("train.epochs", &[|c| c.train.epochs = 0, |c| c.train.epochs = u64::MAX]),
            ("train.steps", &[|c| c.train.steps = 1]),
            (
                "train.batch_size",
                &[
                    |c| c.train.batch_size = 0,
                    |c| c.train.batch_size = 1,
                    |c| c.train.batch_size = 65_537,
                ],
            ),
            ("train.seed", &[|c| c.train.seed = u64::MAX]),
            ("train.threads", &[|c| c.train.threads = 1025]),
            ("train.ema", &[|c| c.train.ema = 1.0]),
            (
                "train.ema_epochs",
                &[
                    |c| c.train.ema_epochs = -1.0,
                    |c| c.train.ema_epochs = f64::NAN,
                    |c| c.train.ema_epochs = f64::INFINITY,
                    |c| (c.train.ema, c.train.ema_epochs) = (0.9, 2.0),
                ],
            ),
            (
                "schedule.warmup_fraction",
                &[
                    |c| c.schedule.warmup_fraction = -0.1,
                    |c| c.schedule.warmup_fraction = 1.1,
                    |c| c.schedule.warmup_fraction = f64::NAN,
                    |c| (c.schedule.warmup_epochs, c.schedule.warmup_fraction) = (1.0, 0.1),
                ],
            ),
            ("data.dir", &[|c| c.data.dir.push('\n')]),
            ("data.val_dir", &[|c| c.data.val_dir.push('\u{7f}')]),
            ("checkpoint.dir", &[|c| c.checkpoint.dir.clear(), |c| c.checkpoint.dir.push('\r')]),
            ("log.every_steps", &[|c| c.log.every_steps = 0]),
            ("log.watch_every", &[|c| c.log.watch_every = 0]),
        ];
        for (key, edits) in table {
            for (i, edit) in edits.iter().enumerate() {
                assert_eq!(violations(edit), [key], "edit {i} of {key}");
            }
        }
    }

    #[test]
    fn all_violations_are_reported() {
        let found = violations(|c| {
            c.network.dropout = 2.0;
            c.augment.crop_area = [1.0, 0.5];
            c.train.batch_size = 0;
        });
        assert_eq!(found, ["network.dropout", "augment.crop_area", "train.batch_size"]);
    }
}
