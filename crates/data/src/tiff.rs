//! TIFF: which files are read, and what their samples mean.
//!
//! The crate `tiff` undoes the compression. What the samples are is decided here, by the tags: the crate
//! is shown a copy that says of every file that it has grey samples, which it hands out as they are.
//! The first page is read, of TIFF and of BigTIFF.
//!
//! | tag | read | refused by name |
//! |---|---|---|
//! | PhotometricInterpretation | grey either way round, RGB, palette, CMYK, YCbCr | masks, Lab, raw photos, none |
//! | BitsPerSample | 8 and 16; 1, 2 and 4 for one sample a pixel | others, different ones |
//! | SampleFormat | unsigned | signed, floating-point, others |
//! | ExtraSamples | alpha, which is dropped; others, which are skipped | premultiplied alpha but of grey and RGB |
//! | PlanarConfiguration | both | |
//! | FillOrder | both | |
//! | Compression | none, LZW, Deflate, PackBits, JPEG, CCITT group 4 | others |
//! | Predictor | with LZW and Deflate; elsewhere it means nothing | |
//! | YCbCrSubSampling | as JPEG has it | without JPEG |
//! | YCbCrCoefficients, ReferenceBlackWhite | the defaults; JPEG has no others | others |
//! | InkSet, NumberOfInks | CMYK | others |
//! | tiles and strips | both | |
//!
//! Premultiplied colours are divided by their alpha, as Pillow does. A 16-bit sample counts by its high
//! byte, also that of a palette. Grey whose zero is white is turned round at 16 bits too, which Pillow
//! forgets.

use std::io::{Cursor, ErrorKind};

use tiff::TiffError;
use tiff::decoder::{Decoder, Limits};

use crate::decode_options::DecodeOptions;
use crate::error::DecodeError;
use crate::ifd::Ifd;
use crate::jpeg;

/// Tags (TIFF 6.0, appendix A).
mod tag {
    pub(super) const WIDTH: u16 = 256;
    pub(super) const LENGTH: u16 = 257;
    pub(super) const BITS_PER_SAMPLE: u16 = 258;
    pub(super) const COMPRESSION: u16 = 259;
    pub(super) const PHOTOMETRIC: u16 = 262;
    pub(super) const FILL_ORDER: u16 = 266;
    pub(super) const STRIP_OFFSETS: u16 = 273;
    pub(super) const SAMPLES_PER_PIXEL: u16 = 277;
    pub(super) const ROWS_PER_STRIP: u16 = 278;
    pub(super) const STRIP_BYTE_COUNTS: u16 = 279;
    pub(super) const PLANAR_CONFIGURATION: u16 = 284;
    pub(super) const PREDICTOR: u16 = 317;
    pub(super) const COLOR_MAP: u16 = 320;
    pub(super) const TILE_WIDTH: u16 = 322;
    pub(super) const TILE_LENGTH: u16 = 323;
    pub(super) const TILE_OFFSETS: u16 = 324;
    pub(super) const TILE_BYTE_COUNTS: u16 = 325;
    pub(super) const INK_SET: u16 = 332;
    pub(super) const NUMBER_OF_INKS: u16 = 334;
    pub(super) const EXTRA_SAMPLES: u16 = 338;
    pub(super) const SAMPLE_FORMAT: u16 = 339;
    pub(super) const YCBCR_COEFFICIENTS: u16 = 529;
    pub(super) const YCBCR_SUB_SAMPLING: u16 = 530;
    pub(super) const REFERENCE_BLACK_WHITE: u16 = 532;
}

/// Values of Compression.
const UNCOMPRESSED: u64 = 1;
const CCITT_GROUP_4: u64 = 4;
const LZW: u64 = 5;
const JPEG: u64 = 7;
const DEFLATE: [u64; 2] = [8, 32946];
const PACK_BITS: u64 = 32773;

/// Most samples of a pixel: what Pillow's longest entry has, and two more.
const MOST_SAMPLES: u64 = 8;

/// A TIFF file whose pixels are next to be read.
pub(crate) struct Tiff {
    decoder: Decoder<Cursor<Vec<u8>>>,
    width: u32,
    height: u32,
    layout: Layout,
}

