//! Merges presets, files, `--set` and flags into one config.
//!
//! Sources are taken apart into single settings, `section.field = value`. `base.toml` has every
//! setting, so it is the list of known keys and the example of each one's type. All mistakes are
//! gathered and reported together.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use toml::{Table, Value};

use super::diff::{self, Change, diff};
use super::error::{ConfigError, Problem};
use super::origin::Origin;
use super::presets::{BASE, nearest, preset_names, preset_text};
use super::recipe::{Recipe, one_line};
use super::sections::Config;
use super::validate::validate;

/// Largest config file, in bytes. `base.toml` has about 8,000; a file a hundred times as long is a
/// mistake.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// What a config is made of, in the order in which later ones win.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// A preset's name; `None` takes what a file extends, or `base`.
    pub preset: Option<&'a str>,
    /// Settings that suit the images, by their keys, where they are chosen by them.
    pub of_images: &'a [(&'static str, Value)],
    /// Settings that come with the checkpoint that the run begins with, by their keys.
    pub of_checkpoint: &'a [(&'static str, Value)],
    /// Files, in order.
    pub files: &'a [ConfigFile],
    /// Arguments of `--set`, `section.field=value`, in order.
    pub sets: &'a [String],
    /// Plain flags.
    pub flags: &'a [Flag],
}

/// A config file that has been read.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigFile {
    /// How messages name it.
    pub name: String,
    /// Its text, TOML.
    pub text: String,
}

impl ConfigFile {
    /// Reads a file of at most [`MAX_FILE_BYTES`].
    ///
    /// # Errors
    /// The file is missing, unreadable, not UTF-8 or too large.
    pub fn read(path: &Path) -> Result<ConfigFile, ConfigError> {
        let error = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(error)?;
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(error)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(ConfigError::TooLarge { path: path.to_owned(), limit: MAX_FILE_BYTES });
        }
        let text = String::from_utf8(bytes)
            .map_err(|not_utf8| error(io::Error::new(io::ErrorKind::InvalidData, not_utf8)))?;
        Ok(ConfigFile { name: path.display().to_string(), text })
    }

    /// Whether it says which preset it extends.
    pub fn names_preset(&self) -> bool {
        self.text.parse::<Table>().is_ok_and(|table| table.contains_key("extends"))
    }
}

/// A setting given by a command-line flag of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag {
    /// The flag as typed, such as `--lr`.
    pub name: &'static str,
    /// The setting's key, such as `optimizer.lr`.
    pub key: &'static str,
    /// Its value.
    pub value: Value,
}

/// A checked config and where each of its values comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The settings.
    pub config: Config,
    /// Every key with its section, such as `optimizer.lr`, and the source of its value.
    pub origins: BTreeMap<String, Origin>,
    /// The preset, and what is not of it.
    pub recipe: Recipe,
}

impl Resolved {
    /// The same settings with another batch size, which came about by the flag `name`.
    ///
    /// # Errors
    /// None for a config that came from [`resolve`].
    pub fn with_batch_size(mut self, images: usize, name: &str) -> Result<Resolved, ConfigError> {
        self.config.train.batch_size = images;
        self.origins.insert("train.batch_size".to_owned(), Origin::Flag(name.to_owned()));
        self.recipe = self.recipe_over(&self.recipe.preset.clone())?;
        Ok(self)
    }

    /// The same settings for a run of `ranks` processes.
    ///
    /// # Errors
    /// None for a config that came from [`resolve`].
    pub fn with_ranks(mut self, ranks: usize) -> Result<Resolved, ConfigError> {
        if self.config.train.ranks != ranks {
            self.config.train.ranks = ranks;
            self.origins.insert("train.ranks".to_owned(), Origin::Launcher);
            self.recipe = self.recipe_over(&self.recipe.preset.clone())?;
        }
        Ok(self)
    }

    /// The recipe as changes of the preset `name`; as it is if there is no such preset.
    ///
    /// # Errors
    /// None for a config that came from [`resolve`].
    pub fn recipe_over(&self, name: &str) -> Result<Recipe, ConfigError> {
        if !preset_names().any(|known| known == name) {
            return Ok(self.recipe.clone());
        }
        let preset = resolve(&Sources { preset: Some(name), ..Sources::default() })?.config;
        Ok(Recipe::new(name, &diff(&preset, &self.config)?, &self.origins))
    }

