//! MNIST's digits, from the four files of <http://yann.lecun.com/exdb/mnist/>.

use std::fs;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use candle_datasets::vision::mnist;
use flate2::read::GzDecoder;

use super::network::N_CLASSES;
use crate::error::Error;
use crate::file_error::FileError;

/// Rows and columns of a digit.
pub const SIDE: usize = 28;

/// A pixel of at least this brightness, of 0 to 1, is ink. Our reading: section 4.1 has "binary"
/// images and no threshold; the middle is the least arbitrary.
pub const THRESHOLD: f64 = 0.5;

/// The files, as candle names them, with the number that each begins with and what it holds.
const FILES: [(&str, u32, &str); 4] = [
    ("train-images-idx3-ubyte", 2051, "images"),
    ("train-labels-idx1-ubyte", 2049, "labels"),
    ("t10k-images-idx3-ubyte", 2051, "images"),
    ("t10k-labels-idx1-ubyte", 2049, "labels"),
];

/// No file of MNIST is longer when unpacked (47 MB); a packed one may claim anything.
const MAX_BYTES: u64 = 256 << 20;

/// Training and test digits.
#[derive(Debug)]
pub struct Digits {
    /// 60,000 in MNIST.
    pub train: Split,
    /// 10,000 in MNIST.
    pub test: Split,
}

/// Binary images with their labels.
#[derive(Debug)]
pub struct Split {
    /// `[image][row][column]`, each 0 or 1.
    pixels: Vec<u8>,
    /// The digit on each, 0 to 9.
    labels: Vec<u8>,
}

impl Split {
    /// How many images there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none; [`read`] refuses that.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Writes the images `chosen`, each in the middle of `side` rows and columns of zeros, to `x`,
    /// and their labels to `labels`.
    pub fn batch(
        &self,
        chosen: impl Iterator<Item = usize>,
        side: usize,
        x: &mut Vec<f32>,
        labels: &mut Vec<u8>,
    ) {
        let margin = (side - SIDE) / 2;
        x.clear();
        labels.clear();
        for image in chosen {
            let first = x.len();
            x.resize(first + side * side, 0.0);
            let pixels = &self.pixels[image * SIDE * SIDE..][..SIDE * SIDE];
            for (row, pixels) in pixels.chunks_exact(SIDE).enumerate() {
                let to = first + (row + margin) * side + margin;
                for (x, &pixel) in x[to..][..SIDE].iter_mut().zip(pixels) {
                    *x = f32::from(pixel);
                }
            }
            labels.push(self.labels[image]);
        }
    }
}

/// Reads the four files of `dir`, plain or packed with gzip.
///
/// # Errors
/// Names the file that is missing, broken, or not what its name says.
pub fn read(dir: &Path) -> Result<Digits, Error> {
    // candle reads plain files only, and its errors name none: so all are unpacked and looked at
    // first.
    let unpacked = tempfile::tempdir().map_err(FileError::of("create", &std::env::temp_dir()))?;
    for (name, magic, what) in FILES {
        let (path, bytes) = read_file(dir, name)?;
        check(&bytes, magic, what).map_err(|reason| broken(&path, &reason))?;
        let plain = unpacked.path().join(name);
        fs::write(&plain, bytes).map_err(FileError::of("write", &plain))?;
    }
    let not_read = |error| Error::Unusable(format!("cannot read MNIST in {dir:?}: {error}"));
    let data = mnist::load_dir(unpacked.path()).map_err(not_read)?;
    let split = |images: &Tensor, labels: &Tensor, name: &str| {
        let split = Split {
            pixels: binary(images).map_err(not_read)?,
            labels: labels.to_vec1().map_err(not_read)?,
        };
        let path = dir.join(name);
        let n_images = split.pixels.len() / (SIDE * SIDE);
        if split.is_empty() || n_images != split.len() {
            let counts = format!("{} labels for {n_images} images", split.len());
            return Err(broken(&path, &format!("found {counts}, expected one each, and some")));
        }
        match split.labels.iter().find(|&&label| usize::from(label) >= N_CLASSES) {
            Some(label) => Err(broken(&path, &format!("expected labels 0 to 9, found {label}"))),
            None => Ok(split),
        }
    };
    Ok(Digits {
        train: split(&data.train_images, &data.train_labels, FILES[1].0)?,
        test: split(&data.test_images, &data.test_labels, FILES[3].0)?,
    })
}

/// The bytes of a file, unpacked, and where they were found.
fn read_file(dir: &Path, name: &str) -> Result<(PathBuf, Vec<u8>), Error> {
    let plain = dir.join(name);
    let packed = dir.join(format!("{name}.gz"));
    let (path, is_packed) = match (plain.is_file(), packed.is_file()) {
        (true, _) => (plain, false),
        (false, true) => (packed, true),
        (false, false) => {
            let names = FILES.map(|(name, ..)| name).join(", ");
            return Err(Error::Unusable(format!(
                "no {name} and no {name}.gz in {}: expected the four files of MNIST, plain or packed: \
                 {names}",
                dir.display()
            )));
        }
    };
    let mut bytes = Vec::new();
    let file = File::open(&path).map_err(FileError::of("read", &path))?;
    let outcome = if is_packed {
        GzDecoder::new(file).take(MAX_BYTES).read_to_end(&mut bytes)
    } else {
        file.take(MAX_BYTES).read_to_end(&mut bytes)
    };
    match outcome {
        Ok(_) => Ok((path, bytes)),
        Err(error) if is_packed && error.kind() != io::ErrorKind::PermissionDenied => {
            Err(broken(&path, &format!("cannot be unpacked: {error}")))
        }
        Err(error) => Err(FileError::of("read", &path)(error).into()),
    }
}

/// Looks at the header of an IDX file and at its length.
fn check(bytes: &[u8], magic: u32, what: &str) -> Result<(), String> {
    let is_images = what == "images";
    let word = |index: usize| -> Option<u32> {
        let bytes = bytes.get(4 * index..4 * index + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    match word(0) {
        Some(found) if found == magic => {}
        found => {
            let found = found.map_or("nothing".to_owned(), |found| found.to_string());
            return Err(format!(
                "expected an IDX file of {what}, which begins with {magic}, found {found}"
            ));
        }
    }
    let n_words = if is_images { 4 } else { 2 };
    let Some(count) = word(1).filter(|_| bytes.len() >= 4 * n_words) else {
        return Err(format!("ends within its header, after {} bytes", bytes.len()));
    };
    let item = if is_images { SIDE * SIDE } else { 1 };
    if is_images && [word(2), word(3)] != [Some(SIDE as u32); 2] {
        let (rows, columns) = (word(2).unwrap_or(0), word(3).unwrap_or(0));
        return Err(format!("expected images of {SIDE} x {SIDE}, found {rows} x {columns}"));
    }
    let expected = 4 * n_words as u64 + u64::from(count) * item as u64;
    if bytes.len() as u64 != expected {
        let found = bytes.len();
        return Err(format!("expected {expected} bytes for {count} {what}, found {found}"));
    }
    Ok(())
}

/// 1 where there is ink, 0 elsewhere.
fn binary(images: &Tensor) -> candle_core::Result<Vec<u8>> {
    images.ge(THRESHOLD)?.to_dtype(DType::U8)?.flatten_all()?.to_vec1()
}

fn broken(path: &Path, reason: &str) -> Error {
    Error::Unusable(format!("{}: {reason}", path.display()))
}
