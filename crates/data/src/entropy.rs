//! Whether the pixels of a JPEG are all there (ITU-T T.81, annexes F and G).
//!
//! Decoders conceal damage: what cannot be decoded becomes grey, or repeats what was there before, and
//! nobody is told. Here the Huffman codes of every scan are walked without making pixels. Sound data
//! ends where the picture ends; damaged data ends before or behind it, or has codes that mean nothing.
//! Damage that leaves the number of codes as it was goes unseen.
//!
//! Sequential and progressive files with Huffman codes are walked, which are those that are decoded.

use crate::huffman::{Bits, Fault, Table};

/// Most scans that are walked; the progressive files of libjpeg have ten.
const MOST_SCANS: usize = 500;

/// Most blocks of a picture that is walked: 200 million pixels in three colours of full size.
const MOST_BLOCKS: usize = 3 * 200_000_000 / 64;

/// Bytes that may be left over at the end of the data: writers fill them up to words.
const LEFT_OVER: usize = 8;

/// Says what is wrong with the pixels of a JPEG that was decoded, if anything is.
pub(crate) fn damage(bytes: &[u8]) -> Option<String> {
    let mut walk = JpegWalk { bytes, at: 2, ..JpegWalk::default() };
    for _ in 0..MOST_SCANS {
        match walk.next_scan()? {
            Ok(()) => {}
            Err(damage) => return Some(damage),
        }
    }
    None
}

/// What is known of a file while it is walked.
#[derive(Default)]
struct JpegWalk<'a> {
    bytes: &'a [u8],
    at: usize,
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    restart_interval: usize,
    frame: Option<Frame>,
}

struct Frame {
    is_progressive: bool,
    /// Units of the interleaved picture across and down.
    across: usize,
    down: usize,
    components: Vec<Component>,
}

struct Component {
    id: u8,
    /// Blocks of a unit across and down.
    h: usize,
    v: usize,
    /// Blocks of the component across and down, when it stands in a scan alone.
    across: usize,
    down: usize,
    /// Which coefficients of each block are not zero, in a progressive file.
    known: Vec<u64>,
}

/// A scan header (B.2.3).
struct Scan {
    /// Positions of components in the frame, with their tables for DC and AC.
    components: Vec<(usize, usize, usize)>,
    first: usize,
    last: usize,
    /// Whether bits are added to coefficients that are known.
    refines: bool,
}

impl<'a> JpegWalk<'a> {
    /// Walks up to the end of the next scan, and says what is wrong with it. `None` at the end of the
    /// image, and where it is of a kind that is not walked.
    fn next_scan(&mut self) -> Option<Result<(), String>> {
        loop {
            self.at += memchr::memchr(0xFF, self.bytes.get(self.at..)?)? + 1;
            let marker = *self.bytes.get(self.at)?;
            match marker {
                0xFF => continue,
                0x00 | 0x01 | 0xD0..=0xD8 => {
                    self.at += 1;
                    continue;
                }
                0xD9 => return None,
                _ => {}
            }
            let length = u16::from_be_bytes(*self.bytes.get(self.at + 1..)?.first_chunk()?);
            let end = self.at + 1 + usize::from(length.max(2));
            let segment = self.bytes.get(self.at + 3..end)?;
            self.at = end;
            match marker {
                0xC4 => self.define_tables(segment)?,
                0xC0..=0xC2 => self.frame = Some(Frame::of(segment, marker == 0xC2)?),
                0xC3 | 0xC5..=0xCF => return None,
                0xDD => {
                    self.restart_interval = u16::from_be_bytes(*segment.first_chunk()?).into();
                }
                0xDA => {
                    let mut frame = self.frame.take()?;
                    let scan = Scan::of(segment, &frame)?;
                    let found = self.walk_scan(&mut frame, &scan);
                    self.frame = Some(frame);
                    return found;
                }
                _ => {}
            }
        }
    }

