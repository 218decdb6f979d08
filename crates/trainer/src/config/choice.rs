//! The recipe for a folder of images of which no preset is named.

use std::fmt;

use toml::Value;

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

/// A preset, and settings, that suit a folder of images.
#[derive(Clone, Debug, PartialEq)]
pub struct RecipeChoice {
    /// The preset's name.
    pub preset: &'static str,
    /// Rows and columns of the network's input.
    pub image_size: usize,
    /// Smallest area of the random crop, as a fraction of the image's.
    pub smallest_crop: f64,
    /// What they were chosen by.
    pub facts: ImageFacts,
}

/// The presets that take settings from the images.
const ADAPTIVE: [&str; 2] = ["small", "modern"];

/// Below so many training images the preset is `small`. Our choice.
const SMALL_BELOW: usize = 5_000;

/// The image size in pixels for images of at most this side. They are enlarged to it, because the network
/// halves its maps five times: in the same time CIFAR-10's images of 32 px gave 48.0 % at 64 px, after
/// three epochs, and 41.6 % at 32 px, after four.
const SIZE_OF_SMALL_IMAGES: usize = 64;

/// The image size in pixels for larger images: time grows with its square. Our choice.
const SIZE_OF_LARGE_IMAGES: usize = 96;

impl RecipeChoice {
    /// The recipe for a folder of which only the images are known.
    pub fn by_number(facts: ImageFacts) -> RecipeChoice {
        let [small, modern] = ADAPTIVE;
        RecipeChoice::new(if facts.images < SMALL_BELOW { small } else { modern }, facts)
    }

    /// The recipe of a preset that adapts to the images; none of another.
    pub fn of_preset(preset: &str, facts: ImageFacts) -> Option<RecipeChoice> {
        let name = ADAPTIVE.into_iter().find(|&name| name == preset)?;
        Some(RecipeChoice::new(name, facts))
    }

    /// Whether a preset takes settings from the images.
    pub fn adapts(preset: &str) -> bool {
        ADAPTIVE.contains(&preset)
    }

    fn new(preset: &'static str, facts: ImageFacts) -> RecipeChoice {
        let are_small = facts.short_side.is_some_and(|side| side as usize <= SIZE_OF_SMALL_IMAGES);
        let (image_size, smallest_crop) = match are_small {
            true => (SIZE_OF_SMALL_IMAGES, 0.35),
            false => (SIZE_OF_LARGE_IMAGES, 0.25),
        };
        RecipeChoice { preset, image_size, smallest_crop, facts }
    }

    /// What it sets beside the preset, by the settings' keys.
    pub fn settings(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("data.image_size", Value::from(self.image_size as i64)),
            ("augment.crop_area", Value::from(vec![self.smallest_crop, 1.0])),
        ]
    }
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

/// What it was chosen by: `for 244 training images of 2 classes with short sides of 375 px`
impl fmt::Display for ImageFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let images = counted(self.images as u64, "training image");
        write!(f, "for {images} of {}", counted(self.classes as u64, "class"))?;
        if let Some(side) = self.short_side {
            write!(f, " with short sides of {side} px (median)")?;
        }
        match self.images < SMALL_BELOW {
            true => write!(f, "; below {SMALL_BELOW} images it is small"),
            false => write!(f, "; from {SMALL_BELOW} images on it is modern"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::preset_names;

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
            let choice = RecipeChoice::by_number(facts(images, short_side));
            assert_eq!(
                (choice.preset, choice.image_size),
                (preset, image_size),
                "{images} {short_side:?}"
            );
        }
    }

    #[test]
    fn a_choice_says_why() {
        let text = ImageFacts { classes: 2, ..facts(244, Some(375)) }.to_string();
        assert_eq!(
            text,
            "for 244 training images of 2 classes with short sides of 375 px (median); below 5000 images \
             it is small"
        );
        assert_eq!(
            facts(10_000, None).to_string(),
            "for 10000 training images of 10 classes; from 5000 images on it is modern"
        );
    }

    #[test]
    fn only_some_presets_adapt() {
        let choice = RecipeChoice::of_preset("modern", facts(244, Some(32))).unwrap();
        assert_eq!((choice.preset, choice.image_size), ("modern", 64));
        assert_eq!(RecipeChoice::of_preset("bn-x5", facts(244, Some(32))), None);
        for name in ADAPTIVE {
            assert!(RecipeChoice::adapts(name) && preset_names().any(|known| known == name));
        }
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
