//! The host as a device: memory, captures, convolutions, notes.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use bninception_cuda::convolution::{Convolution, Direction, Operands, Precision};
use bninception_cuda::device::Noting;
use bninception_cuda::launch::Cost;
use bninception_cuda::ops::update;
use bninception_cuda::sources::source;
use bninception_cuda::{Device, DeviceError, Format, Host, Region, Stream};
use common::*;

#[test]
fn memory_is_zeros_aligned_and_counted() {
    let mut device = host(1).with_memory(10_000);
    assert_eq!(device.properties().name, "host");
    let [a, b] = [1, 5000].map(|bytes| device.allocate(bytes).unwrap());
    assert!(get(&mut device, b).iter().all(|&byte| byte == 0));
    assert_eq!(device.free_memory().unwrap(), 4999);
    let error = device.allocate(5000).unwrap_err();
    let DeviceError::OutOfMemory { wanted, free, total, .. } = error else { panic!("{error}") };
    assert_eq!((wanted, free, total), (5000, 4999, 10_000));
    device.free(b.slice(10..20));
    assert_eq!(device.free_memory().unwrap(), 9999);
    let again = device.allocate(5000).unwrap();
    assert!(!again.meets(&b) && !again.meets(&a), "numbers are used once");
}

#[test]
fn more_than_there_is_does_not_fit() {
    assert!(matches!(host(1).allocate(1 << 49), Err(DeviceError::OutOfMemory { .. })));
}

#[test]
#[should_panic(expected = "was given back")]
fn a_region_that_was_given_back_is_refused() {
    let mut device = host(1);
    let region = device.allocate(8).unwrap();
    device.free(region);
    let _ = device.clear(region);
}

#[test]
#[should_panic(expected = "is of another device")]
fn a_region_of_another_device_is_refused() {
    let mut other = host(1);
    let region = other.allocate(8).unwrap();
    let _ = update::settle(&mut host(1), region);
}

#[test]
#[should_panic(expected = "is of another device")]
fn pinned_memory_of_another_device_is_refused() {
    let pinned = host(1).allocate_pinned(8).unwrap();
    let _ = host(1).is_ready(pinned);
}

#[test]
fn copies_go_where_they_should() {
    let mut device = host(1);
    let region = put(&mut device, &[1, 2, 3, 4, 5, 6, 7, 8]);
    device.copy(region.slice(0..3), region.slice(4..7)).unwrap();
    device.clear(region.slice(1..2)).unwrap();
    assert_eq!(get(&mut device, region), [1, 0, 3, 4, 1, 2, 3, 8]);
    let pinned = device.allocate_pinned(8).unwrap();
    device.download(region.slice(6..8), pinned, Stream::Copy).unwrap();
    let event = device.record(Stream::Copy).unwrap();
    device.wait(Stream::Compute, event).unwrap();
    assert!(device.is_ready(pinned).unwrap());
    assert_eq!(device.pinned(pinned).unwrap(), [3, 8, 0, 0, 0, 0, 0, 0]);
    device.free_pinned(pinned);
}

#[test]
#[should_panic(expected = "a copy of")]
fn a_copy_onto_itself_is_refused() {
    let mut device = host(1);
    let region = device.allocate(8).unwrap();
    let _ = device.copy(region.slice(0..4), region.slice(3..7));
}

#[test]
fn a_capture_runs_when_it_is_replayed() {
    let mut device = host(2);
    let [a, b, c] = [1.0, 2.0, 7.0].map(|value| put_f32(&mut device, &[value]));
    let plan = device.plan(&convolution(Direction::Forward, Precision::F32, false)).unwrap();
    let operands = operands(&mut device, &plan.convolution().operand_bytes());
    let mut random = Random::new(1);
    for region in [operands.input, operands.filters] {
        fill(&mut device, region, Format::F32, &mut random);
    }
    device.begin_capture().unwrap();
    update::add(&mut device, a, b).unwrap();
    device.copy(b, c).unwrap();
    device.clear(a).unwrap();
    device.convolve(&plan, &operands).unwrap();
    let graph = device.end_capture().unwrap();
    let values = |device: &mut Host| [a, b, c].map(|region| get_f32(device, region)[0]);
    assert_eq!(values(&mut device), [1.0, 2.0, 7.0]);
    assert!(get_f32(&mut device, operands.output).iter().all(|&value| value == 0.0));
    device.replay(&graph).unwrap();
    assert_eq!(values(&mut device), [0.0, 3.0, 3.0]);
    assert!(get_f32(&mut device, operands.output).iter().all(|&value| value != 0.0));
    write(&mut device, a, &f32s(&[10.0]));
    device.replay(&graph).unwrap();
    assert_eq!(values(&mut device), [0.0, 13.0, 13.0]);

    device.free(c);
    let error = device.replay(&graph).unwrap_err();
    assert!(error.to_string().contains("was given back"), "{error}");
    device.free_graph(graph);
}

