//! The files of `configs/`, embedded in the binary.

use super::error::ConfigError;

/// A named config.
#[derive(Clone, Copy, Debug)]
struct Preset {
    name: &'static str,
    text: &'static str,
}

/// The preset that holds every setting and that all others extend.
pub const BASE: &str = "base";

macro_rules! preset {
    ($name:literal) => {
        Preset { name: $name, text: include_str!(concat!("../../../../configs/", $name, ".toml")) }
    };
}

/// In the order in which the paper introduces them.
const PRESETS: [Preset; 12] = [
    preset!("base"),
    preset!("inception"),
    preset!("bn-baseline"),
    preset!("bn-x5"),
    preset!("bn-x30"),
    preset!("bn-x5-sigmoid"),
    preset!("googlenet"),
    preset!("small"),
    preset!("modern"),
    preset!("finetune"),
    preset!("demo"),
    preset!("smoke"),
];

/// Names of all presets: `base`, the paper's five, `googlenet`, then our own.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|preset| preset.name)
}

/// TOML text of a preset, comments included.
///
/// # Errors
/// No preset has that name.
pub fn preset_text(name: &str) -> Result<&'static str, ConfigError> {
    match PRESETS.iter().find(|preset| preset.name == name) {
        Some(preset) => Ok(preset.text),
        None => Err(ConfigError::UnknownPreset {
            name: name.to_owned(),
            nearest: nearest(name, preset_names()).to_owned(),
            known: preset_names().collect::<Vec<_>>().join(", "),
        }),
    }
}

/// What a preset is for: the first line of its comment.
///
/// # Errors
/// No preset has that name.
pub fn preset_title(name: &str) -> Result<&'static str, ConfigError> {
    let first = preset_text(name)?.lines().next().unwrap_or_default();
    Ok(first.trim_start_matches(['#', ' ']))
}

/// The candidate most like `name`; `candidates` is not empty.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> &'a str {
    // Likeness takes time in proportion to the length, and no name of ours is so long.
    let name: String = name.chars().take(100).collect();
    let likeness = |candidate: &&str| strsim::jaro_winkler(&name, candidate);
    candidates.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or_default()
}
