//! Words in a figure that come from outside: any letters, of any length.

use super::font::Face;
use super::scene::Colour;

/// What words mean, shown by their colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// What is to be read first.
    #[default]
    Normal,
    /// What may be passed over.
    Quiet,
    /// What is wrong.
    Alarm,
}

impl Tone {
    pub(super) fn colour(self) -> Colour {
        match self {
            Tone::Normal => (0x20, 0x20, 0x20),
            Tone::Quiet => (0x70, 0x70, 0x70),
            // The palette's vermillion, a little darker, as letters are thin.
            Tone::Alarm => (0xb8, 0x4a, 0x00),
        }
    }
}

/// A line of words around a name, of which only the name is cut where there is no room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caption {
    /// Before the name.
    pub before: String,
    /// The name.
    pub name: String,
    /// Behind the name.
    pub after: String,
    /// Of a class, its place in the order of the classes, counted from 1. It stands before a name of which
    /// the font lacks a letter.
    pub number: Option<usize>,
    /// Whether the middle of a name that is too long is left out, as of a file's, or else its end.
    pub keeps_end: bool,
    /// What it means.
    pub tone: Tone,
}

impl Caption {
    /// Words that are all name.
    pub fn plain(name: &str) -> Caption {
        Caption { name: name.to_owned(), ..Caption::default() }
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.name.is_empty() && self.after.is_empty()
    }

    /// The line, cut to `room` at this size.
    pub(super) fn fitted(&self, face: &Face, size: f64, room: f64) -> String {
        let (before, after) = (printable(&self.before), printable(&self.after));
        let around = face.width(&before, size) + face.width(&after, size);
        let name = match self.number {
            Some(number) => class_label(&self.name, number, face),
            None => printable(&self.name),
        };
        let name = cut(&name, face, size, room - around, self.keeps_end);
        format!("{before}{name}{after}")
    }

    /// Whether a number stands before the name.
    pub(super) fn shows_number(&self, face: &Face) -> bool {
        self.number.is_some() && lacks_letters(&self.name, face)
    }
}

/// A text of letters only: what controls a terminal has no shape.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A text that is no wider than `room`, with `…` for what is left out.
pub(super) fn cut(text: &str, face: &Face, size: f64, room: f64, keeps_end: bool) -> String {
    if face.width(text, size) <= room {
        return text.to_owned();
    }
    let characters: Vec<char> = text.chars().collect();
    let mut room = room - face.width("…", size);
    let width = |c: char| face.width(c.encode_utf8(&mut [0; 4]), size);
    let (mut first, mut last) = (0, characters.len());
    // From both ends inwards, or from the beginning alone.
    loop {
        let from_end = keeps_end && characters.len() - last < first;
        let c = if from_end { characters[last - 1] } else { characters[first] };
        room -= width(c);
        if room < 0.0 || last - first <= 1 {
            break;
        }
        match from_end {
            true => last -= 1,
            false => first += 1,
        }
    }
    let end: String = if keeps_end { characters[last..].iter().collect() } else { String::new() };
    format!("{}…{end}", characters[..first].iter().collect::<String>())
}

/// What a `#` before a name means.
pub(super) const NUMBER_NOTE: &str =
    "#3: the third class in the order of names, of whose name the figure's font lacks letters";

/// A class's name, behind its number where the font lacks a letter of it, so that it can be looked up.
pub(super) fn class_label(name: &str, number: usize, face: &Face) -> String {
    match lacks_letters(name, face) {
        true => format!("#{number} {}", printable(name)),
        false => printable(name),
    }
}

/// Whether the font lacks a letter of a name.
pub(super) fn lacks_letters(name: &str, face: &Face) -> bool {
    !printable(name).chars().all(|c| face.has(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_to_their_room() {
        let face = Face::read().unwrap();
        let room = face.width("abcdefgh", 10.0);
        for (name, keeps_end, text) in [
            ("abcdefgh", false, "abcdefgh"),
            ("abcdefghijklmnop", false, "abcdef…"),
            ("abcdefghijklmnop", true, "abc…op"),
            ("", true, ""),
        ] {
            let found = cut(name, &face, 10.0, room, keeps_end);
            assert!(face.width(&found, 10.0) <= room, "{found}");
            assert_eq!(found.chars().next(), text.chars().next());
            assert_eq!(found.contains('…'), text.contains('…'), "{found}");
            assert_eq!(keeps_end && found.ends_with('p'), text.ends_with('p'), "{found}");
        }
        for room in [-5.0, 0.0, 0.1] {
            assert_eq!(cut("abc", &face, 10.0, room, true), "…");
        }
        let caption = Caption {
            before: "→ ".to_owned(),
            name: "a very long name of a class".to_owned(),
            after: " 97 %".to_owned(),
            ..Caption::default()
        };
        let text = caption.fitted(&face, 10.0, 80.0);
        assert!(text.starts_with("→ a v") && text.ends_with("… 97 %"), "{text}");
        assert_eq!(Caption::plain("a\nb").fitted(&face, 10.0, 80.0), "a b");
    }

    #[test]
    fn a_class_without_letters_has_a_number() {
        let face = Face::read().unwrap();
        for (name, label) in [("ants", "ants"), ("Käfer", "Käfer"), ("蚂蚁", "#3 蚂蚁")] {
            assert_eq!(class_label(name, 3, &face), label);
        }
    }
}
