//! What a run reached, and how that was measured.

use maud::{Markup, html};

use super::{Spot, scrolled};
use crate::comparison::inventory::RunStatus;
use crate::comparison::recorded_run::{EvalRow, RecordedRun};
use crate::evaluation::interval::Interval;
use crate::evaluation::statistics;
use crate::report::judgement::Judgement;
use crate::report::reported_run::ReportedRun;
use crate::terminal::loss::{is_far_above_guessing, loss_number};
use crate::terminal::text::{counted, duration, grouped, has_top5, percent};

/// A number with what it is, and what is to be known of it.
struct BigNumber {
    title: &'static str,
    value: String,
    note: String,
}

/// The part.
pub fn section(of: &ReportedRun, spot: &Spot) -> Markup {
    let mut numbers = match (&of.judgement, of.best()) {
        (Ok(judgement), _) => measured(judgement),
        (Err(_), Some(best)) => recorded(best, of.classes().len()),
        (Err(_), None) => Vec::new(),
    };
    numbers.extend(pace(of));
    let body = html! {
        p { (status(of)) }
        @if numbers.is_empty() {
            p.notice { "Nothing has been evaluated yet." }
        } @else {
            dl.numbers {
                @for BigNumber { title, value, note } in &numbers {
                    div { dt { (title) } dd { (value) @if !note.is_empty() { small { (note) } } } }
                }
            }
        }
        @match &of.judgement {
            Ok(judgement) => (how_measured(judgement, &of.run)),
            Err(reason) => {
                p.notice {
                    strong { "The best checkpoint was not evaluated for this page: " }
                    (reason)
                }
                @if of.best().is_some() {
                    p.hint { "The numbers above are those of the run's best evaluation, from its record." }
                }
            }
        }
        (evaluations(of))
    };
    spot.section("result", "Result", body)
}

/// How the run stands, in words.
fn status(of: &ReportedRun) -> Markup {
    let step = of.steps.map_or(String::new(), |(saved, all)| {
        let all = grouped(all);
        // Behind its checkpoint, a run that does not train any more has done nothing that lasts.
        match of.run.training.last().filter(|_| of.status == RunStatus::Training) {
            Some(row) if row.step > saved => format!(
                " It is at step {} of {all}, and saved at step {}.",
                grouped(row.step),
                grouped(saved)
            ),
            _ => format!(" It is at step {} of {all}.", grouped(saved)),
        }
    });
    let (text, alarm) = match &of.status {
        RunStatus::Training => {
            ("A process is training this run now: this page shows what was recorded so far.", false)
        }
        RunStatus::Finished => ("The run is at its end.", false),
        RunStatus::Stopped => ("The run was stopped before its end, and can go on.", false),
        RunStatus::Diverged => {
            ("The run has diverged: its loss ceased to be a finite number.", true)
        }
        RunStatus::Damaged(reason) => (reason.as_str(), true),
    };
    html! {
        span class={ "badge " (of.status.name()) } { (of.status.name()) } " "
        @if alarm { strong { (text) } } @else { (text) }
        (step)
    }
}

fn interval_note(rate: f64, images: u64) -> String {
    match Interval::of_rate(rate, images) {
        Some(interval) => {
            format!("95 %: {}; {}", interval.to_text(), counted(images, "image"))
        }
        None => "number of images unknown".to_owned(),
    }
}

fn loss(loss: f64, n_classes: usize) -> BigNumber {
    let guessing = (n_classes as f64).ln();
    let note = match n_classes {
        0 | 1 => String::new(),
        k if is_far_above_guessing(loss, k) => {
            format!("far above guessing, ln({k}) = {guessing:.2}")
        }
        k => format!("guessing: ln({k}) = {guessing:.2}"),
    };
    BigNumber { title: "loss", value: loss_number(loss), note }
}

