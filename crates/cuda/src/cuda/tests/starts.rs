//! What is started: kernels, events, captures, notes.

use std::thread;

use super::{bytes_of, convolution, floats, found, get, halves, open, put};
use crate::convolution::{Direction, Operands, Precision};
use crate::device::{Device, Noting, Stream};
use crate::libraries::LibraryName;
use crate::ops::{layout, update};

#[test]
fn streams_wait_for_events() {
    let Some((_turn, mut cuda)) = open() else { return };
    let sum = put(&mut cuda, &bytes_of(&[1.0; 64]));
    let values = cuda.allocate(256).unwrap();
    let (up, down) = (cuda.allocate_pinned(256).unwrap(), cuda.allocate_pinned(256).unwrap());
    cuda.pinned_mut(up).unwrap().copy_from_slice(&bytes_of(&[2.0; 64]));
    cuda.upload(up, values, Stream::Copy).unwrap();
    let copied = cuda.record(Stream::Copy).unwrap();
    cuda.wait(Stream::Compute, copied).unwrap();
    update::add(&mut cuda, values, sum).unwrap();
    let added = cuda.record(Stream::Compute).unwrap();
    cuda.wait(Stream::Copy, added).unwrap();
    cuda.download(sum, down, Stream::Copy).unwrap();
    assert_eq!(floats(cuda.pinned(down).unwrap()), [3.0; 64]);
}

#[test]
fn events_that_were_given_back_are_used_again_and_tell_times() {
    let Some((_turn, mut cuda)) = open() else { return };
    let first = cuda.record(Stream::Compute).unwrap();
    for _ in 0..100 {
        let event = cuda.record(Stream::Copy).unwrap();
        cuda.wait(Stream::Compute, event).unwrap();
        cuda.free_event(event);
    }
    let last = cuda.record(Stream::Compute).unwrap();
    assert_eq!(cuda.events.len(), 2);
    assert!(cuda.elapsed(first, last).is_ok());
    cuda.free_event(first);
    cuda.free_event(last);
    cuda.synchronise().unwrap();
}

#[test]
fn kernels_get_their_arguments() {
    let Some((_turn, mut cuda)) = open() else { return };
    let values: Vec<f32> = (0..5000u16).map(|value| f32::from(value % 128) - 64.0).collect();
    let narrow = put(&mut cuda, &halves(&values));
    let sum = put(&mut cuda, &bytes_of(&vec![0.5; 5000]));
    layout::from_bf16(&mut cuda, narrow, sum, true).unwrap();
    let wanted: Vec<f32> = values.iter().map(|value| value + 0.5).collect();
    assert_eq!(floats(&get(&mut cuda, sum)), wanted);
    layout::from_bf16(&mut cuda, narrow, sum, false).unwrap();
    assert_eq!(floats(&get(&mut cuda, sum)), values);
    update::divide(&mut cuda, sum, 4.0).unwrap();
    let wanted: Vec<f32> = values.iter().map(|value| value / 4.0).collect();
    assert_eq!(floats(&get(&mut cuda, sum)), wanted);
}

#[test]
fn what_is_captured_runs_when_it_is_replayed() {
    let Some((_turn, mut cuda)) = open() else { return };
    let (values, sum) =
        (put(&mut cuda, &bytes_of(&[1.0; 64])), put(&mut cuda, &bytes_of(&[10.0; 64])));
    let copy = cuda.allocate(256).unwrap();
    let sizes = convolution(Direction::FilterGradient, Precision::Bf16);
    let plan = cuda.plan(&sizes).unwrap();
    let [input, filters, output] = sizes.operand_bytes();
    let input = put(&mut cuda, &halves(&vec![1.0; input / 2]));
    let filters = cuda.allocate(filters).unwrap();
    let output = put(&mut cuda, &halves(&vec![1.0; output / 2]));
    let workspace = cuda.allocate(plan.workspace()).unwrap();
    cuda.begin_capture().unwrap();
    update::add(&mut cuda, values, sum).unwrap();
    cuda.copy(sum, copy).unwrap();
    cuda.convolve(&plan, &Operands { input, filters, output, workspace }).unwrap();
    let graph = cuda.end_capture().unwrap();
    assert_eq!(floats(&get(&mut cuda, sum)), [10.0; 64]);
    for _ in 0..3 {
        cuda.replay(&graph).unwrap();
    }
    assert_eq!(floats(&get(&mut cuda, copy)), [13.0; 64]);
    // The middle of a filter meets each place of the output of two images.
    let gradient = floats(&get(&mut cuda, filters));
    assert_eq!(gradient[4 * 8], (2 * sizes.out_height() * sizes.out_width()) as f32);
    cuda.free(copy);
    let error = cuda.replay(&graph).unwrap_err();
    assert!(error.to_string().contains("given back"), "{error}");
    cuda.free_graph(graph);
}

