//! The distribution of values, as TensorBoard draws it.

use super::schema::HistogramMessage;

/// Buckets of equal width from the least to the greatest value. TensorBoard's panel shows 30.
const BUCKETS: usize = 30;

/// The histogram of the values that are finite; `None` when none is.
pub(super) fn histogram(values: &[f32]) -> Option<HistogramMessage> {
    let finite = || values.iter().filter(|value| value.is_finite()).map(|&value| f64::from(value));
    let min = finite().reduce(f64::min)?;
    let max = finite().reduce(f64::max)?;
    let width = (max - min) / BUCKETS as f64;
    let mut histogram = HistogramMessage {
        min,
        max,
        bucket_limit: (1..=BUCKETS).map(|i| min + width * i as f64).collect(),
        bucket: vec![0.0; BUCKETS],
        ..HistogramMessage::default()
    };
    // Rounding must not leave the greatest value above the last limit.
    histogram.bucket_limit[BUCKETS - 1] = max;
    for value in finite() {
        histogram.num += 1.0;
        histogram.sum += value;
        histogram.sum_squares += value * value;
        let bucket = histogram.bucket_limit.partition_point(|&limit| limit < value);
        histogram.bucket[bucket] += 1.0;
    }
    Some(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_of_odd_values() {
        let constant = histogram(&[0.25; 9]).unwrap();
        assert_eq!((constant.min, constant.max, constant.num), (0.25, 0.25, 9.0));
        assert_eq!(constant.bucket.iter().sum::<f64>(), 9.0);
        let widest = histogram(&[f32::MIN, f32::MAX]).unwrap();
        assert_eq!((widest.bucket[0], widest.bucket[29]), (1.0, 1.0));
        assert!(histogram(&[]).is_none());
        assert!(histogram(&[f32::NAN]).is_none());
    }
}