/// What the samples of a pixel are.
struct Layout {
    meaning: Meaning,
    bits: usize,
    /// Samples of a pixel: colours, then extra ones.
    n_samples: usize,
    /// Whether the colours are multiplied by the sample behind them.
    is_premultiplied: bool,
    /// Whether each sample has a plane of its own.
    is_planar: bool,
    /// Width and length of a tile; none for strips.
    tile: Option<(usize, usize)>,
    compression: u64,
}

enum Meaning {
    Grey { white_is_zero: bool },
    Rgb,
    Palette(Vec<[u8; 3]>),
    Cmyk,
    YCbCr,
}

impl Tiff {
    pub(crate) fn open(bytes: &[u8], options: &DecodeOptions) -> Result<Tiff, DecodeError> {
        let ifd = Ifd::first(bytes).ok_or(DecodeError::Truncated)?;
        let layout = Layout::of(&ifd, options.max_pixels)?;
        let mut copy = bytes.to_vec();
        let mut changes = ifd.changes(tag::PHOTOMETRIC, 1); // grey whose zero is black
        if layout.compression != LZW && !DEFLATE.contains(&layout.compression) {
            changes.extend(ifd.changes(tag::PREDICTOR, 1));
        }
        for (at, change) in changes {
            copy[at..at + change.len()].copy_from_slice(&change);
        }
        match ifd.number(tag::FILL_ORDER).unwrap_or(1) {
            1 => {}
            // JPEG data has an order of its own.
            2 if layout.compression == JPEG => {}
            2 => reverse_bits(&mut copy, &ifd)?,
            other => return Err(unsupported(format!("FillOrder {other}"))),
        }
        let mut decoder = Decoder::new(Cursor::new(copy)).map_err(decode_error)?;
        let (width, height) = decoder.dimensions().map_err(decode_error)?;
        let read = [tag::WIDTH, tag::LENGTH].map(|tag| ifd.number(tag));
        if read != [width, height].map(|side| Some(side.into())) {
            return Err(DecodeError::Corrupt("TIFF whose size is unclear".to_owned()));
        }
        let mut limits = Limits::default();
        // 8 bytes are a pixel of the widest kind that is read as RGBA.
        let most = usize::try_from(options.max_pixels.saturating_mul(8)).unwrap_or(usize::MAX);
        limits.decoding_buffer_size = most;
        limits.intermediate_buffer_size = most;
        let decoder = decoder.with_limits(limits);
        if layout.compression == JPEG {
            check_jpegs(bytes, &ifd, &layout, (width, height))?;
        }
        Ok(Tiff { decoder, width, height, layout })
    }