    /// B.2.4.2.
    fn define_tables(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((head, rest)) = segment.split_first_chunk::<17>() {
            let count: usize = head[1..].iter().map(|&count| usize::from(count)).sum();
            let table = Table::new(head.last_chunk()?, rest.get(..count)?)?;
            let tables = if head[0] >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(head[0] & 0x0F))? = Some(table);
            segment = &rest[count..];
        }
        Some(())
    }

    /// Walks the data of a scan and leaves it behind. `None` if a table is missing.
    fn walk_scan(&mut self, frame: &mut Frame, scan: &Scan) -> Option<Result<(), String>> {
        for &(_, dc, ac) in &scan.components {
            let needs_dc = scan.first == 0 && !scan.refines;
            let is_missing = |needed, tables: &[Option<Table>; 4], index: usize| {
                needed && tables.get(index).is_none_or(Option::is_none)
            };
            if is_missing(needs_dc, &self.dc, dc) || is_missing(scan.last > 0, &self.ac, ac) {
                return None;
            }
        }
        let (across, down) = match *scan.components {
            [(alone, ..)] => (frame.components[alone].across, frame.components[alone].down),
            _ => (frame.across, frame.down),
        };
        let n_units = across * down;
        let interval = if self.restart_interval == 0 { n_units } else { self.restart_interval };
        let mut found = Ok(());
        for (number, first) in (0..n_units).step_by(interval).enumerate() {
            let (data, marker) = self.interval();
            let mut bits = Bits::new(data);
            let mut rest_of_band = 0;
            let units = first..(first + interval).min(n_units);
            let n_next = units.end;
            for unit in units {
                let walked =
                    self.walk_unit(frame, scan, (unit, across), &mut bits, &mut rest_of_band);
                if let Err(fault) = walked
                    && found.is_ok()
                {
                    let percent = unit * 100 / n_units;
                    found = Err(match fault {
                        Fault::Ended => format!("its data ends after {percent} % of the picture"),
                        Fault::NoCode => {
                            format!("its data is damaged {percent} % down the picture")
                        }
                    });
                }
                if walked.is_err() {
                    break;
                }
            }
            if found.is_ok() && bits.n_left() > LEFT_OVER {
                let (left, percent) = (bits.n_left(), n_next * 100 / n_units);
                found = Err(format!(
                    "{left} bytes of its data are left over after {percent} % of the picture"
                ));
            }
            if n_next == n_units {
                break;
            }
            // Restart markers count from 0 to 7 again and again (B.2.1).
            if marker != Some(0xD0 + (number % 8) as u8) {
                let percent = n_next * 100 / n_units;
                found = found
                    .and(Err(format!("a restart marker is missing {percent} % down the picture")));
                break;
            }
            self.at += 2;
        }
        Some(found)
    }

    /// The data up to the next marker, and that marker.
    fn interval(&mut self) -> (&'a [u8], Option<u8>) {
        let bytes = self.bytes;
        let start = self.at.min(bytes.len());
        let mut at = start;
        while let Some(found) = memchr::memchr(0xFF, &bytes[at..]) {
            at += found;
            match bytes.get(at + 1) {
                Some(0x00) => at += 2,
                Some(0xFF) => at += 1, // fill bytes in front of a marker
                marker => {
                    self.at = at;
                    return (&bytes[start..at], marker.copied());
                }
            }
        }
        self.at = bytes.len();
        (&bytes[start..], None)
    }

    /// Walks a unit: of several components as many blocks as each has in it (A.2.3), of one a block.
    /// `rest_of_band` counts blocks that have no more coefficients in this scan (G.1.2.2).
    fn walk_unit(
        &self,
        frame: &mut Frame,
        scan: &Scan,
        (unit, across): (usize, usize),
        bits: &mut Bits<'_>,
        rest_of_band: &mut u32,
    ) -> Result<(), Fault> {
        let is_alone = scan.components.len() == 1;
        for &(index, dc, ac) in &scan.components {
            let component = &mut frame.components[index];
            let (h, v) = if is_alone { (1, 1) } else { (component.h, component.v) };
            let stride = frame.across * component.h;
            for block in 0..h * v {
                let x = unit % across * h + block % h;
                let y = unit / across * v + block / h;
                // The tables were looked for before.
                if !frame.is_progressive {
                    let (Some(dc), Some(ac)) = (&self.dc[dc], &self.ac[ac]) else { continue };
                    skip_dc(bits, dc)?;
                    walk_sequential(bits, ac)?;
                } else if scan.first == 0 {
                    match &self.dc[dc] {
                        _ if scan.refines => bits.skip(1)?,
                        Some(dc) => skip_dc(bits, dc)?,
                        None => {}
                    }
                } else if let (Some(ac), Some(known)) =
                    (&self.ac[ac], component.known.get_mut(y * stride + x))
                {
                    match scan.refines {
                        false => walk_band(bits, ac, scan, known, rest_of_band)?,
                        true => refine_band(bits, ac, scan, known, rest_of_band)?,
                    }
                }
            }
        }
        Ok(())
    }
}

