//! Each operation of the reference executor against PyTorch, forward and back, in f64 and f32, and
//! against finite differences. `fixtures/README.md` says how the expected values were made.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

use bninception_model::layer::{AuxPool, Lrn, Pool, PoolKind};
use bninception_model::reference::{AuxPoolOp, LrnOp, MaskOp, PoolOp, ReluOp};
use candle_core::{CustomOp1, DType, Device, Result, Tensor, Var};
use candle_nn::{BatchNorm, Conv2d, Conv2dConfig, Linear, Module, ModuleT};
use safetensors::SafeTensors;

/// A fixture file of one family of operations.
struct Fixture {
    bytes: Vec<u8>,
    cases: serde_json::Map<String, serde_json::Value>,
}

impl Fixture {
    fn open(family: &str) -> Fixture {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
        let bytes = std::fs::read(format!("{folder}/{family}.safetensors")).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let cases = &metadata.metadata().as_ref().unwrap()["cases"];
        let cases: serde_json::Value = serde_json::from_str(cases).unwrap();
        Fixture { cases: cases.as_object().unwrap().clone(), bytes }
    }

    fn get(&self, case: &str, tensor: &str) -> Option<Tensor> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(&format!("{case}/{tensor}")).ok()?;
        let dtype = if view.dtype() == safetensors::Dtype::I64 { DType::I64 } else { DType::F64 };
        Some(Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu).unwrap())
    }

    fn tensor(&self, case: &str, tensor: &str) -> Tensor {
        self.get(case, tensor).unwrap_or_else(|| panic!("no {tensor} in case {case}"))
    }
}

/// Largest accepted difference, relative to the largest expected value: rounding of sums of a few
/// hundred terms.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F64 { 1e-12 } else { 1e-5 }
}

fn close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.dims(), expected.dims(), "{what}: shape");
    let flat = |tensor: &Tensor| -> Vec<f64> {
        tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let (found, expected) = (flat(found), flat(expected));
    let largest = expected.iter().fold(1e-3f64, |largest, value| largest.max(value.abs()));
    for (index, (a, b)) in found.iter().zip(&expected).enumerate() {
        let error = (a - b).abs();
        assert!(error <= tolerance * largest, "{what}[{index}]: {a} for {b}");
    }
}

/// Runs `forward` on variables made of the named tensors of every case, in both number types, and
/// compares the output and the gradients of all of them.
fn check(
    family: &str,
    wanted: impl Fn(&str) -> bool,
    names: &[&str],
    forward: impl Fn(&Fixture, &str, &[Tensor]) -> Result<Tensor>,
) {
    let fixture = Fixture::open(family);
    let mut ran = 0;
    for case in fixture.cases.keys().filter(|case| wanted(case)) {
        ran += 1;
        for dtype in [DType::F64, DType::F32] {
            let present = names.iter().filter_map(|&name| Some((name, fixture.get(case, name)?)));
            let (names, variables): (Vec<&str>, Vec<Var>) = present
                .map(|(name, tensor)| {
                    (name, Var::from_tensor(&tensor.to_dtype(dtype).unwrap()).unwrap())
                })
                .unzip();
            let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
            let output = forward(&fixture, case, &tensors).unwrap();
            let what = format!("{family}/{case} {dtype:?}");
            let tolerance = tolerance(dtype);
            close(&format!("{what}: output"), &output, &fixture.tensor(case, "output"), tolerance);

            let upstream = fixture.tensor(case, "grad_output").to_dtype(dtype).unwrap();
            let scalar = output.mul(&upstream).unwrap().sum_all().unwrap();
            let gradients = scalar.backward().unwrap();
            for (name, variable) in names.iter().zip(&variables) {
                let found = gradients.get(variable).unwrap();
                let expected = fixture.tensor(case, &format!("grad_{name}"));
                close(&format!("{what}: gradient of {name}"), found, &expected, tolerance);
            }
        }
    }
    assert!(ran > 0, "{family}: no case ran");
}

fn stride(fixture: &Fixture, case: &str) -> usize {
    fixture.cases[case]["stride"].as_u64().unwrap() as usize
}

#[test]
fn max_pool_matches_pytorch_ties_included() {
    check(
        "max_pool",
        |_| true,
        &["input"],
        |fixture, case, inputs| {
            let pool = Pool { kind: PoolKind::Max, stride: stride(fixture, case) };
            inputs[0].apply_op1(PoolOp(pool))
        },
    );
}

#[test]
fn average_pool_matches_pytorch() {
    check(
        "avg_pool",
        |case| case.starts_with("s1"),
        &["input"],
        |_, _, inputs| inputs[0].apply_op1(PoolOp(Pool { kind: PoolKind::Average, stride: 1 })),
    );
}

#[test]
fn lrn_matches_pytorch() {
    check(
        "lrn",
        |_| true,
        &["input"],
        |fixture, case, inputs| {
            let number = |key: &str| fixture.cases[case][key].as_f64().unwrap();
            assert_eq!(number("k"), 1.0);
            let lrn =
                Lrn { size: number("size") as usize, alpha: number("alpha"), beta: number("beta") };
            inputs[0].apply_op1(LrnOp(lrn))
        },
    );
}

#[test]
fn convolution_matches_pytorch() {
    // candle 0.11.1 has one output padding for both axes in this gradient (backprop.rs) and fails
    // where rows and columns differ in parity under stride 2. Maps of this network are square.
    let uneven = |case: &str| case.contains("s2_7x6") || case.contains("s2_9x8");
    check(
        "conv2d",
        |case| !uneven(case),
        &["input", "weight", "bias"],
        |fixture, case, inputs| {
            let padding = fixture.cases[case]["padding"].as_u64().unwrap() as usize;
            let stride = stride(fixture, case);
            let config = Conv2dConfig { padding, stride, ..Default::default() };
            Conv2d::new(inputs[1].clone(), inputs.get(2).cloned(), config).forward(&inputs[0])
        },
    );
}

