//! How the files of a crate import each other: no circles, few arrows that run back up.
//!
//! An arrow from one file to another is an import: a `use`, or a path in the code, that leads to what the
//! other defines. It is followed through the `pub use`s of `lib.rs` and `mod.rs` to where a thing is
//! defined; that such a face hands on what lies in its folder is no import. Tests are left out.
//!
//! Arrows run back up where the entries of a folder, its files and folders, have no order in which each
//! imports those below only. They are the fewest without which there is one.

mod graph;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path as FilePath;

use graph::{Arrows, back_up, circles};
use source::{Path, Source};

/// Arrows of a crate that may run back up.
const MOST_BACK_UP: usize = 2;

/// Longest chain of `pub use`s that is followed.
const MOST_FACES: usize = 8;

/// The files of a crate and their arrows.
pub(crate) struct Structure {
    files: usize,
    lines: usize,
    /// The longest file, and its lines of code.
    longest: (String, usize),
    arrows: Arrows<String>,
}

/// A file, by its module.
struct File {
    /// Its path in `src`.
    name: String,
    source: Source,
}

impl Structure {
    /// Reads the files of a crate: for each its path in `src`, with `/` between folders, and its text.
    pub(crate) fn new(texts: &[(String, String)]) -> Structure {
        let read = |(name, text): &(String, String)| {
            let module = module_of(name);
            let source = Source::read(&module, text);
            (module, File { name: name.clone(), source })
        };
        let mut files: BTreeMap<Path, File> = texts.iter().map(read).collect();
        let for_tests: Vec<Path> = files
            .iter()
            .flat_map(|(module, file)| {
                file.source.test_modules.iter().map(|name| join(module, name))
            })
            .collect();
        files.retain(|module, _| !for_tests.iter().any(|test| module.starts_with(test)));
        let mut arrows = Arrows::new();
        for file in files.values() {
            for path in &file.source.named {
                if let Some((target, name)) = definition(&files, path, MOST_FACES)
                    && target.name != file.name
                {
                    let key = (file.name.clone(), target.name.clone());
                    arrows.entry(key).or_insert_with(BTreeSet::new).insert(name);
                }
            }
        }
        let lines = texts.iter().map(|(_, text)| text.lines().count()).sum();
        let length = |(name, text): &(String, String)| (name.clone(), lines_of_code(text));
        let longest =
            texts.iter().map(length).max_by_key(|(_, length)| *length).unwrap_or_default();
        Structure { files: texts.len(), lines, longest, arrows }
    }

    /// Reads the crate whose files lie in `src`.
    pub(crate) fn read(src: &FilePath, paths: &[std::path::PathBuf]) -> Result<Structure, String> {
        let read = |path: &std::path::PathBuf| {
            let text = fs::read_to_string(path).map_err(|error| format!("{path:?}: {error}"))?;
            let inside = path.strip_prefix(src).unwrap_or(path);
            let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
            Ok((parts.join("/"), text))
        };
        let texts: Vec<(String, String)> = paths.iter().map(read).collect::<Result<_, String>>()?;
        Ok(Structure::new(&texts))
    }

