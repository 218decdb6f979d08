//! How a loss is written, so that it can be read and believed.

/// A loss of more than this many times that of guessing is far above it. Our choice: a network that has
/// only learnt how frequent the classes are is at 1, and one that is seldom right and always sure at 3
/// or so.
const FAR: f64 = 3.0;

/// Losses from here on are far above any number of classes: ln(k) reaches 10 at 22,026 classes.
const HUGE: f64 = 1e4;

/// Whether a mean loss, in nats, is far above ln(k), that of giving each of `k` classes the same
/// probability.
pub fn is_far_above_guessing(loss: f64, k: usize) -> bool {
    let guessing = (k as f64).ln();
    loss.is_finite() && (loss > HUGE || (k > 1 && loss > FAR * guessing))
}

/// A loss as a number: `0.5612`, `31.20`, `5.3e20`; `not finite` for what is no number.
pub fn loss_number(loss: f64) -> String {
    match loss.abs() {
        _ if !loss.is_finite() => "not finite".to_owned(),
        size if size >= HUGE => format!("{loss:.1e}"),
        size if size >= 10.0 => format!("{loss:.2}"),
        _ => format!("{loss:.4}"),
    }
}

/// A mean loss over images of `k` classes, 0 if that is not known. One that is far above guessing is named
/// as such.
pub fn loss_text(loss: f64, k: usize) -> String {
    let number = loss_number(loss);
    match k > 1 && is_far_above_guessing(loss, k) {
        true => format!("{number} (far above ln({k}) = {:.2} of guessing)", (k as f64).ln()),
        false => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_read_well_and_large_ones_are_named() {
        for (loss, k, text) in [
            (0.561_23, 2, "0.5612"),
            (0.0, 2, "0.0000"),
            (2.07, 2, "2.0700"),
            (2.1, 2, "2.1000 (far above ln(2) = 0.69 of guessing)"),
            (31.2, 10, "31.20 (far above ln(10) = 2.30 of guessing)"),
            (5.3e20, 2, "5.3e20 (far above ln(2) = 0.69 of guessing)"),
            (9_999.0, 1, "9999.00"),
            (20_001.0, 1, "2.0e4"),
            (20_001.0, 0, "2.0e4"),
            (20.0, 1000, "20.00"),
            (f64::NAN, 2, "not finite"),
            (f64::INFINITY, 2, "not finite"),
        ] {
            assert_eq!(loss_text(loss, k), text);
        }
    }
}