/// The numbers that this page measured.
fn measured(judgement: &Judgement) -> Vec<BigNumber> {
    let evaluation = &judgement.outcomes.evaluation;
    let (n_images, n_classes) = (evaluation.images(), judgement.outcomes.classes.len());
    let mut numbers = vec![BigNumber {
        title: "top-1",
        value: percent(evaluation.top1()),
        note: interval_note(evaluation.top1(), n_images),
    }];
    if has_top5(n_classes) {
        numbers.push(BigNumber {
            title: "top-5",
            value: percent(evaluation.top5()),
            note: interval_note(evaluation.top5(), n_images),
        });
    }
    numbers.push(BigNumber {
        title: "balanced accuracy",
        value: percent(evaluation.balanced_accuracy()),
        note: "mean recall of the classes".to_owned(),
    });
    if let Some(majority) = judgement.outcomes.majority() {
        numbers.push(BigNumber {
            title: "to beat",
            value: percent(majority.top1()),
            note: "always the largest class".to_owned(),
        });
    }
    numbers.push(loss(evaluation.loss(), n_classes));
    numbers
}

/// The numbers of an evaluation that the run recorded.
fn recorded(row: &EvalRow, n_classes: usize) -> Vec<BigNumber> {
    let mut numbers = vec![BigNumber {
        title: "top-1",
        value: percent(row.top1),
        note: interval_note(row.top1, row.images),
    }];
    if (n_classes == 0 || has_top5(n_classes)) && row.top5.is_finite() {
        let note = interval_note(row.top5, row.images);
        numbers.push(BigNumber { title: "top-5", value: percent(row.top5), note });
    }
    if row.balanced.is_finite() {
        numbers.push(BigNumber {
            title: "balanced accuracy",
            value: percent(row.balanced),
            note: "mean recall of the classes".to_owned(),
        });
    }
    numbers.push(loss(row.loss, n_classes));
    numbers
}

/// When the run was best, how long it took and how fast it was.
fn pace(of: &ReportedRun) -> Vec<BigNumber> {
    let mut numbers = Vec::new();
    if let Some(best) = of.best() {
        numbers.push(BigNumber {
            title: "best epoch",
            value: epoch_text(best.epoch),
            note: format!(
                "step {}, of {}",
                grouped(best.step),
                counted(of.run.evaluations.len() as u64, "evaluation")
            ),
        });
    }
    if let Some(seconds) = seconds(of) {
        numbers.push(BigNumber {
            title: "time",
            value: duration(seconds),
            note: "training and evaluation".to_owned(),
        });
    }
    if let Some((speed, rows)) = median_speed(&of.run) {
        numbers.push(BigNumber {
            title: "speed",
            value: format!("{speed:.1} img/s"),
            note: format!("training, median of {}", counted(rows as u64, "log line")),
        });
    }
    numbers
}

fn epoch_text(epoch: f64) -> String {
    match epoch {
        epoch if !epoch.is_finite() => "unknown".to_owned(),
        epoch if epoch.fract() == 0.0 => format!("{epoch:.0}"),
        epoch => format!("{epoch:.2}"),
    }
}

/// Seconds of training and evaluation up to the newest checkpoint, or else of the whole epochs.
fn seconds(of: &ReportedRun) -> Option<f64> {
    let of_checkpoint = of.metadata.as_ref().map(|metadata| metadata.progress.seconds);
    let of_epochs = of.run.epochs.iter().map(|row| row.seconds).sum::<f64>();
    of_checkpoint.or(Some(of_epochs)).filter(|seconds| seconds.is_finite() && *seconds > 0.0)
}

/// The median of the log's images a second, and of how many lines.
fn median_speed(run: &RecordedRun) -> Option<(f64, usize)> {
    let mut speeds: Vec<f64> = run.training.iter().map(|row| row.images_per_second).collect();
    speeds.retain(|speed| speed.is_finite());
    speeds.sort_by(f64::total_cmp);
    speeds.get(speeds.len() / 2).map(|&speed| (speed, speeds.len()))
}