#[test]
fn linear_matches_pytorch() {
    check(
        "classifier",
        |case| case == "linear",
        &["input", "weight", "bias"],
        |_, _, inputs| Linear::new(inputs[1].clone(), Some(inputs[2].clone())).forward(&inputs[0]),
    );
}

#[test]
fn batch_norm_and_activation_match_pytorch() {
    check(
        "batch_norm",
        |_| true,
        &["input", "weight", "bias"],
        |fixture, case, inputs| {
            let attributes = &fixture.cases[case];
            let dtype = inputs[0].dtype();
            let tensor = |name: &str| fixture.tensor(case, name).to_dtype(dtype).unwrap();
            let norm = BatchNorm::new_with_momentum(
                inputs[1].elem_count(),
                tensor("running_mean"),
                tensor("running_var"),
                inputs[1].clone(),
                inputs[2].clone(),
                attributes["eps"].as_f64().unwrap(),
                attributes["momentum"].as_f64().unwrap(),
            )?;
            let output = norm.forward_t(&inputs[0], attributes["mode"] == "train")?;
            for (name, found) in
                [("running_mean", norm.running_mean()), ("running_var", norm.running_var())]
            {
                let expected = fixture.tensor(case, &format!("{name}_after"));
                close(&format!("{case}: {name}"), found, &expected, tolerance(dtype));
            }
            match attributes["activation"].as_str() {
                Some("relu") => output.contiguous()?.apply_op1(ReluOp),
                Some("sigmoid") => candle_nn::ops::sigmoid(&output),
                _ => Ok(output),
            }
        },
    );
}

#[test]
fn the_pool_of_auxiliary_heads_takes_means() {
    // Rows of 8 places have windows 0..5 and 3..8; the values are 8 * row + column.
    let x: Vec<f64> = (0..64).map(f64::from).collect();
    let x = Tensor::from_vec(x, (1, 1, 8, 8), &Device::Cpu).unwrap();
    let y = x.apply_op1(AuxPoolOp(AuxPool)).unwrap();
    assert_eq!(y.dims(), [1, 1, 2, 2]);
    let mean = |row: f64, column: f64| 8.0 * row + column;
    let expected = vec![mean(2.0, 2.0), mean(2.0, 5.0), mean(5.0, 2.0), mean(5.0, 5.0)];
    let expected = Tensor::from_vec(expected, (1, 1, 2, 2), &Device::Cpu).unwrap();
    close("means", &y, &expected, 1e-12);
}

/// Central differences of the sum of `op(x) * upstream` against its gradient, in f64. The values of
/// x are a shuffled ladder, so that no maximum and no sign changes within one difference.
fn check_by_differences(op: impl CustomOp1 + Clone + Send + Sync + 'static, dims: &[usize]) {
    let n: usize = dims.iter().product();
    let x: Vec<f64> = (0..n).map(|i| ((i * 37 + 11) % n) as f64 / n as f64 * 4.0 - 1.9).collect();
    let evaluate = |x: &[f64]| -> (Tensor, Var) {
        let x = Var::from_slice(x, dims, &Device::Cpu).unwrap();
        (x.apply_op1(op.clone()).unwrap(), x)
    };
    let (output, variable) = evaluate(&x);
    let upstream: Vec<f64> =
        (0..output.elem_count()).map(|i| ((i * 29 + 5) % 17) as f64 / 8.0 - 1.0).collect();
    let upstream = Tensor::from_vec(upstream, output.dims(), &Device::Cpu).unwrap();
    let scalar = |output: &Tensor| output.mul(&upstream).unwrap().sum_all().unwrap();
    let gradients = scalar(&output).backward().unwrap();
    let gradient: Vec<f64> =
        gradients.get(&variable).unwrap().flatten_all().unwrap().to_vec1().unwrap();

    let h = 1e-5;
    for index in 0..n {
        let at = |offset: f64| {
            let mut moved = x.clone();
            moved[index] += offset;
            scalar(&evaluate(&moved).0).to_scalar::<f64>().unwrap()
        };
        let difference = (at(h) - at(-h)) / (2.0 * h);
        // The error of central differences is of order h^2 = 1e-10, that of rounding 1e-16 / h.
        let error = (gradient[index] - difference).abs();
        assert!(error < 1e-7, "{} at {index}: {} for {difference}", op.name(), gradient[index]);
    }
}

#[test]
fn gradients_match_finite_differences() {
    for kind in [PoolKind::Max, PoolKind::Average] {
        for stride in [1, 2] {
            for dims in [[2, 3, 6, 6], [1, 2, 5, 7], [1, 2, 1, 1], [1, 1, 2, 3]] {
                check_by_differences(PoolOp(Pool { kind, stride }), &dims);
            }
        }
    }
    for dims in [[2, 3, 8, 8], [1, 2, 7, 9], [1, 2, 2, 2], [1, 1, 1, 1]] {
        check_by_differences(AuxPoolOp(AuxPool), &dims);
    }
    for alpha in [1e-4, 1.0] {
        check_by_differences(LrnOp(Lrn { alpha, ..Lrn::GOOGLENET }), &[2, 7, 3, 2]);
        check_by_differences(LrnOp(Lrn { alpha, ..Lrn::GOOGLENET }), &[1, 2, 2, 2]);
    }
    check_by_differences(ReluOp, &[2, 3, 4, 4]);
    let mask = (0..96).map(|i| if i % 3 == 0 { 0.0 } else { 1.5 }).collect();
    check_by_differences(MaskOp(mask), &[2, 3, 4, 4]);
}
