//! Where a run's settings come from: a preset, and what was changed in it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::diff::Change;
use super::origin::Origin;
use super::presets::preset_names;

/// The preset that settings begin with, and every setting that has another value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The preset's name; empty if it is not known.
    pub preset: String,
    /// What changed a setting, by its key: `the images`, `the first checkpoint`, `file NAME`, `--set` or
    /// `flag --NAME`.
    pub changed: BTreeMap<String, String>,
}

impl Recipe {
    /// The recipe of settings that differ from those of `preset` by `changes`, with their origins.
    pub fn new(preset: &str, changes: &[Change], origins: &BTreeMap<String, Origin>) -> Recipe {
        let source = |key: &str| origins.get(key).unwrap_or(&Origin::Base).to_string();
        let changed = changes.iter().map(|change| (change.key.clone(), source(&change.key)));
        Recipe { preset: preset.to_owned(), changed: changed.collect() }
    }

    /// This recipe of a run that goes on: what came from `file`, which held the run's settings, came
    /// from where `stored` says.
    pub fn continuing(mut self, stored: &Recipe, file: &str) -> Recipe {
        let from_file = Origin::File(file.to_owned()).to_string();
        for (key, source) in &mut self.changed {
            if *source == from_file {
                source.clone_from(stored.changed.get(key).unwrap_or(&from_file));
            }
        }
        if stored.is_unknown() {
            self.preset.clear();
        }
        self
    }

    /// The recipe as the head of a config file: what it extends, and in a comment what was changed.
    pub fn to_toml_head(&self) -> String {
        // A preset of another version of the program may be gone; the settings are whole without it.
        if !preset_names().any(|name| name == self.preset) {
            return String::new();
        }
        format!("# recipe: {}\nextends = \"{}\"\n\n", one_line(self), self.preset)
    }

    /// Whether nothing is known of it: the run is older than recipes.
    pub fn is_unknown(&self) -> bool {
        self.preset.is_empty()
    }
}

/// `bn-x5; file mine.toml: optimizer.lr; flag --epochs: train.epochs, train.steps`
impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", if self.is_unknown() { "unknown" } else { &self.preset })?;
        let mut by_source: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, source) in &self.changed {
            by_source.entry(source).or_default().push(key);
        }
        for (source, keys) in by_source {
            write!(f, "; {source}: {}", keys.join(", "))?;
        }
        Ok(())
    }
}

/// A text for a comment, which ends with its line: a file may have any name.
pub(super) fn one_line(text: &impl fmt::Display) -> String {
    text.to_string().replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Flag, Sources, resolve};

    #[test]
    fn a_recipe_names_its_preset_and_what_is_not_of_it() {
        let file = ConfigFile {
            name: "mine.toml".to_owned(),
            text: "extends = \"bn-x5\"\n[optimizer]\nlr = 0.01\n[train]\nsteps = 100".to_owned(),
        };
        let flags = [Flag { name: "--epochs", key: "train.epochs", value: 3.into() }];
        let recipe = |preset, files: &[ConfigFile], flags: &[Flag]| {
            resolve(&Sources { preset, files, flags, ..Sources::default() }).unwrap().recipe
        };
        let table = [
            (recipe(None, &[], &[]), "base"),
            (recipe(Some("bn-x30"), &[], &[]), "bn-x30"),
            (
                recipe(None, std::slice::from_ref(&file), &[]),
                "bn-x5; file mine.toml: optimizer.lr, train.epochs, train.steps",
            ),
            (
                recipe(None, &[file], &flags),
                "bn-x5; file mine.toml: optimizer.lr; flag --epochs: train.epochs",
            ),
            (Recipe::default(), "unknown"),
        ];
        for (recipe, text) in table {
            assert_eq!(recipe.to_string(), text);
        }
    }

    #[test]
    fn a_run_that_goes_on_keeps_its_recipe() {
        let recipe = |preset: &str, changed: &[(&str, &str)]| Recipe {
            preset: preset.to_owned(),
            changed: changed
                .iter()
                .map(|&(key, source)| (key.to_owned(), source.to_owned()))
                .collect(),
        };
        let stored = recipe("bn-x5", &[("optimizer.lr", "--set"), ("data.dir", "flag --data-dir")]);
        let now = [
            ("optimizer.lr", "file run"),
            ("train.epochs", "flag --epochs"),
            ("data.dir", "file run"),
        ];
        let expected = [
            ("optimizer.lr", "--set"),
            ("train.epochs", "flag --epochs"),
            ("data.dir", "flag --data-dir"),
        ];
        assert_eq!(recipe("bn-x5", &now).continuing(&stored, "run"), recipe("bn-x5", &expected));
        // Of a run that is older than recipes nothing is known but what is given now.
        let old = recipe("base", &now).continuing(&Recipe::default(), "run");
        assert_eq!(old, recipe("", &now));
    }
}
