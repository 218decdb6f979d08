//! `cargo xtask release`: the binary of this machine's target in an archive, with licences, manual and
//! checksums.

mod archive;
mod binary;
mod licenses;
mod sbom;
mod shipped;
mod source_date;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use archive::Entry;
use source_date::SourceDate;

use crate::deny::{self, Advisories};
use crate::shell::{Outcome, cargo_with, output_of, output_of_cargo, root, say};

/// Files of the tree that an archive has, by their paths in both.
const FROM_TREE: [&str; 6] = [
    "README.md",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "docs/guide.md",
    "docs/install.md",
];

/// Shells that `bninception completions` writes for.
const SHELLS: [&str; 3] = ["bash", "fish", "zsh"];

/// The page about the licences of Rust's standard library, which is in every binary: in the compiler's folder.
const STANDARD_LIBRARY: &str = "share/doc/rust/COPYRIGHT-library.html";

/// Builds, packs and tries a release. `arguments` can have `--dirty`, for a tree with changes that are in no
/// commit, and `--out DIR`.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let options = Options::parse(arguments)?;
    if !options.is_dirty && !output_of("git", &["status", "--porcelain"])?.is_empty() {
        return Err("the tree has changes that are in no commit: commit them, or try a release with --dirty".to_owned());
    }
    let (target, version, date) = (host()?, version()?, SourceDate::find()?);
    let name = format!("bninception-{version}-{target}");
    deny::check(Advisories::Refuse)?;

    // Errors of what comes into the archive are found before the minutes of the build.
    let packages = shipped::packages(&target)?;
    let licenses = licenses::third_party_page(&packages, shipped::ASSETS)?;
    let bill = sbom::bill_of_materials(&packages, shipped::ASSETS, date)?;
    let bill = serde_json::to_string_pretty(&bill).map_err(|error| error.to_string())? + "\n";
    let page = sysroot()?.join(STANDARD_LIBRARY);
    let standard_library = fs::read(&page).map_err(|error| {
        format!(
            "{}: {error}; the standard library's licences come with `rustup toolchain install`",
            page.display()
        )
    })?;

    let built = build(date)?;
    let program = fs::read(&built).map_err(|error| format!("{}: {error}", built.display()))?;
    if let Some(path) = binary::path_within(&program, &private_paths()?) {
        return Err(format!(
            "{} tells where it was built: it has {}",
            built.display(),
            path.display()
        ));
    }

    let text = |path: &str, text: String| Entry {
        path: path.to_owned(),
        content: text.into_bytes(),
        is_executable: false,
    };
    let mut entries =
        vec![text("THIRD-PARTY-LICENSES", licenses), text("sbom.cdx.json", bill.clone())];
    for path in FROM_TREE {
        let content = fs::read(root().join(path)).map_err(|error| format!("{path}: {error}"))?;
        entries.push(Entry { path: path.to_owned(), content, is_executable: false });
    }
    for shell in SHELLS {
        let script = output_of_binary(&built, root(), &["completions", shell])?;
        entries.push(text(&format!("completions/bninception.{shell}"), script));
    }
    entries.extend(manual(&built)?);
    let path = "RUST-STANDARD-LIBRARY.html".to_owned();
    entries.push(Entry { path, content: standard_library, is_executable: false });
    entries.push(Entry { path: "bninception".to_owned(), content: program, is_executable: true });

    let out = options.out;
    fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let packed = out.join(format!("{name}.tar.gz"));
    archive::write(&packed, &name, entries, date)?;
    let beside = out.join(format!("{name}.cdx.json"));
    fs::write(&beside, bill).map_err(|error| format!("{}: {error}", beside.display()))?;
    archive::write_checksums(&out, &[packed.clone(), beside])?;

    try_out(&packed, &name, &version)?;
    say(&format!(
        "{}, {} bytes",
        packed.display(),
        fs::metadata(&packed).map_or(0, |file| file.len())
    ));
    match binary::glibc(&fs::read(&built).map_err(|error| error.to_string())?) {
        Some((major, minor)) => say(&format!("it needs glibc {major}.{minor} or newer")),
        None => say("it needs no glibc"),
    }
    Ok(())
}

/// What the command line says.
struct Options {
    is_dirty: bool,
    out: PathBuf,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Options, String> {
        let mut options = Options { is_dirty: false, out: root().join("target/releases") };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match (argument.as_str(), argument.as_str() == "--out") {
                ("--dirty", _) => options.is_dirty = true,
                (_, true) => {
                    let dir = arguments.next().ok_or("--out needs a folder")?;
                    options.out = env::current_dir().map_err(|error| error.to_string())?.join(dir);
                }
                _ => {
                    return Err(format!(
                        "{argument}: usage: cargo xtask release [--dirty] [--out DIR]"
                    ));
                }
            }
        }
        Ok(options)
    }
}

/// The target that the compiler makes programs for here, such as `x86_64-unknown-linux-gnu`.
///
/// # Errors
/// The compiler's.
pub(crate) fn host() -> Result<String, String> {
    let text = output_of(&compiler(), &["-vV"])?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| format!("rustc -vV tells no host:\n{text}"))
}

