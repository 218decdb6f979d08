//! The settings that runs are told apart by, as TensorBoard's hparams plugin lists them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::schema::{
    DATA_TYPE_BOOL, DATA_TYPE_FLOAT64, DATA_TYPE_STRING, DATASET_TRAINING, DATASET_VALIDATION,
    HparamInfo, HparamsExperiment, MetricInfo, MetricName, ProtoKind, ProtoList, ProtoValue,
};
use crate::config::{Config, Recipe};

/// The name of the preset among the settings; all other names are keys of the settings.
const PRESET: &str = "preset";

/// What a setting may hold.
enum Domain {
    /// Any number.
    Number,
    /// Any text.
    Text,
    /// True or false.
    Bool,
    /// One of these.
    OneOf(&'static [&'static str]),
}

/// A setting that runs are told apart by.
struct Hyperparameter {
    key: &'static str,
    domain: Domain,
    /// Whether runs often differ in it. TensorBoard shows these first.
    is_main: bool,
    description: &'static str,
}

const fn compared(key: &'static str, domain: Domain, description: &'static str) -> Hyperparameter {
    Hyperparameter { key, domain, is_main: true, description }
}

const fn listed(key: &'static str, domain: Domain, description: &'static str) -> Hyperparameter {
    Hyperparameter { key, domain, is_main: false, description }
}

/// All that a result depends on and people try values of. What never changes a result, such as the number of
/// workers, is not among them, nor what a preset fixes and nobody varies, such as the constant of batch norm.
const HYPERPARAMETERS: [Hyperparameter; 35] = [
    compared(PRESET, Domain::Text, "the preset that the settings begin with"),
    compared("optimizer.lr", Domain::Number, "learning rate, before the schedule"),
    compared("train.batch_size", Domain::Number, "images of a micro-batch"),
    compared("train.epochs", Domain::Number, "passes over the training images; 0: by train.steps"),
    compared("train.seed", Domain::Number, "every random choice follows from it"),
    listed("network.kind", Domain::OneOf(&["bn-inception", "googlenet"]), "the network"),
    listed("network.activation", Domain::OneOf(&["relu", "sigmoid"]), "the nonlinearity"),
    listed("network.batch_norm", Domain::Bool, "batch norm"),
    listed("network.sync_bn", Domain::Bool, "batch norm over all processes"),
    listed("network.dropout", Domain::Number, "probability of dropout"),
    listed("network.aux", Domain::Bool, "auxiliary heads"),
    listed("data.image_size", Domain::Number, "side of the images, in pixels"),
    listed(
        "data.shuffle",
        Domain::OneOf(&["none", "shards", "within-shards", "full"]),
        "how epochs are ordered",
    ),
    listed(
        "data.balance",
        Domain::OneOf(&["none", "classes", "sqrt"]),
        "how often rare classes come",
    ),
    listed("augment.mirror", Domain::OneOf(&["none", "random", "alternating"]), "mirrored images"),
    listed(
        "augment.colour",
        Domain::OneOf(&["none", "reduced", "full"]),
        "how strongly colours are distorted",
    ),
    listed("augment.mixup", Domain::Number, "alpha of mixup"),
    listed("optimizer.momentum", Domain::Number, "momentum"),
    listed("optimizer.nesterov", Domain::Bool, "Nesterov's momentum"),
    listed("optimizer.weight_decay", Domain::Number, "weight decay"),
    listed("optimizer.clip_norm", Domain::Number, "largest norm of the gradient; 0: no limit"),
    listed("optimizer.head_lr_factor", Domain::Number, "factor on the classifiers' learning rate"),
    listed(
        "optimizer.layer_decay",
        Domain::Number,
        "factor on the learning rate from part to part",
    ),
    listed(
        "schedule.kind",
        Domain::OneOf(&["exponential", "cosine", "constant"]),
        "shape of the learning-rate curve",
    ),
    listed("schedule.warmup_epochs", Domain::Number, "epochs of linear rise"),
    listed("schedule.warmup_fraction", Domain::Number, "the same, as a fraction of the run"),
    listed("train.steps", Domain::Number, "updates; 0: by train.epochs"),
    listed("train.accumulate", Domain::Number, "micro-batches of an update and process"),
    listed("train.ranks", Domain::Number, "processes"),
    listed("train.dtype", Domain::OneOf(&["f32", "tf32", "bf16"]), "number format"),
    listed("train.label_smoothing", Domain::Number, "label smoothing"),
    listed("train.ema", Domain::Number, "decay of averaged parameters; 0: none, or by epochs"),
    listed(
        "train.ema_epochs",
        Domain::Number,
        "epochs that they are averaged over; 0: none, or by decay",
    ),
    listed("train.init_from", Domain::Text, "checkpoint of the first weights; empty: drawn"),
    listed("train.freeze", Domain::Text, "parts that are not trained"),
];

