//! Speed of every convolution direction on the network's shapes, beside the machine's peak.
//!
//! `cargo run --release -p bninception-kernels --example conv_bench -- [threads [batch [filter]]]`
//! checks a sample of each answer against the definition, then prints GFLOP/s (2 per
//! multiply-accumulate of the direct algorithm, whatever the algorithm; the median of several runs)
//! and, in brackets, percent of the peak of fused multiply-adds, measured around each row. The last
//! column is the time to pack the weights for both directions that read them.
//! `filter` picks the rows whose name contains it.
#![allow(unsafe_code)] // the peak is measured with intrinsics
#![allow(clippy::print_stdout)] // a benchmark's result

use bninception_kernels::conv::reference::{backward_input_at, backward_weights_at, forward_at};
use bninception_kernels::conv::{Algorithm, Algorithms, BLOCK, Conv, ConvShape, Epilogue, View};
use bninception_kernels::isa::Isa;
use bninception_kernels::map::Map;
use bninception_kernels::threads::Team;
use std::hint::black_box;
use std::time::Instant;

/// (input channels, output channels, input size, filter, stride, padding) at 224 pixels, and the
/// maps that 64 and 32 pixels lead to.
const SHAPES: &[(usize, usize, usize, usize, usize, usize)] = &[
    (3, 64, 224, 7, 2, 3),
    (64, 64, 56, 1, 1, 0),
    (64, 192, 56, 3, 1, 1),
    (192, 160, 28, 1, 1, 0),
    (320, 192, 28, 1, 1, 0),
    (64, 96, 28, 3, 1, 1),
    (96, 96, 28, 3, 1, 1),
    (128, 160, 28, 3, 2, 1),
    (576, 128, 14, 1, 1, 0),
    (576, 384, 14, 1, 1, 0),
    (64, 96, 14, 3, 1, 1),
    (128, 160, 14, 3, 1, 1),
    (192, 256, 14, 3, 1, 1),
    (256, 256, 14, 3, 2, 1),
    (1024, 352, 7, 1, 1, 0),
    (160, 224, 7, 3, 1, 1),
    (192, 320, 7, 3, 1, 1),
    (64, 192, 16, 3, 1, 1),
    (96, 96, 8, 3, 1, 1),
    (576, 128, 4, 1, 1, 0),
    (128, 160, 4, 3, 1, 1),
    (192, 256, 4, 3, 1, 1),
    (256, 256, 4, 3, 2, 1),
    (1024, 352, 2, 1, 1, 0),
    (192, 320, 2, 3, 1, 1),
    (1024, 352, 1, 1, 1, 0),
    (192, 320, 1, 3, 1, 1),
];

/// A buffer that starts on a cache line.
#[derive(Clone)]
struct Aligned(Vec<Line>, usize);

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl Aligned {
    fn new(len: usize) -> Aligned {
        Aligned(vec![Line([0.0; 16]); len.div_ceil(16)], len)
    }

    fn get(&self) -> &[f32] {
        // SAFETY: a line is 16 contiguous values, and there are enough lines.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.1) }
    }

    fn get_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.1) }
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = |default| args.next().and_then(|a| a.parse().ok()).unwrap_or(default);
    let (threads, batch) = (number(1), number(32));
    let filter = std::env::args().nth(3).unwrap_or_default();
    let isa = Isa::chosen();
    let team = Team::new(threads);
    println!("{} with {threads} threads, batch {batch}", isa.name());
    println!("{:28} {:>6} {:>14} {:>14} {:>14} {:>8}", "", "peak", "y", "dx", "dw", "pack/us");
    for &(c, k, size, kernel, stride, pad) in SHAPES {
        let shape = ConvShape {
            batch,
            in_channels: c,
            out_channels: k,
            in_height: size,
            in_width: size,
            kernel,
            stride,
            pad,
        };
        for algorithm in [Algorithm::Direct, Algorithm::Winograd] {
            let name = format!("{c}->{k} {kernel}x{kernel}/{stride} @{size} {algorithm:?}");
            if algorithm.supports(&shape) && name.contains(&filter) {
                row(&name, shape, isa, &team, algorithm);
            }
        }
    }
}

fn row(name: &str, shape: ConvShape, isa: Isa, team: &Team, algorithm: Algorithm) {
    let conv = Conv::with_algorithms(shape, isa, team.len(), Algorithms::all(algorithm));
    let (in_map, out_map) = (shape.in_map(), shape.out_map());
    let (xv, yv) = (View::whole(&in_map), View::whole(&out_map));
    let images = values(shape.batch * shape.in_channels * shape.in_height * shape.in_width);
    let gradients = values(shape.batch * out_map.channels * out_map.height * out_map.width);
    let weights = values(shape.weights());
    let mut packed = Aligned::new(conv.packed_len());
    let mut pack_time = median(|| conv.pack(team, &[&weights], packed.get_mut()));
    let mut x = Aligned::new(in_map.buffer(shape.batch).max(conv.image_len()));
    if shape.reads_image() {
        conv.pack_image(team, &images, x.get_mut());
    } else {
        block(&in_map, &images, x.get_mut());
    }
    let mut y = Aligned::new(out_map.buffer(shape.batch));
    let mut dy = y.clone();
    block(&out_map, &gradients, dy.get_mut());
    let mut ws = Aligned::new(conv.workspace_len());
    let mut dx = Aligned::new(in_map.buffer(shape.batch));
    let mut dw = Aligned::new(shape.weights());
    let mut packed_backward = Aligned::new(conv.packed_backward_len());
    let backward = !shape.reads_image();
    if backward {
        let pack = || conv.pack_backward(team, &[&weights], packed_backward.get_mut());
        pack_time += median(pack);
    }

    let mut forward = || {
        let (x, packed) = (x.get(), packed.get());
        conv.forward(team, x, xv, packed, y.get_mut(), yv, Epilogue::None, ws.get_mut());
    };
    forward();
    let mut peak = peak(isa, team);
    let forward_time = median(forward);
    let mut input_time = f64::NAN;
    if backward {
        let mut run = || {
            let (packed, dx, ws) = (packed_backward.get(), dx.get_mut(), ws.get_mut());
            conv.backward_input(team, dy.get(), yv, packed, dx, xv, false, ws);
        };
        run();
        input_time = median(run);
    }
    let mut run = || {
        let dw = &mut [dw.get_mut()];
        conv.backward_weights(team, x.get(), xv, dy.get(), yv, dw, ws.get_mut());
    };
    run();
    let weights_time = median(run);
    peak = peak.max(self::peak(isa, team));
    check(&shape, &images, &gradients, &weights, y.get(), backward.then(|| dx.get()), dw.get());
    let show = |seconds: f64| {
        let speed = 2.0 * shape.macs() as f64 / seconds / 1e9;
        format!("{speed:6.1} ({:3.0} %)", 100.0 * speed / peak)
    };
    let dx = if backward { show(input_time) } else { "-".into() };
    let (y, dw) = (show(forward_time), show(weights_time));
    let pack = 1e6 * pack_time;
    println!("{name:28} {peak:6.1} {y:>14} {dx:>14} {dw:>14} {pack:8.0}");
}

