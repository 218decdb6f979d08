//! Folders for the tests of scanning.

use std::fs;

use tempfile::TempDir;

/// A folder with the given files; a name that ends with `/` is an empty folder.
pub(crate) fn tree(files: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file);
        if file.ends_with('/') {
            fs::create_dir_all(&path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, b"").unwrap();
        }
    }
    dir
}
