//! The statistics of batch norm on one rank, made those of all ranks.

use bninception_model::ModelError;
use bninception_model::reference::MergeNorms;

use crate::error::EngineError;
use crate::norm_exchange::NormExchange;

/// Merges what ranks see. All ranks compute the same from the same numbers, so they end with the same bits.
pub(crate) struct NormMerge<'a> {
    exchange: &'a mut dyn NormExchange,
    own: Vec<f64>,
    all: Vec<f64>,
}

impl<'a> NormMerge<'a> {
    pub(crate) fn new(exchange: &'a mut dyn NormExchange) -> NormMerge<'a> {
        NormMerge { exchange, own: Vec::new(), all: Vec::new() }
    }

    /// The same, for a shorter time.
    pub(crate) fn reborrow(&mut self) -> NormMerge<'_> {
        let (own, all) = (std::mem::take(&mut self.own), std::mem::take(&mut self.all));
        NormMerge { exchange: &mut *self.exchange, own, all }
    }

    /// Turns the means and M2, the sums of squared distances from the mean, of `count` values of each channel
    /// into those of all ranks. Returns the number of values on all ranks. `layer` names the layer.
    ///
    /// Rank after rank is merged by the pairwise formulas of Chan, Golub & LeVeque 1983 ("Algorithms for
    /// computing the sample variance", The American Statistician 37), which lose no digits to the mean. Ranks
    /// without values change nothing.
    ///
    /// # Errors
    /// The exchange fails, or all ranks together have a single value.
    pub(crate) fn moments(
        &mut self,
        layer: &str,
        count: f64,
        mean: &mut [f64],
        m2: &mut [f64],
    ) -> Result<f64, EngineError> {
        self.own.clear();
        self.own.push(count);
        self.own.extend_from_slice(mean);
        self.own.extend_from_slice(m2);
        self.gather()?;
        let mut total = 0.0;
        mean.fill(0.0);
        m2.fill(0.0);
        for values in self.all.chunks_exact(self.own.len()) {
            let (&n, values) = values.split_first().unwrap_or_else(|| unreachable!("not empty"));
            if n == 0.0 {
                continue;
            }
            let (of_mean, of_m2) = values.split_at(mean.len());
            let sum = total + n;
            for (c, (mean, m2)) in mean.iter_mut().zip(&mut *m2).enumerate() {
                let delta = of_mean[c] - *mean;
                *mean += delta * (n / sum);
                *m2 += of_m2[c] + delta * delta * (total * n / sum);
            }
            total = sum;
        }
        if total == 1.0 {
            return Err(ModelError::SingleValue { layer: layer.to_owned() }.into());
        }
        Ok(total)
    }

    /// Turns each value into its sum over all ranks, added in their order.
    ///
    /// # Errors
    /// The exchange fails.
    pub(crate) fn sum(&mut self, values: &mut [f64]) -> Result<(), EngineError> {
        self.own.clear();
        self.own.extend_from_slice(values);
        self.gather()?;
        values.fill(0.0);
        for of_rank in self.all.chunks_exact(self.own.len()) {
            values.iter_mut().zip(of_rank).for_each(|(sum, value)| *sum += value);
        }
        Ok(())
    }

    /// Takes part in all exchanges of a micro-batch without an image. `norms` are the layers that exchange, by
    /// name and channels, in the order of the forward pass.
    ///
    /// # Errors
    /// As [`NormMerge::moments`].
    pub(crate) fn join(&mut self, norms: &[(&str, usize)]) -> Result<(), EngineError> {
        let most = norms.iter().map(|&(_, channels)| channels).max().unwrap_or(0);
        let mut values = vec![0.0; 2 * most];
        for &(layer, channels) in norms {
            values.fill(0.0);
            let (mean, m2) = values[..2 * channels].split_at_mut(channels);
            self.moments(layer, 0.0, mean, m2)?;
        }
        for &(_, channels) in norms.iter().rev() {
            values.fill(0.0);
            self.sum(&mut values[..2 * channels])?;
        }
        Ok(())
    }

