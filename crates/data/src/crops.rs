//! The crops of an evaluation by many crops: which parts of an image are looked at.
//!
//! Pure geometry, as in [`crate::crop`], and by the same rule: each crop is meant in the resized
//! image, and given as the region of the unresized one that a single resampling turns into it.
//! Sides of resized images are rounded down, offsets to the nearest pixel, halves to even.

use crate::crop::{Region, centre_crop};

/// How many crops of an image are evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Crops {
    /// The centre.
    #[default]
    One,
    /// The centre, plain and mirrored.
    Mirrored,
    /// The four corners and the centre of the resized image, each plain and mirrored (Krizhevsky et
    /// al. 2012, section 4.1; torchvision's `TenCrop` behind `Resize`).
    Ten,
    /// GoogLeNet (Szegedy et al. 2014, section 7): the short side resized to 256, 288, 320 and 352;
    /// of each the left, centre and right square (top, centre and bottom of a portrait); of each
    /// square the four corners and the centre at 224 pixels and the whole square resized to 224;
    /// each plain and mirrored: 4 x 3 x 6 x 2. Ioffe & Szegedy (2015), figure 4, evaluate with them.
    /// At another size of the network's input the four short sides keep their ratio to it.
    All144,
}

/// The short sides of GoogLeNet, for a network of [`GOOGLENET_INPUT`] pixels.
const GOOGLENET_SHORT_SIDES: [usize; 4] = [256, 288, 320, 352];
const GOOGLENET_INPUT: usize = 224;

impl Crops {
    /// The protocol of 1, 10 or 144 crops, that of the centre without its mirror image.
    pub fn from_count(count: usize) -> Option<Crops> {
        [Crops::One, Crops::Ten, Crops::All144].into_iter().find(|crops| crops.count() == count)
    }

    /// Crops of an image.
    pub fn count(self) -> usize {
        match self {
            Crops::One => 1,
            Crops::Mirrored => 2,
            Crops::Ten => 10,
            Crops::All144 => 144,
        }
    }

    /// Whether each region is looked at twice: as it is, and then mirrored left to right.
    pub fn mirrored(self) -> bool {
        self != Crops::One
    }

    /// The regions of an image of `width` x `height` pixels: one for each crop, or for a plain and a
    /// mirrored one. `size` and `ratio` are those of [`centre_crop`]; GoogLeNet's crops bring their
    /// own ratios. Where squares coincide, as in a square image, their regions are equal.
    pub fn regions(self, width: u32, height: u32, size: usize, ratio: f64) -> Vec<Region> {
        match self {
            Crops::One | Crops::Mirrored => vec![centre_crop(width, height, size, ratio)],
            Crops::Ten => {
                let resized = Resized::new(width, height, (size as f64 / ratio).floor());
                resized.corners_and_centre([0.0, 0.0], resized.sides, size as f64)
            }
            Crops::All144 => {
                let sides = GOOGLENET_SHORT_SIDES.map(|side| side * size / GOOGLENET_INPUT);
                sides.iter().flat_map(|&side| squares(width, height, side, size)).collect()
            }
        }
    }
}

/// The six regions of each of the three squares of an image whose short side becomes `short_side`.
fn squares(width: u32, height: u32, short_side: usize, size: usize) -> Vec<Region> {
    let resized = Resized::new(width, height, short_side as f64);
    let side = resized.sides[0].min(resized.sides[1]);
    let room = resized.sides.map(|length| length - side);
    let mut regions = Vec::with_capacity(18);
    for place in [Place::First, Place::Centre, Place::Last] {
        // One of the two has room for the square to move, unless the image is a square.
        let corner = room.map(|room| place.offset(room));
        regions.extend(resized.corners_and_centre(corner, [side, side], size as f64));
        regions.push(resized.region(corner, side));
    }
    regions
}

/// Where something lies in a longer one.
#[derive(Clone, Copy)]
enum Place {
    First,
    Centre,
    Last,
}

impl Place {
    fn offset(self, room: f64) -> f64 {
        match self {
            Place::First => 0.0,
            Place::Centre => (room / 2.0).round_ties_even(),
            Place::Last => room,
        }
    }
}