/// A result that TensorBoard lists beside the settings.
struct RunMetric {
    tag: &'static str,
    display_name: &'static str,
    dataset_type: i32,
    description: &'static str,
}

/// The last value of each counts.
const METRICS: [RunMetric; 5] = [
    RunMetric {
        tag: "val/best_top1",
        display_name: "best top-1",
        dataset_type: DATASET_VALIDATION,
        description: "top-1 of the best evaluation, by checkpoint.best_by",
    },
    RunMetric {
        tag: "val/top1",
        display_name: "last top-1",
        dataset_type: DATASET_VALIDATION,
        description: "top-1 of the last evaluation",
    },
    RunMetric {
        tag: "val/loss",
        display_name: "last loss",
        dataset_type: DATASET_VALIDATION,
        description: "mean loss of the last evaluation, in nats",
    },
    RunMetric {
        tag: "val/balanced",
        display_name: "last balanced accuracy",
        dataset_type: DATASET_VALIDATION,
        description: "mean recall of the classes in the last evaluation",
    },
    RunMetric {
        tag: "train/loss",
        display_name: "training loss",
        dataset_type: DATASET_TRAINING,
        description: "mean loss of the training images of the last line of the log, in nats",
    },
];

/// The values of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Hyperparameters {
    values: BTreeMap<String, ProtoValue>,
}

impl Hyperparameters {
    /// Those of a run with these settings.
    pub fn of(config: &Config, recipe: &Recipe) -> Hyperparameters {
        // Settings are a tree of plain values, which has a JSON; a setting without a value is left out.
        let settings = serde_json::to_value(config).unwrap_or_default();
        let values = HYPERPARAMETERS.iter().filter_map(|&Hyperparameter { key, .. }| {
            let kind = match key {
                PRESET if recipe.is_unknown() => ProtoKind::Text("unknown".to_owned()),
                PRESET => ProtoKind::Text(recipe.preset.clone()),
                key => kind(settings.pointer(&format!("/{}", key.replace('.', "/")))?)?,
            };
            Some((key.to_owned(), value(kind)))
        });
        Hyperparameters { values: values.collect() }
    }

    pub(super) fn to_message(&self) -> BTreeMap<String, ProtoValue> {
        self.values.clone()
    }
}

