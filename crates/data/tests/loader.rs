//! What the loader promises: the same batches whatever makes them, no replacement, no hanging.

#![allow(clippy::unwrap_used)] // a temporary folder that cannot be written is a failed test

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bninception_data::decode::{DecodeBuffers, Want};
use bninception_data::loader::batches_per_epoch;
use bninception_data::{
    AugmentConfig, Balance, Batch, Colour, Crops, DataError, DecodeOptions, FileSource,
    Interpolation, LoadOptions, Loader, Mirror, Preprocessing, RgbImage, Sample, Share, Shuffle,
    Source, TrainPlan, preprocess_file,
};

/// What of a batch must repeat: step, pixels, labels, indices, names of the failures.
type Content = (u64, Vec<u8>, Vec<u32>, Vec<u32>, Vec<PathBuf>);

fn content(batch: &Batch) -> Content {
    let failed = batch.failed.iter().map(|failure| failure.path.clone()).collect();
    (batch.step, batch.images.clone(), batch.labels.clone(), batch.indices.clone(), failed)
}

/// Twenty-six pictures of odd sizes in memory, of which the one at `bad` cannot be decoded.
struct Pictures {
    paths: Vec<PathBuf>,
    bad: Option<usize>,
    panics: bool,
    loads: AtomicUsize,
}

impl Pictures {
    fn new() -> Pictures {
        let paths = (0..26).map(|i| PathBuf::from(format!("picture {i}"))).collect();
        Pictures { paths, bad: None, panics: false, loads: AtomicUsize::new(0) }
    }
}

impl Source for Pictures {
    fn len(&self) -> usize {
        self.paths.len()
    }

    fn label(&self, index: usize) -> u32 {
        index as u32 % 5
    }

    fn path(&self, index: usize) -> &Path {
        &self.paths[index]
    }

    fn load(
        &self,
        index: usize,
        _: Want<'_>,
        _: &mut DecodeBuffers,
    ) -> Result<RgbImage, DataError> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        if self.bad == Some(index) {
            assert!(!self.panics, "the picture bites");
            let source = bninception_data::DecodeError::Truncated;
            return Err(DataError::Image { path: self.paths[index].clone(), source });
        }
        let side = 20 + index as u32;
        Ok(RgbImage::from_fn(side, side + 7, |x, y| {
            image::Rgb([x * 5, y * 3, index as u32 * 9].map(|v| v as u8))
        }))
    }
}

fn preprocessing() -> Preprocessing {
    Preprocessing { image_size: 16, ..Preprocessing::default() }
}

fn options(workers: usize, prefetch: usize) -> LoadOptions {
    LoadOptions { batch_size: 4, workers, prefetch }
}

fn plan(steps: std::ops::Range<u64>) -> TrainPlan {
    TrainPlan {
        augment: AugmentConfig { interpolation: Interpolation::Random, ..AugmentConfig::default() },
        ..TrainPlan::new(3, steps)
    }
}

fn train(source: Pictures, options: &LoadOptions, plan: &TrainPlan) -> Vec<Content> {
    let mut loader = Loader::train(Arc::new(source), &preprocessing(), options, plan).unwrap();
    let mut contents = Vec::new();
    while let Some(batch) = loader.next() {
        let batch = batch.unwrap();
        contents.push(content(&batch));
        loader.recycle(batch);
    }
    contents
}

#[test]
fn processes_make_the_batches_of_one() {
    for (accumulate, ranks) in [(2, 2), (3, 3), (6, 2)] {
        let whole = TrainPlan { accumulate, ..plan(0..12) };
        let all = train(Pictures::new(), &options(2, 2), &whole);
        let mut found: Vec<Content> = (0..ranks)
            .flat_map(|rank| {
                let share = Share { rank, ranks };
                let plan = TrainPlan { share, ..whole.clone() };
                train(Pictures::new(), &options(rank, 1), &plan)
            })
            .collect();
        found.sort_by_key(|content| content.0);
        assert_eq!(found, all, "{accumulate} batches an update, {ranks} ranks");
    }
    let share = Share { rank: 0, ranks: 2 };
    let odd = TrainPlan { accumulate: 3, share, ..plan(0..12) };
    let source = Arc::new(Pictures::new());
    assert!(Loader::train(source, &preprocessing(), &options(0, 1), &odd).is_err());
}

