//! Where a setting's value comes from.

use std::fmt;

/// Where a setting's value comes from, in the order in which later ones win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `configs/base.toml`.
    Base,
    /// The preset of that name.
    Preset(String),
    /// The size and the number of the images.
    Images,
    /// The checkpoint that the run begins with.
    Checkpoint,
    /// Whoever started the processes of the run.
    Launcher,
    /// The file of that name, given with `-c`.
    File(String),
    /// `--set key=value`.
    Set,
    /// The command-line flag of that name, such as `--lr`.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Base => write!(f, "base"),
            Origin::Preset(name) => write!(f, "preset {name}"),
            Origin::Images => write!(f, "the images"),
            Origin::Checkpoint => write!(f, "the first checkpoint"),
            Origin::Launcher => write!(f, "the launcher"),
            Origin::File(name) => write!(f, "file {name}"),
            Origin::Set => write!(f, "--set"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}