    pub(crate) fn dimensions(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Decodes the pixels into the memory of `rgb`.
    pub(crate) fn into_rgb(mut self, mut rgb: Vec<u8>) -> Result<Vec<u8>, DecodeError> {
        let Layout { bits, n_samples, is_planar, .. } = self.layout;
        let (width, height) = (self.width as usize, self.height as usize);
        let (n_planes, n_inner) = if is_planar { (n_samples, 1) } else { (1, n_samples) };
        let row_bytes = (width * n_inner * bits).div_ceil(8);
        let plane_bytes = row_bytes * height;
        let expected = self.decoder.image_buffer_layout().map_err(decode_error)?;
        if expected.complete_len != plane_bytes * n_planes {
            return Err(DecodeError::Corrupt("TIFF whose layout is unclear".to_owned()));
        }
        let mut raw = vec![0; expected.complete_len];
        match self.layout.tile {
            Some(tile) if is_planar => self.read_tiles(tile, row_bytes, &mut raw)?,
            _ => self.decoder.read_image_bytes(&mut raw).map_err(decode_error)?,
        }
        rgb.clear();
        rgb.resize(width * height * 3, 0);
        let mut row = vec![0; width * n_samples];
        for (y, out) in rgb.chunks_exact_mut(width * 3).enumerate() {
            for plane in 0..n_planes {
                let start = plane * plane_bytes + y * row_bytes;
                unpack(&raw[start..start + row_bytes], bits, &mut row[plane..], n_planes);
            }
            self.layout.write_row(&row, out);
        }
        Ok(rgb)
    }
}

impl Tiff {
    /// Reads tiles that have a plane for each sample, one by one: the decoder forgets that those at the
    /// bottom of the second plane are lower.
    fn read_tiles(
        &mut self,
        (tile_width, tile_length): (usize, usize),
        row_bytes: usize,
        raw: &mut [u8],
    ) -> Result<(), DecodeError> {
        let (width, height) = (self.width as usize, self.height as usize);
        let (across, down) = (width.div_ceil(tile_width), height.div_ceil(tile_length));
        let mut tile = Vec::new();
        for (plane, raw) in raw.chunks_exact_mut(row_bytes * height).enumerate() {
            for (row, column) in (0..down).flat_map(|row| (0..across).map(move |c| (row, c))) {
                let index = (plane * down + row) * across + column;
                let (wide, high) = self.decoder.chunk_data_dimensions(index as u32);
                let tile_bytes = (wide as usize * self.layout.bits).div_ceil(8);
                tile.clear();
                tile.resize(tile_bytes * high as usize, 0);
                self.decoder.read_chunk_bytes(index as u32, &mut tile).map_err(decode_error)?;
                // Tiles are a multiple of 16 pixels wide, so that each begins with a byte.
                let left = column * tile_width * self.layout.bits / 8;
                let rows = raw.chunks_exact_mut(row_bytes).skip(row * tile_length);
                for (out, tile) in rows.zip(tile.chunks_exact(tile_bytes)) {
                    out[left..left + tile_bytes].copy_from_slice(tile);
                }
            }
        }
        Ok(())
    }
}

impl Layout {
    /// Reads the tags, and refuses what is not read, by name.
    fn of(ifd: &Ifd<'_>, max_pixels: u64) -> Result<Layout, DecodeError> {
        let or = |tag, default| ifd.number(tag).unwrap_or(default);
        let compression = or(tag::COMPRESSION, UNCOMPRESSED);
        check_compression(compression)?;
        let n_samples = or(tag::SAMPLES_PER_PIXEL, 1);
        if !(1..=MOST_SAMPLES).contains(&n_samples) {
            return Err(unsupported(format!("{n_samples} samples a pixel")));
        }
        let n_samples = n_samples as usize;
        let bits = one_of(ifd, tag::BITS_PER_SAMPLE, 1, "different bits a sample")?;
        match one_of(ifd, tag::SAMPLE_FORMAT, 1, "samples of different kinds")? {
            1 => {}
            2 => return Err(unsupported(format!("signed {bits}-bit samples"))),
            3 => return Err(unsupported(format!("{bits}-bit floating-point samples"))),
            other => return Err(unsupported(format!("SampleFormat {other}"))),
        }
        let is_read = match bits {
            8 => true,
            16 => compression != JPEG,
            1 | 2 | 4 => n_samples == 1 && compression != JPEG,
            _ => false,
        };
        if !is_read || (compression == CCITT_GROUP_4 && (bits, n_samples) != (1, 1)) {
            return Err(unsupported(format!("{n_samples} samples a pixel of {bits} bits")));
        }
        let bits = bits as usize;
        let meaning = Meaning::of(ifd, bits, n_samples, compression)?;
        let n_colours = meaning.n_colours();
        if n_samples < n_colours {
            let what = format!("{n_samples} samples a pixel for {n_colours} colours");
            return Err(unsupported(what));
        }
        const ASSOCIATED_ALPHA: u64 = 1;
        let extra = ifd.numbers(tag::EXTRA_SAMPLES).unwrap_or_default();
        let is_premultiplied = n_samples > n_colours && extra.contains(&ASSOCIATED_ALPHA);
        let can_divide = matches!(meaning, Meaning::Grey { white_is_zero: false } | Meaning::Rgb);
        if is_premultiplied && (!can_divide || extra[0] != ASSOCIATED_ALPHA) {
            return Err(unsupported("premultiplied alpha of such colours"));
        }
        let is_planar = or(tag::PLANAR_CONFIGURATION, 1) == 2 && n_samples > 1;
        let tile = match [tag::TILE_WIDTH, tag::TILE_LENGTH].map(|tag| ifd.number(tag)) {
            [Some(width), Some(length)] => {
                // Memory is taken for a tile of one sample.
                if width == 0 || length == 0 || width.saturating_mul(length) > max_pixels {
                    return Err(unsupported(format!("tiles of {width} x {length} pixels")));
                }
                Some((width as usize, length as usize))
            }
            _ => None,
        };
        Ok(Layout { meaning, bits, n_samples, is_premultiplied, is_planar, tile, compression })
    }

