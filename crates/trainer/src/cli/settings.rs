//! Settings on the command line.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use clap::builder::{OsStringValueParser, PossibleValue, TypedValueParser};
use toml::Value;

use crate::config::{
    BASE, ConfigError, ConfigFile, Flag, MAX_COUNT, RecipeChoice, Resolved, Sources, preset_names,
    resolve,
};
use crate::error::Error;
use crate::terminal::text::quoted;

/// Settings of a run. Later ones win: preset, files, --set, plain flags.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// A preset; `bninception presets list` names them. Without a preset and without a config file, a
    /// training run with --data-dir takes `small` or `modern` by the number of images, and an image size
    /// by theirs, or with --init-from `finetune`; without --data-dir it takes `demo`.
    #[arg(short, long, value_name = "NAME", value_parser = preset(), hide_possible_values = true)]
    pub preset: Option<String>,
    /// A config file (TOML); may be repeated.
    #[arg(short, long = "config", value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// One setting, such as train.label_smoothing=0.1; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = text())]
    pub set: Vec<String>,
    /// Plain flags.
    #[command(flatten)]
    pub flags: FlagArgs,
}

/// Flags for the settings in daily use; each stands for one key of the config.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Settings with a flag of their own")]
pub struct FlagArgs {
    /// Folder of images: DIR/train/CLASS/* and DIR/val/CLASS/*, or DIR/CLASS/*.
    #[arg(long, visible_alias = "data-path", value_name = "DIR", value_parser = text())]
    pub data_dir: Option<String>,
    /// Folder of validation images, CLASS/*, if it lies elsewhere.
    #[arg(long, value_name = "DIR", value_parser = text())]
    pub val_dir: Option<String>,
    /// Begin with the weights of a checkpoint, or of a run's best: its network and preprocessing are taken
    /// over, and the rows of its classifier for classes of the same name.
    #[arg(long, value_name = "CHECKPOINT", value_parser = text())]
    pub init_from: Option<String>,
    /// Leave the first parts of the network as they are: `stem`, or `stem..inception_4e` up to a module.
    #[arg(long, value_name = "PARTS", value_parser = text())]
    pub freeze: Option<String>,
    /// Engine, threads, batch size.
    #[command(flatten)]
    pub execution: ExecutionArgs,
    /// Rows and columns of the network's input, 32 to 512.
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<i64>,
    /// Batches whose gradients make one update together.
    #[arg(long, value_name = "N")]
    pub accumulate: Option<i64>,
    /// How the gradients of several processes are added: `ordered`, the same bits with any MPI library, or `fast`, by
    /// the library's own sum.
    #[arg(
        long,
        value_name = "HOW",
        value_parser = text_such_as(["ordered", "fast"]),
        hide_possible_values = true
    )]
    pub reduce: Option<String>,
    /// Learning rate at the start.
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub lr: Option<f64>,
    /// Passes over the training images.
    #[arg(long, value_name = "N")]
    pub epochs: Option<i64>,
    /// Updates in all, in place of --epochs.
    #[arg(long, value_name = "N")]
    pub steps: Option<i64>,
    /// Every random choice comes from this number.
    #[arg(long, value_name = "N")]
    pub seed: Option<i64>,
}