/// A resized image: its width and height, and the pixels of the image for one of its own.
struct Resized {
    sides: [f64; 2],
    scale: [f64; 2],
}

impl Resized {
    fn new(width: u32, height: u32, short_side: f64) -> Resized {
        let original = [f64::from(width), f64::from(height)];
        let short = original[0].min(original[1]);
        let sides = original.map(|side| (short_side * side / short).floor());
        Resized { sides, scale: [original[0] / sides[0], original[1] / sides[1]] }
    }

    /// The square of `side` pixels at `left_top` in the pixels of the unresized image.
    fn region(&self, [left, top]: [f64; 2], side: f64) -> Region {
        let [x, y] = self.scale;
        Region { left: left * x, top: top * y, width: side * x, height: side * y }
    }

    /// Five squares of `size` pixels in the rectangle of `sides` at `corner`: top left, top right,
    /// bottom left, bottom right, centre.
    fn corners_and_centre(&self, corner: [f64; 2], sides: [f64; 2], size: f64) -> Vec<Region> {
        use Place::{Centre, First, Last};
        let places = [(First, First), (Last, First), (First, Last), (Last, Last), (Centre, Centre)];
        let at = |(x, y): (Place, Place)| {
            let left = corner[0] + x.offset(sides[0] - size);
            self.region([left, corner[1] + y.offset(sides[1] - size)], size)
        };
        places.map(at).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Left, top and side of each region in the pixels of the image resized to `short_side`.
    fn resized(regions: &[Region], width: u32, height: u32, short_side: usize) -> Vec<[f64; 3]> {
        let Resized { scale: [x, y], .. } = Resized::new(width, height, short_side as f64);
        let near = |value: f64| {
            assert!((value - value.round()).abs() < 1e-9, "{value} is no whole pixel");
            value.round()
        };
        let place = |region: &Region| {
            assert_eq!(near(region.width / x), near(region.height / y), "no square: {region:?}");
            [near(region.left / x), near(region.top / y), near(region.width / x)]
        };
        regions.iter().map(place).collect()
    }

    #[test]
    fn each_protocol_has_as_many_crops_as_it_says() {
        for (crops, count) in [(Crops::One, 1), (Crops::Ten, 10), (Crops::All144, 144)] {
            assert_eq!(crops.count(), count);
            assert_eq!(Crops::from_count(count), Some(crops));
            for (width, height) in [(500, 375), (375, 500), (64, 64), (1, 1), (7, 900)] {
                let regions = crops.regions(width, height, 224, 0.875);
                let each = if crops.mirrored() { 2 } else { 1 };
                assert_eq!(regions.len() * each, count, "{crops:?} of {width} x {height}");
            }
        }
        assert_eq!([0, 2, 5, 143].map(Crops::from_count), [None; 4]);
    }

    #[test]
    fn one_crop_is_the_centre_crop() {
        for (crops, count) in [(Crops::One, 1), (Crops::Mirrored, 2)] {
            assert_eq!(crops.regions(500, 375, 224, 0.875), [centre_crop(500, 375, 224, 0.875)]);
            assert_eq!((crops.count(), crops.mirrored()), (count, count == 2));
        }
    }

    #[test]
    fn ten_crops_lie_in_the_corners_and_the_centre() {
        // width, height, size, ratio -> the short side, the right and bottom offsets, the centre.
        let cases = [
            (500, 375, 224, 0.875, 256, [117.0, 32.0], [58.0, 16.0]),
            (375, 500, 224, 0.875, 256, [32.0, 117.0], [16.0, 58.0]),
            (100, 100, 64, 0.875, 73, [9.0, 9.0], [4.0, 4.0]), // smaller than the crop's source
            (11, 37, 33, 0.875, 37, [4.0, 91.0], [2.0, 46.0]), // 37 * 37 / 11 = 124.45; 45.5 -> 46
            (10, 10, 224, 1.0, 224, [0.0, 0.0], [0.0, 0.0]),
        ];
        for (width, height, size, ratio, short_side, [right, bottom], [x, y]) in cases {
            let regions = Crops::Ten.regions(width, height, size, ratio);
            let side = size as f64;
            let expected = [
                [0.0, 0.0, side],
                [right, 0.0, side],
                [0.0, bottom, side],
                [right, bottom, side],
                [x, y, side],
            ];
            assert_eq!(resized(&regions, width, height, short_side), expected, "{width}x{height}");
            assert_eq!(regions[4], centre_crop(width, height, size, ratio), "{width} x {height}");
        }
    }

    #[test]
    fn the_crops_of_googlenet_lie_where_the_paper_says() {
        // The short side 288 of an image of 384 x 288, and of its transpose.
        for (width, height) in [(384, 288), (288, 384)] {
            let regions = Crops::All144.regions(width, height, 224, 0.875);
            let turn = |[x, y, side]: [f64; 3]| match width > height {
                true => [x, y, side],
                false => [y, x, side],
            };
            let found: Vec<[f64; 3]> =
                resized(&regions[18..36], width, height, 288).into_iter().map(turn).collect();
            for (square, offset) in [0.0, 48.0, 96.0].into_iter().enumerate() {
                let six = &found[square * 6..][..6];
                // The corners' order is another in the transpose.
                for corner in [[0.0, 0.0], [64.0, 0.0], [0.0, 64.0], [64.0, 64.0], [32.0, 32.0]] {
                    let crop = [offset + corner[0], corner[1], 224.0];
                    assert!(six.contains(&crop), "square {square}: no {crop:?} in {six:?}");
                }
                assert_eq!(six[4], [offset + 32.0, 32.0, 224.0]);
                assert_eq!(six[5], [offset, 0.0, 288.0], "the whole square");
            }
        }
        // The four scales one behind the other: their whole first squares.
        let regions = Crops::All144.regions(512, 512, 224, 0.875);
        for (scale, short_side) in [256, 288, 320, 352].into_iter().enumerate() {
            let whole = resized(&regions[18 * scale + 5..][..1], 512, 512, short_side);
            assert_eq!(whole, [[0.0, 0.0, short_side as f64]]);
        }
        // In proportion at other sizes: 64 * 256 / 224 = 73.1, and 64 * 352 / 224 = 100.6.
        let regions = Crops::All144.regions(200, 100, 64, 0.875);
        let last_of =
            |side: usize, scale: usize| resized(&regions[18 * scale + 16..][..2], 200, 100, side);
        assert_eq!(last_of(73, 0), [[73.0 + 4.0, 4.0, 64.0], [73.0, 0.0, 73.0]]);
        assert_eq!(last_of(100, 3), [[100.0 + 18.0, 18.0, 64.0], [100.0, 0.0, 100.0]]);
        // The three squares of a square are one.
        let regions = Crops::All144.regions(99, 99, 224, 0.875);
        assert_eq!(regions[0..6], regions[6..12]);
        assert_eq!(regions[0..6], regions[12..18]);
    }

    #[test]
    fn no_crop_leaves_the_image() {
        let images =
            [(1, 1), (1, 500), (500, 1), (2, 3), (33, 100), (500, 375), (223, 225), (5001, 333)];
        for crops in [Crops::One, Crops::Ten, Crops::All144] {
            for (width, height) in images {
                for (size, ratio) in [(32, 0.875), (33, 0.9), (224, 0.875), (299, 1.0), (512, 0.1)]
                {
                    for region in crops.regions(width, height, size, ratio) {
                        let Region { left, top, width: w, height: h } = region;
                        // Rounding of the last digit is taken away by the resizer.
                        let bound = 1e-9 * f64::from(width.max(height));
                        let inside = left >= 0.0
                            && top >= 0.0
                            && w > 0.0
                            && h > 0.0
                            && left + w <= f64::from(width) + bound
                            && top + h <= f64::from(height) + bound;
                        assert!(inside, "{crops:?} of {width} x {height} at {size}: {region:?}");
                    }
                }
            }
        }
    }
}