/// The difference of the first coefficient; 11 bits at most, of samples of 8 (F.1.2.1).
fn skip_dc(bits: &mut Bits<'_>, table: &Table) -> Result<(), Fault> {
    match bits.code(table)? {
        length @ 0..=11 => bits.skip(u32::from(length)),
        _ => Err(Fault::NoCode),
    }
}

/// The other coefficients of a block (F.2.2.2).
fn walk_sequential(bits: &mut Bits<'_>, table: &Table) -> Result<(), Fault> {
    let mut k = 1;
    while k < 64 {
        let code = bits.code(table)?;
        let (zeros, length) = (u32::from(code >> 4), u32::from(code & 15));
        match (zeros, length) {
            (15, 0) => k += 16,
            (_, 0) => return Ok(()),
            _ if k + zeros > 63 => return Err(Fault::NoCode),
            _ => {
                bits.skip(length)?;
                k += zeros + 1;
            }
        }
    }
    Ok(())
}

/// The first bits of a band of coefficients (G.1.2.2).
fn walk_band(
    bits: &mut Bits<'_>,
    table: &Table,
    scan: &Scan,
    known: &mut u64,
    rest_of_band: &mut u32,
) -> Result<(), Fault> {
    if *rest_of_band > 0 {
        *rest_of_band -= 1;
        return Ok(());
    }
    let mut k = scan.first;
    while k <= scan.last {
        let code = bits.code(table)?;
        let (zeros, length) = (usize::from(code >> 4), u32::from(code & 15));
        match (zeros, length) {
            (15, 0) => k += 16,
            (_, 0) => {
                *rest_of_band = (1 << zeros) - 1 + bits.take(zeros as u32)?;
                return Ok(());
            }
            _ if k + zeros > scan.last => return Err(Fault::NoCode),
            _ => {
                bits.skip(length)?;
                *known |= 1 << (k + zeros);
                k += zeros + 1;
            }
        }
    }
    Ok(())
}

/// One more bit of a band of coefficients (G.1.2.3).
fn refine_band(
    bits: &mut Bits<'_>,
    table: &Table,
    scan: &Scan,
    known: &mut u64,
    rest_of_band: &mut u32,
) -> Result<(), Fault> {
    let mut k = scan.first;
    while *rest_of_band == 0 && k <= scan.last {
        let code = bits.code(table)?;
        let (mut zeros, length) = (u32::from(code >> 4), u32::from(code & 15));
        if length == 0 && zeros < 15 {
            *rest_of_band = (1 << zeros) + bits.take(zeros)?;
            break;
        }
        bits.skip(length.min(1))?; // the sign
        while k <= scan.last {
            if *known >> k & 1 == 1 {
                bits.skip(1)?;
            } else if zeros == 0 {
                break;
            } else {
                zeros -= 1;
            }
            k += 1;
        }
        if length > 0 {
            if k > scan.last {
                return Err(Fault::NoCode);
            }
            *known |= 1 << k;
        }
        k += 1;
    }
    if *rest_of_band > 0 {
        *rest_of_band -= 1;
        let band = (k..=scan.last).filter(|k| *known >> k & 1 == 1).count();
        bits.skip(band as u32)?;
    }
    Ok(())
}

