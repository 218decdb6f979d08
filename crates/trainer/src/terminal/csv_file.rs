//! CSV files (RFC 4180).

use std::fs::File;
use std::io;
use std::path::Path;

use csv::Writer;

use crate::file_error::FileError;

/// Writes the rows that `fill` gives, all of one length, into a file; a line ends with a line feed.
///
/// # Errors
/// The file cannot be written.
pub fn write(
    path: &Path,
    fill: impl FnOnce(&mut Writer<File>) -> csv::Result<()>,
) -> Result<(), FileError> {
    let write = || -> io::Result<()> {
        let mut table = Writer::from_path(path)?;
        fill(&mut table)?;
        table.flush()
    };
    write().map_err(FileError::of("write", path))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table.csv");
        let table: [(&[&str], &str); 8] = [
            (&["a", "1.5"], "a,1.5\n"),
            (&["", ""], ",\n"),
            (&["a,b", "c d"], "\"a,b\",c d\n"),
            (&["say \"cat\""], "\"say \"\"cat\"\"\"\n"),
            (&["two\nlines", "x\r"], "\"two\nlines\",\"x\r\"\n"),
            (&["\""], "\"\"\"\"\n"),
            (&["a-b"], "a-b\n"),
            (&["a\"b"], "\"a\"\"b\"\n"),
        ];
        for (fields, line) in table {
            write(&path, |rows| rows.write_record(fields)).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), line, "{fields:?}");
        }
    }
}
