//! Event files for TensorBoard: scalars and histograms.
//!
//! An event file is a row of TFRecords, each the protocol buffer `Event`:
//! - framing: <https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details>
//! - messages: `event.proto` and `summary.proto` of
//!   <https://github.com/tensorflow/tensorboard/tree/master/tensorboard/compat/proto>
//!
//! A handful of fields is all that is needed, so they are encoded here by hand. A record reaches the
//! system in one write and nothing waits in a buffer: a run that is killed leaves no torn record
//! unless the machine itself goes down.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes one event file.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
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
        // Version 2 is what lets a reader drop steps.
        writer.write(&event(wall_time, 0, FILE_VERSION, b"brain.Event:2"))?;
        let mut session_log = Vec::new();
        put_varint_field(&mut session_log, 1, SESSION_START);
        // A reader drops this step and what follows it.
        writer.write(&event(wall_time, step + 1, SESSION_LOG, &session_log))?;
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
        let mut summary = Vec::new();
        for &(tag, scalar) in scalars {
            let mut value = Vec::new();
            put_bytes_field(&mut value, 1, tag.as_bytes());
            put_float_field(&mut value, 2, scalar as f32);
            put_bytes_field(&mut summary, 1, &value);
        }
        self.write(&event(wall_time, step, SUMMARY, &summary))
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
        let Some(histogram) = Histogram::new(values) else {
            return Ok(());
        };
        let mut value = Vec::new();
        put_bytes_field(&mut value, 1, tag.as_bytes());
        put_bytes_field(&mut value, 5, &histogram.encode());
        let mut summary = Vec::new();
        put_bytes_field(&mut summary, 1, &value);
        self.write(&event(wall_time, step, SUMMARY, &summary))
    }

    fn write(&mut self, event: &[u8]) -> io::Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(event.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(event);
        record.extend(masked_crc(event).to_le_bytes());
        self.file.write_all(&record)
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

/// The checksum of TFRecord: a CRC of data that holds CRCs is turned and shifted.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

// Fields of `Event`.
const FILE_VERSION: u32 = 3;
const SUMMARY: u32 = 5;
const SESSION_LOG: u32 = 7;

/// `SessionLog.SessionStatus.START`.
const SESSION_START: u64 = 1;

fn event(wall_time: f64, step: u64, field: u32, content: &[u8]) -> Vec<u8> {
    let mut event = Vec::with_capacity(content.len() + 32);
    put_double_field(&mut event, 1, wall_time);
    put_varint_field(&mut event, 2, step);
    put_bytes_field(&mut event, field, content);
    event
}

// Protocol buffers: a field is its number and wire type, then its content.
// https://protobuf.dev/programming-guides/encoding/

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_key(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    put_varint(out, u64::from(field << 3 | wire_type));
}

fn put_varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    put_key(out, field, 0);
    put_varint(out, value);
}

fn put_double_field(out: &mut Vec<u8>, field: u32, value: f64) {
    put_key(out, field, 1);
    out.extend(value.to_le_bytes());
}

fn put_float_field(out: &mut Vec<u8>, field: u32, value: f32) {
    put_key(out, field, 5);
    out.extend(value.to_le_bytes());
}

fn put_bytes_field(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_key(out, field, 2);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put_doubles_field(out: &mut Vec<u8>, field: u32, values: &[f64]) {
    put_key(out, field, 2);
    put_varint(out, values.len() as u64 * 8);
    values.iter().for_each(|value| out.extend(value.to_le_bytes()));
}

/// `HistogramProto`. Bucket i holds the values from `limits[i - 1]`, not included, to `limits[i]`.
struct Histogram {
    min: f64,
    max: f64,
    num: f64,
    sum: f64,
    sum_squares: f64,
    limits: Vec<f64>,
    counts: Vec<f64>,
}

impl Histogram {
    /// Buckets of equal width from the least to the greatest value. TensorBoard's panel shows 30.
    const BUCKETS: usize = 30;

    /// `None` when no value is finite.
    fn new(values: &[f32]) -> Option<Histogram> {
        let finite =
            || values.iter().filter(|value| value.is_finite()).map(|&value| f64::from(value));
        let min = finite().reduce(f64::min)?;
        let max = finite().reduce(f64::max)?;
        let width = (max - min) / Self::BUCKETS as f64;
        let mut histogram = Histogram {
            min,
            max,
            num: 0.0,
            sum: 0.0,
            sum_squares: 0.0,
            limits: (1..=Self::BUCKETS).map(|i| min + width * i as f64).collect(),
            counts: vec![0.0; Self::BUCKETS],
        };
        // Rounding must not leave the greatest value above the last limit.
        histogram.limits[Self::BUCKETS - 1] = max;
        for value in finite() {
            histogram.num += 1.0;
            histogram.sum += value;
            histogram.sum_squares += value * value;
            let bucket = histogram.limits.partition_point(|&limit| limit < value);
            histogram.counts[bucket] += 1.0;
        }
        Some(histogram)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_double_field(&mut out, 1, self.min);
        put_double_field(&mut out, 2, self.max);
        put_double_field(&mut out, 3, self.num);
        put_double_field(&mut out, 4, self.sum);
        put_double_field(&mut out, 5, self.sum_squares);
        put_doubles_field(&mut out, 6, &self.limits);
        put_doubles_field(&mut out, 7, &self.counts);
        out
    }
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
    fn histograms_of_odd_values() {
        let constant = Histogram::new(&[0.25; 9]).unwrap();
        assert_eq!((constant.min, constant.max, constant.num), (0.25, 0.25, 9.0));
        assert_eq!(constant.counts.iter().sum::<f64>(), 9.0);
        let widest = Histogram::new(&[f32::MIN, f32::MAX]).unwrap();
        assert_eq!((widest.counts[0], widest.counts[29]), (1.0, 1.0));
        assert!(Histogram::new(&[]).is_none());
        assert!(Histogram::new(&[f32::NAN]).is_none());
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
