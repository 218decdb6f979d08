//! Training images as the network saw them.

use maud::{Markup, html};

use super::{Spot, missing};
use crate::config::Config;
use crate::report::picture::picture;
use crate::report::reported_run::Shown;
use crate::report::training_pictures::{TrainingPicture, TrainingPictures};
use crate::terminal::text::counted;

/// The part.
pub fn section(pictures: &Shown<TrainingPictures>, config: &Config, spot: &Spot) -> Markup {
    let body = match pictures {
        Err(reason) => missing(reason),
        Ok(pictures) if pictures.pictures.is_empty() => {
            missing("no image of the first mini-batch could be read")
        }
        Ok(pictures) => gallery(pictures, config),
    };
    spot.section("training-images", "Training images as the network sees them", body)
}

fn gallery(found: &TrainingPictures, config: &Config) -> Markup {
    let shown = found.pictures.len();
    let augment = &config.augment;
    html! {
        p {
            @if shown == found.n_batch {
                "The " (counted(shown as u64, "image")) " of the run's first mini-batch"
            } @else {
                (shown) " of the " (counted(found.n_batch as u64, "image")) " of the run's first mini-batch"
            }
            ", drawn again by its settings and seed " (config.train.seed) ". Crop: "
            (percent_range(augment.crop_area)) " of the area, sides "
            (format!("{:.2} to {:.2}", augment.crop_aspect[0], augment.crop_aspect[1]))
            "; mirror: " (setting(&augment.mirror)) "; colours: " (setting(&augment.colour)) "."
            @if let Some(share) = found.own_share {
                " Images of this batch are mixed in pairs; each keeps " (format!("{:.0} %", 100.0 * share))
                " of itself."
            }
        }
        div.gallery { @for picture in &found.pictures { (figure(picture)) } }
    }
}

fn percent_range([low, high]: [f64; 2]) -> String {
    format!("{:.0} to {:.0} %", 100.0 * low, 100.0 * high)
}

/// A setting as a config file writes it.
fn setting(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn figure(shown: &TrainingPicture) -> Markup {
    let class = match &shown.mixed_with {
        Some(other) => format!("{} with {other}", shown.class),
        None => shown.class.clone(),
    };
    html! {
        figure {
            (picture(&shown.picture, &format!("A training image of class {class}")))
            figcaption title=(shown.path.display()) { (class) }
        }
    }
}
