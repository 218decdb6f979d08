//! Lines of CSV files (RFC 4180).

/// One line with its end. A field with a comma, a quote or a line break is put into quotes, and its
/// quotes are doubled.
pub fn row<S: AsRef<str>>(fields: impl IntoIterator<Item = S>) -> String {
    let mut line = String::new();
    for (index, field) in fields.into_iter().enumerate() {
        if index > 0 {
            line.push(',');
        }
        let field = field.as_ref();
        match field.contains([',', '"', '\n', '\r']) {
            true => line.push_str(&format!("\"{}\"", field.replace('"', "\"\""))),
            false => line.push_str(field),
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::row;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        let table: [(&[&str], &str); 6] = [
            (&["a", "1.5"], "a,1.5\n"),
            (&["", ""], ",\n"),
            (&["a,b", "c d"], "\"a,b\",c d\n"),
            (&["say \"cat\""], "\"say \"\"cat\"\"\"\n"),
            (&["two\nlines", "x\r"], "\"two\nlines\",\"x\r\"\n"),
            (&["\""], "\"\"\"\"\n"),
        ];
        for (fields, line) in table {
            assert_eq!(row(fields), line, "{fields:?}");
        }
    }
}
