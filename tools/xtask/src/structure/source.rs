//! What one file says: the modules that it declares, what it defines, and the paths that it names.
//!
//! A plain reading, word by word: what a macro would make of them is not seen, and neither are names
//! that come with the standard library or with other packages.

use std::collections::{BTreeMap, BTreeSet};

/// Names from the outermost to the innermost: `crate::a::b` is `[a, b]`.
pub(crate) type Path = Vec<String>;

/// A file of a crate.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Paths inside the crate that its code names, tests and faces left out.
    pub(crate) named: BTreeSet<Path>,
    /// What it hands on by `pub use`: by module inside the file and name. All of a module by the name `*`.
    pub(crate) handed_on: BTreeMap<String, Vec<Path>>,
    /// Names of what it defines.
    pub(crate) defined: BTreeSet<String>,
    /// Modules that are compiled for tests only.
    pub(crate) test_modules: BTreeSet<String>,
}

/// A `use` of one name, as it is written.
struct Use {
    module: Path,
    path: Path,
    name: String,
    is_handed_on: bool,
}

impl Source {
    /// Reads the `code` of the file that is the module `module`.
    pub(crate) fn read(module: &[String], code: &str) -> Source {
        let mut reading = Reading { tokens: tokens(code), ..Reading::default() };
        reading.module = module.to_vec();
        reading.read();
        let Reading { source, uses, paths, children, .. } = reading;
        let mut source = source;
        let scope: BTreeMap<&str, &Use> = uses.iter().map(|u| (u.name.as_str(), u)).collect();
        let resolve = |module: &[String], path: &[String]| -> Option<Path> {
            // An alias of an alias of an alias is more than anybody writes.
            let (mut module, mut path) = (module.to_vec(), path.to_vec());
            for _ in 0..4 {
                let first = path.first()?;
                if let Some(known) = absolute(&module, &path, &children) {
                    return Some(known);
                }
                let alias = scope.get(first.as_str()).filter(|alias| alias.path[0] != *first)?;
                module.clone_from(&alias.module);
                path = alias.path.iter().chain(&path[1..]).cloned().collect();
            }
            None
        };
        for Use { module: place, path, name, is_handed_on } in &uses {
            let Some(path) = resolve(place, path) else { continue };
            if *is_handed_on {
                source.handed_on.entry(name.clone()).or_default().push(path.clone());
            }
            // A module that hands on what lies in its folder is the face of that folder.
            let is_face = *is_handed_on && path.starts_with(module);
            if !is_face {
                source.named.insert(path);
            }
        }
        for (place, path) in &paths {
            source.named.extend(resolve(place, path));
        }
        source
    }
}

/// The path from the root of the crate; `None` if its first name is not that of a module.
fn absolute(module: &[String], path: &[String], children: &BTreeSet<Path>) -> Option<Path> {
    let join = |base: &[String], rest: &[String]| base.iter().chain(rest).cloned().collect();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some(join(module, &path[1..])),
        "super" => {
            let up = path.iter().take_while(|name| *name == "super").count();
            Some(join(&module[..module.len().checked_sub(up)?], &path[up..]))
        }
        first => {
            let child: Path = join(module, &[first.to_owned()]);
            children.contains(&child).then(|| join(module, path))
        }
    }
}

/// A file while it is read.
#[derive(Default)]
struct Reading<'a> {
    tokens: Vec<&'a str>,
    at: usize,
    /// The module that is being read, and how deep in braces it began; the file's own is the first.
    module: Path,
    opened: Vec<usize>,
    depth: usize,
    source: Source,
    uses: Vec<Use>,
    paths: Vec<(Path, Path)>,
    /// Modules that are declared in the file.
    children: BTreeSet<Path>,
}