    /// Every setting as TOML, with its origin in a comment behind it and the recipe on top.
    ///
    /// # Errors
    /// None for a config that came from [`resolve`]; see [`Config::to_toml`].
    pub fn to_annotated_toml(&self) -> Result<String, ConfigError> {
        let text = self.config.to_toml()?;
        let width = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        let mut section = "";
        let mut annotated = format!("# recipe: {}\n\n", one_line(&self.recipe));
        for line in text.lines() {
            annotated.push_str(line);
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name;
            } else if let Some((field, _)) = line.split_once(" = ")
                && let Some(origin) =
                    // A setting that is a table has a section of its own.
                    self
                        .origins
                        .get(&format!("{section}.{field}"))
                        .or(self.origins.get(section))
            {
                let gap = width - line.chars().count();
                annotated.push_str(&format!("{:gap$}  # {}", "", one_line(origin)));
            }
            annotated.push('\n');
        }
        Ok(annotated)
    }
}

/// Merges the sources and checks the outcome.
///
/// A file may say `extends = "PRESET"` in place of `--preset PRESET`; two different presets are an
/// error. A mistake counts even where a later source sets the same key again. A source that gives
/// one of two alternatives sets the other to 0, unless it gives both.
///
/// # Errors
/// An unknown preset, text that is not TOML, or problems with settings, all of them in one error.
pub fn resolve(sources: &Sources) -> Result<Resolved, ConfigError> {
    let base = parse(&Origin::Base, preset_text(BASE)?)?;
    let schema: BTreeMap<String, Value> = settings(base, &Origin::Base)
        .into_iter()
        .map(|setting| (setting.key, setting.value))
        .collect();

    let Gathered { preset, of_preset, others } = gather(sources, schema.len())?;
    let mut merged = Merged::of(&schema);
    merged.add(&schema, of_preset);
    let preset_values = merged.values.clone();
    merged.add(&schema, others);
    let Merged { values, origins, mut problems } = merged;
    if !problems.is_empty() {
        return Err(ConfigError::Problems(problems));
    }

    let config = deserialize(&values).map_err(|e| syntax(&Origin::Base, "", &e))?;
    let values = diff::settings(&config)?;
    for violation in validate(&config) {
        problems.push(Problem::Value {
            found: values.get(violation.key).map(Value::to_string).unwrap_or_default(),
            origin: origins.get(violation.key).cloned().unwrap_or(Origin::Base),
            key: violation.key.to_owned(),
            expected: violation.expected,
        });
    }
    if problems.is_empty() {
        let preset_config =
            deserialize(&preset_values).map_err(|e| syntax(&Origin::Base, "", &e))?;
        let recipe = Recipe::new(&preset, &diff(&preset_config, &config)?, &origins);
        Ok(Resolved { config, origins, recipe })
    } else {
        Err(ConfigError::Problems(problems))
    }
}

/// One setting from one source.
struct Setting {
    key: String,
    value: Value,
    origin: Origin,
}

/// Every key with its value so far, and what was wrong with others.
struct Merged {
    values: BTreeMap<String, Value>,
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
}

impl Merged {
    fn of(schema: &BTreeMap<String, Value>) -> Merged {
        let origins = schema.keys().map(|key| (key.clone(), Origin::Base)).collect();
        Merged { values: schema.clone(), origins, problems: Vec::new() }
    }

    /// Adds settings, of which later ones win.
    fn add(&mut self, schema: &BTreeMap<String, Value>, settings: Vec<Setting>) {
        for Setting { key, value, origin } in settings {
            if let Some(problem) = check_setting(schema, &key, &value, &origin) {
                self.problems.push(problem);
                continue;
            }
            if let Some(other) = alternative(&key, &value)
                && !same_source(&self.origins[other], &origin)
            {
                let zero = match schema.get(other) {
                    Some(Value::Float(_)) => Value::from(0.0),
                    _ => Value::from(0),
                };
                self.values.insert(other.to_owned(), zero);
                self.origins.insert(other.to_owned(), origin.clone());
            }
            self.values.insert(key.clone(), value);
            self.origins.insert(key, origin);
        }
    }
}

/// All settings of the sources, without those of `base`.
struct Gathered {
    preset: String,
    of_preset: Vec<Setting>,
    /// Of the images, the first checkpoint, files, `--set` and flags, in the order in which later ones win.
    others: Vec<Setting>,
}

