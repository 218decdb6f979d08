//! What a released binary is made of: the packages whose code is in it, and the files that it carries.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::shell::{output_of_cargo, root};

/// A package whose code is in the binary.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// As the package says it: an SPDX expression, or one with `/` for `OR`.
    pub(crate) license: String,
    pub(crate) repository: Option<String>,
    /// Its folder in the registry's sources, or in this tree.
    pub(crate) dir: PathBuf,
    /// The file that `license-file` names.
    pub(crate) license_file: Option<PathBuf>,
    /// The SHA-256 of its archive in the registry, in hexadecimal; `None` for our own.
    pub(crate) checksum: Option<String>,
    /// The shipped packages that it uses, as `name version`.
    pub(crate) dependencies: BTreeSet<String>,
}

impl Package {
    /// `name version`, which is unique among the shipped.
    pub(crate) fn key(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    /// Whether it is one of this tree.
    pub(crate) fn is_own(&self) -> bool {
        self.checksum.is_none()
    }
}

/// A file that the binary carries, or that stands in a page which it writes, and that others have made.
pub(crate) struct Asset {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// An SPDX expression.
    pub(crate) license: &'static str,
    pub(crate) url: &'static str,
    /// Its files, from the root of the tree.
    pub(crate) files: &'static [&'static str],
    /// The text of its licence, from the root of the tree.
    pub(crate) license_file: &'static str,
}

/// All of them. A test refuses a file in a folder `assets` that is neither here nor in `OWN_ASSETS`.
pub(crate) const ASSETS: &[Asset] = &[
    Asset {
        name: "DejaVu Sans (subset)",
        version: "2.35",
        license: "Bitstream-Vera AND LicenseRef-Arev",
        url: "https://dejavu-fonts.github.io",
        files: &["crates/trainer/assets/DejaVuSans-subset.ttf"],
        license_file: "crates/trainer/assets/DejaVuSans-LICENSE.txt",
    },
    Asset {
        name: "uPlot",
        version: "1.6.32",
        license: "MIT",
        url: "https://github.com/leeoniya/uPlot",
        files: &[
            "crates/trainer/src/page/assets/uplot.min.css",
            "crates/trainer/src/page/assets/uplot.min.js",
        ],
        license_file: "crates/trainer/src/page/assets/uplot-LICENSE.txt",
    },
];

/// Files in those folders that this project has made.
#[cfg(test)]
const OWN_ASSETS: [&str; 4] = [
    "crates/trainer/src/dashboard/assets/dashboard.js",
    "crates/trainer/src/page/assets/charts.js",
    "crates/trainer/src/page/assets/style.css",
    "crates/trainer/src/page/assets/tables.js",
];

/// The packages in the binary of `target`, with the features that it has unless told otherwise, by name and
/// version. What runs at build time only, such as macros, is not among them.
///
/// # Errors
/// cargo's; a package without a licence.
pub(crate) fn packages(target: &str) -> Result<Vec<Package>, String> {
    let keys = keys_in_tree(&output_of_cargo(&[
        "tree",
        "--locked",
        "--package",
        "bninception",
        "--edges",
        "normal,no-proc-macro",
        "--target",
        target,
        "--prefix",
        "none",
        "--format",
        "{p}",
    ])?);
    let metadata = ["metadata", "--locked", "--format-version", "1", "--filter-platform", target];
    let metadata: Value = serde_json::from_str(&output_of_cargo(&metadata)?)
        .map_err(|error| format!("cargo metadata: {error}"))?;
    let found = describe(&metadata, &checksums()?)?;
    let mut packages = Vec::new();
    for key in &keys {
        let package = found.get(key).ok_or_else(|| format!("cargo metadata lacks {key}"))?;
        let dependencies = package.dependencies.intersection(&keys).cloned().collect();
        packages.push(Package { dependencies, ..package.clone() });
    }
    Ok(packages)
}