impl<'a> Reading<'a> {
    fn token(&self, ahead: usize) -> &'a str {
        self.tokens.get(self.at + ahead).copied().unwrap_or_default()
    }

    fn read(&mut self) {
        while self.at < self.tokens.len() {
            match self.token(0) {
                "#" if self.is_for_tests() => self.skip_test_item(),
                "mod" if is_name(self.token(1)) => self.enter_module(),
                "use" if self.token(1) != "<" => self.read_use(),
                "{" => {
                    self.depth += 1;
                    self.at += 1;
                }
                "}" => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.opened.last() == Some(&self.depth) {
                        self.opened.pop();
                        self.module.pop();
                    }
                    self.at += 1;
                }
                "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static"
                    if is_name(self.token(1)) =>
                {
                    self.source.defined.insert(self.token(1).to_owned());
                    self.at += 2;
                }
                "macro_rules" => {
                    self.source.defined.insert(format!("{}!", self.token(2)));
                    self.at += 3;
                }
                name if is_name(name) && self.token(1) == "::" => self.read_path(),
                _ => self.at += 1,
            }
        }
    }

    /// Whether `#[cfg(test)]` stands here, or `#[cfg(all(test, ...))]`.
    fn is_for_tests(&self) -> bool {
        let next: Vec<&str> = (1..7).map(|ahead| self.token(ahead)).collect();
        next[..4] == ["[", "cfg", "(", "test"] || next == ["[", "cfg", "(", "all", "(", "test"]
    }

    /// Passes over an item with its attributes.
    fn skip_test_item(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.tokens.len() {
            if self.token(0) == "mod" && depth == 0 && self.token(2) == ";" {
                self.source.test_modules.insert(self.token(1).to_owned());
            }
            let token = self.token(0);
            self.at += 1;
            match token {
                "{" | "[" | "(" => depth += 1,
                "]" | ")" => depth = depth.saturating_sub(1),
                "}" if depth <= 1 => return,
                "}" => depth -= 1,
                ";" if depth == 0 => return,
                _ => {}
            }
        }
    }

    fn enter_module(&mut self) {
        let name = self.token(1).to_owned();
        let child = self.module.iter().chain([&name]).cloned().collect();
        self.children.insert(child);
        if self.token(2) == "{" {
            self.module.push(name);
            self.opened.push(self.depth);
            self.depth += 1;
        }
        self.at += 3;
    }

    fn read_use(&mut self) {
        // `pub` or `pub(crate)`: no other bracket ends before a `use`.
        let before = self.at.checked_sub(1).map(|before| self.tokens[before]);
        let is_handed_on = matches!(before, Some("pub" | ")"));
        self.at += 1;
        self.read_tree(&mut Vec::new(), is_handed_on);
    }

    /// Reads what may stand behind `prefix` in a `use`, up to `,`, `}` or `;`.
    fn read_tree(&mut self, prefix: &mut Path, is_handed_on: bool) {
        let length = prefix.len();
        loop {
            match self.token(0) {
                "" => break,
                "::" => self.at += 1,
                "{" => {
                    self.at += 1;
                    while !matches!(self.token(0), "}" | "") {
                        self.read_tree(prefix, is_handed_on);
                        if matches!(self.token(0), "," | ";") {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    prefix.truncate(length);
                    return;
                }
                "," | "}" | ";" => break,
                "as" => {
                    let alias = self.token(1).to_owned();
                    self.at += 2;
                    self.add_use(prefix, alias, is_handed_on);
                    prefix.truncate(length);
                    return;
                }
                name => {
                    prefix.push(name.to_owned());
                    self.at += 1;
                }
            }
        }
        if let Some(name) = prefix.last().cloned().filter(|_| prefix.len() > length) {
            self.add_use(prefix, name, is_handed_on);
        }
        prefix.truncate(length);
    }

    /// Adds the use of `path`, known as `name` from here on.
    fn add_use(&mut self, path: &[String], name: String, is_handed_on: bool) {
        let (mut path, mut name) = (path.to_vec(), name);
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
            if name == "self" {
                name.clone_from(&path[path.len() - 1]);
            }
        }
        self.uses.push(Use { module: self.module.clone(), path, name, is_handed_on });
    }

    /// Reads names with `::` between them.
    fn read_path(&mut self) {
        let before = |back: usize| {
            self.at
                .checked_sub(back)
                .and_then(|at| self.tokens.get(at))
                .copied()
                .unwrap_or_default()
        };
        // The end of a longer path, or `pub(in path)`.
        let counts = before(1) != "::" && !(before(1) == "in" && before(2) == "(");
        let mut path = vec![self.token(0).to_owned()];
        self.at += 1;
        while self.token(0) == "::" && is_name(self.token(1)) {
            path.push(self.token(1).to_owned());
            self.at += 2;
        }
        if counts {
            self.paths.push((self.module.clone(), path));
        }
        if self.token(0) == "::" {
            self.at += 1;
        }
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The words and marks of `code` without comments, texts and lifetimes.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let length = if first.is_whitespace() {
            first.len_utf8()
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment(rest)
        } else if let Some(length) =
            matches!(first, '"' | 'b' | 'c' | 'r').then(|| text(rest)).flatten()
        {
            length
        } else if first == '\'' {
            quote(rest)
        } else {
            let length = match rest.starts_with("::") {
                true => 2,
                false if first.is_alphanumeric() || first == '_' => word(rest),
                false => first.len_utf8(),
            };
            tokens.push(&rest[..length]);
            length
        };
        rest = &rest[length..];
    }
    tokens
}