/// Flags for how a network is run, whether it is trained or used.
#[derive(Clone, Debug, Default, Args)]
pub struct ExecutionArgs {
    /// Where to compute: `auto` (a GPU if one can be used, else the processor), `cpu`, `cuda`, or `cuda:N`.
    #[arg(
        long,
        value_name = "DEVICE",
        value_parser = text_such_as(["auto", "cpu", "cuda"]),
        hide_possible_values = true
    )]
    pub device: Option<String>,
    /// What runs the network: `fast` or `reference`.
    #[arg(
        long,
        value_name = "ENGINE",
        value_parser = text_such_as(["fast", "reference"]),
        hide_possible_values = true
    )]
    pub engine: Option<String>,
    /// Number type of activations and products: `f32` or `bf16`, on a GPU also `tf32`.
    #[arg(
        long,
        value_name = "DTYPE",
        value_parser = text_such_as(["f32", "bf16", "tf32"]),
        hide_possible_values = true
    )]
    pub dtype: Option<String>,
    /// Threads of the engine; 0 for one a core.
    #[arg(long, value_name = "N")]
    pub threads: Option<i64>,
    /// Images in a batch; in training also `auto`, by the number of images and the free memory.
    #[arg(short, long, value_name = "N")]
    pub batch_size: Option<BatchSize>,
    /// Threads that read and prepare images; 0 for one a core.
    #[arg(short = 'j', long, value_name = "N")]
    pub workers: Option<i64>,
}

/// Images in a batch, as the command line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// As images and memory suggest.
    Auto,
    /// So many.
    Of(i64),
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<BatchSize, String> {
        match text {
            "auto" => Ok(BatchSize::Auto),
            text => {
                text.parse().map(BatchSize::Of).map_err(|_| "expected a number or auto".to_owned())
            }
        }
    }
}

/// Takes an argument that is a text, and names it where its bytes are none.
pub(super) fn text() -> impl TypedValueParser<Value = String> {
    OsStringValueParser::new().try_map(|argument: OsString| {
        argument.into_string().map_err(|_| {
            "it is not UTF-8 text; a folder with such a name can be given by a symbolic link with another"
        })
    })
}

/// Takes an argument as [`text`] does, and tells shells which `values` there are. The settings judge it.
fn text_such_as(
    values: impl IntoIterator<Item = &'static str>,
) -> impl TypedValueParser<Value = String> {
    TextSuchAs { values: values.into_iter().collect() }
}

/// Takes the name of a preset. Of one that does not exist the settings say which is nearest.
pub(super) fn preset() -> impl TypedValueParser<Value = String> {
    text_such_as(preset_names())
}

/// See [`text_such_as`].
#[derive(Clone)]
struct TextSuchAs {
    values: Vec<&'static str>,
}

impl TypedValueParser for TextSuchAs {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        text().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.values.iter().map(PossibleValue::new)))
    }
}

impl FlagArgs {
    /// The flags given, as settings.
    fn settings(&self) -> Vec<Flag> {
        let text = |value: &Option<String>| value.clone().map(Value::from);
        let int = |value: Option<i64>| value.map(Value::from);
        let batch_size = match self.execution.batch_size {
            Some(BatchSize::Of(size)) => Some(size),
            Some(BatchSize::Auto) | None => None,
        };
        let table: [(&'static str, &'static str, Option<Value>); 17] = [
            ("--data-dir", "data.dir", text(&self.data_dir)),
            ("--val-dir", "data.val_dir", text(&self.val_dir)),
            ("--init-from", "train.init_from", text(&self.init_from)),
            ("--freeze", "train.freeze", text(&self.freeze)),
            ("--device", "engine.device", text(&self.execution.device)),
            ("--engine", "engine.kind", text(&self.execution.engine)),
            ("--dtype", "train.dtype", text(&self.execution.dtype)),
            ("--threads", "train.threads", int(self.execution.threads)),
            ("--batch-size", "train.batch_size", int(batch_size)),
            ("--accumulate", "train.accumulate", int(self.accumulate)),
            ("--reduce", "train.reduce", text(&self.reduce)),
            ("--workers", "data.workers", int(self.execution.workers)),
            ("--image-size", "data.image_size", int(self.image_size)),
            ("--lr", "optimizer.lr", self.lr.map(Value::from)),
            ("--epochs", "train.epochs", int(self.epochs)),
            ("--steps", "train.steps", int(self.steps)),
            ("--seed", "train.seed", int(self.seed)),
        ];
        let given = table.into_iter().filter_map(|(name, key, value)| Some((name, key, value?)));
        given.map(|(name, key, value)| Flag { name, key, value }).collect()
    }
}

