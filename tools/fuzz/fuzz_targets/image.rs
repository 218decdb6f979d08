//! Any bytes as an image file, all the way to the batches of training and evaluation.
//!
//! A panic of an image decoder is caught by the crate and condemns that image: it is no finding. Any
//! other panic is, and so are too much memory, too much time, an image that decodes and makes no batch,
//! and a look at the first bytes that says otherwise than the decoder.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use bninception_data::decode::{DecodeBuffers, Want, decode_with};
use bninception_data::headers::{Look, look};
use bninception_data::{
    DataError, DecodeError, DecodeOptions, LoadOptions, Loader, Preprocessing, RgbImage, Source, TrainPlan,
    decode,
};
use libfuzzer_sys::fuzz_target;

/// Small, so that the memory limit of the fuzzer shows what goes beyond it.
const OPTIONS: DecodeOptions =
    DecodeOptions { max_pixels: 1 << 20, max_bytes: 1 << 20, exif: true, scaled: true };

/// So small that many images are decoded at a part of their sides.
const SIZE: usize = 7;

/// One image that can be decoded.
struct One(Vec<u8>);

impl Source for One {
    fn len(&self) -> usize {
        1
    }

    fn label(&self, _index: usize) -> u32 {
        0
    }

    fn path(&self, _index: usize) -> &Path {
        Path::new("fuzz")
    }

    fn load(
        &self,
        _index: usize,
        want: Want<'_>,
        _buffers: &mut DecodeBuffers,
    ) -> Result<RgbImage, DataError> {
        Ok(decode_with(&self.0, &OPTIONS, want).expect("it was decoded in full"))
    }
}

/// Compares a look at the first bytes with what the decoder made of the file.
fn compare(bytes: &[u8], decoded: &Result<RgbImage, DecodeError>) {
    for n_first in [512, 4096, bytes.len() / 2, bytes.len()] {
        let is_whole = n_first == bytes.len();
        if n_first > bytes.len() || (n_first < 512 && !is_whole) {
            continue;
        }
        if let Look::Bad(reason) = look(&bytes[..n_first], is_whole, &OPTIONS) {
            let error = decoded.as_ref().expect_err("a look condemned a file that decodes");
            assert_eq!(reason.to_string(), error.to_string());
        }
    }
}

fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| {})), // only panics that nothing catches end the run
    |bytes: &[u8]| {
        let decoded = decode(bytes, &OPTIONS);
        compare(bytes, &decoded);
        let Ok(image) = decoded else { return };
        let pixels = u64::from(image.width()) * u64::from(image.height());
        assert!(pixels > 0 && pixels <= OPTIONS.max_pixels);
        let source = Arc::new(One(bytes.to_vec()));
        let preprocessing = Preprocessing { image_size: SIZE, ..Preprocessing::default() };
        let options = LoadOptions { batch_size: 1, workers: 0, prefetch: 1 };
        let plan = TrainPlan::new(bytes.len() as u64, 0..2);
        let train = Loader::train(source.clone(), &preprocessing, &options, &plan).unwrap();
        let eval = Loader::eval(source, &preprocessing, &options).unwrap();
        for batch in train.chain(eval) {
            let batch = batch.unwrap();
            assert_eq!(batch.images.len(), 3 * SIZE * SIZE);
        }
    }
);
