//! A curve in one line of text.

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// `values` as blocks, the least of them the lowest and the greatest the highest. Equal ones are all low. A value that is
/// not finite is a gap.
pub(super) fn sparkline(values: &[f64]) -> String {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (least, greatest) =
        (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let top = (BLOCKS.len() - 1) as f64;
    let block = |value: f64| match value.is_finite() {
        true if greatest > least => {
            // Halves, because the difference of two finite numbers may be infinite.
            let part = (value / 2.0 - least / 2.0) / (greatest / 2.0 - least / 2.0);
            BLOCKS[(part * top).round() as usize]
        }
        true => BLOCKS[0],
        false => ' ',
    };
    values.iter().map(|&value| block(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_blocks() {
        for (values, text) in [
            (&[][..], ""),
            (&[2.3], "▁"),
            (&[2.3, 2.3], "▁▁"),
            (&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "▁▂▃▄▅▆▇█"),
            (&[2.3, 1.2, 0.6, 0.3, 0.2], "█▄▂▁▁"),
            (&[1.0, f64::NAN, 2.0, f64::INFINITY], "▁ █ "),
            (&[f64::NAN], " "),
            (&[-f64::MAX, 0.0, f64::MAX], "▁▅█"),
        ] {
            assert_eq!(sparkline(values), text, "{values:?}");
        }
    }
}
