//! The head of the network and the optimizer against their definitions in f64: fully connected
//! layer, loss, momentum, average.

mod common;

use bninception_kernels::linear::Linear;
use bninception_kernels::loss::softmax_cross_entropy;
use bninception_kernels::sgd::{self, Step};
use bninception_kernels::team::Team;
use common::{assert_close, each_way, random};

#[test]
fn linear_matches_the_definition() {
    for (images, features, classes) in
        [(32, 1024, 1000), (4, 1024, 10), (7, 1056, 101), (1, 32, 1), (3, 5, 3), (17, 48, 8)]
    {
        let (x, w) = (random(1, images * features), random(2, classes * features));
        let (b, dy) = (random(3, classes), random(4, images * classes));
        let at = |matrix: &[f32], columns: usize, row: usize, column: usize| {
            f64::from(matrix[row * columns + column])
        };
        let table = |rows: usize, columns: usize, value: &dyn Fn(usize, usize) -> f64| {
            let mut values = Vec::with_capacity(rows * columns);
            for row in 0..rows {
                values.extend((0..columns).map(|column| value(row, column)));
            }
            values
        };
        let y = table(images, classes, &|n, k| {
            let products = (0..features).map(|f| at(&x, features, n, f) * at(&w, features, k, f));
            products.sum::<f64>() + f64::from(b[k])
        });
        let dx = table(images, features, &|n, f| {
            (0..classes).map(|k| at(&dy, classes, n, k) * at(&w, features, k, f)).sum()
        });
        let dw = table(classes, features, &|k, f| {
            (0..images).map(|n| at(&dy, classes, n, k) * at(&x, features, n, f)).sum()
        });
        let db = table(1, classes, &|_, k| (0..images).map(|n| at(&dy, classes, n, k)).sum());
        each_way(|isa, team| {
            let what = format!("{images}x{features}x{classes} {isa:?} {} threads", team.len());
            let linear = Linear { features, classes };
            let mut found_y = vec![7.0; y.len()];
            linear.forward(team, isa, &x, &w, &b, &mut found_y);
            // Sums of up to 1056 products of size one.
            assert_close(&what, &found_y, &y, 3e-5);
            let mut found_dx = vec![7.0; dx.len()];
            linear.backward_input(team, isa, &dy, &w, &mut found_dx);
            assert_close(&format!("dx, {what}"), &found_dx, &dx, 3e-5);
            let (mut found_dw, mut found_db) = (vec![7.0; dw.len()], vec![7.0; db.len()]);
            linear.backward_weights(team, isa, &x, &dy, &mut found_dw, &mut found_db);
            assert_close(&format!("dw, {what}"), &found_dw, &dw, 3e-6);
            assert_close(&format!("db, {what}"), &found_db, &db, 3e-6);
        });
    }
}

#[test]
fn loss_and_its_gradient_match_the_definition() {
    for (images, classes) in [(32, 1000), (1, 1), (5, 10)] {
        for smoothing in [0.0, 0.1] {
            let logits: Vec<f32> = random(1, images * classes).iter().map(|v| v * 30.0).collect();
            let labels: Vec<u32> = (0..images).map(|n| (n * 7 % classes) as u32).collect();
            let (mut losses, mut gradient) = (Vec::new(), Vec::new());
            for (logits, &label) in logits.chunks(classes).zip(&labels) {
                let sum: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
                let mut loss = 0.0;
                for (class, &logit) in logits.iter().enumerate() {
                    let hard = f64::from(class == label as usize) * (1.0 - smoothing);
                    let target = hard + smoothing / classes as f64;
                    let log_probability = f64::from(logit) - sum.ln();
                    loss -= target * log_probability;
                    gradient.push((log_probability.exp() - target) / images as f64);
                }
                losses.push(loss);
            }
            for threads in 1..=3 {
                let team = Team::new(threads);
                let (mut found, mut found_losses) = (vec![7.0; logits.len()], vec![7.0; images]);
                softmax_cross_entropy(
                    &team,
                    classes,
                    &logits,
                    &labels,
                    smoothing,
                    &mut found,
                    &mut found_losses,
                );
                assert_close("gradient", &found, &gradient, 1e-7);
                for (found, expected) in found_losses.iter().zip(&losses) {
                    assert!(
                        (found - expected).abs() < 1e-12 * (1.0 + expected),
                        "{found} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_logit_that_is_not_finite_shows_in_the_loss() {
    let team = Team::new(1);
    for bad in [f32::NAN, f32::INFINITY] {
        let (mut gradient, mut losses) = ([0.0; 3], [0.0]);
        let logits = [0.5, bad, 1.0];
        softmax_cross_entropy(&team, 3, &logits, &[0], 0.0, &mut gradient, &mut losses);
        assert!(!losses[0].is_finite(), "loss {} from {bad}", losses[0]);
    }
}

#[test]
fn steps_of_momentum_and_average_match_the_definition() {
    let len = 200_003;
    let (gradients, start) = (random(1, len), random(2, len));
    for nesterov in [false, true] {
        let step = Step { lr: 0.1, momentum: 0.9, weight_decay: 0.01, nesterov };
        let mut expected_v = vec![0.0; len];
        let mut expected_w: Vec<f64> = start.iter().map(|&w| f64::from(w)).collect();
        let mut expected_a = vec![0.0; len];
        for _ in 0..3 {
            for i in 0..len {
                let g = f64::from(gradients[i]) + 0.01 * expected_w[i];
                expected_v[i] = 0.9 * expected_v[i] + g;
                let direction = if nesterov { g + 0.9 * expected_v[i] } else { expected_v[i] };
                expected_w[i] -= 0.1 * direction;
                expected_a[i] += 0.2 * (expected_w[i] - expected_a[i]);
            }
        }
        each_way(|isa, team| {
            let (mut v, mut w, mut a) = (vec![0.0; len], start.clone(), vec![0.0; len]);
            for _ in 0..3 {
                sgd::step(team, isa, &step, &gradients, &mut v, &mut w);
                sgd::average(team, isa, 0.2, &w, &mut a);
            }
            assert_close("velocity", &v, &expected_v, 1e-6);
            assert_close("weights", &w, &expected_w, 1e-6);
            assert_close("average", &a, &expected_a, 1e-6);
        });
    }
}
