//! Pictures to train on when there are none: ten classes of shapes and textures, drawn by a seed.
//!
//! The class is the form alone. Position, size, rotation, both colours, shading, background and
//! noise are drawn for each picture from the same law in every class, so colour and brightness say
//! nothing. Shapes lie somewhere in the picture, textures fill it.

use std::f32::consts::{PI, TAU};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage};
use rand::{Rng, RngExt};

use crate::error::DataError;
use crate::random::{Purpose, sample_rng};

/// Names of the classes, in byte order.
pub const DEMO_CLASSES: [&str; 10] = [
    "checkerboard",
    "circle",
    "cross",
    "dots",
    "ring",
    "spiral",
    "square",
    "star",
    "stripes",
    "triangle",
];

/// Changes with the drawing: a folder drawn otherwise is not taken for this one.
const DRAWING_VERSION: u32 = 2;

/// The file that a complete demo folder has, with the options it was drawn by.
const MARKER: &str = "demo.txt";

/// What to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DemoOptions {
    /// Training pictures of each class.
    pub train_per_class: usize,
    /// Validation pictures of each class.
    pub val_per_class: usize,
    /// Side of the square pictures, in pixels.
    pub size: usize,
    /// Decides every picture. A picture does not depend on the two counts.
    pub seed: u64,
}

impl Default for DemoOptions {
    /// Small enough to be written in seconds and trained on in minutes.
    fn default() -> Self {
        DemoOptions { train_per_class: 200, val_per_class: 40, size: 64, seed: 0 }
    }
}

/// Whether [`write_demo`] had anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DemoOutcome {
    /// The pictures were drawn.
    Written,
    /// The folder was there, complete and of the same options.
    Reused,
}

/// Draws the demo data to the folder `dir`: `DIR/train/CLASS/0000.png` and so on, and `DIR/val`.
///
/// The pictures go to a folder beside `dir` that is renamed at the end, so `dir` is complete or not
/// there at all. A complete folder of the same options is left as it is.
///
/// # Errors
/// `dir` holds something else, a count or the size is out of its range, or a file cannot be written.
pub fn write_demo(dir: &Path, options: &DemoOptions) -> Result<DemoOutcome, DataError> {
    validate(options)?;
    if is_demo(dir, options)? {
        return Ok(DemoOutcome::Reused);
    }
    let name = dir.file_name().ok_or_else(|| DataError::layout(dir, "expected a folder name"))?;
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(DataError::io("create", parent))?;
    // Hidden, so that no scan takes it for data; with the process id, so that two programs that draw
    // at the same time do not meet.
    let mut partial_name = std::ffi::OsString::from(".");
    partial_name.push(name);
    partial_name.push(format!(".partial-{}", std::process::id()));
    let partial = parent.join(partial_name);
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(DataError::io("remove", &partial))?;
    }
    let written =
        write_pictures(&partial, options).and_then(|()| match fs::rename(&partial, dir) {
            Ok(()) => Ok(DemoOutcome::Written),
            // Another program may have been faster with the same pictures.
            Err(_) if is_demo(dir, options)? => Ok(DemoOutcome::Reused),
            Err(error) => Err(DataError::io("create", dir)(error)),
        });
    if !matches!(written, Ok(DemoOutcome::Written)) {
        // Best effort: what is reported is the first error, not a second one.
        let _ = fs::remove_dir_all(&partial);
    }
    written
}

fn validate(options: &DemoOptions) -> Result<(), DataError> {
    if !(8..=1024).contains(&options.size) {
        return Err(DataError::setting("size", options.size, "a side from 8 to 1024 pixels"));
    }
    let counts =
        [("train_per_class", options.train_per_class), ("val_per_class", options.val_per_class)];
    for (field, count) in counts {
        if !(1..=10_000).contains(&count) {
            return Err(DataError::setting(field, count, "1 to 10000, the four digits of a name"));
        }
    }
    Ok(())
}

fn marker(options: &DemoOptions) -> String {
    let DemoOptions { train_per_class, val_per_class, size, seed } = options;
    format!(
        "Pictures drawn by bninception. This file says that the folder is complete.\n\
         drawing = {DRAWING_VERSION}\ntrain_per_class = {train_per_class}\n\
         val_per_class = {val_per_class}\nsize = {size}\nseed = {seed}\n"
    )
}

