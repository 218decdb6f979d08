//! The recipe for a folder of images of which no preset is named.

use std::fmt;

use crate::terminal::text::counted;

/// What the choice of a recipe looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// Training images.
    pub images: usize,
    /// Classes.
    pub classes: usize,
    /// The median of the images' shorter sides in pixels, if their headers tell.
    pub short_side: Option<u32>,
}

/// A preset and an image size that suit a folder of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipeChoice {
    /// The preset's name.
    pub preset: &'static str,
    /// Rows and columns of the network's input.
    pub image_size: usize,
    /// What they were chosen by.
    pub facts: ImageFacts,
}

/// Below so many training images the preset is `small`. It was measured on 250 and 1,000 images of
/// CIFAR-10 and on 244 photographs, `modern` on 10,000 images of CIFAR-10: see the heads of the two.
pub const SMALL_BELOW: usize = 5_000;

/// The image size in pixels for images of at most this side. They are enlarged to it, because the network
/// halves its maps five times: in the same time CIFAR-10's images of 32 px gave 48.0 % at 64 px, after
/// three epochs, and 41.6 % at 32 px, after four.
const SIZE_OF_SMALL_IMAGES: usize = 64;

/// The image size in pixels for larger images: time grows with its square. At 128 px photographs gave
/// no more in the same time (see the head of `small`).
const SIZE_OF_LARGE_IMAGES: usize = 96;

/// The preset and the image size for a folder of images.
pub fn choose(facts: ImageFacts) -> RecipeChoice {
    let preset = if facts.images < SMALL_BELOW { "small" } else { "modern" };
    let are_small = facts.short_side.is_some_and(|side| side as usize <= SIZE_OF_SMALL_IMAGES);
    let image_size = if are_small { SIZE_OF_SMALL_IMAGES } else { SIZE_OF_LARGE_IMAGES };
    RecipeChoice { preset, image_size, facts }
}

/// What to say of an image size that does not suit images with the short side `short_side`; both in
/// pixels.
pub fn size_advice(image_size: usize, short_side: u32) -> Option<String> {
    let (own, suited) = (short_side as usize, SIZE_OF_SMALL_IMAGES);
    if own > suited {
        return None;
    }
    let facts = format!("the images have {own} px (the median of their short sides)");
    if image_size < suited {
        return Some(format!(
            "{facts}: the network sees more of them when they are enlarged, with --image-size {suited}"
        ));
    }
    // From twice the suited size on, the time is four times as long.
    if image_size >= 2 * suited {
        let times = (image_size * image_size) as f64 / (suited * suited) as f64;
        return Some(format!(
            "{facts}: --image-size {suited} shows all of it, and takes about 1/{times:.0} of the time \
             of {image_size} px"
        ));
    }
    None
}

/// `small at 96 px, for 244 training images of 2 classes with short sides of 375 px`
impl fmt::Display for RecipeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RecipeChoice { preset, image_size, facts } = self;
        let images = counted(facts.images as u64, "training image");
        let classes = counted(facts.classes as u64, "class");
        write!(f, "{preset} at {image_size} px, for {images} of {classes}")?;
        if let Some(side) = facts.short_side {
            write!(f, " with short sides of {side} px (median)")?;
        }
        match facts.images < SMALL_BELOW {
            true => write!(f, "; below {SMALL_BELOW} images it is {preset}"),
            false => write!(f, "; from {SMALL_BELOW} images on it is {preset}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(images: usize, short_side: Option<u32>) -> ImageFacts {
        ImageFacts { images, classes: 10, short_side }
    }

    #[test]
    fn recipes_suit_the_number_and_the_size_of_the_images() {
        let table = [
            (2, Some(375), "small", 96),
            (244, Some(375), "small", 96),
            (4_999, Some(32), "small", 64),
            (5_000, Some(32), "modern", 64),
            (5_000, Some(64), "modern", 64),
            (5_000, Some(65), "modern", 96),
            (1_281_167, Some(375), "modern", 96),
            (1_281_167, None, "modern", 96),
        ];
        for (images, short_side, preset, image_size) in table {
            let choice = choose(facts(images, short_side));
            assert_eq!((choice.preset, choice.image_size), (preset, image_size), "{choice}");
        }
    }

    #[test]
    fn a_choice_says_why() {
        let text = choose(ImageFacts { classes: 2, ..facts(244, Some(375)) }).to_string();
        assert_eq!(
            text,
            "small at 96 px, for 244 training images of 2 classes with short sides of 375 px (median); \
             below 5000 images it is small"
        );
        let text = choose(facts(10_000, None)).to_string();
        assert_eq!(
            text,
            "modern at 96 px, for 10000 training images of 10 classes; from 5000 images on it is modern"
        );
    }

    #[test]
    fn only_sizes_that_do_not_suit_get_advice() {
        let table = [
            (224, 32, Some("1/12 of the time of 224 px")),
            (128, 64, Some("1/4 of the time of 128 px")),
            (32, 32, Some("with --image-size 64")),
            (64, 32, None),
            (96, 32, None),
            (224, 65, None),
            (32, 375, None),
        ];
        for (image_size, short_side, expected) in table {
            let advice = size_advice(image_size, short_side);
            match expected {
                None => assert_eq!(advice, None, "{image_size} {short_side}"),
                Some(part) => {
                    let advice = advice.unwrap_or_default();
                    assert!(advice.contains(part), "{image_size} {short_side}: {advice}");
                }
            }
        }
    }
}
