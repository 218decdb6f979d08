//! What can be read in a finished binary: paths of the machine that built it, and the C library that it asks for.

use std::path::PathBuf;

/// The first of `paths` that stands in the binary, which then tells where and by whom it was built.
pub(crate) fn path_within<'a>(binary: &[u8], paths: &'a [PathBuf]) -> Option<&'a PathBuf> {
    paths.iter().find(|path| {
        let path = path.as_os_str().as_encoded_bytes();
        !path.is_empty() && binary.windows(path.len()).any(|window| window == path)
    })
}

/// The newest version of glibc's symbols that the binary uses, as (2, 34); `None` for one that uses none.
pub(crate) fn glibc(binary: &[u8]) -> Option<(u32, u32)> {
    const MARK: &[u8] = b"GLIBC_";
    let places = binary.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    let version = |place: usize| {
        let rest = &binary[place + MARK.len()..];
        let end = rest.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
        let mut numbers = std::str::from_utf8(&rest[..end]).ok()?.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    places.filter_map(|(place, _)| version(place)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_builder_is_found() {
        let binary = b"\0/home/ada/project/crates/trainer/src/main.rs\0";
        let [home, other] = ["/home/ada", "/home/eve"].map(PathBuf::from);
        assert_eq!(path_within(binary, &[other.clone(), home.clone()]), Some(&home));
        assert_eq!(path_within(binary, &[other, PathBuf::new()]), None);
    }

    #[test]
    fn the_newest_glibc_counts_by_its_number() {
        let binary =
            b"\0GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE\0GLIBC_2.2.5\0GLIBCXX_3.4\0";
        assert_eq!(glibc(binary), Some((2, 34)));
        assert_eq!(glibc(b"\0musl\0"), None);
    }
}