#[test]
#[should_panic(expected = "while something is captured")]
fn memory_is_not_given_back_inside_a_capture() {
    let mut device = host(1);
    let region = device.allocate(4).unwrap();
    device.begin_capture().unwrap();
    device.free(region);
}

#[test]
fn what_cannot_be_captured_fails_and_spoils_the_capture() {
    let convolution = convolution(Direction::Forward, Precision::F32, false);
    type Call = Box<dyn Fn(&mut Host) -> Result<(), DeviceError>>;
    let mut device = host(1);
    let (pinned, region) = (device.allocate_pinned(4).unwrap(), device.allocate(4).unwrap());
    let event = device.record(Stream::Copy).unwrap();
    device.begin_capture().unwrap();
    let graph = device.end_capture().unwrap();
    device.begin_capture().unwrap();
    let other = device.end_capture().unwrap();
    let calls: Vec<(&str, Call)> = vec![
        ("upload", Box::new(move |device| device.upload(pinned, region, Stream::Copy))),
        ("download", Box::new(move |device| device.download(region, pinned, Stream::Copy))),
        ("plan", Box::new(move |device| device.plan(&convolution).map(|_| ()))),
        ("synchronise", Box::new(|device| device.synchronise())),
        ("allocate", Box::new(|device| device.allocate(4).map(|_| ()))),
        ("allocate_pinned", Box::new(|device| device.allocate_pinned(4).map(|_| ()))),
        ("record", Box::new(|device| device.record(Stream::Compute).map(|_| ()))),
        ("wait", Box::new(move |device| device.wait(Stream::Compute, event))),
        ("replay", Box::new(move |device| device.replay(&graph))),
        ("begin_capture", Box::new(|device| device.begin_capture())),
    ];
    for (name, call) in calls {
        device.begin_capture().unwrap();
        let error = call(&mut device).unwrap_err();
        assert!(error.to_string().starts_with(name), "{error}");
        device.clear(region).unwrap(); // what could be captured does not mend it
        let error = device.end_capture().unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        device.replay(&other).unwrap();
    }
    assert!(device.end_capture().is_err(), "nothing is captured");
}

fn convolution(direction: Direction, precision: Precision, accumulate: bool) -> Convolution {
    Convolution {
        direction,
        precision,
        batch: 2,
        in_channels: 3,
        out_channels: 2,
        in_height: 5,
        in_width: 4,
        kernel: 3,
        stride: 2,
        pad: 1,
        accumulate,
        deterministic: true,
    }
}

fn operands(device: &mut Host, bytes: &[usize; 3]) -> Operands {
    let [input, filters, output, workspace] =
        [bytes[0], bytes[1], bytes[2], 0].map(|bytes| device.allocate(bytes).unwrap());
    Operands { input, filters, output, workspace }
}

/// Numbers of a format in a region.
fn fill(device: &mut Host, region: Region, format: Format, random: &mut Random) -> Vec<f32> {
    let values = random.values(region.bytes() / format.size(), format);
    let bytes = match format {
        Format::F32 => f32s(&values),
        Format::Bf16 => values.iter().flat_map(|&value| half(value).to_le_bytes()).collect(),
    };
    write(device, region, &bytes);
    values
}