/// Values in -1..1 of no pattern that matters.
fn values(len: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// (n, c, row, column) of element `index` of an NCHW tensor.
fn split(map: &Map, index: usize) -> (usize, usize, usize, usize) {
    let (rest, column) = (index / map.width, index % map.width);
    let (rest, row) = (rest / map.height, rest % map.height);
    (rest / map.channels, rest % map.channels, row, column)
}

fn element(map: &Map, (n, c, row, column): (usize, usize, usize, usize)) -> usize {
    n * map.image() + c / BLOCK * map.plane() + map.pixel(row, column) + c % BLOCK
}

fn block(map: &Map, from: &[f32], to: &mut [f32]) {
    for (index, value) in from.iter().enumerate() {
        to[element(map, split(map, index))] = *value;
    }
}

/// Holds a sample of every answer against the definition; the tests say what the tolerance means.
fn check(
    s: &ConvShape,
    x: &[f32],
    dy: &[f32],
    w: &[f32],
    found_y: &[f32],
    found_dx: Option<&[f32]>,
    found_dw: &[f32],
) {
    let compare = |what: &str, pairs: Vec<(f64, f64)>| {
        let scale = pairs.iter().map(|p| p.1.abs()).fold(0.0, f64::max);
        let worst = pairs.iter().map(|p| (p.0 - p.1).abs()).fold(0.0, f64::max);
        assert!(worst <= 1e-4 * scale, "{what} is off by {worst} of {scale}: {s:?}");
    };
    let sample = |len: usize| (0..60).map(move |i| (len - 1) * i / 59);
    let (in_map, out_map) = (s.in_map(), s.out_map());
    let filter = Map { channels: s.in_channels, height: s.kernel, width: s.kernel, block: BLOCK };
    let y = sample(dy.len()).map(|index| {
        let (n, k, row, column) = split(&out_map, index);
        let found = found_y[element(&out_map, (n, k, row, column))];
        (f64::from(found), forward_at(s, x, w, n, k, row, column))
    });
    compare("y", y.collect());
    if let Some(found_dx) = found_dx {
        let dx = sample(x.len()).map(|index| {
            let (n, c, row, column) = split(&in_map, index);
            let found = found_dx[element(&in_map, (n, c, row, column))];
            (f64::from(found), backward_input_at(s, dy, w, n, c, row, column))
        });
        compare("dx", dx.collect());
    }
    let dw = sample(found_dw.len()).map(|index| {
        let (k, c, r, q) = split(&filter, index);
        (f64::from(found_dw[index]), backward_weights_at(s, x, dy, k, c, r, q))
    });
    compare("dw", dw.collect());
}

/// Median seconds of at least five runs and a fifth of a second.
fn median(mut run: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < 5 || start.elapsed().as_secs_f64() < 0.2 {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The best GFLOP/s of independent fused multiply-adds on all threads.
fn peak(isa: Isa, team: &Team) -> f64 {
    const ROUNDS: usize = 1_000_000;
    let mut best = 0.0f64;
    for _ in 0..10 {
        let start = Instant::now();
        team.run(&|_| match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the instruction set that was chosen.
            Isa::Avx512 | Isa::Avx512Bf16 => unsafe { x86::avx512(ROUNDS) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { x86::avx2(ROUNDS) },
            _ => portable(ROUNDS),
        });
        let lanes = match isa {
            Isa::Avx512 | Isa::Avx512Bf16 => 16,
            Isa::Avx2 => 8,
            Isa::Scalar => 4,
        };
        let flops = 2.0 * (lanes * 10 * ROUNDS * team.len()) as f64;
        best = best.max(flops / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}

/// Multiplies and adds in four lanes, which is what the portable kernels do.
fn portable(rounds: usize) {
    let mut sums = [[0.0f32; 4]; 10];
    let factor = black_box([1.0f32; 4]);
    for _ in 0..rounds {
        for sum in &mut sums {
            for lane in 0..4 {
                sum[lane] = sum[lane] * factor[lane] + factor[lane];
            }
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(rounds: usize) {
        let factor = _mm512_set1_ps(black_box(1.0));
        let mut sums = [factor; 10];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(factor, factor, *sum);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(rounds: usize) {
        let factor = _mm256_set1_ps(black_box(1.0));
        let mut sums = [factor; 10];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(factor, factor, *sum);
            }
        }
        black_box(sums);
    }
}