fn kind(value: &Value) -> Option<ProtoKind> {
    match value {
        Value::Bool(value) => Some(ProtoKind::Bool(*value)),
        Value::Number(value) => value.as_f64().map(ProtoKind::Number),
        Value::String(value) => Some(ProtoKind::Text(value.clone())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn value(kind: ProtoKind) -> ProtoValue {
    ProtoValue { kind: Some(kind) }
}

/// What TensorBoard is told of all runs. It takes this record from any one run of a folder, so it says nothing
/// of a single run: no least and greatest value, because it would not be that of the others.
pub(super) fn experiment() -> HparamsExperiment {
    let list = |kinds: Vec<ProtoKind>| ProtoList { values: kinds.into_iter().map(value).collect() };
    let info = |parameter: &Hyperparameter| {
        let (data_type, domain_discrete) = match parameter.domain {
            Domain::Number => (DATA_TYPE_FLOAT64, None),
            Domain::Text => (DATA_TYPE_STRING, None),
            Domain::Bool => {
                (DATA_TYPE_BOOL, Some(list([false, true].map(ProtoKind::Bool).to_vec())))
            }
            Domain::OneOf(names) => {
                let texts = names.iter().map(|&name| ProtoKind::Text(name.to_owned()));
                (DATA_TYPE_STRING, Some(list(texts.collect())))
            }
        };
        HparamInfo {
            name: parameter.key.to_owned(),
            description: parameter.description.to_owned(),
            data_type,
            domain_discrete,
            differs: parameter.is_main,
        }
    };
    let metric = |metric: &RunMetric| MetricInfo {
        name: Some(MetricName { tag: metric.tag.to_owned() }),
        display_name: metric.display_name.to_owned(),
        description: metric.description.to_owned(),
        dataset_type: metric.dataset_type,
    };
    HparamsExperiment {
        hparam_infos: HYPERPARAMETERS.iter().map(info).collect(),
        metric_infos: METRICS.iter().map(metric).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, preset_names, resolve};

    fn resolved(preset: &str, sets: &[String]) -> Result<(Config, Recipe), String> {
        let sources = Sources { preset: Some(preset), sets, ..Sources::default() };
        let resolved = resolve(&sources).map_err(|error| error.to_string())?;
        Ok((resolved.config, resolved.recipe))
    }

    /// Every key is that of a setting, whose value is in its domain, in every preset.
    #[test]
    fn every_preset_has_a_value_of_its_domain_for_each() {
        for preset in preset_names() {
            let (config, recipe) = resolved(preset, &[]).unwrap();
            let found = Hyperparameters::of(&config, &recipe);
            for Hyperparameter { key, domain, .. } in &HYPERPARAMETERS {
                let kind = found.values.get(*key).and_then(|value| value.kind.clone());
                let is_inside = match (domain, &kind) {
                    (Domain::Number, Some(ProtoKind::Number(_))) => true,
                    (Domain::Text, Some(ProtoKind::Text(_))) => true,
                    (Domain::Bool, Some(ProtoKind::Bool(_))) => true,
                    (Domain::OneOf(names), Some(ProtoKind::Text(name))) => {
                        names.contains(&name.as_str())
                    }
                    _ => false,
                };
                assert!(is_inside, "{preset}: {key} is {kind:?}");
            }
            assert_eq!(found.values.len(), HYPERPARAMETERS.len());
            assert_eq!(found.values[PRESET], value(ProtoKind::Text(preset.to_owned())));
        }
    }

    /// The values of a domain are all that the setting takes: each of them, and no other.
    #[test]
    fn domains_are_those_of_the_settings() {
        for Hyperparameter { key, domain, .. } in &HYPERPARAMETERS {
            let Domain::OneOf(names) = domain else { continue };
            let error = resolved("base", &[format!("{key}=\"nothing like it\"")]).unwrap_err();
            let (_, expected) = error.split_once("expected ").unwrap();
            let found: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
            assert_eq!(found, *names, "{key}: {error}");
        }
    }

    #[test]
    fn values_are_those_of_the_run() {
        let sets =
            ["optimizer.lr=0.02", "train.seed=7", "network.batch_norm=true"].map(str::to_owned);
        let (config, _) = resolved("smoke", &sets).unwrap();
        let found = Hyperparameters::of(&config, &Recipe::default());
        assert_eq!(found.values["optimizer.lr"], value(ProtoKind::Number(0.02)));
        assert_eq!(found.values["train.seed"], value(ProtoKind::Number(7.0)));
        assert_eq!(found.values["network.batch_norm"], value(ProtoKind::Bool(true)));
        assert_eq!(found.values[PRESET], value(ProtoKind::Text("unknown".to_owned())));
    }
}
