//! What differs between two configs, and whether it matters to a run that is resumed.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::error::ConfigError;
use super::presets::nearest;
use super::sections::Config;

/// A setting that two configs give different values.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The key, with its section.
    pub key: String,
    /// The first config's value.
    pub old: Value,
    /// The second config's value.
    pub new: Value,
}

/// The settings in which `new` differs from `old`, in the order of their keys.
///
/// # Errors
/// A config that TOML cannot hold.
pub fn diff(old: &Config, new: &Config) -> Result<Vec<Change>, ConfigError> {
    let mut new_settings = settings(new)?;
    let mut changes = Vec::new();
    for (key, old) in settings(old)? {
        if let Some(new) = new_settings.remove(&key)
            && new != old
        {
            changes.push(Change { key, old, new });
        }
    }
    Ok(changes)
}

/// The setting most like `key`, if `key` is none.
///
/// # Errors
/// A config that TOML cannot hold.
pub fn nearest_setting(config: &Config, key: &str) -> Result<Option<String>, ConfigError> {
    let settings = settings(config)?;
    if settings.contains_key(key) {
        return Ok(None);
    }
    Ok(Some(nearest(key, settings.keys().map(String::as_str)).to_owned()))
}

/// Whether another value of this setting makes a resumed run compute something else.
///
/// Places, pace and bookkeeping may change; so may whatever alters no more than the rounding of
/// sums, because a run has to survive a move to a machine with other cores. The length of a run
/// matters only where the schedule follows it ([`ScheduleConfig::follows_length`]). A key that is not
/// listed counts as maths: a new setting is refused until someone decides otherwise.
///
/// [`ScheduleConfig::follows_length`]: super::sections::ScheduleConfig::follows_length
pub fn changes_maths(key: &str, follows_length: bool) -> bool {
    match key {
        "data.dir"
        | "data.val_dir"
        | "data.workers"
        | "data.prefetch"
        | "data.max_bad"
        | "data.cache_listings"
        | "data.check_headers" => false,
        "train.val_batch_size" | "train.threads" | "train.on_divergence" => false,
        // A run goes on with as many processes as there are; that it does is said and written down.
        "train.ranks" => false,
        // How long a run may go on, as train.epochs; and which of its states are kept as the best.
        "train.patience" => false,
        "checkpoint.best_by" => true,
        "train.epochs" | "train.steps" => follows_length,
        _ => {
            let section = key.split('.').next().unwrap_or_default();
            !["checkpoint", "log", "engine"].contains(&section)
        }
    }
}

/// Every setting by its key with its section, such as `optimizer.lr`.
pub(super) fn settings(config: &Config) -> Result<BTreeMap<String, Value>, ConfigError> {
    let mut settings = BTreeMap::new();
    for (section, fields) in Table::try_from(config)? {
        if let Value::Table(fields) = fields {
            settings
                .extend(fields.into_iter().map(|(key, value)| (format!("{section}.{key}"), value)));
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, resolve};

    #[test]
    fn diff_names_what_changed() {
        let old = resolve(&Sources { preset: Some("bn-x5"), ..Sources::default() }).unwrap().config;
        let mut new = old.clone();
        assert_eq!(diff(&old, &new).unwrap(), []);

        new.optimizer.lr = 0.01;
        new.data.dir = "pictures".into();
        let change = |key: &str, old: Value, new: Value| Change { key: key.to_owned(), old, new };
        assert_eq!(
            diff(&old, &new).unwrap(),
            [
                change("data.dir", "".into(), "pictures".into()),
                change("optimizer.lr", 0.0075.into(), 0.01.into()),
            ]
        );
    }

    #[test]
    fn maths_changes() {
        use crate::config::ScheduleKind::{Constant, Cosine, Exponential};
        let table = [
            ("optimizer.lr", Exponential, true),
            ("network.dropout", Exponential, true),
            ("augment.mirror", Exponential, true),
            ("data.shuffle", Exponential, true),
            ("data.image_size", Exponential, true),
            ("data.max_pixels", Exponential, true),
            ("data.dir", Exponential, false),
            ("data.workers", Exponential, false),
            ("train.seed", Exponential, true),
            ("train.dtype", Exponential, true),
            ("train.threads", Exponential, false),
            ("train.epochs", Exponential, false),
            ("train.epochs", Constant, false),
            ("train.eval_statistics", Exponential, true),
            ("train.ema_epochs", Exponential, true),
            ("schedule.warmup_fraction", Constant, true),
            ("train.epochs", Cosine, true),
            ("train.steps", Cosine, true),
            ("train.patience", Cosine, false),
            ("train.class_weights", Exponential, true),
            ("data.balance", Exponential, true),
            ("optimizer.clip_norm", Exponential, true),
            ("checkpoint.best_by", Exponential, true),
            ("checkpoint.keep", Exponential, false),
            ("log.every_steps", Cosine, false),
            ("engine.winograd", Exponential, false),
            ("engine.device", Exponential, false),
            ("engine.deterministic", Exponential, false),
            ("network.something_new", Exponential, true),
        ];
        for (key, kind, expected) in table {
            let mut schedule = resolve(&Sources::default()).unwrap().config.schedule;
            schedule.kind = kind;
            let found = changes_maths(key, schedule.follows_length());
            assert_eq!(found, expected, "{key}, {kind:?}");
            // A warm-up that is part of the run follows its length, whatever the curve behind it.
            schedule.warmup_fraction = 0.1;
            let is_length = matches!(key, "train.epochs" | "train.steps");
            let found = changes_maths(key, schedule.follows_length());
            assert_eq!(found, expected || is_length, "{key}, {kind:?}, warm-up of a tenth");
        }
    }
}
