//! The worst mistakes, with where the network saw what it took them for.

use maud::{Markup, html};

use super::{Spot, missing};
use crate::report::judgement::{Judgement, Mistake};
use crate::report::picture::picture;
use crate::report::reported_run::Shown;
use crate::terminal::text::{counted, grouped, percent};

/// The part.
pub fn section(judgement: &Shown<Judgement>, spot: &Spot) -> Markup {
    let body = match judgement {
        Err(reason) => missing(reason),
        Ok(judgement) => gallery(judgement),
    };
    spot.section("mistakes", "Worst mistakes", body)
}

fn gallery(judgement: &Judgement) -> Markup {
    let n_wrong = judgement.outcomes.mistakes().len() as u64;
    let images = counted(judgement.n_images(), "image");
    if n_wrong == 0 {
        return html! { p { "No image of the " (images) " was taken for another class." } };
    }
    html! {
        p {
            (match judgement.mistakes.len() as u64 {
                shown if shown == n_wrong => format!("All {} on {images}", counted(n_wrong, "mistake")),
                shown => format!("The worst {shown} of {} mistakes on {images}", grouped(n_wrong)),
            })
            ", the lowest probability of the true class first. Left: the image as the network sees it. Right: \
             in colours, red the most, what speaks for the class that it was taken for (a class activation map, \
             on a scale of each picture's own)."
        }
        div.gallery.wide {
            @for mistake in &judgement.mistakes { (figure(judgement, mistake)) }
        }
    }
}

fn figure(judgement: &Judgement, mistake: &Mistake) -> Markup {
    let outcomes = &judgement.outcomes;
    let name = |class: u32| outcomes.classes[class as usize].as_str();
    let outcome = &mistake.outcome;
    let Some((predicted, probability)) = outcome.predicted() else { return html! {} };
    let (label, taken) = (name(outcome.label), name(predicted));
    let path = &outcomes.samples[outcome.index as usize].path;
    let file =
        path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    html! {
        figure {
            @match &mistake.pictures {
                Some([own, seen]) => div.pair {
                    (picture(own, &format!("An image of class {label}, taken for {taken}")))
                    (picture(seen, &format!("What speaks for {taken} in it")))
                },
                None => p.quiet { "The image can no longer be read." },
            }
            figcaption {
                strong { (label) } " " (percent(outcome.probability)) br;
                span.wrong { "taken for " strong { (taken) } " " (percent(probability)) } br;
                span.quiet title=(path.display()) { (file) }
            }
        }
    }
}
