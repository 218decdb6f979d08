//! The rows of `summary.csv`: an epoch each, as a run wrote them.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;

use crate::error::Error;
use crate::file_error::FileError;

/// An epoch. Columns are found by their names, so that a file of another version of the program is read:
/// what it lacks is NaN or `None`, and what it has besides is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct EpochRow {
    /// The epoch, from 1.
    pub epoch: u64,
    /// Updates done.
    pub step: u64,
    /// Learning rate of the last update.
    #[serde(default = "nan")]
    pub lr: f64,
    /// Mean loss of the epoch's training images, in nats.
    #[serde(default = "nan")]
    pub train_loss: f64,
    /// Fraction of these whose label came first.
    #[serde(default = "nan")]
    pub train_top1: f64,
    /// Mean loss of the validation images, in nats.
    #[serde(default)]
    pub val_loss: Option<f64>,
    /// Fraction of the validation images whose label came first; `None` without any.
    #[serde(default)]
    pub val_top1: Option<f64>,
    /// Fraction of the validation images whose label was among the first five.
    #[serde(default)]
    pub val_top5: Option<f64>,
    /// Seconds of training and evaluation.
    #[serde(default = "nan")]
    pub seconds: f64,
}

fn nan() -> f64 {
    f64::NAN
}

/// Reads the rows of the file at `path`; none if there is no such file.
///
/// # Errors
/// It cannot be read, or is damaged before its last line.
pub fn read(path: &Path) -> Result<Vec<EpochRow>, Error> {
    match fs::read(path) {
        Ok(bytes) => parse(&bytes).map_err(|error| {
            Error::Unusable(format!(
                "{}: {error}; `bninception resume` of the run cuts off what is damaged and makes it \
                 again",
                path.display()
            ))
        }),
        // A run makes the file at its first epoch.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(FileError::of("read", path)(error).into()),
    }
}

/// The rows of a file. What follows its last end of line is being written, or torn, and is left out.
fn parse(bytes: &[u8]) -> csv::Result<Vec<EpochRow>> {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    csv::Reader::from_reader(&bytes[..whole]).deserialize().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "epoch,step,lr,train_loss,train_top1,val_loss,val_top1,val_top5,seconds\n";

    #[test]
    fn rows_are_read_by_the_names_of_their_columns() {
        let row = EpochRow {
            epoch: 1,
            step: 10,
            lr: 0.5,
            train_loss: 2.0,
            train_top1: 0.25,
            val_loss: Some(1.5),
            val_top1: Some(0.5),
            val_top5: Some(1.0),
            seconds: 2.5,
        };
        let no_validation = EpochRow { val_loss: None, val_top1: None, val_top5: None, ..row };
        let one = "1,10,0.5,2,0.25,1.5,0.5,1,2.500\n";
        let table = [
            (String::new(), vec![]),
            (HEADER.to_owned(), vec![]),
            (format!("{HEADER}{one}"), vec![row]),
            (format!("{HEADER}1,10,0.5,2,0.25,,,,2.500\n"), vec![no_validation]),
            // A row that is being written.
            (format!("{HEADER}{one}2,20,0.5,2,0."), vec![row]),
            // Of a later program: another order, and a column more.
            (
                "step,epoch,news,lr,train_loss,train_top1,val_loss,val_top1,val_top5,seconds\n\
                 10,1,x,0.5,2,0.25,1.5,0.5,1,2.5\n"
                    .to_owned(),
                vec![row],
            ),
        ];
        for (text, rows) in table {
            assert_eq!(parse(text.as_bytes()).unwrap(), rows, "{text}");
        }
        let few = parse(b"epoch,step\n3,30\n").unwrap();
        assert!((few[0].epoch, few[0].step) == (3, 30) && few[0].train_loss.is_nan());
        let not_finite = parse(format!("{HEADER}1,10,0.5,NaN,NaN,,0.5,1,2\n").as_bytes()).unwrap();
        assert!(not_finite[0].train_loss.is_nan() && not_finite[0].val_top1 == Some(0.5));
        for text in ["a,b\n1,2\n", "epoch,step\n1\n", "epoch,step\nx,2\n"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