    fn gather(&mut self) -> Result<(), EngineError> {
        self.exchange.gather(&self.own, &mut self.all)?;
        if self.all.is_empty() || !self.all.len().is_multiple_of(self.own.len()) {
            let (found, own) = (self.all.len(), self.own.len());
            let message = format!(
                "{found} numbers of batch norm from all ranks, {own} from this one: ranks must train the same \
                 network with the same options"
            );
            return Err(EngineError::Exchange(message.into()));
        }
        Ok(())
    }
}

/// For the reference, whose errors are those of the model crate.
impl MergeNorms for NormMerge<'_> {
    fn merge_moments(
        &mut self,
        layer: &str,
        count: f64,
        mean: &mut [f64],
        m2: &mut [f64],
    ) -> Result<f64, ModelError> {
        self.moments(layer, count, mean, m2).map_err(of_model)
    }

    fn sum(&mut self, values: &mut [f64]) -> Result<(), ModelError> {
        NormMerge::sum(self, values).map_err(of_model)
    }
}

fn of_model(error: EngineError) -> ModelError {
    match error {
        EngineError::Model(error) => error,
        EngineError::Exchange(error) => ModelError::Ranks(error),
        error => ModelError::Ranks(Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All ranks in one: gives what they would gather.
    struct Gathered(Vec<f64>);

    impl NormExchange for Gathered {
        fn gather(&mut self, _: &[f64], all: &mut Vec<f64>) -> Result<(), EngineError> {
            all.clone_from(&self.0);
            Ok(())
        }
    }

    /// One channel's count, mean and M2.
    fn moments(values: &[f64]) -> [f64; 3] {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n.max(1.0);
        [n, mean, values.iter().map(|value| (value - mean).powi(2)).sum()]
    }

    #[test]
    fn merged_moments_are_those_of_all_values() {
        // A mean far above the spread, of which sums of squares in f64 would keep four digits.
        let value = |i: usize| 1e6 + ((i * 37) % 101) as f64 * 1e-3;
        let values: Vec<f64> = (0..100).map(value).collect();
        let ranks = [&values[..0], &values[..13], &values[13..14], &values[14..14], &values[14..]];
        let mut gathered = Gathered(ranks.iter().flat_map(|values| moments(values)).collect());
        let (mut mean, mut m2) = ([9.0], [9.0]);
        let mut merge = NormMerge::new(&mut gathered);
        let count = merge.moments("norm", 9.0, &mut mean, &mut m2).unwrap();
        let [n, expected_mean, expected_m2] = moments(&values);
        assert_eq!(count, n);
        assert!((mean[0] - expected_mean).abs() < 1e-9, "{} for {expected_mean}", mean[0]);
        assert!((m2[0] / expected_m2 - 1.0).abs() < 1e-6, "{} for {expected_m2}", m2[0]);
    }

    #[test]
    fn a_single_value_has_no_variance_and_no_value_is_no_error() {
        let merged = |counts: [f64; 2]| {
            let mut gathered = Gathered(vec![counts[0], 0.5, 0.0, counts[1], 0.5, 0.0]);
            let (mut mean, mut m2) = ([0.0], [0.0]);
            NormMerge::new(&mut gathered).moments("norm", counts[0], &mut mean, &mut m2)
        };
        assert_eq!(merged([1.0, 1.0]).unwrap(), 2.0);
        assert_eq!(merged([0.0, 0.0]).unwrap(), 0.0);
        let error = merged([0.0, 1.0]).unwrap_err().to_string();
        assert!(error.contains("batch norm norm sees one value"), "{error}");
    }

    #[test]
    fn ranks_of_another_network_are_told() {
        let mut gathered = Gathered(vec![0.0; 7]);
        let error = NormMerge::new(&mut gathered).sum(&mut [0.0; 2]).unwrap_err().to_string();
        assert!(error.contains("7 numbers"), "{error}");
    }
}
