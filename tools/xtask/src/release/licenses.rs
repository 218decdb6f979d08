//! The texts of the licences of all that is in the binary, gathered from the packages themselves.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::shipped::{Asset, Package};
use crate::shell::root;

/// How the names of files begin that hold licences and notices, in small letters.
const NAMES: [&str; 7] =
    ["license", "licence", "licenses", "copying", "copyright", "notice", "unlicense"];

/// The page `THIRD-PARTY-LICENSES`: what is in the binary, and each text once, with those whose it is.
///
/// # Errors
/// A package without a text; a file that cannot be read.
pub(crate) fn third_party_page(packages: &[Package], assets: &[Asset]) -> Result<String, String> {
    let mut list = String::new();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages.iter().filter(|package| !package.is_own()) {
        let home = package.repository.as_deref().unwrap_or("");
        let _ = writeln!(list, "{}: {}  {home}", package.key(), package.license);
        for file in files_of(package, packages)? {
            add(&mut texts, &file, package.key())?;
        }
    }
    for Asset { name, version, license, url, license_file, .. } in assets {
        let _ = writeln!(list, "{name} {version}: {license}  {url}");
        add(&mut texts, &root().join(license_file), format!("{name} {version}"))?;
    }
    let mut page = format!(
        "bninception contains code and data of others. This is all of it, with the licences under which its\n\
         authors give it. Rust's standard library, which it contains as well, has a page of its own,\n\
         RUST-STANDARD-LIBRARY.html.\n\n{list}"
    );
    for (text, owners) in texts {
        let line = "=".repeat(80);
        let _ = write!(page, "\n{line}\n{}\n{line}\n\n{text}\n", owners.join("\n"));
    }
    Ok(page)
}

/// Adds the text of a file, which many packages have to the letter.
fn add(
    texts: &mut BTreeMap<String, Vec<String>>,
    file: &Path,
    owner: String,
) -> Result<(), String> {
    let bytes = fs::read(file).map_err(|error| format!("{owner}: {file:?}: {error}"))?;
    let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
    let text = text.trim_matches('\n').trim_end();
    if text.is_empty() {
        return Err(format!("{owner}: {file:?} is empty"));
    }
    let owners = texts.entry(text.to_owned()).or_default();
    // Two files of one package can be the same.
    if owners.last() != Some(&owner) {
        owners.push(owner);
    }
    Ok(())
}

/// The files with the licences of a package. Where its archive has none, those of another package from the same
/// repository under the same licence stand for them. If there is none either, and the package can be taken under
/// Apache-2.0, the text of that licence will do, which names nobody.
fn files_of(package: &Package, all: &[Package]) -> Result<Vec<PathBuf>, String> {
    let own = own_files(package)?;
    if !own.is_empty() {
        return Ok(own);
    }
    let home = |package: &Package| {
        package.repository.as_ref().map(|url| url.trim_end_matches('/').to_owned())
    };
    let is_sibling = |other: &&Package| {
        home(other).is_some() && home(other) == home(package) && other.license == package.license
    };
    for sibling in all.iter().filter(is_sibling) {
        let files = own_files(sibling)?;
        if !files.is_empty() {
            return Ok(files);
        }
    }
    if is_apache_a_choice(&package.license) {
        return Ok(vec![root().join("LICENSE-APACHE")]);
    }
    Err(format!(
        "{}: its archive has no text of its licence ({}), and no other package of its repository has one",
        package.key(),
        package.license
    ))
}

/// Whether a licence such as `MIT OR Apache-2.0` or `MIT/Apache-2.0` leaves the choice of Apache-2.0 alone.
fn is_apache_a_choice(license: &str) -> bool {
    let license = license.replace('/', " OR ");
    !license.contains(" AND ") && license.split(" OR ").any(|one| one.trim() == "Apache-2.0")
}

