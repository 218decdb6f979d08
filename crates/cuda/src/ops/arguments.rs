//! What kernels are given, checked: regions that hold what they should, and how work is cut into blocks.

use crate::launch::Scalar;
use crate::map::{Format, Map};
use crate::memory::Region;

/// Threads of every block: `THREADS` of `kernels/shim.h`.
pub(crate) const THREADS: usize = 256;

/// Channels that a thread reads and writes at once: `GROUP` of `kernels/shim.h`.
pub(super) const GROUP: usize = 8;

/// Values of a block of a kernel over vectors: `PIECE` of `kernels/shim.h`.
pub(super) const PIECE: usize = 4096;

/// Bytes of a read or write of a [`GROUP`]'s bf16 values.
const WORDS: usize = 16;

/// Blocks that sums are cut into: two turns of 132 multiprocessors (H100 SXM,
/// <https://resources.nvidia.com/en-us-hopper-architecture/nvidia-h100-tensor-c>) with four blocks each.
const SUM_BLOCKS: usize = 1024;

/// Pixels of a thread at least where it adds them up: so many it reads at once.
const SUM_PIXELS: usize = 4;

/// A whole number as a kernel takes it. A quarter of its range is left, so that sums of two do not overflow.
///
/// # Panics
/// It is too great.
pub(super) fn count(number: usize) -> Scalar {
    assert!(number < 3 << 30, "{number} is beyond what kernels count");
    Scalar::U32(number as u32)
}

/// Yes or no as a kernel takes it.
pub(super) fn flag(is_set: bool) -> Scalar {
    Scalar::U32(u32::from(is_set))
}

/// A number of double precision as a kernel takes it: its lower and its upper half.
pub(super) fn double(number: f64) -> [Scalar; 2] {
    let bits = number.to_bits();
    [Scalar::U32(bits as u32), Scalar::U32((bits >> 32) as u32)]
}

/// Panics unless `region` holds `count` values of `size` bytes, and begins where one can lie.
pub(super) fn holds(region: Region, count: usize, size: usize, what: &str) {
    assert!(
        region.bytes() >= count * size && region.start.is_multiple_of(size),
        "{count} values of {size} bytes do not fit the {what}, {region:?}"
    );
}

/// Values of f32 in `region`.
///
/// # Panics
/// It ends or begins between two.
pub(super) fn floats(region: Region, what: &str) -> usize {
    assert!(region.bytes().is_multiple_of(4), "the {what} end between two values: {region:?}");
    holds(region, region.bytes() / 4, 4, what);
    region.bytes() / 4
}

/// Panics if one of `written` meets another of them or one of `read`.
pub(super) fn apart(written: &[Region], read: &[Region]) {
    for (index, region) in written.iter().enumerate() {
        let mut others = written[index + 1..].iter().chain(read);
        assert!(
            !others.any(|other| region.meets(other)),
            "{region:?} is written and meets another"
        );
    }
}

/// Panics unless `written` and `read` share no value: of one buffer they may be different channels.
pub(super) fn maps_apart(written: &Map, read: &Map) {
    let [a, b] = [written, read];
    let beside = a.region == b.region
        && a.stride == b.stride
        && a.format == b.format
        && (a.first + a.channels <= b.first || b.first + b.channels <= a.first);
    assert!(beside || !a.region.meets(&b.region), "{a:?} is written and meets {b:?}");
}

/// Panics unless maps fit their regions and have one format, and as many images and channels.
pub(super) fn alike(maps: &[(&Map, &str)]) {
    let of = |map: &Map| (map.format, map.batch, map.channels);
    for (map, what) in maps {
        map.check(what);
        holds(map.region, 0, map.format.size(), what);
        assert_eq!(of(map), of(maps[0].0), "format, images and channels of the {what}");
        assert!(map.pixels() < 1 << 31, "{what}: {map:?} has more pixels than kernels count");
    }
}

/// Panics unless maps are [`alike`] and have the same rows and columns.
pub(super) fn congruent(maps: &[(&Map, &str)]) {
    alike(maps);
    let of = |map: &Map| (map.height, map.width);
    for (map, what) in maps {
        assert_eq!(of(map), of(maps[0].0), "rows and columns of the {what}");
    }
}

/// The region of a map from its first channel that is meant on.
pub(super) fn start(map: &Map) -> Region {
    let first = (map.first * map.format.size()).min(map.region.bytes());
    map.region.slice(first..map.region.bytes())
}

/// The format as kernels take it.
pub(super) fn format(format: Format) -> Scalar {
    match format {
        Format::F32 => Scalar::U32(0),
        Format::Bf16 => Scalar::U32(1),
    }
}

/// Whether [`GROUP`] channels of all maps may be read and written at once, with vectors of them in `beside`.
pub(super) fn is_wide(maps: &[&Map], beside: &[Region]) -> bool {
    let in_groups = |number: usize| number.is_multiple_of(GROUP);
    let begins = |region: &Region| region.start.is_multiple_of(WORDS);
    maps.iter().all(|map| {
        in_groups(map.first)
            && in_groups(map.channels)
            && in_groups(map.stride)
            && begins(&map.region)
    }) && beside.iter().all(begins)
}

/// Bytes of a map's values.
pub(super) fn bytes(map: &Map) -> usize {
    map.len() * map.format.size()
}

/// How pixels of many channels are cut into blocks: `place_of` of `kernels/shim.h` is the other half of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Division {
    /// Pixels of a block.
    pub(super) chunk: usize,
    /// Chunks of all pixels.
    pub(super) chunks: usize,
    /// Blocks beside each other along the channels.
    pub(super) columns: usize,
}

impl Division {
    /// Pixels that lie in a block at once.
    fn rows(channels: usize) -> usize {
        THREADS / channels.div_ceil(GROUP).clamp(1, THREADS)
    }

    /// In chunks of `chunk` pixels.
    pub(super) fn of_chunks(pixels: usize, channels: usize, chunk: usize) -> Division {
        let columns = channels.div_ceil(GROUP).div_ceil(THREADS);
        Division { chunk, chunks: pixels.div_ceil(chunk), columns }
    }

    /// So that each thread has `each` pixels.
    pub(super) fn each(pixels: usize, channels: usize, each: usize) -> Division {
        Division::of_chunks(pixels, channels, Division::rows(channels) * each)
    }

    /// For sums over all pixels.
    pub(super) fn sums(pixels: usize, channels: usize) -> Division {
        let rows = Division::rows(channels);
        let each = pixels.div_ceil(SUM_BLOCKS * rows).max(SUM_PIXELS);
        Division::each(pixels, channels, each)
    }

    /// All blocks.
    pub(super) fn blocks(&self) -> usize {
        self.chunks * self.columns
    }
}
