//! Convolutions, and the choice of their engines.

use std::fs;

use super::super::{Cuda, convolutions};
use super::{bytes_of, convolution, floats, found, get, halves, is_fake, open, put, turn, wide};
use crate::compile::Cache;
use crate::convolution::{Convolution, Direction, Operands, Precision};
use crate::device::Device;
use crate::memory::Region;

/// What it gives, by its definition.
fn by_definition(sizes: &Convolution, operands: &[Vec<f32>; 3], before: &[f32]) -> Vec<f32> {
    let [input, filters, output] = operands;
    let mut sums = vec![0f64; before.len()];
    let (rows, columns) = (sizes.out_height(), sizes.out_width());
    for n in 0..sizes.batch {
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |c| (row, c))) {
            for (r, s) in (0..sizes.kernel).flat_map(|r| (0..sizes.kernel).map(move |s| (r, s))) {
                let (h, w) = (row * sizes.stride + r, column * sizes.stride + s);
                let inside = sizes.pad..sizes.pad + sizes.in_height;
                let inside_columns = sizes.pad..sizes.pad + sizes.in_width;
                if !inside.contains(&h) || !inside_columns.contains(&w) {
                    continue;
                }
                let (h, w) = (h - sizes.pad, w - sizes.pad);
                for k in 0..sizes.out_channels {
                    for c in 0..sizes.in_channels {
                        let x = ((n * sizes.in_height + h) * sizes.in_width + w)
                            * sizes.in_channels
                            + c;
                        let f = ((k * sizes.kernel + r) * sizes.kernel + s) * sizes.in_channels + c;
                        let y = ((n * rows + row) * columns + column) * sizes.out_channels + k;
                        let (at, product) = match sizes.direction {
                            Direction::Forward => (y, input[x] * filters[f]),
                            Direction::InputGradient => (x, output[y] * filters[f]),
                            Direction::FilterGradient => (f, output[y] * input[x]),
                        };
                        sums[at] += f64::from(product);
                    }
                }
            }
        }
    }
    let added = |(sum, before): (&f64, &f32)| {
        (*sum + if sizes.accumulate { f64::from(*before) } else { 0.0 }) as f32
    };
    sums.iter().zip(before).map(added).collect()
}

/// Small numbers that all formats hold exactly.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7 + seed * 13 + i / 11) % 9) as f32 / 4.0 - 1.0).collect()
}

#[test]
fn convolutions_give_what_their_definition_says() {
    let Some((_turn, mut cuda)) = open() else { return };
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        for direction in Direction::ALL {
            for (accumulate, deterministic) in [(false, false), (true, false), (true, true)] {
                let sizes =
                    Convolution { accumulate, deterministic, ..convolution(direction, precision) };
                let lens = [sizes.input_len(), sizes.filter_len(), sizes.output_len()];
                let values = [numbers(lens[0], 1), numbers(lens[1], 2), numbers(lens[2], 3)];
                let is_wide = |operand: usize| sizes.operand_bytes()[operand] == lens[operand] * 4;
                let regions = [0, 1, 2].map(|operand| {
                    let values = &values[operand];
                    let bytes = if is_wide(operand) { bytes_of(values) } else { halves(values) };
                    put(&mut cuda, &bytes)
                });
                let plan = cuda.plan(&sizes).unwrap();
                assert_eq!(cuda.plan(&sizes).unwrap(), plan);
                // What an earlier convolution left there does not count.
                let workspace = put(&mut cuda, &vec![0x3F; plan.workspace()]);
                let [input, filters, output] = regions;
                cuda.convolve(&plan, &Operands { input, filters, output, workspace }).unwrap();
                let written = match direction {
                    Direction::Forward => 2,
                    Direction::InputGradient => 0,
                    Direction::FilterGradient => 1,
                };
                let bytes = get(&mut cuda, regions[written]);
                let result = if is_wide(written) { floats(&bytes) } else { wide(&bytes) };
                let wanted = by_definition(&sizes, &values, &values[written]);
                // One rounding to the format of the result, and for bf16 one more where that is widened.
                let tolerance = if precision == Precision::Bf16 { 2f32.powi(-7) } else { 1e-5 };
                for (result, wanted) in result.iter().zip(&wanted) {
                    let error = (result - wanted).abs();
                    assert!(
                        error <= tolerance * wanted.abs().max(1.0),
                        "{sizes}: {result}, {wanted}"
                    );
                }
                assert_eq!(result.len(), wanted.len());
            }
        }
    }
}