/// All packages of `cargo metadata`
/// (<https://doc.rust-lang.org/cargo/commands/cargo-metadata.html#json-format>), by their keys.
fn describe(
    metadata: &Value,
    checksums: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Package>, String> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
    let mut key_of: BTreeMap<String, String> = BTreeMap::new();
    let mut found: BTreeMap<String, Package> = BTreeMap::new();
    for package in list(metadata, "packages") {
        let needed = |key: &str| {
            text(&package, key)
                .ok_or_else(|| format!("cargo metadata: a package without {key}: {package}"))
        };
        let (name, version) = (needed("name")?, needed("version")?);
        let key = format!("{name} {version}");
        let manifest = PathBuf::from(needed("manifest_path")?);
        let dir = manifest.parent().unwrap_or(&manifest).to_owned();
        let license_file = text(&package, "license_file");
        let license =
            text(&package, "license").or_else(|| Some(format!("see {}", license_file.clone()?)));
        let license = license.ok_or_else(|| format!("{key} names no licence"))?;
        key_of.insert(needed("id")?, key.clone());
        let package = Package {
            name,
            version,
            license,
            repository: text(&package, "repository"),
            license_file: license_file.map(|file| dir.join(file)),
            dir,
            checksum: checksums.get(&key).cloned(),
            dependencies: BTreeSet::new(),
        };
        found.insert(key, package);
    }
    for node in list(&metadata["resolve"], "nodes") {
        let is_normal =
            |edge: &Value| list(edge, "dep_kinds").iter().any(|kind| kind["kind"].is_null());
        let used = list(&node, "deps").into_iter().filter(is_normal);
        let used = used.filter_map(|edge| key_of.get(edge["pkg"].as_str()?).cloned()).collect();
        let user = node["id"].as_str().and_then(|id| found.get_mut(key_of.get(id)?));
        user.ok_or_else(|| format!("cargo metadata: an unknown package: {}", node["id"]))?
            .dependencies = used;
    }
    Ok(found)
}

/// `name version` of the lines of `cargo tree --prefix none --format {p}`, each of which is
/// `name vVERSION`, with a folder or marks behind it.
fn keys_in_tree(tree: &str) -> BTreeSet<String> {
    let key = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next()?, words.next()?);
        Some(format!("{name} {}", version.strip_prefix('v')?))
    };
    tree.lines().filter_map(key).collect()
}

/// The checksums in `Cargo.lock`, by name and version.
fn checksums() -> Result<BTreeMap<String, String>, String> {
    let path = root().join("Cargo.lock");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lock: toml::Table = text.parse().map_err(|error| format!("{}: {error}", path.display()))?;
    let packages = lock.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    let checksum = |package: &toml::Value| {
        let of = |key: &str| Some(package.get(key)?.as_str()?.to_owned());
        Some((format!("{} {}", of("name")?, of("version")?), of("checksum")?))
    };
    Ok(packages.filter_map(checksum).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::output_of;

    #[test]
    fn the_lines_of_cargo_tree() {
        let tree =
            "bninception v0.1.0 (/a folder/crates/trainer)\nserde v1.0.2\nserde v1.0.2 (*)\n\n";
        let keys: Vec<String> = keys_in_tree(tree).into_iter().collect();
        assert_eq!(keys, ["bninception 0.1.0", "serde 1.0.2"]);
    }

    #[test]
    fn the_binary_of_this_machine() {
        let packages = packages(&crate::release::host().unwrap()).unwrap();
        let own: Vec<&str> =
            packages.iter().filter(|package| package.is_own()).map(|p| p.name.as_str()).collect();
        assert_eq!(own.len(), 7, "{own:?}");
        let of = |name: &str| packages.iter().find(|package| package.name == name);
        let trainer = of("bninception").unwrap();
        assert!(trainer.dependencies.iter().any(|key| key.starts_with("candle-core ")));
        // Macros, what only tests use, and what a feature brings that is off.
        for absent in ["thiserror-impl", "rten", "candle-datasets", "xtask", "cc"] {
            assert!(of(absent).is_none(), "{absent}");
        }
        let third = packages.iter().filter(|package| !package.is_own());
        assert!(third.clone().count() > 50);
        for package in third {
            assert_eq!(package.checksum.as_ref().unwrap().len(), 64, "{package:?}");
        }
    }

    #[test]
    fn every_file_that_the_program_carries_is_named() {
        let others = ASSETS.iter().flat_map(|asset| [asset.files, &[asset.license_file]].concat());
        let known: BTreeSet<&str> = others.chain(OWN_ASSETS).collect();
        let listed = output_of("git", &["ls-files", "crates"]).unwrap();
        let found: BTreeSet<&str> =
            listed.lines().filter(|path| path.contains("/assets/")).collect();
        assert_eq!(
            found, known,
            "name what others have made, and its licence, in ASSETS, and our own in OWN_ASSETS"
        );
    }
}