    /// Turns a row of samples of 8 bits or fewer to RGB.
    fn write_row(&self, row: &[u8], out: &mut [u8]) {
        let scale = 255 / ((1_u16 << self.bits.min(8)) - 1) as u8;
        let pixels = row.chunks_exact(self.n_samples).zip(out.chunks_exact_mut(3));
        match &self.meaning {
            Meaning::Grey { white_is_zero } => {
                let flip = if *white_is_zero { 0xFF } else { 0 };
                for (pixel, out) in pixels {
                    let level = (pixel[0] * scale) ^ flip;
                    let is_divided = self.is_premultiplied && pixel[1] != 0;
                    out.fill(if is_divided { divided(level, pixel[1]) } else { level });
                }
            }
            Meaning::Rgb if self.is_premultiplied => {
                for (pixel, out) in pixels {
                    for c in 0..3 {
                        out[c] = divided(pixel[c], pixel[3]);
                    }
                }
            }
            Meaning::Rgb => pixels.for_each(|(pixel, out)| out.copy_from_slice(&pixel[..3])),
            Meaning::Palette(colours) => {
                for (pixel, out) in pixels {
                    out.copy_from_slice(&colours[usize::from(pixel[0])]);
                }
            }
            Meaning::Cmyk => {
                for (pixel, out) in pixels {
                    let white = u32::from(255 - pixel[3]);
                    for c in 0..3 {
                        // Pillow's division by 255, which rounds.
                        let ink = u32::from(pixel[c]) * white + 128;
                        out[c] = (white - ((ink + (ink >> 8)) >> 8)) as u8;
                    }
                }
            }
            Meaning::YCbCr => pixels.for_each(|(pixel, out)| {
                out.copy_from_slice(&rgb_of([pixel[0], pixel[1], pixel[2]]));
            }),
        }
    }
}

impl Meaning {
    fn of(
        ifd: &Ifd<'_>,
        bits: usize,
        n_samples: usize,
        compression: u64,
    ) -> Result<Meaning, DecodeError> {
        let Some(photometric) = ifd.number(tag::PHOTOMETRIC) else {
            return Err(unsupported("no PhotometricInterpretation"));
        };
        Ok(match photometric {
            0 | 1 => Meaning::Grey { white_is_zero: photometric == 0 },
            2 => Meaning::Rgb,
            3 if bits <= 8 => Meaning::Palette(palette(ifd, bits)?),
            3 => return Err(unsupported("a palette of 16 bits")),
            4 => return Err(unsupported("a transparency mask in place of a picture")),
            5 => {
                let inks = [(tag::INK_SET, 1), (tag::NUMBER_OF_INKS, 4)];
                let is_other = |(tag, cmyk)| ifd.number(tag).is_some_and(|found| found != cmyk);
                let is_unclear = n_samples > 4 && ifd.numbers(tag::EXTRA_SAMPLES).is_none();
                if is_unclear || inks.into_iter().any(is_other) {
                    return Err(unsupported("other inks than CMYK"));
                }
                Meaning::Cmyk
            }
            6 => {
                check_ycbcr(ifd, bits, n_samples, compression)?;
                Meaning::YCbCr
            }
            8 => return Err(unsupported("CIE L*a*b* colours")),
            9 => return Err(unsupported("ICC L*a*b* colours")),
            10 => return Err(unsupported("ITU L*a*b* colours")),
            32803 | 34892 => return Err(unsupported("the data of a raw photo")),
            other => return Err(unsupported(format!("PhotometricInterpretation {other}"))),
        })
    }

