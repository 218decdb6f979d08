//! A file of events: scalars, histograms and images.
//!
//! A record reaches the system in one write and nothing waits in a buffer: a run that is killed leaves no torn
//! record unless the machine itself goes down.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::histogram::histogram;
use super::hparams_file;
use super::record;
use super::schema::{
    DT_STRING, EventContent, PluginData, SESSION_START, SessionLog, ShapeDimension, ShapeMessage,
    SummaryContent, SummaryMessage, SummaryMetadata, SummaryValue, TensorMessage,
};

/// Writes one event file.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

/// A picture among the events.
#[derive(Clone, Debug)]
pub struct EventImage<'a> {
    /// Its name, such as `val/confusion`.
    pub tag: &'a str,
    /// What it shows, in words.
    pub description: &'a str,
    /// The bytes of a PNG.
    pub png: &'a [u8],
}

impl EventWriter {
    /// Starts a new file in `dir`, which is made if it is missing; files of earlier runs stay.
    ///
    /// `wall_time` is in seconds since 1970, here and in all events. `step` is the number of steps
    /// done: TensorBoard drops what earlier files of the folder tell of later steps, so a resumed
    /// run leaves one curve.
    ///
    /// # Errors
    /// The folder or the file cannot be written.
    pub fn create(dir: &Path, wall_time: f64, step: u64) -> io::Result<EventWriter> {
        fs::create_dir_all(dir)?;
        let (path, file) = new_file(dir, wall_time)?;
        let mut writer = EventWriter { path, file };
        writer.file.write_all(&record::version(wall_time))?;
        // A reader drops this step and what follows it.
        let start = SessionLog { status: SESSION_START };
        writer.write(wall_time, step + 1, EventContent::SessionLog(start))?;
        Ok(writer)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes named values of one step, such as `("train/loss", 2.3)`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalars(
        &mut self,
        wall_time: f64,
        step: u64,
        scalars: &[(&str, f64)],
    ) -> io::Result<()> {
        let value = |&(tag, scalar): &(&str, f64)| SummaryValue {
            tag: tag.to_owned(),
            metadata: None,
            content: Some(SummaryContent::Scalar(scalar as f32)),
        };
        self.summary(wall_time, step, scalars.iter().map(value).collect())
    }

    /// Writes the distribution of `values`; those that are not finite are left out, and without any
    /// other nothing is written.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn histogram(
        &mut self,
        wall_time: f64,
        step: u64,
        tag: &str,
        values: &[f32],
    ) -> io::Result<()> {
        let Some(histogram) = histogram(values) else {
            return Ok(());
        };
        let value = SummaryValue {
            tag: tag.to_owned(),
            metadata: None,
            content: Some(SummaryContent::Histogram(histogram)),
        };
        self.summary(wall_time, step, vec![value])
    }

