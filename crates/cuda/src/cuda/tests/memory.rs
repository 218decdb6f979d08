//! Memory of the device and of the host, and copies.

use super::{again, found, get, is_fake, open, put};
use crate::device::{Device, Stream};
use crate::error::DeviceError;

#[test]
fn memory_holds_zeros_at_first() {
    let Some((_turn, mut cuda)) = open() else { return };
    let region = cuda.allocate(1000).unwrap();
    assert_eq!(get(&mut cuda, region), vec![0; 1000]);
    let pinned = cuda.allocate_pinned(1000).unwrap();
    assert_eq!(cuda.pinned(pinned).unwrap(), vec![0; 1000]);
    let nothing = cuda.allocate(0).unwrap();
    cuda.clear(nothing).unwrap();
    let empty = cuda.allocate_pinned(0).unwrap();
    assert_eq!(cuda.pinned(empty).unwrap().len(), 0);
}

#[test]
fn parts_of_memory_are_copied_and_cleared() {
    let Some((_turn, mut cuda)) = open() else { return };
    let bytes: Vec<u8> = (0..=255).collect();
    let region = put(&mut cuda, &bytes);
    cuda.copy(region.slice(0..16), region.slice(100..116)).unwrap();
    cuda.clear(region.slice(3..5)).unwrap();
    let mut wanted = bytes.clone();
    wanted.copy_within(0..16, 100);
    wanted[3..5].fill(0);
    assert_eq!(get(&mut cuda, region), wanted);
}

#[test]
fn memory_of_the_host_is_ready_when_its_copy_is_done() {
    let Some((_turn, mut cuda)) = open() else { return };
    let region = put(&mut cuda, &[7; 64]);
    let pinned = cuda.allocate_pinned(64).unwrap();
    assert!(cuda.is_ready(pinned).unwrap());
    cuda.download(region, pinned, Stream::Copy).unwrap();
    if is_fake() {
        assert!(!cuda.is_ready(pinned).unwrap());
    }
    while !cuda.is_ready(pinned).unwrap() {}
    assert_eq!(cuda.pinned(pinned).unwrap(), [7; 64]);
    // What is written behind a copy does not reach it.
    cuda.pinned_mut(pinned).unwrap().fill(8);
    cuda.upload(pinned, region, Stream::Copy).unwrap();
    cuda.pinned_mut(pinned).unwrap().fill(9);
    cuda.synchronise().unwrap();
    assert_eq!(get(&mut cuda, region), [8; 64]);
}

#[test]
fn copies_of_one_memory_keep_their_order_on_two_streams() {
    let Some((_turn, mut cuda)) = open() else { return };
    let (from, to) = (put(&mut cuda, &[1; 32]), cuda.allocate(32).unwrap());
    cuda.synchronise().unwrap();
    let pinned = cuda.allocate_pinned(32).unwrap();
    for [first, second] in [[Stream::Compute, Stream::Copy], [Stream::Copy, Stream::Compute]] {
        cuda.clear(to).unwrap();
        cuda.synchronise().unwrap();
        cuda.pinned_mut(pinned).unwrap().fill(2);
        cuda.download(from, pinned, first).unwrap();
        cuda.upload(pinned, to, second).unwrap();
        cuda.synchronise().unwrap();
        assert_eq!(get(&mut cuda, to), [1; 32]);
    }
}

#[test]
fn a_buffer_that_does_not_fit_is_told_with_sizes() {
    let Some((_turn, mut cuda)) = open() else { return };
    let wanted = cuda.properties().memory + 1;
    match cuda.allocate(wanted) {
        Err(DeviceError::OutOfMemory { wanted: told, free, total, .. }) => {
            assert!(told >= wanted && free <= total && total == cuda.properties().memory);
        }
        other => panic!("{other:?}"),
    }
    let region = cuda.allocate(100).unwrap();
    assert_eq!(get(&mut cuda, region).len(), 100);
}

#[test]
fn memory_is_given_back() {
    let Some((_turn, mut cuda)) = open() else { return };
    let size = cuda.properties().memory / 4;
    for _ in 0..8 {
        let region = cuda.allocate(size).unwrap();
        cuda.free(region.slice(100..200));
    }
    for _ in 0..8 {
        let mut other = again(found().unwrap());
        other.allocate(size).unwrap(); // and when the device is dropped
    }
}

#[test]
fn memory_is_given_back_when_work_on_it_is_done() {
    let Some((_turn, mut cuda)) = open() else { return };
    let (from, to) = (put(&mut cuda, &[1; 4096]), cuda.allocate(4096).unwrap());
    cuda.copy(from, to).unwrap();
    cuda.free(from);
    assert_eq!(get(&mut cuda, to), [1; 4096]);
}

#[test]
#[should_panic(expected = "no buffer of this device")]
fn memory_that_was_given_back_is_not_used() {
    let Some((_turn, mut cuda)) = open() else {
        panic!("no buffer of this device could be tested")
    };
    let region = cuda.allocate(100).unwrap();
    cuda.free(region);
    let _ = cuda.clear(region);
}

#[test]
#[should_panic(expected = "no buffer of this device")]
fn memory_of_another_device_is_not_used() {
    let Some((_turn, mut cuda)) = open() else {
        panic!("no buffer of this device could be tested")
    };
    let region = again(found().unwrap()).allocate(100).unwrap();
    let _ = cuda.clear(region);
}
