//! Batch norm over the batches of all ranks.

use bninception_engine::{EngineError, NormExchange};

use crate::distributed::error::RanksError;
use crate::distributed::ranks::Ranks;

/// The gathers of batch norm's sums over ranks.
#[derive(Debug)]
pub struct NormOverRanks<'a>(pub &'a mut Ranks);

impl NormExchange for NormOverRanks<'_> {
    fn gather(&mut self, own: &[f64], all: &mut Vec<f64>) -> Result<(), EngineError> {
        let bytes: Vec<u8> = own.iter().flat_map(|value| value.to_le_bytes()).collect();
        let gathered = self.0.collective().gather(&bytes);
        let gathered =
            gathered.map_err(|error| EngineError::Exchange(Box::new(RanksError::from(error))))?;
        all.clear();
        for bytes in gathered {
            let (values, _) = bytes.as_chunks::<8>();
            all.extend(values.iter().map(|value| f64::from_le_bytes(*value)));
        }
        Ok(())
    }
}
