//! Passes over whole vectors against their definitions.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use bninception_cuda::ops::update::{self, GATE_BYTES, PIECE, Sgd};
use bninception_cuda::{Device, Format, Host, Region};
use common::*;

/// Values of the tensors of a network; the second is longer than a piece, the fourth has a rate below 0 and stays.
const TENSORS: [usize; 5] = [10, 3 * PIECE + 77, 1, 130, 150_000];
const RATES: [[f32; 2]; 5] = [[0.1, 0.0], [0.05, 0.01], [0.2, 0.1], [-1.0, 0.5], [0.1, 1e-4]];
const SCALE: f32 = 0.75;
const MOMENTUM: f32 = 0.9;

fn total() -> usize {
    TENSORS.iter().sum()
}

/// Pieces of all tensors.
fn pieces() -> Vec<u32> {
    let mut words = Vec::new();
    let mut first = 0;
    for (tensor, len) in TENSORS.into_iter().enumerate() {
        for begin in (0..len).step_by(PIECE) {
            let count = PIECE.min(len - begin);
            words.extend([(first + begin) as u32, count as u32, tensor as u32, 0]);
        }
        first += len;
    }
    words
}

/// Vectors in a device's memory.
struct Vectors {
    sgd: Sgd,
}

struct Values {
    gradients: Vec<f32>,
    velocity: Vec<f32>,
    weights: Vec<f32>,
}

impl Values {
    fn new() -> Values {
        let mut random = Random::new(1);
        let [gradients, velocity, weights] = [(); 3].map(|()| random.floats(total()));
        Values { gradients, velocity, weights }
    }

    fn put(&self, device: &mut Host, nesterov: bool, is_rounded: bool) -> Vectors {
        let rounded = is_rounded.then(|| device.allocate(2 * total()).unwrap());
        let sgd = Sgd {
            pieces: put(device, &u32s(&pieces())),
            rates: put_f32(device, RATES.as_flattened()),
            constants: put_f32(device, &[SCALE, MOMENTUM]),
            nesterov,
            gradients: put_f32(device, &self.gradients),
            velocity: put_f32(device, &self.velocity),
            weights: put_f32(device, &self.weights),
            rounded,
            gate: device.allocate(GATE_BYTES).unwrap(),
        };
        Vectors { sgd }
    }
}

fn halves(device: &mut Host, region: Region) -> Vec<f32> {
    let bytes = get(device, region);
    let value = |word: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*word)) << 16);
    bytes.as_chunks().0.iter().map(value).collect()
}

#[test]
fn a_step_follows_its_definition() {
    let values = Values::new();
    for nesterov in [false, true] {
        let found = repeated(|device| {
            let Vectors { sgd } = values.put(device, nesterov, true);
            update::sgd(device, &sgd).unwrap();
            assert_eq!(get_u32(device, sgd.gate), [0, 0]);
            assert_eq!(get_f32(device, sgd.gradients), values.gradients);
            let (velocity, weights) = (get_f32(device, sgd.velocity), get_f32(device, sgd.weights));
            [velocity, weights, halves(device, sgd.rounded.unwrap())].concat()
        });
        let (mut velocity, mut weights) = (Vec::new(), Vec::new());
        let tensors = TENSORS.iter().enumerate();
        for (tensor, index) in
            tensors.flat_map(|(tensor, &len)| (0..len).map(move |_| tensor)).zip(0..)
        {
            let [rate, decay] = RATES[tensor].map(f64::from);
            let [g, v, w] = [&values.gradients, &values.velocity, &values.weights]
                .map(|values: &Vec<f32>| f64::from(values[index]));
            if rate < 0.0 {
                velocity.push(v);
                weights.push(w);
                continue;
            }
            let momentum = f64::from(MOMENTUM);
            let g = f64::from(SCALE) * g + decay * w;
            let v = momentum * v + g;
            velocity.push(v);
            weights.push(w - rate * if nesterov { g + momentum * v } else { v });
        }
        let count = total();
        expect_near(&found[..count], &velocity, Format::F32, 1e-6);
        expect_near(&found[count..2 * count], &weights, Format::F32, 1e-6);
        for index in 0..count {
            let still = (TENSORS[..3].iter().sum()..TENSORS[..4].iter().sum()).contains(&index);
            let weight = f64::from(found[count + index]);
            let rounded = if still { 0.0 } else { nearest(Format::Bf16, weight) };
            assert_eq!(found[2 * count + index], rounded);
        }
    }
}

