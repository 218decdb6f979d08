//! Fewer points of a long curve, for a page.

/// Places of at most `most` of `values`, in their order: the first, the last, and of each of equally long
/// stretches between them the least, the greatest, and the first that is not finite, which is a gap in the
/// curve. All places if there are no more than `most`. Points are chosen, never made: a page shows what was
/// recorded, and the extremes of a curve stay where they are.
pub fn thin(values: &[f64], most: usize) -> Vec<usize> {
    let n = values.len();
    if n <= most || n < 3 {
        return (0..n).collect();
    }
    let stretches = (most.saturating_sub(2) / 3).max(1);
    let inner = n - 2;
    let mut kept = vec![0];
    for stretch in 0..stretches {
        let (from, to) = (1 + stretch * inner / stretches, 1 + (stretch + 1) * inner / stretches);
        let finite = || (from..to).filter(|&at| values[at].is_finite());
        let mut of_stretch: Vec<usize> = [
            finite().min_by(|&a, &b| values[a].total_cmp(&values[b])),
            finite().max_by(|&a, &b| values[a].total_cmp(&values[b])),
            (from..to).find(|&at| !values[at].is_finite()),
        ]
        .into_iter()
        .flatten()
        .collect();
        of_stretch.sort_unstable();
        of_stretch.dedup();
        kept.append(&mut of_stretch);
    }
    kept.push(n - 1);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_points_all_stay() {
        for n in 0..9 {
            assert_eq!(thin(&vec![1.0; n], 8).len(), n);
        }
    }

    #[test]
    fn ends_extremes_and_gaps_stay() {
        let mut values: Vec<f64> = (0..1000).map(|i| f64::from(i) / 1000.0).collect();
        values[317] = 50.0;
        values[611] = -50.0;
        values[820] = f64::NAN;
        let kept = thin(&values, 60);
        assert!(kept.len() <= 60 && kept.is_sorted_by(|a, b| a < b), "{kept:?}");
        for place in [0, 317, 611, 820, 999] {
            assert!(kept.contains(&place), "{place} of {kept:?}");
        }
    }

    #[test]
    fn no_number_of_points_is_a_panic() {
        for n in 0..40 {
            for most in 0..45 {
                let values: Vec<f64> = (0..n).map(|i| f64::from(i * 7 % 5)).collect();
                let kept = thin(&values, most);
                assert!(kept.len() <= most.max(5), "{n} {most} {kept:?}");
                assert!(kept.iter().all(|&place| place < values.len()));
            }
        }
    }
}
