//! Any bytes as an image file, all the way to the batches of training and evaluation.
//!
//! A panic of an image decoder is caught by the crate and condemns that image: it is no finding. Any
//! other panic is, and so are too much memory, too much time, and an image that decodes and makes
//! no batch.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use bninception_data::decode::{DecodeBuffers, Want, decode_with};
use bninception_data::{
    DataError, DecodeOptions, LoadOptions, Loader, Preprocessing, RgbImage, Source, TrainPlan,
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

fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| {})), // only panics that nothing catches end the run
    |bytes: &[u8]| {
        let Ok(image) = decode(bytes, &OPTIONS) else { return };
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
            assert!(batch.images.iter().all(|value| value.is_finite()));
        }
    }
);