#[test]
fn weights_need_no_rounded_ones() {
    let values = Values::new();
    let mut device = host(2);
    let with = values.put(&mut device, false, true).sgd;
    let without = values.put(&mut device, false, false).sgd;
    for sgd in [with, without] {
        update::sgd(&mut device, &sgd).unwrap();
    }
    assert_eq!(get_f32(&mut device, with.weights), get_f32(&mut device, without.weights));
}

#[test]
fn behind_a_closed_gate_nothing_changes() {
    let values = Values::new();
    let mut device = host(2);
    let Vectors { sgd } = values.put(&mut device, true, true);
    write(&mut device, sgd.gate, &u32s(&[1, 0]));
    update::sgd(&mut device, &sgd).unwrap();
    assert_eq!(get_f32(&mut device, sgd.velocity), values.velocity);
    assert_eq!(get_f32(&mut device, sgd.weights), values.weights);
    assert_eq!(halves(&mut device, sgd.rounded.unwrap()), vec![0.0; total()]);

    let share = put_f32(&mut device, &[0.5]);
    update::average(&mut device, sgd.gradients, share, sgd.weights, sgd.gate).unwrap();
    update::move_statistics(&mut device, sgd.gradients, sgd.velocity, sgd.gate).unwrap();
    assert_eq!(get_f32(&mut device, sgd.weights), values.weights);
    assert_eq!(get_f32(&mut device, sgd.velocity), values.velocity);
    assert_eq!(get_u32(&mut device, sgd.gate), [1, 0]);
}

#[test]
fn a_weight_that_is_not_finite_is_found_and_the_gate_settles() {
    for bad in [f32::NAN, f32::INFINITY, f32::MAX] {
        for place in [0, total() - 1] {
            let mut values = Values::new();
            values.gradients[place] = bad;
            values.weights[place] = -bad; // with f32::MAX the step overflows
            let mut device = host(3);
            let Vectors { sgd } = values.put(&mut device, false, false);
            let rates = RATES.map(|[_, decay]| [1.0, decay]);
            write(&mut device, sgd.rates, &f32s(rates.as_flattened()));
            write(&mut device, sgd.constants, &f32s(&[1.0, MOMENTUM]));
            update::sgd(&mut device, &sgd).unwrap();
            assert_eq!(get_u32(&mut device, sgd.gate), [0, 1], "{bad}");
            let before = get_f32(&mut device, sgd.weights);
            update::settle(&mut device, sgd.gate).unwrap();
            assert_eq!(get_u32(&mut device, sgd.gate), [1, 1], "{bad}");
            update::sgd(&mut device, &sgd).unwrap();
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert!(bits(&get_f32(&mut device, sgd.weights)) == bits(&before), "{bad}");
        }
    }
}

#[test]
fn an_open_gate_stays_open() {
    let mut device = host(1);
    let gate = device.allocate(GATE_BYTES).unwrap();
    update::settle(&mut device, gate).unwrap();
    assert_eq!(get_u32(&mut device, gate), [0, 0]);
}

#[test]
fn a_piece_beyond_the_vectors_reaches_nothing() {
    let count = total() as u32;
    for piece in [[count - 5, 6, 0, 0], [u32::MAX, u32::MAX, 0, 0], [0, 5, 5, 0]] {
        let values = Values::new();
        let mut device = host(1);
        let Vectors { sgd } = values.put(&mut device, false, true);
        let sgd = Sgd { pieces: put(&mut device, &u32s(&piece)), ..sgd };
        update::sgd(&mut device, &sgd).unwrap();
        assert_eq!(get_f32(&mut device, sgd.weights), values.weights);
        assert_eq!(get_u32(&mut device, sgd.gate), [0, 1]);
    }
}