impl ConfigArgs {
    /// The settings, over those of `stored` (a run's config as TOML) or of `default_preset`.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, a value out of its range.
    pub fn resolve(
        &self,
        stored: Option<ConfigFile>,
        default_preset: Option<&str>,
    ) -> Result<Resolved, ConfigError> {
        self.resolve_over(stored, default_preset, None, &[])
    }

    /// The settings of a training run: without a preset or a file those of [`DEMO_PRESET`], or, where a
    /// checkpoint to begin with is named, those of [`FINETUNE_PRESET`], or, where a folder of images is
    /// named, those of `base`, with which images are found. `choice`, which is made when they are, gives the
    /// preset in place of `base`, and settings that suit the images. `of_checkpoint` are settings that come
    /// with the first checkpoint.
    ///
    /// # Errors
    /// As [`ConfigArgs::resolve`].
    pub fn resolve_to_train(
        &self,
        choice: Option<&RecipeChoice>,
        of_checkpoint: &[(&'static str, Value)],
    ) -> Result<Resolved, ConfigError> {
        let default = match choice {
            Some(choice) => choice.preset,
            None if self.names("train.init_from") => FINETUNE_PRESET,
            None if self.names("data.dir") => BASE,
            None => DEMO_PRESET,
        };
        self.resolve_over(None, Some(default), choice, of_checkpoint)
    }

    fn resolve_over(
        &self,
        stored: Option<ConfigFile>,
        default_preset: Option<&str>,
        choice: Option<&RecipeChoice>,
        of_checkpoint: &[(&'static str, Value)],
    ) -> Result<Resolved, ConfigError> {
        if self.flags.execution.batch_size == Some(BatchSize::Auto) {
            return Err(ConfigError::AutoBatch);
        }
        let mut files: Vec<ConfigFile> = stored.into_iter().collect();
        for path in &self.config {
            files.push(ConfigFile::read(path)?);
        }
        let has_file = !files.is_empty();
        let default_preset = default_preset.filter(|_| !has_file);
        let flags = self.flags.settings();
        resolve(&Sources {
            preset: self.preset.as_deref().or(default_preset),
            of_images: &choice.map(RecipeChoice::settings).unwrap_or_default(),
            of_checkpoint,
            files: &files,
            sets: &self.set,
            flags: &flags,
        })
    }

    /// The same with `--batch-size` for the batches of evaluation, for which one image is enough; those
    /// of training may need two.
    ///
    /// # Errors
    /// A size out of its range.
    pub fn for_evaluation(mut self) -> Result<ConfigArgs, Error> {
        if self.flags.execution.batch_size == Some(BatchSize::Auto) {
            return Err(ConfigError::AutoBatch.into());
        }
        if let Some(BatchSize::Of(size)) = self.flags.execution.batch_size.take() {
            if !(1..=MAX_COUNT as i64).contains(&size) {
                let message = format!("--batch-size {size}: expected 1 to {MAX_COUNT} images");
                return Err(Error::Usage(message));
            }
            self.set.push(format!("train.val_batch_size={size}"));
        }
        Ok(self)
    }

    /// The same without `--batch-size auto`, and whether that was given.
    pub fn split_auto_batch(&self) -> (ConfigArgs, bool) {
        let mut args = self.clone();
        let is_auto = args.flags.execution.batch_size == Some(BatchSize::Auto);
        if is_auto {
            args.flags.execution.batch_size = None;
        }
        (args, is_auto)
    }

    /// The same settings as words of a command line, with the learning rate `lr` in the place of their own,
    /// and `batch_size` in that of `auto`.
    pub fn to_words(&self, lr: f64, batch_size: usize) -> String {
        let mut args = self.clone();
        let flags = &mut args.flags;
        flags.lr = Some(lr);
        if flags.execution.batch_size == Some(BatchSize::Auto) {
            flags.execution.batch_size = Some(BatchSize::Of(batch_size as i64));
        }
        let mut words: Vec<(&str, String)> = Vec::new();
        words.extend(args.preset.iter().map(|name| ("--preset", quoted(Path::new(name)))));
        words.extend(args.config.iter().map(|file| ("-c", quoted(file))));
        let sets = args.set.iter().filter(|set| setting_of(set) != Some("optimizer.lr"));
        words.extend(sets.map(|set| ("--set", quoted(Path::new(set)))));
        for flag in args.flags.settings() {
            let value = match flag.value {
                Value::String(text) => quoted(Path::new(&text)),
                value => value.to_string(),
            };
            words.push((flag.name, value));
        }
        let words: Vec<String> =
            words.into_iter().map(|(name, value)| format!("{name} {value}")).collect();
        words.join(" ")
    }

    /// Whether the recipe is the program's own choice.
    pub fn leaves_recipe_open(&self) -> bool {
        self.preset.is_none() && self.config.is_empty()
    }

    /// Whether a flag or `--set` gives the setting `key`.
    pub fn names(&self, key: &str) -> bool {
        let names = |set: &String| setting_of(set) == Some(key);
        self.flags.settings().iter().any(|flag| flag.key == key) || self.set.iter().any(names)
    }
}

/// The key of an argument of `--set`.
fn setting_of(set: &str) -> Option<&str> {
    set.split('=').next().map(str::trim)
}

/// The preset of a training run for which nothing is named.
pub const DEMO_PRESET: &str = "demo";

/// The preset of a training run for which no more than a checkpoint to begin with is named.
pub const FINETUNE_PRESET: &str = "finetune";

/// What runs a trained network, and how.
#[derive(Debug, Args)]
pub struct UseArgs {
    /// Engine, threads, batch size.
    #[command(flatten)]
    pub execution: ExecutionArgs,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

impl UseArgs {
    /// The settings that these flags stand for, for [`ConfigArgs::resolve`].
    pub fn config_args(&self) -> ConfigArgs {
        let flags = FlagArgs { execution: self.execution.clone(), ..FlagArgs::default() };
        ConfigArgs { flags, ..ConfigArgs::default() }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        config: ConfigArgs,
    }

    fn args(words: &[&str]) -> ConfigArgs {
        Line::try_parse_from([&["bn"], words].concat()).unwrap().config
    }

    #[test]
    fn settings_become_words_again() {
        for (words, text) in [
            (&[][..], "--lr 0.01"),
            (&["--lr", "3", "--epochs", "5"], "--lr 0.01 --epochs 5"),
            (
                &["-p", "small", "-c", "my run.toml", "--data-dir", "my pictures", "-b", "auto"],
                "--preset small -c 'my run.toml' --data-dir 'my pictures' --batch-size 16 --lr 0.01",
            ),
            (
                &[
                    "--set",
                    "optimizer.lr=3",
                    "--set",
                    "log.watch=[\"a\"]",
                    "-b",
                    "8",
                    "--seed",
                    "7",
                ],
                "--set 'log.watch=[\"a\"]' --batch-size 8 --lr 0.01 --seed 7",
            ),
        ] {
            assert_eq!(args(words).to_words(0.01, 16), text, "{words:?}");
        }
    }

    #[test]
    fn an_open_batch_size_is_only_for_who_looks() {
        let open = args(&["-b", "auto"]);
        for outcome in [open.resolve(None, None), open.resolve_to_train(None, &[])] {
            assert!(outcome.unwrap_err().to_string().contains("only `train` and `lr-find`"));
        }
        assert!(open.clone().for_evaluation().is_err());
        let (rest, is_auto) = open.split_auto_batch();
        assert!(is_auto && rest.flags.execution.batch_size.is_none());
        let (rest, is_auto) = args(&["-b", "7"]).split_auto_batch();
        assert_eq!((rest.flags.execution.batch_size, is_auto), (Some(BatchSize::Of(7)), false));
        assert!(Line::try_parse_from(["bn", "-b", "much"]).is_err());
    }
}