    /// What is not as it should be, each with the files and the names that tie them.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for circle in circles(&self.arrows) {
            let is_in = |((from, to), _): &(&(String, String), _)| {
                circle.contains(from) && circle.contains(to)
            };
            let inside = self.arrows.iter().filter(is_in);
            let inside: String = inside.map(|(key, names)| shown(key, names)).collect();
            problems.push(format!("a circle of imports of {} files:{inside}", circle.len()));
        }
        let back = self.back_up();
        if back.len() > MOST_BACK_UP {
            let listed: String = back.iter().map(|(key, names)| shown(key, names)).collect();
            problems.push(format!(
                "{} imports run back up, and {MOST_BACK_UP} may; the others are in one order without \
                 these:{listed}",
                back.len()
            ));
        }
        problems
    }

    /// Files, lines, circles and arrows back up.
    pub(crate) fn figures(&self) -> [usize; 4] {
        [self.files, self.lines, circles(&self.arrows).len(), self.back_up().len()]
    }

    /// The longest file, and its lines of code.
    pub(crate) fn longest(&self) -> &(String, usize) {
        &self.longest
    }

    /// The arrows that run back up, folder by folder, between its entries.
    fn back_up(&self) -> Vec<((String, String), BTreeSet<String>)> {
        let mut folders: BTreeMap<Path, Arrows<String>> = BTreeMap::new();
        for ((from, to), names) in &self.arrows {
            let (from, to) = (self.place_of(from), self.place_of(to));
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            let entry = |place: &Path| place[..=common].join("/");
            let folder = folders.entry(from[..common].to_vec()).or_default();
            folder.entry((entry(&from), entry(&to))).or_default().extend(names.iter().cloned());
        }
        let back = |arrows: &Arrows<String>| {
            let named = |key: (String, String)| (key.clone(), arrows[&key].clone());
            back_up(arrows).into_iter().map(named).collect::<Vec<_>>()
        };
        folders.values().flat_map(back).collect()
    }

    /// The folders above a file, and the file. One beside the folder of its name lies in it, as `mod.rs`.
    fn place_of(&self, name: &str) -> Path {
        let stem = name.strip_suffix(".rs").unwrap_or(name);
        let is_face = self.arrows.keys().any(|(from, to)| {
            [from, to]
                .iter()
                .any(|other| other.strip_prefix(stem).is_some_and(|r| r.starts_with('/')))
        });
        let mut place: Path = stem.split('/').map(str::to_owned).collect();
        if is_face {
            place.push("mod".to_owned());
        }
        place
    }
}

/// The module of the file `name`.
fn module_of(name: &str) -> Path {
    let stem = name.strip_suffix(".rs").unwrap_or(name);
    let mut module: Path = stem.split('/').map(str::to_owned).collect();
    let is_face = match module.len() {
        1 => module[0] == "lib",
        _ => module.last().is_some_and(|last| last == "mod"),
    };
    if is_face {
        module.pop();
    }
    module
}

/// Lines of a file before its tests.
pub(crate) fn lines_of_code(text: &str) -> usize {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().lines().count()
}

fn join(module: &[String], name: &str) -> Path {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// The file that defines what `path` leads to, and its name there. `None` for a module itself.
fn definition<'a>(
    files: &'a BTreeMap<Path, File>,
    path: &[String],
    faces: usize,
) -> Option<(&'a File, String)> {
    let depth = (0..=path.len()).rev().find(|depth| files.contains_key(&path[..*depth]))?;
    let file = &files[&path[..depth]];
    let (name, rest) = path[depth..].split_first()?;
    let handed_on = &file.source.handed_on;
    if let Some(onward) = handed_on.get(name).and_then(|paths| paths.first())
        && faces > 0
    {
        let onward: Path = onward.iter().chain(rest).cloned().collect();
        return definition(files, &onward, faces - 1).or(Some((file, name.clone())));
    }
    if !file.source.defined.contains(name) && faces > 0 {
        for all in handed_on.get("*").into_iter().flatten() {
            let module = &all[..all.len() - 1];
            let inner: Path = module.iter().chain(&path[depth..]).cloned().collect();
            if let Some((found, name)) = definition(files, &inner, faces - 1)
                && found.source.defined.contains(&name)
            {
                return Some((found, name));
            }
        }
        // A macro is exported at the root, wherever it is defined.
        if depth == 0 {
            let defines = |file: &&File| file.source.defined.contains(&format!("{name}!"));
            if let Some(found) = files.values().find(defines) {
                return Some((found, name.clone()));
            }
        }
    }
    Some((file, name.clone()))
}

