//! The head of the network and the optimizer against their definitions in f64: fully connected
//! layer, loss, momentum, average.

mod common;

use bninception_kernels::linear::Linear;
use bninception_kernels::loss::{Targets, softmax_cross_entropy};
use bninception_kernels::sgd::{self, Step};
use bninception_kernels::simd::Isa;
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
        let class_weights: Vec<f64> = (0..classes).map(|class| 0.25 + class as f64).collect();
        for (smoothing, weighted, own_share) in [
            (0.0, false, None),
            (0.1, false, None),
            (0.0, true, None),
            (0.1, true, None),
            (0.0, false, Some(0.5)),
            (0.1, true, Some(0.8125)),
        ] {
            let class_weights = weighted.then_some(&class_weights[..]);
            let logits: Vec<f32> = random(1, images * classes).iter().map(|v| v * 30.0).collect();
            let labels: Vec<u32> = (0..images).map(|n| (n * 7 % classes) as u32).collect();
            let (mut losses, mut gradient) = (Vec::new(), Vec::new());
            for (image, logits) in logits.chunks(classes).enumerate() {
                let share = own_share.unwrap_or(1.0);
                let both = [(labels[image], share), (labels[images - 1 - image], 1.0 - share)];
                let sum: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
                let mut loss = 0.0;
                for (class, &logit) in logits.iter().enumerate() {
                    let log_probability = f64::from(logit) - sum.ln();
                    let mut slope = 0.0;
                    for (label, share) in both {
                        let weight = share * if weighted { 0.25 + f64::from(label) } else { 1.0 };
                        let hard = f64::from(class == label as usize) * (1.0 - smoothing);
                        let target = hard + smoothing / classes as f64;
                        loss -= weight * target * log_probability;
                        slope += weight * (log_probability.exp() - target);
                    }
                    gradient.push(slope / images as f64);
                }
                losses.push(loss);
            }
            let largest = gradient.iter().fold(1.0_f64, |most, g| most.max(g.abs()));
            for threads in 1..=3 {
                let team = Team::new(threads);
                let (mut found, mut found_losses) = (vec![7.0; logits.len()], vec![7.0; images]);
                let labels = &labels;
                let targets = Targets { classes, labels, smoothing, class_weights, own_share };
                softmax_cross_entropy(&team, &targets, &logits, &mut found, &mut found_losses);
                assert_close("gradient", &found, &gradient, 1e-7 * largest);
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
fn weights_of_one_keep_every_bit_of_the_loss() {
    let (images, classes) = (16, 40);
    let logits: Vec<f32> = random(1, images * classes).iter().map(|v| v * 10.0).collect();
    let labels: Vec<u32> = (0..images).map(|n| (n * 7 % classes) as u32).collect();
    let team = Team::new(2);
    let run = |class_weights: Option<&[f64]>| {
        let (mut gradient, mut losses) = (vec![0.0; logits.len()], vec![0.0; images]);
        let (labels, own_share) = (&labels[..], None);
        let targets = Targets { classes, labels, smoothing: 0.1, class_weights, own_share };
        softmax_cross_entropy(&team, &targets, &logits, &mut gradient, &mut losses);
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        (bits(&gradient), losses.iter().map(|loss| loss.to_bits()).collect::<Vec<_>>())
    };
    assert_eq!(run(None), run(Some(&vec![1.0; classes])));
    assert_ne!(run(None), run(Some(&vec![1.5; classes])));
}

#[test]
fn a_logit_that_is_not_finite_shows_in_the_loss() {
    let team = Team::new(1);
    for bad in [f32::NAN, f32::INFINITY] {
        let (mut gradient, mut losses) = ([0.0; 3], [0.0]);
        let logits = [0.5, bad, 1.0];
        let (smoothing, class_weights, own_share) = (0.0, None, None);
        let targets = Targets { classes: 3, labels: &[0], smoothing, class_weights, own_share };
        softmax_cross_entropy(&team, &targets, &logits, &mut gradient, &mut losses);
        assert!(!losses[0].is_finite(), "loss {} from {bad}", losses[0]);
    }
}

#[test]
fn the_norm_is_that_of_the_definition_with_the_same_bits_everywhere() {
    for len in [0, 1, 15, 16, 17, 65_536, 65_537, 200_003] {
        let values: Vec<f32> = random(3, len).iter().map(|value| value * 1e18).collect();
        let expected: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
        let mut first = None;
        each_way(|isa, team| {
            let mut sums = vec![7.0; 2];
            let found = sgd::squared_norm(team, isa, &values, &mut sums);
            let what = format!("{len} values, {isa:?}, {} threads", team.len());
            assert!((found - expected).abs() <= 1e-12 * expected, "{what}: {found} {expected}");
            assert_eq!(*first.get_or_insert(found.to_bits()), found.to_bits(), "{what}");
        });
    }
    let team = Team::new(2);
    for (bad, is_finite) in [(f32::MAX, true), (f32::INFINITY, false), (f32::NAN, false)] {
        let mut values = vec![1.0; 70_000];
        values[66_000] = bad;
        let norm = sgd::squared_norm(&team, Isa::chosen(), &values, &mut Vec::new());
        assert_eq!(norm.is_finite(), is_finite, "{bad}");
    }
}

#[test]
fn steps_of_momentum_and_average_match_the_definition() {
    let len = 200_003;
    let (gradients, start) = (random(1, len), random(2, len));
    for (nesterov, scale) in [(false, 1.0), (true, 1.0), (false, 0.25)] {
        let step = Step { scale, lr: 0.1, momentum: 0.9, weight_decay: 0.01, nesterov };
        let mut expected_v = vec![0.0; len];
        let mut expected_w: Vec<f64> = start.iter().map(|&w| f64::from(w)).collect();
        let mut expected_a = vec![0.0; len];
        for _ in 0..3 {
            for i in 0..len {
                let g = f64::from(scale * gradients[i]) + 0.01 * expected_w[i];
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