#[test]
fn by_turns_every_image_is_seen_both_ways() {
    let augment = AugmentConfig {
        crop_area: [1.0, 1.0],
        crop_aspect: [1.0, 1.0],
        mirror: Mirror::Alternating,
        colour: Colour::None,
        interpolation: Interpolation::Bilinear,
        mixup: 0.0,
    };
    // Two pictures of 26 are left out of each epoch of 24.
    let plan = |steps| TrainPlan { augment: augment.clone(), ..plan(steps) };
    let all = train(Pictures::new(), &options(2, 1), &plan(0..24));
    let views = |epoch: usize| -> BTreeMap<u32, &[u8]> {
        let batches = all[6 * epoch..][..6].iter();
        let image_len = 3 * 16 * 16;
        batches
            .flat_map(|batch| batch.3.iter().copied().zip(batch.1.chunks_exact(image_len)))
            .collect()
    };
    let mirrored = |view: &[u8]| -> Vec<u8> {
        let rows = view.chunks_exact(3 * 16);
        rows.flat_map(|row| row.chunks_exact(3).rev().flatten().copied()).collect()
    };
    let mut n_pairs = 0;
    for epoch in 0..3 {
        let (first, next) = (views(epoch), views(epoch + 1));
        for (index, view) in first {
            let Some(other) = next.get(&index) else { continue };
            assert!(mirrored(view) == *other, "image {index} in epochs {epoch} and the next");
            assert!(view != *other, "image {index} is its own mirror");
            n_pairs += 1;
        }
    }
    assert!(n_pairs >= 3 * 22, "{n_pairs}");
    // Wherever a run begins again.
    for start in [1, 6, 11, 23] {
        let found = train(Pictures::new(), &options(1, 1), &plan(start..24));
        assert!(found == all[start as usize..], "from batch {start}");
    }
}

#[test]
fn mixed_batches_are_mixtures_of_the_same_images_whoever_makes_them() {
    let augment = |mixup| AugmentConfig { mixup, ..plan(0..1).augment };
    let plan = |mixup, steps| TrainPlan { augment: augment(mixup), ..plan(steps) };
    let load = |workers, plan: &TrainPlan| -> Vec<Batch> {
        let source = Arc::new(Pictures::new());
        let loader = Loader::train(source, &preprocessing(), &options(workers, 1), plan).unwrap();
        loader.map(Result::unwrap).collect()
    };
    let (plain, mixed) = (load(0, &plan(0.0, 0..12)), load(0, &plan(1.0, 0..12)));
    let mut shares = Vec::new();
    for (plain, mixed) in plain.iter().zip(&mixed) {
        assert_eq!((&plain.labels, &plain.indices), (&mixed.labels, &mixed.indices));
        assert_eq!(plain.own_share, None);
        let share = mixed.own_share.unwrap();
        let image_len = plain.images.len() / plain.labels.len();
        let partners = plain.images.chunks_exact(image_len).rev().flatten();
        for ((&own, &other), &level) in plain.images.iter().zip(partners).zip(&mixed.images) {
            let expected = share * f64::from(own) + (1.0 - share) * f64::from(other);
            assert!((f64::from(level) - expected).abs() <= 0.5, "{own} {other} {share}: {level}");
        }
        shares.push(share);
    }
    shares.dedup();
    assert_eq!(shares.len(), 12, "a share for each batch: {shares:?}");
    // With other workers, and from any start.
    for (workers, start) in [(1, 0), (3, 0), (2, 5), (0, 11)] {
        let again = load(workers, &plan(1.0, start..12));
        for (again, mixed) in again.iter().zip(&mixed[start as usize..]) {
            assert_eq!((&again.images, again.own_share), (&mixed.images, mixed.own_share));
        }
    }
}

#[test]
fn workers_and_prefetch_never_change_a_byte() {
    // Three epochs of six batches, and a part of the fourth.
    let expected = train(Pictures::new(), &options(0, 1), &plan(0..20));
    assert_eq!(expected.len(), 20);
    for workers in [1, 3] {
        for prefetch in [0, 1, 4] {
            let found = train(Pictures::new(), &options(workers, prefetch), &plan(0..20));
            assert!(found == expected, "{workers} workers, prefetch {prefetch}");
        }
    }
    for (i, a) in expected.iter().enumerate() {
        assert!(expected[..i].iter().all(|b| a.1 != b.1), "batch {i} is like an earlier one");
    }
    let other_seed = TrainPlan { seed: 4, ..plan(0..20) };
    assert!(train(Pictures::new(), &options(0, 1), &other_seed) != expected);
}

