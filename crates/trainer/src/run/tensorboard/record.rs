//! Events as bytes: a row of TFRecords, each an `Event` between checksums
//! (<https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details>).

use prost::Message;

use super::schema::{EventContent, EventMessage};

/// What a file begins with. Version 2 is what lets a reader drop steps.
pub(super) fn version(wall_time: f64) -> Vec<u8> {
    to_bytes(wall_time, 0, EventContent::FileVersion("brain.Event:2".to_owned()))
}

/// The bytes of an event in a file. One write of them leaves no torn record behind a process that is killed.
pub(super) fn to_bytes(wall_time: f64, step: u64, content: EventContent) -> Vec<u8> {
    let step = i64::try_from(step).unwrap_or(i64::MAX);
    let event = EventMessage { wall_time, step, content: Some(content) }.encode_to_vec();
    let length = (event.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(event.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(&event);
    record.extend(masked_crc(&event).to_le_bytes());
    record
}

/// The events of a file up to the first that is torn, damaged, or none.
pub(super) fn read_all(mut bytes: &[u8]) -> Vec<EventMessage> {
    let mut events = Vec::new();
    while let Some((event, rest)) = read_one(bytes) {
        events.push(event);
        bytes = rest;
    }
    events
}

fn read_one(bytes: &[u8]) -> Option<(EventMessage, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (crc_of_length, rest) = rest.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*crc_of_length) != masked_crc(length) {
        return None;
    }
    let (event, rest) = rest.split_at_checked(u64::from_le_bytes(*length).try_into().ok()?)?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*crc) != masked_crc(event) {
        return None;
    }
    Some((EventMessage::decode(event).ok()?, rest))
}

/// The checksum of TFRecord: a CRC of data that holds CRCs is turned and shifted.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_read_back_up_to_the_first_that_is_damaged() {
        let version = |step| to_bytes(1.5, step, EventContent::FileVersion("brain.Event:2".into()));
        let whole = [version(0), version(7)].concat();
        let steps =
            |bytes: &[u8]| -> Vec<i64> { read_all(bytes).iter().map(|event| event.step).collect() };
        assert_eq!(steps(&whole), [0, 7]);
        let first = version(0).len();
        for cut in 0..whole.len() {
            assert_eq!(steps(&whole[..cut]).len(), usize::from(cut >= first), "cut at {cut}");
            let mut damaged = whole.clone();
            damaged[cut] ^= 0x10;
            assert_eq!(steps(&damaged).len(), usize::from(cut >= first), "damaged at {cut}");
        }
        // A length beyond any memory.
        let length = u64::MAX.to_le_bytes();
        let huge = [&length[..], &masked_crc(&length).to_le_bytes(), &[0; 64]].concat();
        assert!(steps(&huge).is_empty());
    }
}