    /// Writes a picture as the plugin for images stores it: a list of texts, its width, its height and the PNG.
    ///
    /// # Errors
    /// It is no PNG, or the file cannot be written.
    pub fn image(&mut self, wall_time: f64, step: u64, image: &EventImage<'_>) -> io::Result<()> {
        let EventImage { tag, description, png } = image;
        let (width, height) = sides(png).ok_or_else(|| {
            let message = format!("{tag}: expected a PNG, found {} other bytes", png.len());
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        let string_val =
            vec![width.to_string().into_bytes(), height.to_string().into_bytes(), png.to_vec()];
        let plugin = PluginData { plugin_name: "images".to_owned(), content: Vec::new() };
        let value = SummaryValue {
            tag: (*tag).to_owned(),
            metadata: Some(SummaryMetadata {
                plugin_data: Some(plugin),
                display_name: (*tag).to_owned(),
                summary_description: (*description).to_owned(),
            }),
            content: Some(SummaryContent::Tensor(TensorMessage {
                dtype: DT_STRING,
                tensor_shape: Some(ShapeMessage { dim: vec![ShapeDimension { size: 3 }] }),
                string_val,
            })),
        };
        self.summary(wall_time, step, vec![value])
    }

    fn summary(&mut self, wall_time: f64, step: u64, value: Vec<SummaryValue>) -> io::Result<()> {
        self.write(wall_time, step, EventContent::Summary(SummaryMessage { value }))
    }

    fn write(&mut self, wall_time: f64, step: u64, content: EventContent) -> io::Result<()> {
        self.file.write_all(&record::to_bytes(wall_time, step, content))
    }
}

/// Width and height of a PNG, which its first chunk begins with
/// (<https://www.w3.org/TR/png-3/#11IHDR>).
fn sides(png: &[u8]) -> Option<(u32, u32)> {
    let (width, rest) =
        png.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR")?.split_first_chunk()?;
    let (height, _) = rest.split_first_chunk()?;
    Some((u32::from_be_bytes(*width), u32::from_be_bytes(*height)))
}

/// Whether a folder, which may be missing, has a file of events.
///
/// # Errors
/// It cannot be read.
pub(in crate::run) fn has_events(dir: &Path) -> io::Result<bool> {
    match last_name(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        name => Ok(name?.is_some_and(|name| name != hparams_file::NAME)),
    }
}

/// What the names of event files begin with, by whatever program; the second of their start follows.
const PREFIX: &str = "events.out.tfevents.";

/// TensorBoard reads the event files of a folder in the order of their names, as texts. A new file
/// comes behind all others, also where the clock says less than when they were begun, as on another
/// machine or within the same second.
fn new_file(dir: &Path, wall_time: f64) -> io::Result<(PathBuf, File)> {
    let now = format!("{:010}", wall_time as u64);
    loop {
        let path = dir.join(name_behind(last_name(dir)?.as_deref(), &now));
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => return Ok((path, file)),
        }
    }
}

/// The name of the event file that is read last.
fn last_name(dir: &Path) -> io::Result<Option<String>> {
    let mut last = None;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && Some(&name) > last.as_ref() {
            last = Some(name);
        }
    }
    Ok(last)
}

/// A name with the number `now`, or with the next number behind that of `last` if it has to be.
fn name_behind(last: Option<&str>, now: &str) -> String {
    let name = |number: &str| format!("{PREFIX}{number}.bninception.0");
    let Some(last) = last.filter(|&last| name(now).as_str() <= last) else { return name(now) };
    let rest = last.strip_prefix(PREFIX).unwrap_or(last);
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
    match successor(digits) {
        Some(number) => name(&number),
        // Nines only, or no number at all: no name of ours comes behind it but one that goes on.
        None => format!("{last}.bninception.0"),
    }
}