#[test]
fn any_start_gives_the_tail_of_the_whole() {
    let whole = train(Pictures::new(), &options(0, 1), &plan(0..20));
    for start in [0, 1, 5, 6, 7, 19, 20] {
        for workers in [0, 3] {
            let source = Pictures::new();
            let tail = train(source, &options(workers, 2), &plan(start..20));
            assert!(tail == whole[start as usize..], "from {start} with {workers} workers");
        }
    }
}

#[test]
fn a_start_in_the_middle_replays_nothing() {
    let source = Arc::new(Pictures::new());
    let shared: Arc<dyn Source> = source.clone();
    let loader =
        Loader::train(shared, &preprocessing(), &options(0, 1), &plan(1000..1002)).unwrap();
    assert_eq!(loader.map(|batch| batch.unwrap().indices.len()).sum::<usize>(), 8);
    assert_eq!(source.loads.load(Ordering::Relaxed), 8);
}

#[test]
fn an_epoch_shows_each_sample_once_and_drops_the_rest() {
    assert_eq!(batches_per_epoch(26, 4, 1), 6);
    // An epoch ends with the last update that it fills.
    assert_eq!([2, 3, 4, 7].map(|accumulate| batches_per_epoch(26, 4, accumulate)), [6, 6, 4, 0]);
    for shuffle in [Shuffle::None, Shuffle::Shards, Shuffle::WithinShards, Shuffle::Full] {
        let plan = TrainPlan { shuffle, shard_size: 8, ..plan(6..12) };
        let batches = train(Pictures::new(), &options(2, 1), &plan);
        let mut indices: Vec<u32> = batches.iter().flat_map(|batch| batch.3.clone()).collect();
        let labels: Vec<u32> = batches.iter().flat_map(|batch| batch.2.clone()).collect();
        assert!(indices.iter().zip(&labels).all(|(index, label)| index % 5 == *label));
        assert_eq!(indices.len(), 24, "{shuffle:?}");
        indices.sort_unstable();
        indices.dedup();
        assert_eq!(indices.len(), 24, "{shuffle:?}");
    }
}

/// The pictures with four of the first class and 22 of the second.
struct Skewed(Pictures);

impl Source for Skewed {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn label(&self, index: usize) -> u32 {
        u32::from(index >= 4)
    }

    fn path(&self, index: usize) -> &Path {
        self.0.path(index)
    }

    fn load(
        &self,
        index: usize,
        want: Want<'_>,
        buffers: &mut DecodeBuffers,
    ) -> Result<RgbImage, DataError> {
        self.0.load(index, want, buffers)
    }
}

#[test]
fn balanced_classes_come_equally_often_and_no_picture_twice_the_same() {
    let run = |workers, steps| -> Vec<Content> {
        let plan = TrainPlan { balance: Balance::Classes, ..plan(steps) };
        let source = Arc::new(Skewed(Pictures::new()));
        let loader = Loader::train(source, &preprocessing(), &options(workers, 2), &plan).unwrap();
        loader.map(|batch| content(&batch.unwrap())).collect()
    };
    let whole = run(0, 0..20);
    for workers in [1, 3] {
        assert!(run(workers, 0..20) == whole, "{workers} workers");
    }
    for start in [1, 6, 7, 19] {
        assert!(run(2, start..20) == whole[start as usize..], "from {start}");
    }
    // Of 26 images of an epoch 13 are of each class; two of them are dropped.
    for epoch in whole[..18].chunks(6) {
        let rare = epoch.iter().flat_map(|batch| &batch.2).filter(|&&label| label == 0).count();
        assert!((11..=13).contains(&rare), "{rare} of 24");
    }
    let mut views: Vec<&[u8]> = whole.iter().flat_map(|batch| batch.1.chunks(768)).collect();
    let n_views = views.len();
    views.sort_unstable();
    views.dedup();
    assert_eq!((n_views, views.len()), (80, 80), "a picture came twice with one variation");
}