fn sysroot() -> Result<PathBuf, String> {
    Ok(output_of(&compiler(), &["--print", "sysroot"])?.trim().into())
}

fn compiler() -> String {
    env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned())
}

/// The version of the program.
fn version() -> Result<String, String> {
    let id = output_of_cargo(&["pkgid", "--package", "bninception"])?;
    let version = id
        .trim()
        .rsplit(['#', '@'])
        .next()
        .filter(|part| part.starts_with(|c: char| c.is_ascii_digit()));
    version.map(str::to_owned).ok_or_else(|| format!("cargo pkgid: {id:?} has no version"))
}

/// Builds the binary with names in the place of this machine's paths, and gives its path.
fn build(date: SourceDate) -> Result<PathBuf, String> {
    let mut flags = Vec::new();
    for (path, name) in renamed_paths()? {
        flags.push(format!("--remap-path-prefix={}={name}", path.display()));
    }
    // The separator that cargo asks for: paths can have blanks.
    let flags = flags.join("\x1f");
    let c_flags: Vec<String> = renamed_paths()?
        .iter()
        .map(|(path, name)| format!("-ffile-prefix-map={}={name}", path.display()))
        .collect();
    let seconds = date.seconds().to_string();
    cargo_with(
        &["build", "--locked", "--profile", "dist", "--package", "bninception"],
        &[
            ("CARGO_ENCODED_RUSTFLAGS", &flags),
            ("CFLAGS", &c_flags.join(" ")),
            ("CARGO_INCREMENTAL", "0"),
            ("SOURCE_DATE_EPOCH", &seconds),
        ],
    )?;
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("dist").join(format!("bninception{}", env::consts::EXE_SUFFIX)))
}

/// Folders of this machine, and the names that stand for them in a binary. The last that fits is taken.
fn renamed_paths() -> Result<Vec<(PathBuf, &'static str)>, String> {
    Ok(vec![(cargo_home()?, "/cargo"), (sysroot()?, "/rust"), (root().to_owned(), "/bninception")])
}

/// Paths that no binary may have.
fn private_paths() -> Result<Vec<PathBuf>, String> {
    let mut paths: Vec<PathBuf> = renamed_paths()?.into_iter().map(|(path, _)| path).collect();
    // `/` is in every program, and the home of a system's account is no secret.
    let home = env::var_os("HOME").map(PathBuf::from);
    paths.extend(home.filter(|home| home.components().count() > 2));
    Ok(paths)
}

fn cargo_home() -> Result<PathBuf, String> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = env::var_os("HOME").ok_or("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

/// The pages of the manual, if the program writes them.
fn manual(program: &Path) -> Result<Vec<Entry>, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let help = output_of_binary(program, dir.path(), &["--help"])?;
    if !help.lines().any(|line| line.trim_start().starts_with("man ")) {
        say("the program writes no pages of a manual");
        return Ok(Vec::new());
    }
    output_of_binary(program, dir.path(), &["man", "pages"])?;
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir.path().join("pages")).map_err(|error| format!("man: {error}"))? {
        let path = entry.map_err(|error| format!("man: {error}"))?.path();
        let content = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        entries.push(Entry { path: format!("man/man1/{name}"), content, is_executable: false });
    }
    Ok(entries)
}

/// Unpacks the archive elsewhere, asks the program for its version and lets it train two steps.
fn try_out(packed: &Path, name: &str, version: &str) -> Outcome {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    archive::unpack(packed, dir.path())?;
    let program = dir.path().join(name).join(format!("bninception{}", env::consts::EXE_SUFFIX));
    let said = output_of_binary(&program, dir.path(), &["--version"])?;
    if said.trim() != format!("bninception {version}") {
        return Err(format!("the program in {} calls itself {said:?}", packed.display()));
    }
    let train = ["train", "--preset", "smoke", "--steps", "2", "--run-dir", "run"];
    let said = output_of_binary(&program, dir.path(), &train)?;
    say(&format!("unpacked, it trains: {}", said.lines().next().unwrap_or_default()));
    Ok(())
}

/// What the program writes to stdout, run in `dir`.
fn output_of_binary(program: &Path, dir: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).current_dir(dir).output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "bninception {} ended with {}:\n{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_command_line_says() {
        let parse = |arguments: &[&str]| {
            Options::parse(&arguments.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        let plain = parse(&[]).unwrap();
        assert!(!plain.is_dirty && plain.out.ends_with("target/releases"));
        let both = parse(&["--out", "/somewhere", "--dirty"]).unwrap();
        assert!(both.is_dirty && both.out == Path::new("/somewhere"));
        for (wrong, part) in [(&["--out"][..], "--out needs"), (&["--now"], "--now: usage")] {
            assert!(parse(wrong).err().unwrap().contains(part));
        }
    }

    #[test]
    fn the_name_of_an_archive_can_be_told() {
        assert_eq!(version().unwrap(), env!("CARGO_PKG_VERSION"));
        assert!(host().unwrap().split('-').count() >= 3);
        assert!(SourceDate::find().unwrap().to_rfc3339().ends_with('Z'));
    }

    #[test]
    fn the_files_of_an_archive_are_there() {
        for path in FROM_TREE {
            assert!(root().join(path).is_file(), "{path}");
        }
    }
}