fn word(rest: &str) -> usize {
    rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
}

/// The length of a comment in stars, which may have others inside.
fn comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..rest.len().min(at + 2)] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of a text with its prefix and quotes, if one begins here.
fn text(rest: &str) -> Option<usize> {
    let prefix = rest.find(['"', '#']).filter(|at| *at <= 2)?;
    if !["", "b", "c", "r", "br", "cr"].contains(&&rest[..prefix]) {
        return None;
    }
    if rest[..prefix].ends_with('r') {
        let hashes = rest[prefix..].bytes().take_while(|byte| *byte == b'#').count();
        let start = prefix + hashes;
        rest[start..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let found = rest[start + 1..].find(&end).map(|at| start + 1 + at + end.len());
        return Some(found.unwrap_or(rest.len()));
    }
    rest[prefix..].strip_prefix('"')?;
    Some(prefix + quoted(&rest[prefix..], b'"'))
}

/// The length of a character in quotes, or of a lifetime.
fn quote(rest: &str) -> usize {
    let mut chars = rest[1..].chars();
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => quoted(rest, b'\''),
        (Some(inside), Some('\'')) => 2 + inside.len_utf8(),
        _ => 1 + word(&rest[1..]),
    }
}

/// The length up to the next quote that no backslash stands before.
fn quoted(rest: &str, mark: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == mark => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(module: &str, code: &str) -> Source {
        let module: Path =
            module.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Source::read(&module, code)
    }

    fn named(module: &str, code: &str) -> Vec<String> {
        read(module, code).named.iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn texts_comments_and_lifetimes_are_no_words() {
        let code = r###"a /* b /* c */ d */ 'x' '\'' 'long "e \" f" r#"g " h"# b"i" j::k // l
            'm: r#type '\u{7}' n"###;
        assert_eq!(tokens(code), ["a", "j", "::", "k", ":", "r", "#", "type", "n"]);
    }

    #[test]
    fn uses_are_read_with_braces_aliases_and_self() {
        let code = "use crate::a::{self, b::{C, D as E}, f::*};\nuse super::g::H;\nuse std::io;\n\
                    fn x() { a::deep(); self::own(); io::stdin(); E::new(); crate::late::y() }";
        let expected = [
            "a",
            "a::b::C",
            "a::b::D",
            "a::b::D::new",
            "a::deep",
            "a::f::*",
            "g::H",
            "late::y",
            "m::own",
        ];
        assert_eq!(named("m", code), expected);
    }

    #[test]
    fn a_face_hands_on_what_lies_in_its_folder() {
        let code = "mod plan; mod run;\npub use plan::Plan;\npub(crate) use run::{go as start, *};\n\
                    pub use crate::other::Thing;\nuse run::Run;\nfn f() { plan::check() }";
        let source = read("conv", code);
        let named: Vec<String> = source.named.iter().map(|path| path.join("::")).collect();
        assert_eq!(named, ["conv::plan::check", "conv::run::Run", "other::Thing"]);
        let handed_on: Vec<&str> = source.handed_on.keys().map(String::as_str).collect();
        assert_eq!(handed_on, ["*", "Plan", "Thing", "start"]);
        assert!(source.defined.contains("f"));
    }

    #[test]
    fn modules_inside_a_file_have_their_own_super() {
        let code = "const N: u8 = 1;\nmod linux {\n  use super::N;\n  use super::super::b::C;\n  pub(in crate::x) \
                    fn f() { if true { crate::d::e() } }\n}\nuse super::g;\nfn h() { g::i() }";
        assert_eq!(named("a::m", code), ["a::b::C", "a::g", "a::g::i", "a::m::N", "d::e"]);
    }

    #[test]
    fn what_is_for_tests_is_passed_over() {
        let code = "use crate::a::B;\n#[cfg(test)]\nuse crate::c::{D};\n#[cfg(test)]\nmod tests;\n\
                    #[cfg(all(test, unix))]\n#[allow(x)]\nmod more {\n use crate::e::F; fn g() { [1; 2]; }\n}\n\
                    #[cfg(test)]\nfn h() -> [u8; 2] { crate::i::j() }\nfn k() { crate::l::m() }";
        let source = read("x", code);
        let named: Vec<String> = source.named.iter().map(|path| path.join("::")).collect();
        assert_eq!(named, ["a::B", "l::m"]);
        assert!(source.test_modules.contains("tests"));
    }
}