#[test]
fn evaluation_shows_each_sample_once_in_order() {
    for workers in [0, 1, 3] {
        let source = Arc::new(Pictures::new());
        let loader = Loader::eval(source, &preprocessing(), &options(workers, 1)).unwrap();
        assert_eq!(loader.size_hint(), (7, Some(7)));
        let batches: Vec<Batch> = loader.map(Result::unwrap).collect();
        let indices: Vec<u32> = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
        assert_eq!(indices, (0..26).collect::<Vec<u32>>());
        assert_eq!(batches[6].labels, [4, 0], "the last batch holds the rest");
        assert_eq!(batches[6].images.len(), 2 * 3 * 16 * 16);
    }
}

#[test]
fn a_bad_image_is_left_out_named_and_never_replaced() {
    for workers in [0, 2] {
        let bad = || Pictures { bad: Some(9), ..Pictures::new() };
        let loader = Loader::eval(Arc::new(bad()), &preprocessing(), &options(workers, 1)).unwrap();
        let batches: Vec<Batch> = loader.map(Result::unwrap).collect();
        assert_eq!(batches[2].indices, [8, 10, 11]);
        assert_eq!(batches[2].labels, [3, 0, 1]);
        assert_eq!(batches[2].images.len(), 3 * 3 * 16 * 16);
        assert_eq!(batches[2].failed.len(), 1);
        let failure = &batches[2].failed[0];
        assert_eq!((failure.index, failure.path.as_path()), (9, Path::new("picture 9")));
        assert!(failure.error.contains("truncated"), "{}", failure.error);
        let others = batches.iter().filter(|batch| batch.step != 2);
        assert!(others.into_iter().all(|batch| batch.failed.is_empty()));

        // The neighbours of the bad image are those of a good data set, to the bit.
        let good = train(Pictures::new(), &options(workers, 1), &plan(0..6));
        let found = train(bad(), &options(workers, 1), &plan(0..6));
        for (good, found) in good.iter().zip(&found) {
            if let Some(slot) = good.3.iter().position(|index| *index == 9) {
                let mut indices = good.3.clone();
                indices.remove(slot);
                let mut pixels = good.1.clone();
                pixels.drain(slot * 768..(slot + 1) * 768);
                assert_eq!((&found.3, &found.1), (&indices, &pixels));
                assert_eq!(found.4, [PathBuf::from("picture 9")]);
            } else {
                assert!(good == found);
            }
        }
    }
}

#[test]
fn a_panic_in_a_worker_is_an_error_and_the_end() {
    for workers in [0, 1, 3] {
        let source = Pictures { bad: Some(9), panics: true, ..Pictures::new() };
        let mut loader =
            Loader::eval(Arc::new(source), &preprocessing(), &options(workers, 1)).unwrap();
        assert!(loader.next().unwrap().is_ok());
        assert!(loader.next().unwrap().is_ok());
        let error = loader.next().unwrap().unwrap_err();
        assert!(matches!(error, DataError::Panic { step: 2, .. }), "{error}");
        assert!(error.to_string().contains("the picture bites"), "{error}");
        assert!(loader.next().is_none());
    }
}

#[test]
fn dropping_the_loader_ends_its_threads_at_once() {
    for workers in [1, 3] {
        let source = Arc::new(Pictures::new());
        let shared: Arc<dyn Source> = source.clone();
        let mut loader =
            Loader::train(shared, &preprocessing(), &options(workers, 2), &plan(0..1_000_000))
                .unwrap();
        assert!(loader.next().unwrap().is_ok());
        drop(loader);
        // The threads are joined: nobody else holds the source, and nothing more is loaded.
        assert_eq!(Arc::strong_count(&source), 1);
        let n_loads = source.loads.load(Ordering::Relaxed);
        // One batch delivered; for each worker two waiting, one kept back and one in the making.
        assert!(n_loads <= 4 * (1 + 4 * workers), "{n_loads} loads with {workers} workers");
    }
}