fn gather(sources: &Sources, n_settings: usize) -> Result<Gathered, ConfigError> {
    let mut preset = sources.preset.map(str::to_owned);
    let mut preset_is_of_whole = false;
    let mut others: Vec<Setting> = Vec::new();
    for (settings, origin) in
        [(sources.of_images, Origin::Images), (sources.of_checkpoint, Origin::Checkpoint)]
    {
        others.extend(settings.iter().map(|(key, value)| Setting {
            key: (*key).to_owned(),
            value: value.clone(),
            origin: origin.clone(),
        }));
    }
    for file in sources.files {
        let origin = Origin::File(file.name.clone());
        let mut table = parse(&origin, &file.text)?;
        let extends = take_extends(&mut table, &origin)?;
        let settings = settings(table, &origin);
        if let Some(name) = extends {
            // The config of a run has every setting: its preset says where they came from and no more.
            let is_whole = settings.len() >= n_settings;
            match &preset {
                Some(other) if *other != name && !is_whole && !preset_is_of_whole => {
                    let reason = format!("the preset is already `{other}`; choose one of the two");
                    return Err(ConfigError::Extends { origin, found: quoted(&name), reason });
                }
                Some(_) if is_whole => {}
                _ => (preset, preset_is_of_whole) = (Some(name), is_whole),
            }
        }
        others.extend(settings);
    }

    let preset = preset.unwrap_or_else(|| BASE.to_owned());
    let of_preset = preset_settings(&preset)?;
    for argument in sources.sets {
        let setting = argument.split_once('=').filter(|(key, _)| !key.trim().is_empty());
        let Some((key, value)) = setting else {
            return Err(ConfigError::Set { argument: argument.clone() });
        };
        // What is not TOML is a string without quotes, such as --set data.dir=my pictures.
        let value = value.trim();
        let value = value.parse::<Value>().unwrap_or_else(|_| Value::from(value));
        let key = key.trim().to_owned();
        // A table behind the key of a setting is its value, one behind a section has its settings.
        match key.contains('.') {
            true => others.push(Setting { key, value, origin: Origin::Set }),
            false => others.extend(settings(Table::from_iter([(key, value)]), &Origin::Set)),
        }
    }
    for flag in sources.flags {
        let origin = Origin::Flag(flag.name.to_owned());
        others.push(Setting { key: flag.key.to_owned(), value: flag.value.clone(), origin });
    }
    Ok(Gathered { preset, of_preset, others })
}

/// Settings of a preset and of those that it extends, the farthest first, without those of `base`.
fn preset_settings(name: &str) -> Result<Vec<Setting>, ConfigError> {
    let mut chain = Vec::new();
    let mut next = name.to_owned();
    while next != BASE {
        let origin = Origin::Preset(next.clone());
        let mut table = parse(&origin, preset_text(&next)?)?;
        next = take_extends(&mut table, &origin)?.unwrap_or_else(|| BASE.to_owned());
        if chain.len() > preset_names().count() {
            let reason = "presets extend each other in a circle".to_owned();
            return Err(ConfigError::Extends { origin, found: quoted(&next), reason });
        }
        chain.push(settings(table, &origin));
    }
    Ok(chain.into_iter().rev().flatten().collect())
}

fn parse(origin: &Origin, text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|error| syntax(origin, text, &error))
}

fn syntax(origin: &Origin, text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |span| span.start);
    let before = text.get(..offset).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    ConfigError::Syntax {
        origin: origin.clone(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message: error.message().to_owned(),
    }
}

fn take_extends(table: &mut Table, origin: &Origin) -> Result<Option<String>, ConfigError> {
    match table.remove("extends") {
        None => Ok(None),
        Some(Value::String(name)) => Ok(Some(name)),
        Some(other) => Err(ConfigError::Extends {
            origin: origin.clone(),
            found: other.to_string(),
            reason: "expected a preset's name, such as \"bn-x5\"".to_owned(),
        }),
    }
}

/// Takes a document apart. Settings lie exactly one section deep, so whatever is nested deeper
/// stays whole and fails the check of its key or type; the recursion that a hostile document asks
/// for does not take place.
fn settings(table: Table, origin: &Origin) -> Vec<Setting> {
    let setting = |key, value| Setting { key, value, origin: origin.clone() };
    let mut settings = Vec::new();
    for (section, value) in table {
        match value {
            Value::Table(fields) => settings.extend(
                fields
                    .into_iter()
                    .map(|(field, value)| setting(format!("{section}.{field}"), value)),
            ),
            value => settings.push(setting(section, value)),
        }
    }
    settings
}

fn check_setting(
    schema: &BTreeMap<String, Value>,
    key: &str,
    value: &Value,
    origin: &Origin,
) -> Option<Problem> {
    let Some(example) = schema.get(key) else {
        let mut sections = schema.keys().filter_map(|known| known.split('.').next());
        if sections.any(|section| section == key) {
            let (found, origin) = (value.to_string(), origin.clone());
            let expected = format!("a section, `[{key}]`");
            return Some(Problem::Value { key: key.to_owned(), found, origin, expected });
        }
        let (key, origin) = (key.to_owned(), origin.clone());
        let nearest = nearest_key(schema, &key);
        return Some(Problem::UnknownKey { key, origin, nearest });
    };
    let expected = mismatch(schema, key, example, value)?;
    let (key, found, origin) = (key.to_owned(), value.to_string(), origin.clone());
    Some(Problem::Value { key, found, origin, expected })
}