#[test]
fn what_cannot_be_captured_is_refused_and_so_is_the_capture() {
    let Some((_turn, mut cuda)) = open() else { return };
    let region = cuda.allocate(64).unwrap();
    let pinned = cuda.allocate_pinned(64).unwrap();
    assert!(cuda.end_capture().is_err());
    cuda.begin_capture().unwrap();
    assert!(cuda.upload(pinned, region, Stream::Compute).is_err());
    let error = cuda.end_capture().unwrap_err();
    assert!(error.to_string().contains("upload cannot be captured"), "{error}");
    cuda.begin_capture().unwrap();
    for error in [
        cuda.begin_capture().unwrap_err(),
        cuda.allocate(1).unwrap_err(),
        cuda.synchronise().unwrap_err(),
        cuda.record(Stream::Compute).unwrap_err(),
    ] {
        assert!(error.to_string().contains("cannot be captured"), "{error}");
    }
    assert!(cuda.end_capture().is_err());
    cuda.begin_capture().unwrap();
    cuda.clear(region).unwrap();
    let graph = cuda.end_capture().unwrap();
    cuda.replay(&graph).unwrap();
    cuda.synchronise().unwrap();
}

#[test]
fn starts_are_noted_with_their_cost_and_time() {
    let Some((_turn, mut cuda)) = open() else { return };
    let (values, sum) = (cuda.allocate(256).unwrap(), cuda.allocate(256).unwrap());
    update::add(&mut cuda, values, sum).unwrap();
    assert!(cuda.notes().is_empty());
    cuda.note(Noting::Starts);
    cuda.label(5);
    update::add(&mut cuda, values, sum).unwrap();
    cuda.note(Noting::Times);
    cuda.label(6);
    update::add(&mut cuda, values, sum).unwrap();
    cuda.begin_capture().unwrap();
    update::add(&mut cuda, values, sum).unwrap();
    cuda.end_capture().unwrap();
    let notes = cuda.notes();
    let seen: Vec<_> =
        notes.iter().map(|note| (note.label, &*note.kernel, note.cost.bytes)).collect();
    assert_eq!(seen, [(5, "add", 768), (6, "add", 768), (6, "add", 768)]);
    assert_eq!(notes[0].time, None);
    assert!(notes[1].time.is_some_and(|time| !time.is_zero()));
    assert_eq!(notes[2].time, None);
    assert!(cuda.notes().is_empty());
}

#[test]
fn a_device_moves_to_another_thread() {
    let Some((_turn, mut cuda)) = open() else { return };
    let region = put(&mut cuda, &bytes_of(&[2.0; 64]));
    let cuda = thread::spawn(move || {
        let mut cuda = cuda;
        update::divide(&mut cuda, region, 2.0).unwrap();
        assert_eq!(floats(&get(&mut cuda, region)), [1.0; 64]);
        cuda
    });
    drop(cuda.join().unwrap());
    if let Some(found) = found().filter(|found| found.is_fake) {
        let driver = found.libraries.get(LibraryName::Driver).unwrap();
        // SAFETY: the fake declares it so.
        let calls = unsafe {
            let count: unsafe extern "C" fn() -> std::ffi::c_long =
                driver.library.function("fake_calls_without_context").unwrap();
            count()
        };
        assert_eq!(calls, 0, "calls without a current context");
    }
}