    fn n_colours(&self) -> usize {
        match self {
            Meaning::Grey { .. } | Meaning::Palette(_) => 1,
            Meaning::Rgb | Meaning::YCbCr => 3,
            Meaning::Cmyk => 4,
        }
    }
}

fn check_compression(compression: u64) -> Result<(), DecodeError> {
    let name = match compression {
        UNCOMPRESSED | CCITT_GROUP_4 | LZW | JPEG | PACK_BITS => return Ok(()),
        _ if DEFLATE.contains(&compression) => return Ok(()),
        2 => "CCITT run-length compression",
        3 => "CCITT group 3 compression",
        6 => "old-style JPEG compression",
        34712 => "JPEG 2000 compression",
        34887 => "LERC compression",
        34925 => "LZMA compression",
        50000 => "Zstandard compression",
        50001 => "WebP compression",
        50002 => "JPEG XL compression",
        other => return Err(unsupported(format!("compression {other}"))),
    };
    Err(unsupported(name))
}

/// YCbCr is read where it is that of JPEG.
fn check_ycbcr(
    ifd: &Ifd<'_>,
    bits: usize,
    n_samples: usize,
    compression: u64,
) -> Result<(), DecodeError> {
    if (bits, n_samples) != (8, 3) {
        return Err(unsupported(format!("YCbCr of {n_samples} samples of {bits} bits")));
    }
    if compression == JPEG {
        return Ok(()); // has its own subsampling, and the defaults of the others
    }
    // Not given, the factors are 2 and 2.
    if ifd.numbers(tag::YCBCR_SUB_SAMPLING).unwrap_or_default() != [1, 1] {
        return Err(unsupported("YCbCr with fewer colours than pixels"));
    }
    let differs = |tag, default: &[f64]| {
        let found = ifd.fractions(tag);
        let is_near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-3;
        found.is_some_and(|f| f.len() != default.len() || !f.iter().zip(default).all(is_near))
    };
    if differs(tag::YCBCR_COEFFICIENTS, &[0.299, 0.587, 0.114])
        || differs(tag::REFERENCE_BLACK_WHITE, &[0.0, 255.0, 128.0, 255.0, 128.0, 255.0])
    {
        return Err(unsupported("YCbCr of other coefficients than those of JPEG"));
    }
    Ok(())
}

/// The one value that all samples have.
fn one_of(ifd: &Ifd<'_>, tag: u16, default: u64, what: &str) -> Result<u64, DecodeError> {
    let values = ifd.numbers(tag).unwrap_or_else(|| vec![default]);
    match values.split_first() {
        Some((first, rest)) if rest.iter().all(|value| value == first) => Ok(*first),
        _ => Err(unsupported(what)),
    }
}

/// The colours of a palette by their high bytes: all reds stand first, then all greens.
fn palette(ifd: &Ifd<'_>, bits: usize) -> Result<Vec<[u8; 3]>, DecodeError> {
    let n_colours = 1 << bits;
    let map = ifd.numbers(tag::COLOR_MAP).unwrap_or_default();
    if map.len() != 3 * n_colours {
        let problem =
            format!("TIFF with a palette of {} values for {n_colours} colours", map.len());
        return Err(DecodeError::Corrupt(problem));
    }
    let level = |index: usize| (map[index] >> 8) as u8;
    Ok((0..n_colours).map(|i| [level(i), level(n_colours + i), level(2 * n_colours + i)]).collect())
}

/// The parts of the file that hold pixels; `None` where one is not in it.
fn chunks(ifd: &Ifd<'_>, n_bytes: usize) -> Option<Vec<(usize, usize)>> {
    let either = |strips, tiles| ifd.numbers(strips).or_else(|| ifd.numbers(tiles));
    let offsets = either(tag::STRIP_OFFSETS, tag::TILE_OFFSETS)?;
    let lengths = either(tag::STRIP_BYTE_COUNTS, tag::TILE_BYTE_COUNTS)?;
    let chunk = |(offset, length): (u64, u64)| {
        let (start, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
        let end = start.checked_add(length).filter(|end| *end <= n_bytes)?;
        Some((start, end))
    };
    offsets.into_iter().zip(lengths).map(chunk).collect()
}

/// Turns round the bits of each byte of pixels, before they are decompressed.
fn reverse_bits(copy: &mut [u8], ifd: &Ifd<'_>) -> Result<(), DecodeError> {
    let mut chunks = chunks(ifd, copy.len()).ok_or(DecodeError::Truncated)?;
    chunks.sort_unstable();
    if chunks.windows(2).any(|pair| pair[1].0 < pair[0].1) {
        return Err(unsupported("FillOrder 2 and strips that share bytes"));
    }
    for (start, end) in chunks {
        copy[start..end].iter_mut().for_each(|byte| *byte = byte.reverse_bits());
    }
    Ok(())
}

/// Checks that the JPEGs in the file are whole and of the size that the tags say: the decoder would fill
/// what is missing with grey, and take rows of another width for its own.
fn check_jpegs(
    bytes: &[u8],
    ifd: &Ifd<'_>,
    layout: &Layout,
    (width, height): (u32, u32),
) -> Result<(), DecodeError> {
    let (wide, most_rows) = match layout.tile {
        Some((wide, rows)) => (wide as u64, rows as u64),
        None => {
            let rows = ifd.number(tag::ROWS_PER_STRIP).unwrap_or(u64::MAX);
            (width.into(), rows.min(height.into()))
        }
    };
    let n_colours = if layout.is_planar { 1 } else { layout.n_samples };
    for (start, end) in chunks(ifd, bytes.len()).ok_or(DecodeError::Truncated)? {
        let chunk = &bytes[start..end];
        if !jpeg::is_complete(chunk) {
            return Err(DecodeError::Truncated);
        }
        let is_right = jpeg::frame_size(chunk).is_some_and(|(found, rows, colours)| {
            u64::from(found) == wide
                && u64::from(rows) <= most_rows
                && usize::from(colours) == n_colours
        });
        if !is_right {
            return Err(unsupported("JPEGs of another size than its tags say"));
        }
    }
    Ok(())
}

/// Writes the samples of a row to every `step`th place of `out`: those of 16 bits, in the byte order of
/// the machine, by their high bytes, and smaller ones unscaled.
fn unpack(row: &[u8], bits: usize, out: &mut [u8], step: usize) {
    let out = out.iter_mut().step_by(step);
    match bits {
        8 => out.zip(row).for_each(|(out, sample)| *out = *sample),
        16 => {
            let samples = row.chunks_exact(2).map(|two| u16::from_ne_bytes([two[0], two[1]]));
            out.zip(samples).for_each(|(out, sample)| *out = (sample >> 8) as u8);
        }
        _ => {
            let mask = (1 << bits) - 1;
            let samples = (0..row.len() * 8 / bits).map(|index| {
                let at = index * bits;
                row[at / 8] >> (8 - bits - at % 8) & mask
            });
            out.zip(samples).for_each(|(out, sample)| *out = sample);
        }
    }
}

/// A colour that was multiplied by `alpha`, as it was before.
fn divided(colour: u8, alpha: u8) -> u8 {
    let (colour, alpha) = (u16::from(colour), u16::from(alpha));
    (colour * 255).checked_div(alpha).map_or(0, |colour| colour.min(255) as u8)
}

/// The colours of JPEG (JFIF 1.02, page 3).
fn rgb_of(pixel: [u8; 3]) -> [u8; 3] {
    let [y, cb, cr] = pixel.map(f32::from);
    let (cb, cr) = (cb - 128.0, cr - 128.0);
    let rgb = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb];
    rgb.map(|level| level.round() as u8)
}

fn unsupported(what: impl std::fmt::Display) -> DecodeError {
    DecodeError::Unsupported { found: format!("TIFF with {what}") }
}

fn decode_error(error: TiffError) -> DecodeError {
    match error {
        TiffError::IoError(io) if io.kind() == ErrorKind::UnexpectedEof => DecodeError::Truncated,
        TiffError::UnsupportedError(what) => unsupported(what),
        other => DecodeError::Corrupt(format!("damaged TIFF: {other}")),
    }
}