fn shown((from, to): &(String, String), names: &BTreeSet<String>) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    format!("\n         {from} -> {to}: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(files: &[(&str, &str)]) -> Structure {
        let texts = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Structure::new(&texts.collect::<Vec<_>>())
    }

    fn arrows(files: &[(&str, &str)]) -> Vec<String> {
        let line = |((from, to), names): (&(String, String), &BTreeSet<String>)| {
            shown(&(from.clone(), to.clone()), names).trim().to_owned()
        };
        structure(files).arrows.iter().map(line).collect()
    }

    #[test]
    fn arrows_lead_to_where_a_thing_is_defined() {
        let files = [
            (
                "lib.rs",
                "mod a; pub mod b; mod c; pub use b::deep::Thing; pub use c::*; const N: u8 = 1;",
            ),
            ("a.rs", "use crate::{Thing, free}; use crate::b; fn f() { b::deep::g(); b::own() }"),
            ("b/mod.rs", "mod deep; pub(crate) use deep::Thing; pub fn own() { deep::g() }"),
            (
                "b/deep.rs",
                "use super::super::c::free; pub struct Thing; pub fn g() {} pub use crate::N;",
            ),
            (
                "c.rs",
                "pub fn free() { crate::mac!(std::mem::take) } #[cfg(test)] mod t { use crate::a::f; }",
            ),
            ("d.rs", "#[macro_export] macro_rules! mac { () => {} }"),
        ];
        let expected = [
            "a.rs -> b/deep.rs: Thing, g",
            "a.rs -> b/mod.rs: own",
            "a.rs -> c.rs: free",
            "b/deep.rs -> c.rs: free",
            "b/deep.rs -> lib.rs: N",
            "b/mod.rs -> b/deep.rs: g",
            "c.rs -> d.rs: mac",
        ];
        assert_eq!(arrows(&files), expected);
    }

    #[test]
    fn a_circle_is_told_with_its_files_and_names() {
        let files = [
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B(crate::c::C);"),
            ("c.rs", "use super::a::A; pub struct C;"),
            ("d.rs", "use crate::a::A;"),
        ];
        let expected = "a circle of imports of 3 files:\n         a.rs -> b.rs: B\n         b.rs -> \
                        c.rs: C\n         c.rs -> a.rs: A";
        assert_eq!(structure(&files).problems(), [expected]);
        assert_eq!(structure(&files).figures(), [4, 4, 1, 1]);
        let parent =
            [("lib.rs", "mod a; use a::f; pub fn g() {}"), ("a.rs", "fn f() { super::g() }")];
        assert_eq!(structure(&parent).figures()[2], 1);
        let face =
            [("lib.rs", "mod a; pub use a::f; pub fn g() {}"), ("a.rs", "fn f() { super::g() }")];
        assert_eq!(structure(&face).figures()[2], 0);
    }

    #[test]
    fn tests_are_no_files_of_the_structure() {
        let files = [
            ("a.rs", "#[cfg(test)] mod tests; pub fn f() {}"),
            ("a/tests.rs", "use super::f; use crate::b::g;"),
            ("b.rs", "use crate::a::f; pub fn g() {}"),
        ];
        assert_eq!(arrows(&files), ["b.rs -> a.rs: f"]);
    }

    #[test]
    fn arrows_back_up_are_counted_between_the_entries_of_each_folder() {
        // No circle of files, and yet the folders a and b import each other.
        let folders = [
            ("a/mod.rs", "mod x; mod y; mod z;"),
            ("a/x.rs", "use crate::b::p::P; use crate::b::q::Q;"),
            ("a/y.rs", "pub struct Y;"),
            ("b/p.rs", "use crate::a::y::Y; pub struct P;"),
            ("b/q.rs", "pub struct Q;"),
        ];
        assert_eq!(structure(&folders).figures()[2..], [0, 1]);
        assert!(structure(&folders).problems().is_empty());

        // The face of a folder is one of its files; `c.rs` is that of `c`.
        let face = [
            ("c.rs", "pub fn f() { crate::d::g() }"),
            ("c/x.rs", "pub fn i() {}"),
            ("d.rs", "pub fn g() { crate::c::x::i() }"),
        ];
        assert_eq!(structure(&face).figures()[2..], [0, 1]);

        let pairs: Vec<(String, String)> = (0..3)
            .flat_map(|n| {
                let file = |name: &str, text: String| (format!("{name}{n}/m.rs"), text);
                let uses = |name: &str, other: &str| {
                    format!("use crate::{name}{n}::{other}::T; pub struct U;")
                };
                let inner = |name: &str| (format!("{name}{n}/s.rs"), "pub struct T;".to_owned());
                [file("a", uses("b", "s")), inner("a"), file("b", uses("a", "s")), inner("b")]
            })
            .collect();
        let problems = Structure::new(&pairs).problems();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("3 imports run back up, and 2 may"), "{}", problems[0]);
        assert!(problems[0].contains("-> b0: T") || problems[0].contains("-> a0: T"));
    }
}