/// What a linear operator and its adjoints have in common: <w * x, y> = <x, w^T y> = <w, x y>.
#[test]
fn convolutions_reach_who_computes_them_with_the_right_operands() {
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        let format = precision.format();
        let mut dots = Vec::new();
        for direction in Direction::ALL {
            let sizes = convolution(direction, precision, false);
            let mut device = host(1);
            let plan = device.plan(&sizes).unwrap();
            assert_eq!(device.plan(&sizes).unwrap(), plan, "asked for before");
            let operands = operands(&mut device, &sizes.operand_bytes());
            let mut random = Random::new(1);
            let formats = match direction {
                Direction::FilterGradient => [format, Format::F32, format],
                _ => [format; 3],
            };
            let regions = [operands.input, operands.filters, operands.output];
            let mut values = Vec::new();
            for region in regions.iter().zip(formats) {
                values.push(fill(&mut device, *region.0, region.1, &mut random));
            }
            // The same numbers in all directions, but for the format of the filters' gradient.
            let mut same = Random::new(1);
            let originals = [sizes.input_len(), sizes.filter_len(), sizes.output_len()]
                .map(|count| same.values(count, format));
            device.convolve(&plan, &operands).unwrap();
            let written = match direction {
                Direction::Forward => 2,
                Direction::InputGradient => 0,
                Direction::FilterGradient => 1,
            };
            let bytes = get(&mut device, regions[written]);
            let found: Vec<f32> = match formats[written] {
                Format::F32 => {
                    bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
                }
                Format::Bf16 => bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|word| f32::from_bits(u32::from(u16::from_le_bytes(*word)) << 16))
                    .collect(),
            };
            let dot: f64 = found
                .iter()
                .zip(&originals[written])
                .map(|(&a, &b)| f64::from(a) * f64::from(b))
                .sum();
            dots.push(dot);
        }
        let near = |a: f64, b: f64| (a - b).abs() < 0.1;
        assert!(
            near(dots[0], dots[1]) && near(dots[0], dots[2]) && dots[0].abs() > 1.0,
            "{dots:?}"
        );
    }
}

#[test]
fn a_convolution_that_accumulates_adds() {
    let mut device = host(1);
    let sizes = convolution(Direction::FilterGradient, Precision::F32, true);
    let once = Convolution { accumulate: false, ..sizes };
    let (plan, once) = (device.plan(&sizes).unwrap(), device.plan(&once).unwrap());
    let operands = operands(&mut device, &sizes.operand_bytes());
    let mut random = Random::new(2);
    for region in [operands.input, operands.output] {
        fill(&mut device, region, Format::F32, &mut random);
    }
    device.convolve(&once, &operands).unwrap();
    let first = get_f32(&mut device, operands.filters);
    device.convolve(&plan, &operands).unwrap();
    let twice: Vec<f64> = first.iter().map(|&value| 2.0 * f64::from(value)).collect();
    expect_near(&get_f32(&mut device, operands.filters), &twice, Format::F32, 0.0);
}

#[test]
#[should_panic(expected = "of the output")]
fn a_convolution_needs_all_of_its_operands() {
    let mut device = host(1);
    let sizes = convolution(Direction::Forward, Precision::F32, false);
    let plan = device.plan(&sizes).unwrap();
    let all = operands(&mut device, &sizes.operand_bytes());
    let output = all.output.slice(0..all.output.bytes() - 4);
    let _ = device.convolve(&plan, &Operands { output, ..all });
}

#[test]
#[should_panic(expected = "in place")]
fn a_convolution_does_not_write_what_it_reads() {
    let mut device = host(1);
    let sizes = convolution(Direction::Forward, Precision::F32, false);
    let plan = device.plan(&sizes).unwrap();
    let all = operands(&mut device, &sizes.operand_bytes());
    let _ = device.convolve(&plan, &Operands { output: all.input, ..all });
}

#[test]
fn notes_tell_what_was_started() {
    let mut device = host(1);
    let region = device.allocate(4000).unwrap();
    let sizes = convolution(Direction::InputGradient, Precision::Bf16, true);
    let plan = device.plan(&sizes).unwrap();
    let operands = operands(&mut device, &sizes.operand_bytes());
    update::divide(&mut device, region, 2.0).unwrap();
    assert!(device.notes().is_empty());
    device.note(Noting::Starts);
    device.label(7);
    update::divide(&mut device, region, 2.0).unwrap();
    device.note(Noting::Times);
    device.label(8);
    device.convolve(&plan, &operands).unwrap();
    device.begin_capture().unwrap();
    update::divide(&mut device, region, 2.0).unwrap();
    let graph = device.end_capture().unwrap();
    device.replay(&graph).unwrap();
    let notes = device.notes();
    let told: Vec<_> =
        notes.iter().map(|note| (note.label, note.kernel.as_str(), note.time.is_some())).collect();
    assert_eq!(
        told,
        [(7, "divide", false), (8, "convolution input gradient", true), (8, "divide", false)]
    );
    assert_eq!(notes[0].cost, Cost { bytes: 8000, operations: 1000 });
    // Input twice, filters, output: bf16; two operations for each product.
    let bytes = 2 * (2 * 120 + 54 + 2 * 3 * 2 * 2);
    assert_eq!(notes[1].cost, Cost { bytes, operations: 2 * 2 * 3 * 2 * 2 * 27 });
    assert!(device.notes().is_empty());
}

#[test]
fn the_program_needs_no_header() {
    assert!(!source().contains("#include"), "NVRTC finds none");
}