impl Frame {
    /// Reads a frame header (B.2.2); `None` for what is not decoded either.
    fn of(segment: &[u8], is_progressive: bool) -> Option<Frame> {
        let (head, specs) = segment.split_first_chunk::<6>()?;
        let [8, h1, h0, w1, w0, count] = *head else { return None };
        let side = |high, low| usize::from(u16::from_be_bytes([high, low]));
        let (width, height) = (side(w1, w0), side(h1, h0));
        let specs: Vec<&[u8]> = specs.chunks_exact(3).take(count.into()).collect();
        let factors = |spec: &&[u8]| (usize::from(spec[1] >> 4), usize::from(spec[1] & 15));
        let most_h = specs.iter().map(|spec| factors(spec).0).max()?;
        let most_v = specs.iter().map(|spec| factors(spec).1).max()?;
        let are_right = specs.iter().all(|spec| {
            let (h, v) = factors(spec);
            (1..=4).contains(&h) && (1..=4).contains(&v)
        });
        if specs.len() != usize::from(count) || specs.len() > 4 || !are_right {
            return None;
        }
        let (across, down) = (width.div_ceil(8 * most_h), height.div_ceil(8 * most_v));
        let n_blocks = |h: usize, v: usize| across * h * down * v;
        if specs.iter().map(|spec| n_blocks(factors(spec).0, factors(spec).1)).sum::<usize>()
            > MOST_BLOCKS
        {
            return None;
        }
        let component = |spec: &&[u8]| {
            let (h, v) = factors(spec);
            Component {
                id: spec[0],
                h,
                v,
                across: (width * h).div_ceil(most_h).div_ceil(8),
                down: (height * v).div_ceil(most_v).div_ceil(8),
                known: vec![0; if is_progressive { n_blocks(h, v) } else { 0 }],
            }
        };
        Some(Frame {
            is_progressive,
            across,
            down,
            components: specs.iter().map(component).collect(),
        })
    }
}

impl Scan {
    fn of(segment: &[u8], frame: &Frame) -> Option<Scan> {
        let (count, rest) = segment.split_first()?;
        let (specs, band) = rest.split_at_checked(usize::from(*count) * 2)?;
        let component = |spec: &[u8]| {
            let index = frame.components.iter().position(|component| component.id == spec[0])?;
            Some((index, usize::from(spec[1] >> 4), usize::from(spec[1] & 15)))
        };
        let components: Vec<_> = specs.chunks_exact(2).map(component).collect::<Option<_>>()?;
        let [first, last, shifts] = *band.first_chunk()?;
        let (first, last) = match frame.is_progressive {
            true => (usize::from(first), usize::from(last)),
            false => (0, 63),
        };
        let is_dc = first == 0;
        // A scan of a progressive file is about the first coefficient or about others of one component.
        let is_right = match frame.is_progressive {
            true => (is_dc && last == 0) || (!is_dc && components.len() == 1 && first <= last),
            false => true,
        };
        if components.is_empty() || last > 63 || !is_right {
            return None;
        }
        let refines = frame.is_progressive && shifts >> 4 != 0;
        Some(Scan { components, first, last, refines })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;
    use image::{Rgb, RgbImage};

    fn photo() -> Vec<u8> {
        let image = RgbImage::from_fn(150, 131, |x, y| {
            Rgb([x * 7 + y, 40 + y % 200, x * y / 50].map(|level| level as u8))
        });
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(&image).unwrap();
        bytes
    }

    #[test]
    fn data_that_ends_early_or_late_is_damage() {
        let whole = photo();
        assert_eq!(damage(&whole), None);
        let end = whole.len() - 2;
        let third = [&whole[..end / 3], &[0xFF, 0xD9]].concat();
        assert!(damage(&third).unwrap().contains("its data ends after"), "{:?}", damage(&third));
        let longer = [&whole[..end], &[0x35; 40], &whole[end..]].concat();
        assert!(damage(&longer).unwrap().contains("left over"), "{:?}", damage(&longer));
        // Writers may fill up, and what follows the end is not looked at.
        assert_eq!(damage(&[&whole[..end], &[0; 4], &whole[end..]].concat()), None);
        assert_eq!(damage(&[&whole[..end], &[0xFF; 40], &whole[end..]].concat()), None);
        assert_eq!(damage(&[&whole[..], &[0x35; 400]].concat()), None);
    }

    #[test]
    fn any_bytes_end_in_an_answer() {
        let whole = photo();
        for cut in (0..whole.len()).step_by(7) {
            let _ = damage(&whole[..cut]);
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x5A;
            let _ = damage(&damaged);
        }
    }
}