/// The type that `value` should have, if it has another; `example` is the value in `base.toml`.
fn mismatch(
    schema: &BTreeMap<String, Value>,
    key: &str,
    example: &Value,
    value: &Value,
) -> Option<String> {
    let is_number = |value: &Value| matches!(value, Value::Integer(_) | Value::Float(_));
    match (example, value) {
        (Value::Boolean(_), Value::Boolean(_)) => None,
        (Value::Boolean(_), _) => Some("true or false".to_owned()),
        (Value::Integer(_), Value::Integer(n)) if *n >= 0 => None,
        (Value::Integer(_), _) => Some("a whole number, 0 or more".to_owned()),
        (Value::Float(_), value) if is_number(value) => None,
        (Value::Float(_), _) => Some("a number".to_owned()),
        // The lists of names are empty in `base.toml`, those of numbers are not.
        (Value::Array(example), Value::Array(value))
            if example.is_empty() && value.iter().all(Value::is_str) =>
        {
            None
        }
        (Value::Array(example), _) if example.is_empty() => {
            Some("a list of names, each in quotes".to_owned())
        }
        (Value::Array(example), Value::Array(value))
            if value.len() == example.len() && value.iter().all(is_number) =>
        {
            None
        }
        (Value::Array(example), _) => Some(format!("a list of {} numbers", example.len())),
        (_, Value::String(_) | Value::Table(_)) => {
            // One setting may be a table in place of a string.
            let choices = |value: &Value| {
                let message = refusal(schema, key, value)?;
                let choices =
                    message.rsplit_once("expected ").map(|(_, choices)| choices.to_owned());
                Some(choices.unwrap_or(message))
            };
            let refused = choices(value)?;
            match value {
                Value::String(_) => Some(refused),
                // What is wrong inside a table is told as for a word that is no choice.
                _ if choices(&Value::Table(Table::new())).is_none() => choices(&Value::from("")),
                _ => Some("a string, in quotes".to_owned()),
            }
        }
        // A choice that was one of two once is still read as such.
        (_, Value::Boolean(_)) if refusal(schema, key, value).is_none() => None,
        (_, _) => Some("a string, in quotes".to_owned()),
    }
}

/// What serde says against `value`, if anything: some strings are free, some name a choice, and it knows
/// which, and the choices.
fn refusal(schema: &BTreeMap<String, Value>, key: &str, value: &Value) -> Option<String> {
    let mut probe = schema.clone();
    probe.insert(key.to_owned(), value.clone());
    Some(deserialize(&probe).err()?.message().to_owned())
}

/// Two settings that say one thing in two ways, such as the length of a run in epochs or in steps: one of
/// them is 0.
const ALTERNATIVES: [[&str; 2]; 3] = [
    ["train.epochs", "train.steps"],
    ["train.ema", "train.ema_epochs"],
    ["schedule.warmup_epochs", "schedule.warmup_fraction"],
];

/// A source that gives one of two alternatives takes back what an earlier source said of the other, whose
/// key is returned.
fn alternative(key: &str, value: &Value) -> Option<&'static str> {
    let is_zero = value.as_integer() == Some(0) || value.as_float() == Some(0.0);
    let other = ALTERNATIVES.iter().find_map(|&[a, b]| match key {
        _ if key == a => Some(b),
        _ if key == b => Some(a),
        _ => None,
    });
    other.filter(|_| !is_zero)
}

/// Flags stand beside each other on one command line, so none of them is the later one.
fn same_source(a: &Origin, b: &Origin) -> bool {
    a == b || matches!((a, b), (Origin::Flag(_), Origin::Flag(_)))
}

fn deserialize(values: &BTreeMap<String, Value>) -> Result<Config, toml::de::Error> {
    let mut sections = Table::new();
    for (key, value) in values {
        let (section, field) = key.split_once('.').unwrap_or((key, ""));
        let fields = sections.entry(section).or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(fields) = fields {
            fields.insert(field.to_owned(), value.clone());
        }
    }
    Config::deserialize(sections)
}

/// The same field in another section, if there is one: `train.lr` is meant as `optimizer.lr`. Else
/// the key whose letters are nearest.
fn nearest_key(schema: &BTreeMap<String, Value>, key: &str) -> String {
    let field = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let same_field = schema.keys().find(|known| field(known) == field(key));
    let known = schema.keys().map(String::as_str);
    same_field.cloned().unwrap_or_else(|| nearest(key, known).to_owned())
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

impl Change {
    /// `config` with this one setting changed; `None` if it is not valid so.
    pub fn applied_to(&self, config: &Config) -> Option<Config> {
        let text = config.to_toml().ok()?;
        let files = [ConfigFile { name: String::new(), text }];
        let sets = [format!("{}={}", self.key, self.new)];
        let resolved = resolve(&Sources { files: &files, sets: &sets, ..Sources::default() });
        Some(resolved.ok()?.config)
    }
}