const LENGTHS: [usize; 6] = [1, 255, PIECE, PIECE + 1, 20_000, 300_001];

#[test]
fn averages_and_sums() {
    for len in LENGTHS {
        let mut random = Random::new(len as u64);
        let (a, b) = (random.floats(len), random.floats(len));
        let found = repeated(|device| {
            let [values, average, sum] = [&a, &b, &b].map(|values| put_f32(device, values));
            let (share, gate) = (put_f32(device, &[0.25]), device.allocate(GATE_BYTES).unwrap());
            update::average(device, values, share, average, gate).unwrap();
            update::add(device, values, sum).unwrap();
            update::divide(device, values, 3.0).unwrap();
            [average, sum, values].map(|region| get_f32(device, region)).concat()
        });
        let average = a.iter().zip(&b).map(|(a, b)| 0.25 * f64::from(*a) + 0.75 * f64::from(*b));
        expect_near(&found[..len], &average.collect::<Vec<_>>(), Format::F32, 2e-7);
        let exact: Vec<f32> =
            a.iter().zip(&b).map(|(a, b)| a + b).chain(a.iter().map(|a| a / 3.0)).collect();
        assert_eq!(found[len..], exact);
    }
}

#[test]
fn statistics_move_and_are_watched() {
    for len in LENGTHS {
        for bad in [0.5, f32::NAN, f32::NEG_INFINITY] {
            let mut values = Random::new(1).floats(len);
            values[len / 2] = bad;
            let mut device = host(2);
            let (from, to) = (put_f32(&mut device, &values), device.allocate(4 * len).unwrap());
            let gate = device.allocate(GATE_BYTES).unwrap();
            update::move_statistics(&mut device, from, to, gate).unwrap();
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert!(bits(&get_f32(&mut device, to)) == bits(&values));
            assert_eq!(get_u32(&mut device, gate), [0, u32::from(!bad.is_finite())]);
        }
    }
}

/// Norm and factor. The gate says whether the norm is finite.
fn norm(device: &mut Host, values: &[f32], limit: f64) -> (f64, f32) {
    let (values, limit) = (put_f32(device, values), put(device, &f64s(&[limit])));
    let [norm, scale, gate, scratch] = [8, 4, GATE_BYTES, update::norm_scratch_bytes(values)]
        .map(|bytes| device.allocate(bytes).unwrap());
    let to = update::Norm { limit, norm, scale, gate };
    update::norm(device, values, &to, scratch).unwrap();
    let norm = get_f64(device, norm)[0];
    assert_eq!(get_u32(device, gate), [0, u32::from(!norm.is_finite())]);
    (norm, get_f32(device, scale)[0])
}

#[test]
fn norms() {
    for len in LENGTHS.into_iter().chain([3_000_000]) {
        let values = Random::new(2).floats(len);
        let expected = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let mut device = host(1);
        let (found, scale) = norm(&mut device, &values, 0.0);
        assert!((found / expected - 1.0).abs() < 1e-12, "{found}, expected {expected}");
        assert_eq!(scale, 1.0);
        for threads in [3, 3] {
            assert_eq!(norm(&mut host(threads), &values, 0.0).0.to_bits(), found.to_bits());
        }
        let limit = expected / 4.0;
        assert_eq!(norm(&mut device, &values, limit).1, (limit / found) as f32);
        assert_eq!(norm(&mut device, &values, 8.0 * limit).1, 1.0);
    }
}

#[test]
fn a_norm_that_is_not_finite_clips_nothing() {
    let mut device = host(1);
    assert_eq!(norm(&mut device, &[f32::MAX, f32::MAX], f64::INFINITY).1, 1.0);
    assert_eq!(norm(&mut device, &[1.0, f32::INFINITY], 1.0), (f64::INFINITY, 1.0));
    let (norm, scale) = norm(&mut device, &[f32::NAN], 1.0);
    assert!(norm.is_nan() && scale == 1.0);
}
