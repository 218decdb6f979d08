//! The segments of a JPEG file (ITU-T T.81, annex B), as far as they tell what decoders do not.

/// Returns whether a JPEG goes on to its end-of-image marker.
///
/// The decoder fills what is missing with grey and says nothing, so a download that broke off would
/// be trained on. Segments are stepped over by their length, because a thumbnail inside one has an
/// end marker of its own; entropy-coded data is searched for the next marker (ITU-T T.81, B.1.1).
pub(crate) fn is_complete(bytes: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xD9;
    let mut at = 2;
    loop {
        // In entropy-coded data 0xFF is followed by 0 (a plain 0xFF) or by a restart marker.
        let marker = loop {
            let Some(found) = memchr::memchr(0xFF, &bytes[at.min(bytes.len())..]) else {
                return false;
            };
            at += found + 1;
            match bytes.get(at) {
                None => return false,
                Some(0x00 | 0xD0..=0xD7 | 0xFF) => {}
                Some(&marker) => break marker,
            }
        };
        at += 1;
        match marker {
            END_OF_IMAGE => return true,
            0x01 => {} // A marker without a segment, like the restart markers.
            _ => match bytes.get(at..at + 2) {
                Some(length) => at += usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return false,
            },
        }
    }
}

/// The segments before the first scan, with their markers. What stands between them is passed over, as
/// decoders do.
pub(crate) fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut at = 2;
    std::iter::from_fn(move || {
        loop {
            at += memchr::memchr(0xFF, bytes.get(at..)?)? + 1;
            match *bytes.get(at)? {
                0x00 | 0x01 | 0xD0..=0xD8 => {} // without a segment
                0xFF => continue,               // fill bytes in front of a marker
                0xD9 | 0xDA => return None,
                marker => {
                    let length = u16::from_be_bytes(*bytes.get(at + 1..)?.first_chunk()?);
                    let end = at + 1 + usize::from(length.max(2));
                    let segment = bytes.get(at + 3..end)?;
                    at = end;
                    return Some((marker, segment));
                }
            }
            at += 1;
        }
    })
}

/// Width, height and colours by the frame header (B.2.2).
pub(crate) fn frame_size(bytes: &[u8]) -> Option<(u32, u32, u8)> {
    let is_frame = |marker| matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC);
    let (_, frame) = segments(bytes).find(|(marker, _)| is_frame(*marker))?;
    let [_, h1, h0, w1, w0, colours, ..] = *frame else { return None };
    let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
    Some((side(w1, w0), side(h1, h0), colours))
}

/// A JPEG that ends early.
pub(crate) struct FirstRows {
    /// The file, with another height in its frame header.
    pub(crate) bytes: Vec<u8>,
    /// That height.
    pub(crate) rows: u32,
}

/// Makes a JPEG of the first `rows` rows and some more, or returns `None` where that saves nothing or
/// cannot be done.
///
/// The rows of a sequential JPEG stand in the file one after the other, so that a decoder which is told
/// of fewer of them has less to decode, and ends there. Those that it decodes keep their values: the
/// last one that is wanted is followed by a row of blocks, for decoders that interpolate colours
/// between blocks. In a progressive file every scan is about all rows.
pub(crate) fn first_rows(bytes: &[u8], rows: u32) -> Option<FirstRows> {
    const START_OF_SCAN: u8 = 0xDA;
    let mut at = 2;
    let mut frame = None;
    loop {
        // Between segments only fill bytes may stand (B.1.1.2).
        while bytes.get(at..at + 2)? == [0xFF, 0xFF] {
            at += 1;
        }
        let [0xFF, marker] = *bytes.get(at..at + 2)? else { return None };
        let length = usize::from(u16::from_be_bytes(*bytes.get(at + 2..)?.first_chunk()?));
        let segment = bytes.get(at + 2..at + 2 + length)?;
        match marker {
            // Baseline and extended sequential frames with Huffman codes (B.2.2).
            0xC0 | 0xC1 if frame.is_none() => {
                let [_, _, 8, high, low, _, _, n_components, ..] = *segment else { return None };
                let height = u32::from(u16::from_be_bytes([high, low]));
                let sampling = segment.get(8..)?.chunks_exact(3).map(|c| u32::from(c[1] & 0x0F));
                let block_rows = 8 * sampling.max()?;
                frame = Some((at + 5, height, block_rows, n_components));
            }
            0xC0..=0xCF if marker != 0xC4 && marker != 0xCC => return None,
            START_OF_SCAN => {
                let (height_at, height, block_rows, n_components) = frame?;
                // With one scan for each component, the first would end in the middle of the picture.
                if block_rows == 0 || *segment.get(2)? != n_components {
                    return None;
                }
                let wanted = rows.max(1).checked_next_multiple_of(block_rows)?;
                let kept = wanted.checked_add(block_rows)?;
                if kept >= height {
                    return None;
                }
                let mut bytes = bytes.to_vec();
                bytes[height_at..height_at + 2].copy_from_slice(&(kept as u16).to_be_bytes());
                return Some(FirstRows { bytes, rows: kept });
            }
            _ => {}
        }
        at += 2 + length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_found_behind_fill_bytes_and_junk() {
        let file: &[u8] = b"\xFF\xD8\xFF\xE0\x00\x03ajunk\xFF\xFF\xE1\x00\x02\xFF\xC0\x00\x0B\x08\x00\x05\x01\x02\x01abc\xFF\xDA\x00\x03b";
        let found: Vec<_> = segments(file).collect();
        let frame = &b"\x08\x00\x05\x01\x02\x01abc"[..];
        assert_eq!(found, [(0xE0, &b"a"[..]), (0xE1, b""), (0xC0, frame)]);
        assert_eq!(frame_size(file), Some((0x102, 5, 1)));
        for cut in 0..file.len() {
            let _ = segments(&file[..cut]).count(); // ends
        }
    }

    #[test]
    fn a_jpeg_is_complete_only_with_its_own_end_marker() {
        let start = [0xFF, 0xD8];
        let scan = [0xFF, 0xDA, 0x00, 0x03, 0x11, 0x12, 0xFF, 0x00, 0x34, 0xFF, 0xD0, 0x56];
        let end = [0xFF, 0xD9];
        // A segment of 4 bytes that holds an end marker, as that of a thumbnail does.
        let thumbnail = [0xFF, 0xE1, 0x00, 0x04, 0xFF, 0xD9];
        let cases: [(&[&[u8]], bool); 7] = [
            (&[&start, &scan, &end], true),
            (&[&start, &thumbnail, &scan, &end], true),
            (&[&start, &thumbnail, &scan, &scan, &[0xFF], &end, b"trailing"], true),
            (&[&start, &thumbnail, &scan], false),
            (&[&start, &scan, &[0xFF]], false),
            (&[&start, &[0xFF, 0xE1, 0xFF, 0xFF], &end], false),
            (&[&start], false),
        ];
        for (i, (parts, complete)) in cases.into_iter().enumerate() {
            assert_eq!(is_complete(&parts.concat()), complete, "case {i}");
        }
    }
}
