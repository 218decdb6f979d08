//! What took long to make, kept in files between runs. Each file ends with the hash of what stands before it, so that one
//! that is damaged is made again. Nothing here is an error: without files all is made anew.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;

/// Bytes of the hash.
const HASH: usize = 32;

/// A folder of such files, or none.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// In this folder, which is made when it is needed.
    pub fn at(folder: &Path) -> Cache {
        Cache { folder: Some(folder.to_owned()) }
    }

    /// None: all is made anew.
    pub fn none() -> Cache {
        Cache { folder: None }
    }

    /// In the user's folder for such files: `$XDG_CACHE_HOME/bninception`, or `~/.cache/bninception`
    /// (<https://specifications.freedesktop.org/basedir-spec/latest/>).
    pub fn of_user() -> Cache {
        let absolute =
            |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base =
            absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        Cache { folder: base.map(|base| base.join("bninception")) }
    }

    /// A file's bytes, if it is there and whole.
    pub(crate) fn read(&self, name: &str) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.folder.as_ref()?.join(name)).ok()?;
        let end = bytes.len().checked_sub(HASH)?;
        let hash = blake3::hash(&bytes[..end]);
        if hash.as_bytes() != &bytes[end..] {
            tracing::warn!("{name} in the cache is damaged; it is made again");
            return None;
        }
        bytes.truncate(end);
        Some(bytes)
    }

    /// Keeps bytes under a name. Another process sees all of the file or nothing.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let Some(folder) = &self.folder else { return };
        let part = folder.join(format!(".{name}.{}", process::id()));
        let whole = [bytes, blake3::hash(bytes).as_bytes()].concat();
        let written = fs::create_dir_all(folder)
            .and_then(|()| fs::write(&part, whole))
            .and_then(|()| fs::rename(&part, folder.join(name)));
        if let Err(error) = written {
            tracing::debug!("{name} is not kept in {}: {error}", folder.display());
            // It may not be there.
            let _ = fs::remove_file(&part);
        }
    }
}

/// A name for what is made of these texts.
pub(crate) fn key(texts: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for text in texts {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_back_and_a_damaged_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(&folder.path().join("new"));
        assert_eq!(cache.read("a"), None);
        cache.write("a", b"machine code");
        assert_eq!(cache.read("a").unwrap(), b"machine code");
        let file = folder.path().join("new/a");
        let whole = fs::read(&file).unwrap();
        let mut changed = whole.clone();
        changed[3] ^= 1;
        for damaged in [&[], &whole[..3], &whole[..whole.len() - 1], &whole[1..], &changed] {
            fs::write(&file, damaged).unwrap();
            assert_eq!(cache.read("a"), None);
        }
        cache.write("a", b"machine code");
        assert_eq!(cache.read("a").unwrap(), b"machine code");
        let names: Vec<_> = fs::read_dir(folder.path().join("new")).unwrap().collect();
        assert_eq!(names.len(), 1, "no part is left behind");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let cache = Cache::at(&folder.path().join("file/inside"));
        cache.write("a", b"machine code");
        assert_eq!(cache.read("a"), None);
        assert_eq!(Cache::none().read("a"), None);
    }

    #[test]
    fn keys_differ_where_texts_are_cut_elsewhere() {
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
    }
}