fn own_files(package: &Package) -> Result<Vec<PathBuf>, String> {
    let mut files: Vec<PathBuf> = package.license_file.iter().cloned().collect();
    let entries = |dir: &Path| {
        let entries = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        entries.map_err(|error| format!("{}: {dir:?}: {error}", package.key()))
    };
    for entry in entries(&package.dir)? {
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if !NAMES.iter().any(|start| is_named(&name, start)) {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            files.extend(
                entries(&path)?.into_iter().map(|entry| entry.path()).filter(|p| p.is_file()),
            );
        } else {
            files.push(path);
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

/// Whether `name` is `start` with an ending, such as `license-mit` and `license.txt`, but no `licensee.rs`.
fn is_named(name: &str, start: &str) -> bool {
    let rest = name.strip_prefix(start);
    rest.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric)) && !name.ends_with(".rs")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::shipped::{ASSETS, packages};
    use super::*;

    #[test]
    fn every_package_of_the_binary_has_its_texts() {
        let packages = packages(&crate::release::host().unwrap()).unwrap();
        let page = third_party_page(&packages, ASSETS).unwrap();
        let third = packages.iter().filter(|package| !package.is_own());
        for key in third
            .map(Package::key)
            .chain(ASSETS.iter().map(|a| format!("{} {}", a.name, a.version)))
        {
            // In the list, and above a text.
            assert!(page.contains(&format!("\n{key}: ")), "{key} is not listed");
            assert!(page.lines().any(|line| line == key), "{key} has no text");
        }
        assert!(page.contains("Permission is hereby granted, free of charge"));
        assert!(page.contains("Bitstream Vera") && page.contains("Leon Sorokin"));
        assert!(!page.contains("\nbninception 0"), "our own licences are files of their own");
    }

    fn package(dir: &Path, name: &str, repository: &str) -> Package {
        let dir = dir.join(name);
        fs::create_dir_all(&dir).unwrap();
        Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: "MIT".to_owned(),
            repository: Some(repository.to_owned()),
            dir,
            license_file: None,
            checksum: Some("0".repeat(64)),
            dependencies: BTreeSet::new(),
        }
    }

    #[test]
    fn a_package_without_a_text_takes_that_of_its_repository_or_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let with = package(dir.path(), "with", "https://a.example/one/");
        let beside = package(dir.path(), "beside", "https://a.example/one");
        let alone = package(dir.path(), "alone", "https://a.example/two");
        fs::write(with.dir.join("LICENSE-MIT"), "the words of with\r\n").unwrap();
        fs::write(alone.dir.join("licensee.rs"), "no licence").unwrap();

        let page = third_party_page(&[with, beside], &[]).unwrap();
        assert!(page.contains("\nwith 1.0.0\nbeside 1.0.0\n"), "{page}");
        assert!(page.ends_with("\n\nthe words of with\n"), "{page}");

        let error = third_party_page(std::slice::from_ref(&alone), &[]).unwrap_err();
        assert!(error.starts_with("alone 1.0.0: "), "{error}");
        let free = Package { license: "MIT/Apache-2.0".to_owned(), ..alone };
        let page = third_party_page(&[free], &[]).unwrap();
        assert!(page.contains("Apache License") && page.contains("\nalone 1.0.0\n"), "{page}");
    }

    #[test]
    fn a_file_of_no_words_is_no_text() {
        let dir = tempfile::tempdir().unwrap();
        let empty = package(dir.path(), "empty", "https://a.example/one");
        fs::write(empty.dir.join("COPYING"), "\n").unwrap();
        let error = third_party_page(&[empty], &[]).unwrap_err();
        assert!(error.contains("empty 1.0.0") && error.contains("is empty"), "{error}");
    }

    #[test]
    fn apache_alone_has_to_be_one_of_the_choices() {
        for (license, expected) in [
            ("MIT OR Apache-2.0", true),
            ("Apache-2.0 / MIT", true),
            ("Apache-2.0", true),
            ("MIT", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", false),
            ("Apache-2.0 WITH LLVM-exception OR MIT", false),
        ] {
            assert_eq!(is_apache_a_choice(license), expected, "{license}");
        }
    }

    #[test]
    fn names_of_licences() {
        for (name, expected) in [
            ("license", true),
            ("license-mit", true),
            ("license.txt", true),
            ("licence_apache", true),
            ("copying", true),
            ("unlicense", true),
            ("licenses", true),
            ("licensee.rs", false),
            ("license.rs", false),
            ("readme.md", false),
        ] {
            assert_eq!(NAMES.iter().any(|start| is_named(name, start)), expected, "{name}");
        }
    }
}