#[test]
fn impossible_settings_are_refused() {
    let refused = |preprocessing: &Preprocessing, batch_size: usize, plan: &TrainPlan| {
        let options = LoadOptions { batch_size, ..options(0, 1) };
        let loader = Loader::train(Arc::new(Pictures::new()), preprocessing, &options, plan);
        loader.map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused(&preprocessing(), 0, &plan(0..1)).starts_with("batch_size = 0"));
    let error = refused(&preprocessing(), 27, &plan(0..1));
    assert!(error.contains("27 with 26 training images"), "{error}");
    let bad = Preprocessing { image_size: 0, ..preprocessing() };
    assert!(refused(&bad, 4, &plan(0..1)).starts_with("image_size"));
    let bad = TrainPlan { balance: Balance::Sqrt, shuffle: Shuffle::Shards, ..plan(0..1) };
    let error = refused(&preprocessing(), 4, &bad);
    assert!(error.contains("balance = Sqrt with Shards"), "{error}");
    let mut bad = plan(0..1);
    bad.augment.crop_area = [0.0, 1.0];
    assert!(refused(&preprocessing(), 4, &bad).starts_with("crop_area"));
}

#[test]
fn files_give_the_levels_of_preprocess_file() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/decode");
    let names = ["rgb_420.jpg", "exif_6.jpg", "grey_16.png", "cmyk.jpg"];
    let mut samples: Vec<Sample> = (0_u32..)
        .zip(names)
        .map(|(label, name)| Sample { path: fixtures.join(name), label })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken.jpg");
    fs::write(&broken, b"no image").unwrap();
    samples.insert(1, Sample { path: broken.clone(), label: 9 });

    let source = Arc::new(FileSource::new(samples, DecodeOptions::default()).unwrap());
    let mut loader = Loader::eval(source, &preprocessing(), &options(2, 1)).unwrap();
    let (first, second) = (loader.next().unwrap().unwrap(), loader.next().unwrap().unwrap());
    assert_eq!([first.labels, second.labels].concat(), [0, 1, 2, 3]);
    assert_eq!(first.failed[0].path, broken);
    let images = [first.images, second.images].concat();
    for (name, image) in names.iter().zip(images.chunks_exact(768)) {
        let expected = preprocess_file(&fixtures.join(name), &preprocessing()).unwrap();
        assert_eq!(image, expected, "{name}");
    }
}

#[test]
fn many_crops_of_an_image_come_from_one_decoding() {
    let preprocessing = preprocessing();
    let n_values = preprocessing.n_values();
    let mut centre = Vec::new();
    for batch in Loader::eval(Arc::new(Pictures::new()), &preprocessing, &options(0, 1)).unwrap() {
        centre.extend(batch.unwrap().images);
    }
    for crops in [Crops::One, Crops::Mirrored, Crops::Ten, Crops::All144] {
        let mut whole: Vec<Content> = Vec::new();
        for workers in [0, 1, 3] {
            let mut source = Pictures::new();
            source.bad = Some(7);
            let source = Arc::new(source);
            let options = options(workers, 2);
            let loader = Loader::eval_crops(source.clone(), crops, &preprocessing, &options);
            let found: Vec<Content> =
                loader.unwrap().map(|batch| content(&batch.unwrap())).collect();
            assert_eq!(source.loads.load(Ordering::Relaxed), 26, "{crops:?}: loads");
            assert_eq!(found.iter().map(|batch| batch.4.len()).sum::<usize>(), 1);
            if whole.is_empty() {
                whole = found;
            } else {
                assert!(found == whole, "{crops:?}, {workers} workers");
            }
        }
        // The plain centre follows the plain and mirrored corners.
        let at = if matches!(crops, Crops::One | Crops::Mirrored) { 0 } else { 8 };
        for (_, levels, _, indices, _) in &whole {
            assert_eq!(levels.len(), indices.len() * crops.count() * n_values);
            for (image, &index) in levels.chunks_exact(crops.count() * n_values).zip(indices) {
                let inputs: Vec<&[u8]> = image.chunks_exact(n_values).collect();
                if crops != Crops::All144 {
                    let expected = &centre[index as usize * n_values..][..n_values];
                    assert!(inputs[at] == expected, "{crops:?} of {index}: the centre");
                }
                assert_eq!(inputs.len(), crops.count());
                for pair in inputs.chunks_exact(2) {
                    let rows = |input| <[u8]>::as_chunks::<3>(input).0.chunks_exact(16);
                    let mirrored = rows(pair[0]).zip(rows(pair[1]));
                    let is_mirrored =
                        |(a, b): (&[[u8; 3]], &[[u8; 3]])| a.iter().eq(b.iter().rev());
                    assert!(mirrored.into_iter().all(is_mirrored), "{crops:?} of {index}");
                }
            }
        }
    }
}