/// Whether `dir` is a complete demo folder of `options`; an error if it is anything but empty or
/// missing otherwise.
fn is_demo(dir: &Path, options: &DemoOptions) -> Result<bool, DataError> {
    let file = dir.join(MARKER);
    match fs::read_to_string(&file) {
        Ok(found) if found == marker(options) => Ok(true),
        Ok(_) => Err(DataError::layout(
            dir,
            "holds demo pictures of other options; remove it or name another folder",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
                Ok(true) => Err(DataError::layout(
                    dir,
                    "holds files that are no demo pictures; name another folder",
                )),
                Ok(false) => Ok(false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(DataError::io("list", dir)(error)),
            }
        }
        Err(error) => Err(DataError::io("read", &file)(error)),
    }
}

fn write_pictures(dir: &Path, options: &DemoOptions) -> Result<(), DataError> {
    let mut pictures = Vec::new();
    let splits = [("train", options.train_per_class), ("val", options.val_per_class)];
    for (split_idx, (split, count)) in splits.into_iter().enumerate() {
        for (class_idx, class) in DEMO_CLASSES.iter().enumerate() {
            let folder = dir.join(split).join(class);
            fs::create_dir_all(&folder).map_err(DataError::io("create", &folder))?;
            for i in 0..count {
                pictures.push((folder.join(format!("{i:04}.png")), split_idx, class_idx, i));
            }
        }
    }
    let write_all = |pictures: &[(PathBuf, usize, usize, usize)]| -> Result<(), DataError> {
        for (path, split_idx, class_idx, i) in pictures {
            let index = (*class_idx as u64) << 32 | *i as u64;
            let mut rng = sample_rng(options.seed, *split_idx as u64, index, Purpose::Demo);
            write_png(path, &draw(*class_idx, options.size, &mut rng))?;
        }
        Ok(())
    };
    let n_threads = thread::available_parallelism().map_or(1, usize::from);
    let parts = pictures.chunks(pictures.len().div_ceil(n_threads));
    thread::scope(|scope| {
        let threads: Vec<_> = parts.map(|part| scope.spawn(|| write_all(part))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    let file = dir.join(MARKER);
    fs::write(&file, marker(options)).map_err(DataError::io("write", &file))
}

fn write_png(path: &Path, picture: &RgbImage) -> Result<(), DataError> {
    let save = || -> io::Result<()> {
        let mut file = BufWriter::new(fs::File::create(path)?);
        let (width, height) = picture.dimensions();
        PngEncoder::new_with_quality(&mut file, CompressionType::Fast, FilterType::Sub)
            .write_image(picture, width, height, ExtendedColorType::Rgb8)
            .map_err(io::Error::other)?;
        file.flush()
    };
    save().map_err(DataError::io("write", path))
}

// --- Drawing -----------------------------------------------------------------------------------

/// Samples along each side of a pixel, for antialiasing.
const N_SUBPIXELS: usize = 3;

/// Draws one picture of class `class_idx`, `size` x `size` pixels.
fn draw<R: Rng>(class_idx: usize, size: usize, rng: &mut R) -> RgbImage {
    let back = Paint::draw(random_colour(rng), rng);
    let front = Paint::draw(contrasting_colour(back.colour, rng), rng);
    let blobs: Vec<Blob> =
        (0..rng.random_range(0..=3)).map(|_| Blob::draw(back.colour, rng)).collect();
    let noise = rng.random_range(0.01..0.05_f32);
    let form = Form::draw(class_idx, rng);

    // Pixels to coordinates from -1 to 1, x to the right and y down.
    let step = 2.0 / size as f32;
    let mut picture = RgbImage::new(size as u32, size as u32);
    for (px, py, pixel) in picture.enumerate_pixels_mut() {
        let (left, top) = (px as f32 * step - 1.0, py as f32 * step - 1.0);
        let mut n_inside = 0;
        for i in 0..N_SUBPIXELS * N_SUBPIXELS {
            let sub = |i: usize| (i as f32 + 0.5) * step / N_SUBPIXELS as f32;
            let (x, y) = (left + sub(i % N_SUBPIXELS), top + sub(i / N_SUBPIXELS));
            n_inside += usize::from(form.contains(x, y));
        }
        let coverage = n_inside as f32 / (N_SUBPIXELS * N_SUBPIXELS) as f32;
        let (x, y) = (left + step / 2.0, top + step / 2.0);
        let mut colour = back.at(x, y);
        for blob in &blobs {
            colour = mix(colour, blob.colour, blob.weight(x, y));
        }
        colour = mix(colour, front.at(x, y), coverage);
        *pixel = Rgb(colour.map(|value| {
            // The sum of two uniform numbers: a triangle is near enough to a normal law.
            let grain = rng.random::<f32>() + rng.random::<f32>() - 1.0;
            ((value + grain * noise * 2.0) * 255.0).round().clamp(0.0, 255.0) as u8
        }));
    }
    picture
}

/// A form with its place in the picture.
struct Form {
    contains: fn(f32, f32, f32) -> bool,
    centre: [f32; 2],
    /// Half the extent of a shape.
    radius: f32,
    cos: f32,
    sin: f32,
    /// Chooses what varies within the class: the width of a bar, the hole of a ring, ...
    detail: f32,
}

impl Form {
    fn draw<R: Rng>(class_idx: usize, rng: &mut R) -> Form {
        let radius = rng.random_range(0.6..0.95_f32);
        // The larger, the nearer to the middle: a shape keeps most of itself in the picture.
        let reach = (0.95 - radius).max(0.1);
        let centre = [rng.random_range(-reach..reach), rng.random_range(-reach..reach)];
        let (sin, cos) = rng.random_range(0.0..TAU).sin_cos();
        Form { contains: FORMS[class_idx], centre, radius, cos, sin, detail: rng.random() }
    }

    fn contains(&self, x: f32, y: f32) -> bool {
        let (x, y) = (x - self.centre[0], y - self.centre[1]);
        let (x, y) = (x * self.cos + y * self.sin, y * self.cos - x * self.sin);
        (self.contains)(x / self.radius, y / self.radius, self.detail)
    }
}

/// For each of [`DEMO_CLASSES`], in their order: whether the form contains the point (x, y).
///
/// A shape lies within the unit circle or little beyond, a texture fills the plane. The third number,
/// in [0, 1), chooses the proportion that varies within the class.
const FORMS: [fn(f32, f32, f32) -> bool; 10] =
    [checkerboard, circle, cross, dots, ring, spiral, square, star, stripes, triangle];

fn checkerboard(x: f32, y: f32, detail: f32) -> bool {
    let cell = between(0.45, 0.7, detail);
    ((x / cell).floor() + (y / cell).floor()).rem_euclid(2.0) < 1.0
}

fn circle(x: f32, y: f32, _: f32) -> bool {
    x.hypot(y) < 0.95
}

fn cross(x: f32, y: f32, detail: f32) -> bool {
    let bar = between(0.2, 0.34, detail);
    x.abs().min(y.abs()) < bar && x.abs().max(y.abs()) < 1.0
}

fn dots(x: f32, y: f32, detail: f32) -> bool {
    let cell = between(0.55, 0.8, detail);
    let off_centre = |v: f32| (v / cell).rem_euclid(1.0) - 0.5;
    off_centre(x).hypot(off_centre(y)) < 0.31
}

fn ring(x: f32, y: f32, detail: f32) -> bool {
    (between(0.5, 0.7, detail)..1.0).contains(&x.hypot(y))
}

fn spiral(x: f32, y: f32, detail: f32) -> bool {
    let turns = between(1.8, 2.6, detail);
    let distance = x.hypot(y);
    distance < 1.0 && (distance * turns - y.atan2(x) / TAU).rem_euclid(1.0) < 0.5
}

fn square(x: f32, y: f32, _: f32) -> bool {
    x.abs().max(y.abs()) < 0.82
}

fn star(x: f32, y: f32, detail: f32) -> bool {
    // The symmetry folds the five points to one wedge of 36 degrees, whose one side runs through an
    // inner corner (at angle 0) and whose other through an outer one; the edge joins the two.
    let wedge = PI / 5.0;
    let angle = (y.atan2(x).rem_euclid(2.0 * wedge) - wedge).abs();
    let distance = x.hypot(y);
    let (x, y) = (distance * angle.cos(), distance * angle.sin());
    let inner = between(0.38, 0.5, detail);
    let (outer_x, outer_y) = (wedge.cos(), wedge.sin());
    (outer_x - inner) * y - outer_y * (x - inner) > 0.0
}

fn stripes(x: f32, _: f32, detail: f32) -> bool {
    (x / between(0.5, 0.9, detail)).rem_euclid(1.0) < 0.5
}

fn triangle(x: f32, y: f32, _: f32) -> bool {
    // Equilateral, its corners on the unit circle: each side is half a radius from the middle.
    let (along_y, along_x) = (-0.5 * y, 0.75_f32.sqrt() * x);
    y < 0.5 && along_y + along_x < 0.5 && along_y - along_x < 0.5
}

fn between(low: f32, high: f32, part: f32) -> f32 {
    low + (high - low) * part
}

/// A colour that changes a little from one side of the picture to the other.
struct Paint {
    colour: [f32; 3],
    slope: [[f32; 2]; 3],
    wave: [f32; 4],
}

impl Paint {
    fn draw<R: Rng>(colour: [f32; 3], rng: &mut R) -> Paint {
        let mut within = |limit: f32| rng.random_range(-limit..limit);
        let light = [within(0.1), within(0.1)];
        Paint {
            colour,
            slope: [0; 3].map(|_| [light[0] + within(0.04), light[1] + within(0.04)]),
            wave: [within(4.0), within(4.0), within(3.2), within(0.05)],
        }
    }

    fn at(&self, x: f32, y: f32) -> [f32; 3] {
        let [wave_x, wave_y, phase, height] = self.wave;
        let wave = height * (wave_x * x + wave_y * y + phase).sin();
        let mut colour = self.colour;
        for c in 0..3 {
            colour[c] += self.slope[c][0] * x + self.slope[c][1] * y + wave;
        }
        colour
    }
}

/// A soft spot on the background.
struct Blob {
    centre: [f32; 2],
    radius: f32,
    colour: [f32; 3],
    strength: f32,
}

impl Blob {
    fn draw<R: Rng>(back: [f32; 3], rng: &mut R) -> Blob {
        Blob {
            centre: [rng.random_range(-1.0..1.0), rng.random_range(-1.0..1.0)],
            radius: rng.random_range(0.2..0.6),
            colour: mix(back, random_colour(rng), 0.5),
            strength: rng.random_range(0.2..0.6),
        }
    }

    fn weight(&self, x: f32, y: f32) -> f32 {
        let distance = (x - self.centre[0]).hypot(y - self.centre[1]) / self.radius;
        let inside = (1.0 - distance * distance).max(0.0);
        self.strength * inside * inside
    }
}

fn random_colour<R: Rng>(rng: &mut R) -> [f32; 3] {
    let hue = rng.random_range(0.0..6.0_f32);
    let saturation = rng.random_range(0.1..0.85_f32);
    let value = rng.random_range(0.15..0.95_f32);
    // https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative
    [5.0, 3.0, 1.0].map(|n: f32| {
        let k = (n + hue).rem_euclid(6.0);
        value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

/// A colour whose brightness differs enough from that of `back` to be seen.
///
/// Draws are repeated until one fits, which ends: dark and light colours are both among them.
fn contrasting_colour<R: Rng>(back: [f32; 3], rng: &mut R) -> [f32; 3] {
    loop {
        let colour = random_colour(rng);
        if (luma(colour) - luma(back)).abs() > 0.25 {
            return colour;
        }
    }
}

/// Brightness by the weights of ITU-R BT.601.
fn luma([r, g, b]: [f32; 3]) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

fn mix(from: [f32; 3], to: [f32; 3], weight: f32) -> [f32; 3] {
    [0, 1, 2].map(|c| from[c] + (to[c] - from[c]) * weight)
}
