//! Pictures inside a page.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bninception_data::{RgbImage, thumbnail, to_jpeg};
use maud::{Markup, html};

use crate::figure::Thumbnail;

/// Most pixels of a side: those of the paper's networks. Larger ones are shrunk.
const MOST_SIDE: u32 = 224;

/// A picture whose bytes stand in the page. `alt` says in words what is seen.
pub fn picture(picture: &Thumbnail, alt: &str) -> Markup {
    let Some(image) = small(picture) else {
        return html! { span.missing role="img" aria-label=(alt) { "no picture" } };
    };
    let (width, height) = image.dimensions();
    match to_jpeg(width, height, image.as_raw()) {
        Some(bytes) => html! {
            img src=(data_uri("image/jpeg", &bytes)) alt=(alt) width=(width) height=(height);
        },
        None => html! { span.missing role="img" aria-label=(alt) { "no picture" } },
    }
}

/// Bytes as an address that holds them.
pub fn data_uri(kind: &str, bytes: &[u8]) -> String {
    format!("data:{kind};base64,{}", STANDARD.encode(bytes))
}

fn small(picture: &Thumbnail) -> Option<RgbImage> {
    let image = RgbImage::from_raw(picture.width, picture.height, picture.rgb.clone())?;
    Some(thumbnail(&image, MOST_SIDE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_in_the_page_and_not_larger_than_needed() {
        let of = |side: u32| Thumbnail {
            width: side,
            height: side,
            rgb: vec![120; (3 * side * side) as usize],
        };
        let text = picture(&of(300), "an \"ant\"").into_string();
        assert!(text.contains("width=\"224\" height=\"224\""), "{text}");
        assert!(text.contains("src=\"data:image/jpeg;base64,/9j/"), "{text}");
        assert!(text.contains("alt=\"an &quot;ant&quot;\""), "{text}");
        assert!(picture(&of(32), "").into_string().contains("width=\"32\""));
        let broken = Thumbnail { width: 3, height: 3, rgb: vec![1] };
        assert!(picture(&broken, "x").into_string().contains("no picture"));
    }
}