/// The next number with as many digits. `None` behind the last.
fn successor(digits: &str) -> Option<String> {
    let head = digits.trim_end_matches('9');
    let (rest, last) = (head.get(..head.len().checked_sub(1)?)?, head.bytes().last()?);
    let nines = digits.len() - head.len();
    Some(format!("{rest}{}{}", char::from(last + 1), "0".repeat(nines)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One decoded field: its number, and its bytes or its number's bytes.
    type Field = (u64, Vec<u8>);

    /// CRC-32C bit by bit from the reversed Castagnoli polynomial (RFC 3720, appendix B.4).
    fn plain_crc32c(bytes: &[u8]) -> u32 {
        let mut crc = !0_u32;
        for &byte in bytes {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        !crc
    }

    fn check_crc(stored: &[u8], bytes: &[u8]) {
        let stored = u32::from_le_bytes(stored.try_into().unwrap());
        let unmasked = stored.wrapping_sub(0xa282_ead8);
        assert_eq!(unmasked.rotate_left(15), plain_crc32c(bytes));
    }

    fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while !file.is_empty() {
            let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            check_crc(&file[8..12], &file[..8]);
            let record = &file[12..12 + length];
            check_crc(&file[12 + length..16 + length], record);
            records.push(record.to_vec());
            file = &file[16 + length..];
        }
        records
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    fn fields(mut bytes: &[u8]) -> Vec<Field> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            if key & 7 == 0 {
                fields.push((key >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                continue;
            }
            let length = match key & 7 {
                1 => 8,
                2 => varint(&mut bytes) as usize,
                5 => 4,
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, bytes[..length].to_vec()));
            bytes = &bytes[length..];
        }
        fields
    }

    fn field(fields: &[Field], number: u64) -> &[u8] {
        &fields.iter().find(|field| field.0 == number).unwrap().1
    }

    fn double(bytes: &[u8]) -> f64 {
        f64::from_le_bytes(bytes.try_into().unwrap())
    }

    fn integer(bytes: &[u8]) -> u64 {
        u64::from_le_bytes(bytes.try_into().unwrap())
    }

    fn doubles(bytes: &[u8]) -> Vec<f64> {
        bytes.chunks(8).map(double).collect()
    }

    #[test]
    fn checksum_is_the_published_one() {
        // RFC 3720, appendix B.4: 32 zero bytes.
        assert_eq!(plain_crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn scalars_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path(), 1_700_000_000.5, 300).unwrap();
        let scalars = [("train/loss", 2.5), ("train/lr", 0.0075)];
        writer.scalars(1_700_000_001.25, 350, &scalars).unwrap();
        let name = writer.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(name, "events.out.tfevents.1700000000.bninception.0");

        let records = records(&fs::read(writer.path()).unwrap());
        assert_eq!(records.len(), 3);
        let version = fields(&records[0]);
        assert_eq!(double(field(&version, 1)), 1_700_000_000.5);
        assert_eq!(field(&version, 3), b"brain.Event:2");
        let start = fields(&records[1]);
        assert_eq!(integer(field(&start, 2)), 301);
        assert_eq!(integer(field(&fields(field(&start, 7)), 1)), 1);

        let event = fields(&records[2]);
        assert_eq!(double(field(&event, 1)), 1_700_000_001.25);
        assert_eq!(integer(field(&event, 2)), 350);
        let values: Vec<(String, f32)> = fields(field(&event, 5))
            .iter()
            .map(|(number, value)| {
                assert_eq!(*number, 1);
                let value = fields(value);
                let scalar = f32::from_le_bytes(field(&value, 2).try_into().unwrap());
                (String::from_utf8(field(&value, 1).to_vec()).unwrap(), scalar)
            })
            .collect();
        assert_eq!(values, [("train/loss".to_owned(), 2.5), ("train/lr".to_owned(), 0.0075)]);
    }

    #[test]
    fn histogram_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path(), 0.0, 0).unwrap();
        let mut values: Vec<f32> = (0..=60).map(|i| i as f32 / 10.0 - 1.0).collect(); // -1 to 5
        values.extend([f32::NAN, f32::INFINITY]);
        writer.histogram(1.0, 7, "weights", &values).unwrap();

        let records = records(&fs::read(writer.path()).unwrap());
        let value = fields(field(&fields(field(&fields(&records[2]), 5)), 1));
        assert_eq!(field(&value, 1), b"weights");
        let histogram = fields(field(&value, 5));
        let number = |number| double(field(&histogram, number));
        assert_eq!((number(1), number(2), number(3)), (-1.0, 5.0, 61.0));
        assert!((number(4) - 122.0).abs() < 1e-4); // 61 values with the mean 2
        // Squares: 61 * 2^2 + 2 * 0.01 * (1 + 4 + ... + 30^2) = 244 + 0.02 * 9455
        assert!((number(5) - 433.1).abs() < 1e-3);
        let (limits, counts) = (doubles(field(&histogram, 6)), doubles(field(&histogram, 7)));
        assert_eq!((limits.len(), counts.len()), (30, 30));
        assert!(limits.is_sorted());
        assert_eq!(limits[29], 5.0);
        assert_eq!(counts.iter().sum::<f64>(), 61.0);
        for (i, &count) in counts.iter().enumerate() {
            let low = if i == 0 { f64::NEG_INFINITY } else { limits[i - 1] };
            let inside = |value: &&f32| f64::from(**value) > low && f64::from(**value) <= limits[i];
            assert_eq!(values.iter().filter(inside).count() as f64, count, "bucket {i}");
        }
    }

    #[test]
    fn images_read_back_as_the_plugin_stores_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path(), 0.0, 0).unwrap();
        let picture = tiny_skia::Pixmap::new(30, 20).unwrap().encode_png().unwrap();
        let image = EventImage { tag: "val/confusion", description: "a map", png: &picture };
        writer.image(1.0, 7, &image).unwrap();
        for other in [&b""[..], b"GIF89a", &picture[..20]] {
            let error = writer.image(1.0, 7, &EventImage { png: other, ..image }).unwrap_err();
            assert!(error.to_string().contains("expected a PNG"), "{error}");
        }

        let records = records(&fs::read(writer.path()).unwrap());
        assert_eq!(records.len(), 3);
        let event = fields(&records[2]);
        assert_eq!(integer(field(&event, 2)), 7);
        let value = fields(field(&fields(field(&event, 5)), 1));
        assert_eq!(field(&value, 1), b"val/confusion");
        let metadata = fields(field(&value, 9));
        assert_eq!(fields(field(&metadata, 1)), [(1, b"images".to_vec())]);
        assert_eq!(field(&metadata, 2), b"val/confusion");
        assert_eq!(field(&metadata, 3), b"a map");
        let tensor = fields(field(&value, 8));
        assert_eq!(integer(field(&tensor, 1)), 7, "DT_STRING");
        assert_eq!(integer(field(&fields(field(&fields(field(&tensor, 2)), 2)), 1)), 3);
        let texts: Vec<&[u8]> =
            tensor.iter().filter(|field| field.0 == 8).map(|field| &field.1[..]).collect();
        assert_eq!(texts, [&b"30"[..], b"20", &picture]);
    }

    #[test]
    fn a_second_writer_keeps_the_first_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = EventWriter::create(dir.path(), 5.0, 0).unwrap();
        first.scalars(5.0, 1, &[("loss", 1.0)]).unwrap();
        let bytes = fs::read(first.path()).unwrap();
        let second = EventWriter::create(dir.path(), 5.0, 1).unwrap();
        assert_ne!(first.path(), second.path());
        assert!(first.path() < second.path());
        assert_eq!(fs::read(first.path()).unwrap(), bytes);
    }

    #[test]
    fn a_new_file_is_read_last_whatever_the_clock_says() {
        let ours = |number: &str| format!("events.out.tfevents.{number}.bninception.0");
        for (last, now, number) in [
            ("1700000000.bninception.0", "1700000001", "1700000001"),
            // The same second, also behind more files of that second than one.
            ("1700000000.bninception.0", "1700000000", "1700000001"),
            ("1700000000.bninception.9", "1700000000", "1700000001"),
            // The clock went back.
            ("1700003600.bninception.0", "1700000000", "1700003601"),
            ("1699999999.bninception.0", "1600000000", "1700000000"),
            // Other writers: their numbers, and those of a clock in milliseconds.
            ("1700000005.host.123.0", "1700000000", "1700000006"),
            ("1700000005.host.123.0.v2", "1700000005", "1700000006"),
            ("1700000005v2", "1700000005", "1700000006"),
            ("1700000000123.host", "1700000000", "1700000000124"),
            ("1800000000.host", "1700000000123", "1800000001"),
        ] {
            let last = format!("{PREFIX}{last}");
            let name = name_behind(Some(&last), now);
            assert_eq!(name, ours(number), "{last}");
            assert!(name > last);
        }
        assert_eq!(name_behind(None, "0000000005"), ours("0000000005"));
        for odd in ["9999999999.host", "", "x", "é9"] {
            let last = format!("{PREFIX}{odd}");
            assert!(name_behind(Some(&last), "1700000000") > last, "{odd}");
        }

        // On the disk, with the clock going back each time.
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("zzz.tfevents.of.another.kind"), "").unwrap();
        let mut names = Vec::new();
        for clock in (0..12).map(|nth| 1_700_000_000.0 - 3600.0 * f64::from(nth)) {
            let writer = EventWriter::create(dir.path(), clock, 0).unwrap();
            names.push(writer.path().to_owned());
        }
        assert!(names.is_sorted() && names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    #[test]
    fn errors_are_returned() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(EventWriter::create(&file, 0.0, 0).is_err());
    }
}