/// Which weights were evaluated, on what, and whether the record says the same.
fn how_measured(judgement: &Judgement, run: &RecordedRun) -> Markup {
    let evaluation = &judgement.outcomes.evaluation;
    let n_images = match judgement.is_of_all() {
        true => format!("all {}", grouped(judgement.n_images())),
        false => {
            format!("{} of {}", grouped(judgement.n_images()), grouped(judgement.n_there as u64))
        }
    };
    let which = match judgement.are_of_run {
        true => "validation images of the run",
        false => "images, which are not those that the run set aside,",
    };
    let failed = evaluation.failed.len();
    let not_finite = evaluation.metrics.not_finite();
    let verdict = judgement
        .outcomes
        .majority()
        .map(|majority| majority.verdict(&judgement.outcomes.classes, evaluation.top1()));
    html! {
        p {
            "Measured for this page: " code { (judgement.file_name()) } " of step "
            (grouped(judgement.step))
            @if judgement.ema { ", averaged weights (EMA)" }
            ", batch norm statistics: " (statistics::name(judgement.statistics)) "; "
            (n_images) " " (which) " in " code { (judgement.place.display()) }
            @if !judgement.is_of_all() { ", spread evenly over the classes" }
            ", one centre crop of " (judgement.image_size) " px each ("
            (format!("{:.1}", evaluation.images_per_second())) " img/s)."
            @if failed > 0 { " " (failed) " could not be read, and count as wrong." }
            @if not_finite > 0 { " " (not_finite) " have a logit that is not finite, and count as wrong." }
            @if let Some(verdict) = verdict { " To beat: " (verdict.replace('`', "\"")) "." }
        }
        (beside_record(judgement, run))
    }
}

/// Whether the record has the same number of right images for these weights.
fn beside_record(judgement: &Judgement, run: &RecordedRun) -> Markup {
    let top1 = judgement.outcomes.evaluation.top1();
    let Some(row) = judgement.recorded(run) else { return html! {} };
    let images = row.images as f64;
    let apart = ((top1 - row.top1) * images).round().abs() as u64;
    match apart {
        0 => html! { p.hint { "The run's record has the same top-1 for this step." } },
        apart => html! {
            p.notice {
                "The run's record has top-1 " (percent(row.top1)) " for this step, and this page measured "
                (percent(top1)) ": " (counted(apart, "image")) " apart. Another machine, engine or number of \
                 threads rounds sums otherwise; other statistics of batch norm, or a checkpoint that was \
                 written anew, change more."
            }
        },
    }
}

/// The best and the last evaluation of the record.
fn evaluations(of: &ReportedRun) -> Markup {
    let (Some(best), Some(last)) = (of.best(), of.run.evaluations.last()) else {
        return html! {};
    };
    let n = of.run.evaluations.len();
    let n_classes = of.classes().len();
    let shows_top5 = n_classes == 0 || has_top5(n_classes);
    let rate = |rate: f64| if rate.is_finite() { percent(rate) } else { "-".to_owned() };
    let table = html! {
        table {
            thead {
                tr {
                    th scope="col" { "evaluation" }
                    th.number scope="col" { "epoch" }
                    th.number scope="col" { "step" }
                    th.number scope="col" { "images" }
                    th.number scope="col" { "top-1" }
                    th.number scope="col" { "95 %" }
                    @if shows_top5 { th.number scope="col" { "top-5" } }
                    th.number scope="col" { "balanced" }
                    th.number scope="col" { "loss" }
                }
            }
            tbody {
                @for (which, row) in [("best", best), ("last", last)] {
                    tr {
                        th scope="row" { (which) }
                        td.number { (epoch_text(row.epoch)) }
                        td.number { (grouped(row.step)) }
                        td.number { @if row.images > 0 { (grouped(row.images)) } @else { "-" } }
                        td.number { (percent(row.top1)) }
                        td.number {
                            @match Interval::of_rate(row.top1, row.images) {
                                Some(interval) => (interval.to_text()),
                                None => "-",
                            }
                        }
                        @if shows_top5 { td.number { (rate(row.top5)) } }
                        td.number { (rate(row.balanced)) }
                        td.number { (loss_number(row.loss)) }
                    }
                }
            }
        }
    };
    html! {
        (scrolled("Evaluations in the run's record", table))
        p.hint {
            "From the run's record."
            @if n > 1 {
                " The best by " (of.run.config.checkpoint.best_by.name()) " was picked from " (n)
                " evaluations of the same images, so it flatters."
            }
        }
    }
}
