//! The parts of a page, each of one run.

pub mod calibration;
pub mod classes;
pub mod commands;
pub mod confusion;
pub mod data;
pub mod environment;
pub mod mistakes;
pub mod recipe;
pub mod result;
pub mod training;

use maud::{Markup, html};

/// Where parts stand on the page.
#[derive(Clone, Debug)]
pub struct Spot {
    /// Rank of their headings, 2 or 3.
    pub rank: u8,
    /// Stands in front of their ids, which are unique on a page.
    pub prefix: String,
}

impl Spot {
    /// The id of the part `name`.
    pub fn id(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A part with its heading.
    pub fn section(&self, name: &str, title: &str, body: Markup) -> Markup {
        let id = self.id(name);
        // Of several runs a part has no name of its own: a page has no two landmarks of one name.
        let heading = (self.rank == 2).then(|| format!("{id}-title"));
        html! {
            section id=(id) aria-labelledby=[heading.as_ref()] {
                @if let Some(heading) = &heading { h2 id=(heading) { (title) } } @else { h3 { (title) } }
                (body)
            }
        }
    }
}

/// Why a part is not there.
pub fn missing(reason: &str) -> Markup {
    html! { p.notice { strong { "Not shown: " } (reason) } }
}

/// A table that scrolls in a box of its own, which `label` names.
pub fn scrolled(label: &str, table: Markup) -> Markup {
    html! { div.scroll tabindex="0" role="group" aria-label=(label) { (table) } }
}

/// Pairs of a name and a value.
pub fn facts(facts: &[(&str, String)]) -> Markup {
    html! {
        table.facts {
            tbody {
                @for (name, value) in facts {
                    tr { th scope="row" { (name) } td { (value) } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use bninception_data::{Crops, Sample};
    use bninception_engine::metrics::Score;

    use super::*;
    use crate::evaluation::outcomes::{ImageOutcome, Outcomes};
    use crate::report::judgement::{Judgement, Mistake};
    use crate::report::reported_run::Shown;

    /// Two images of each of `n` classes; of every third class one is taken for the next class. With `is_finite` false
    /// no image gets an answer.
    fn judgement(n: usize, is_finite: bool) -> Shown<Judgement> {
        let classes: Vec<String> = (0..n).map(|class| format!("class <{class}>")).collect();
        let mut samples = Vec::new();
        let mut images = Vec::new();
        for index in 0..2 * n {
            let label = index / 2;
            let answer = if index % 6 == 0 { (label + 1) % n } else { label };
            let log =
                |class: usize| if class == answer { 0.9_f64.ln() } else { (0.1 / n as f64).ln() };
            let logs: Vec<f64> =
                (0..n).map(|class| if is_finite { log(class) } else { f64::NAN }).collect();
            let score = Score::of_log_probabilities(&logs, label);
            images.push(ImageOutcome::new(index as u32, label as u32, score, &logs));
            samples
                .push(Sample { path: PathBuf::from(format!("{index}.jpg")), label: label as u32 });
        }
        let outcomes = Outcomes::new(classes, samples, Crops::One, images, Vec::new(), 1.0);
        let mistake = |outcome: &ImageOutcome| Mistake { outcome: outcome.clone(), pictures: None };
        let mistakes = outcomes.mistakes().into_iter().take(3).map(mistake).collect();
        Ok(Judgement {
            checkpoint: PathBuf::from("run/best.safetensors"),
            step: 7,
            ema: false,
            statistics: None,
            image_size: 64,
            engine: String::new(),
            place: PathBuf::from("pictures"),
            n_there: 2 * n,
            are_of_run: true,
            outcomes,
            mistakes,
        })
    }

    fn spot() -> Spot {
        Spot { rank: 2, prefix: String::new() }
    }

    #[test]
    fn few_classes_have_a_matrix_with_numbers_and_many_a_picture_and_a_list() {
        let text = |n| confusion::section(&judgement(n, true), &spot()).into_string();
        let few = text(3);
        assert!(
            few.contains("1 of 2 images of class &lt;0&gt; taken for class &lt;1&gt;"),
            "{few}"
        );
        assert_eq!(few.matches("<td").count(), 9 + 3, "nine cells, and the row of one pair");
        assert!(text(40).contains("table class=\"confusion\"") && !text(40).contains("<img"));
        let many = text(45);
        assert!(!many.contains("table class=\"confusion\""), "{many}");
        assert!(many.contains("src=\"data:image/png;base64,") && many.contains("<details open>"));
        assert!(many.contains("All 15 confused pairs"), "{many}");
    }

    #[test]
    fn of_many_classes_the_ends_come_first() {
        let text = |n| classes::section(&judgement(n, true), &spot()).into_string();
        let (few, many) = (text(3), text(100));
        assert_eq!(few.matches("<th scope=\"row\">").count(), 3);
        assert!(!few.contains("type=\"search\""));
        assert!(
            many.contains("The 20 classes with the lowest F1") && many.contains("All 100 classes")
        );
        assert_eq!(many.matches("<th scope=\"row\">").count(), 20 + 20 + 100);
        assert!(many.contains("data-filter=\"filter\"") && many.contains("id=\"filter\""));
        // The worst: half of its images right, and as many taken for it.
        let first = many.find("<th scope=\"row\">").unwrap();
        assert!(
            many[first..].starts_with("<th scope=\"row\">class &lt;0&gt;"),
            "{}",
            &many[first..first + 200]
        );
    }

    #[test]
    fn calibration_has_its_numbers_in_words_too() {
        let text = calibration::section(&judgement(3, true), &spot()).into_string();
        // 5 of 6 answers at 0.9 are right.
        assert!(
            text.contains("<strong>0.0667</strong>") && text.contains("role=\"img\""),
            "{text}"
        );
        assert!(
            text.contains("<td class=\"number\">90.00 %</td><td class=\"number\">83.33 %</td>"),
            "{text}"
        );
    }

    #[test]
    fn images_without_an_answer_leave_parts_that_say_so() {
        let none = judgement(3, false);
        assert!(
            calibration::section(&none, &spot()).into_string().contains("no image got an answer")
        );
        assert!(
            mistakes::section(&none, &spot()).into_string().contains("No image of the 6 images")
        );
        let text = classes::section(&none, &spot()).into_string();
        assert!(text.contains("0.00 %") && !text.contains("NaN"), "{text}");
        assert!(!confusion::section(&none, &spot()).into_string().contains("NaN"));
        let text = mistakes::section(&judgement(9, true), &spot()).into_string();
        assert!(text.contains("All 3 mistakes on 18 images"), "{text}");
        assert!(text.contains("The image can no longer be read."), "{text}");
        let missing = mistakes::section(&Err("<gone>".to_owned()), &spot()).into_string();
        assert!(missing.contains("Not shown: </strong>&lt;gone&gt;"), "{missing}");
    }
}
