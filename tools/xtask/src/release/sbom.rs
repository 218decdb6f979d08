//! The bill of materials of a binary, in CycloneDX's JSON (<https://cyclonedx.org/docs/1.5/json/>).

use serde_json::{Value, json};

use super::archive::sha256;
use super::shipped::{Asset, Package};
use super::source_date::SourceDate;
use crate::shell::root;

/// The document for the binary made of these packages and files; the first of `packages` with the name
/// `bninception` is the binary itself.
///
/// # Errors
/// No such package; a file that cannot be read.
pub(crate) fn bill_of_materials(
    packages: &[Package],
    assets: &[Asset],
    date: SourceDate,
) -> Result<Value, String> {
    let main = packages.iter().find(|package| package.name == "bninception");
    let main = main.ok_or("no package bninception is in the binary")?;
    let others = packages.iter().filter(|package| package.name != main.name);
    let mut components: Vec<Value> = others.map(component).collect();
    for one in assets {
        components.push(asset(one)?);
    }
    let dependencies: Vec<Value> = packages
        .iter()
        .map(|package| json!({ "ref": package.key(), "dependsOn": package.dependencies }))
        .collect();
    let mut binary = component(main);
    binary["type"] = "application".into();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "timestamp": date.to_rfc3339(), "component": binary },
        "components": components,
        "dependencies": dependencies,
    }))
}

fn component(package: &Package) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": package.key(),
        "name": package.name,
        "version": package.version,
        "licenses": [{ "expression": expression(&package.license) }],
    });
    // Our own are in no registry.
    if let Some(checksum) = &package.checksum {
        component["purl"] =
            format!("pkg:cargo/{}@{}", package.name, purl_version(&package.version)).into();
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    if let Some(url) = &package.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": url }]);
    }
    component
}

fn asset(asset: &Asset) -> Result<Value, String> {
    let mut files = Vec::new();
    for path in asset.files {
        let hash = json!({ "alg": "SHA-256", "content": sha256(&root().join(path))? });
        files.push(json!({ "type": "file", "name": path, "hashes": [hash] }));
    }
    Ok(json!({
        "type": "library",
        "bom-ref": format!("{} {}", asset.name, asset.version),
        "name": asset.name,
        "version": asset.version,
        "licenses": [{ "expression": asset.license }],
        "externalReferences": [{ "type": "website", "url": asset.url }],
        "components": files,
    }))
}

/// Old packages write `MIT/Apache-2.0` for `MIT OR Apache-2.0`
/// (<https://doc.rust-lang.org/cargo/reference/manifest.html#the-license-and-license-file-fields>).
fn expression(license: &str) -> String {
    license.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
}

/// A `+` stands for a blank in a URL
/// (<https://github.com/package-url/purl-spec/blob/main/PURL-SPECIFICATION.rst>).
fn purl_version(version: &str) -> String {
    version.replace('+', "%2B")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::shipped::{ASSETS, packages};
    use super::*;

    #[test]
    fn all_that_is_in_the_binary_and_nothing_twice() {
        let packages = packages(&crate::release::host().unwrap()).unwrap();
        let bill = bill_of_materials(&packages, ASSETS, SourceDate::from_seconds(0)).unwrap();
        assert_eq!(bill["metadata"]["timestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(bill["metadata"]["component"]["name"], "bninception");
        let components = bill["components"].as_array().unwrap();
        assert_eq!(components.len(), packages.len() - 1 + ASSETS.len());
        let known: BTreeSet<&str> =
            components.iter().map(|component| component["bom-ref"].as_str().unwrap()).collect();
        assert_eq!(known.len(), components.len());
        for node in bill["dependencies"].as_array().unwrap() {
            for used in node["dependsOn"].as_array().unwrap() {
                assert!(known.contains(used.as_str().unwrap()), "{used} is no component");
            }
        }
        let half = components.iter().find(|component| component["name"] == "half").unwrap();
        let purl = half["purl"].as_str().unwrap();
        assert_eq!(purl, format!("pkg:cargo/half@{}", half["version"].as_str().unwrap()));
        assert_eq!(half["hashes"][0]["content"].as_str().unwrap().len(), 64);
        assert_eq!(half["licenses"][0]["expression"], "MIT OR Apache-2.0");
    }

    #[test]
    fn licences_and_versions_as_the_form_has_them() {
        for (license, expected) in [
            ("MIT", "MIT"),
            ("MIT/Apache-2.0", "MIT OR Apache-2.0"),
            ("Apache-2.0 / MIT", "Apache-2.0 OR MIT"),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", "(MIT OR Apache-2.0) AND Unicode-3.0"),
        ] {
            assert_eq!(expression(license), expected);
        }
        assert_eq!(purl_version("1.2.1+spec-1.1.0"), "1.2.1%2Bspec-1.1.0");
    }
}