#[test]
fn the_fastest_engine_that_may_compute_a_convolution_is_chosen() {
    let Some((_turn, mut cuda)) = open().filter(|_| is_fake()) else { return };
    let mut engine = |precision, deterministic| {
        let sizes =
            Convolution { deterministic, ..convolution(Direction::FilterGradient, precision) };
        let plan = cuda.plan(&sizes).unwrap();
        cuda.convolutions.engine(&plan).engine.index
    };
    // 11 is the fastest, on tensor cores, in no fixed order; 12 is slow and exact; 13 is fast, on tensor cores.
    assert_eq!(engine(Precision::Tf32, false), 11);
    assert_eq!(engine(Precision::Bf16, false), 11);
    assert_eq!(engine(Precision::F32, false), 12);
    // Nothing is timed: the first of those that are left.
    assert_eq!(engine(Precision::Bf16, true), 12);
}

#[test]
fn a_choice_is_kept_between_runs() {
    let Some(found) = found().filter(|found| found.is_fake) else { return };
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let sizes = convolution(Direction::Forward, Precision::Bf16);
    let index = |cuda: &mut Cuda| {
        let plan = cuda.plan(&sizes).unwrap();
        cuda.convolutions.engine(&plan).engine.index
    };
    let mut cuda = Cuda::open(0, &found.libraries, &cache).unwrap();
    assert_eq!(index(&mut cuda), 11);
    let files: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(files.iter().any(|name| name.starts_with("kernels-sm_90-")), "{files:?}");
    let name = files.iter().find(|name| name.starts_with("engines-")).unwrap();
    // As if another engine had been the fastest.
    cache.write(name, format!("2 13 4000 {sizes:?}\n").as_bytes());
    assert_eq!(index(&mut Cuda::open(0, &found.libraries, &cache).unwrap()), 13);
    // An entry that does not fit the candidates is of no use.
    cache.write(name, format!("2 13 4001 {sizes:?}\n").as_bytes());
    assert_eq!(index(&mut Cuda::open(0, &found.libraries, &cache).unwrap()), 11);
}

#[test]
fn without_memory_to_time_engines_the_first_is_taken() {
    let Some((_turn, mut cuda)) = open().filter(|_| is_fake()) else { return };
    let sizes = convolution(Direction::Forward, Precision::Bf16);
    let almost_all = cuda.free_memory().unwrap() - 4096;
    cuda.allocate(almost_all).unwrap();
    let plan = cuda.plan(&sizes).unwrap();
    assert_eq!(cuda.convolutions.engine(&plan).engine.index, 11);
}

#[test]
fn a_gradient_in_bf16_lies_behind_the_engines_scratch() {
    let sizes = convolution(Direction::FilterGradient, Precision::Bf16);
    assert_eq!(convolutions::scratch(&sizes, 1000), (1024, 1024 + 16 * 9 * 8 * 2));
    let sizes = convolution(Direction::FilterGradient, Precision::Tf32);
    assert_eq!(convolutions::scratch(&sizes, 1000).1, 1000);
}

#[test]
#[should_panic(expected = "begins at")]
fn operands_that_are_not_aligned_are_refused() {
    let Some((_turn, mut cuda)) = open() else { panic!("nothing begins at a device") };
    let sizes = convolution(Direction::Forward, Precision::F32);
    let plan = cuda.plan(&sizes).unwrap();
    let operands = sizes.operand_bytes().map(|bytes| cuda.allocate(bytes + 4).unwrap());
    let workspace = cuda.allocate(plan.workspace()).unwrap();
    let [input, filters, output] = operands.map(|region| region.slice(4..region.bytes()));
    let _ = cuda.convolve(&plan, &Operands { input, filters, output, workspace });
}

#[test]
fn an_engine_without_scratch_needs_no_workspace() {
    let Some((_turn, mut cuda)) = open().filter(|_| is_fake()) else { return };
    // Exact, with sums in a fixed order, and nothing in mode A that is both: the engine of the other list.
    let sizes = Convolution { in_channels: 3, ..convolution(Direction::Forward, Precision::F32) };
    let plan = cuda.plan(&sizes).unwrap();
    assert_eq!(plan.workspace(), 0);
    let [input, filters, output] = sizes.operand_bytes().map(|bytes| cuda.allocate(bytes).unwrap());
    let operands = Operands { input, filters, output, workspace: Region::none() };
    cuda.begin_capture().unwrap();
    cuda.convolve(&plan, &operands).unwrap();
    let graph = cuda.end_capture().unwrap();
    cuda.replay(&graph).unwrap();
    assert_eq!(get(&mut cuda, output), vec![0; output.bytes()]);
}
