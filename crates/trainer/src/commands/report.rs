//! `report`: a page on one run or several.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::eval::{EvaluatedImages, images_of};
use super::stored::use_config;
use crate::cli::{ReportArgs, ReportFormat};
use crate::commands::print;
use crate::comparison::names;
use crate::comparison::recorded_run::RecordedRun;
use crate::comparison::run_search::find_all_runs;
use crate::error::Error;
use crate::evaluation::ensemble::Member;
use crate::images::data_dirs::check_outside;
use crate::images::own_images::{OwnImages, check_outside_of_run};
use crate::report::judgement::{JudgedImages, Judgement, JudgementSize, judge};
use crate::report::reported_run::{ReportedRun, Shown};
use crate::report::training_pictures::training_pictures;
use crate::report::{html, markdown};
use crate::run::checkpoint::{self, Checkpoint};
use crate::run::folder::RunFolder;
use crate::terminal::output::with_path;
use crate::terminal::signals;
use crate::terminal::text::quoted;

/// Mistakes and training pictures on a page; several runs share them, but each has a few.
const MOST_MISTAKES: usize = 24;
const MOST_TRAINING_PICTURES: usize = 16;
const LEAST_OF_A_RUN: usize = 4;

pub(super) fn report(args: &ReportArgs) -> Result<(), Error> {
    let folders = find_all_runs(&args.runs)?;
    let pages = match args.format {
        ReportFormat::Md => markdown(args, &folders)?,
        ReportFormat::Html => vec![page(args, &folders)?; folders.len()],
    };
    if args.options.json {
        let pair = |(run, page): (&PathBuf, &PathBuf)| -> Value {
            with_path("run", run, with_path("report", page, json!({})))
        };
        let reports: Vec<Value> = folders.iter().zip(&pages).map(pair).collect();
        return print::json(&json!({ "reports": reports }));
    }
    let mut pages = pages;
    pages.dedup();
    pages.iter().try_for_each(|page| print::text(&page.display().to_string()))
}

/// A page of Markdown in the folder of each run.
fn markdown(args: &ReportArgs, folders: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let given = [
        (args.out.is_some(), "--out"),
        (args.no_eval, "--no-eval"),
        (args.images.is_some(), "--images"),
        (args.data_dir.is_some(), "--data-dir"),
    ];
    if let Some((_, flag)) = given.iter().find(|(is_given, _)| *is_given) {
        return Err(Error::Usage(format!(
            "{flag}: a page of Markdown shows what the run recorded, beside it; leave out {flag}, or take --format \
             html"
        )));
    }
    folders.iter().map(|path| markdown::write(&RecordedRun::read(path)?)).collect()
}

/// One page of HTML for all runs.
fn page(args: &ReportArgs, folders: &[PathBuf]) -> Result<PathBuf, Error> {
    signals::listen()?;
    if args.images == Some(0) {
        return Err(Error::Usage(
            "--images 0: expected 1 or more; --no-eval evaluates none".into(),
        ));
    }
    let path = args.out.clone().unwrap_or_else(|| html::default_path(folders));
    if path.is_dir() {
        return Err(Error::Usage(format!(
            "--out: {} is a folder; name the file of the page in it",
            path.display()
        )));
    }
    if let Some(dir) = &args.data_dir {
        check_outside(dir, &path, "--out")?;
    }
    let paths: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
    let mut runs = Vec::new();
    for (folder, name) in folders.iter().zip(names(&paths, str::to_owned)) {
        let hint = match args.out.is_some() {
            true => "--out".to_owned(),
            false => format!("mv {}", quoted(folder)),
        };
        check_outside_of_run(&RunFolder::at(folder), &path, &hint)?;
        runs.push(ReportedRun::read(folder, name)?);
    }
    let of_each = |most: usize| (most / runs.len().max(1)).max(LEAST_OF_A_RUN);
    let size = JudgementSize { images: args.images, mistakes: of_each(MOST_MISTAKES) };
    let most_pictures = of_each(MOST_TRAINING_PICTURES);
    for run in &mut runs {
        look(args, run, size, most_pictures)?;
    }
    html::write(&runs, &path)?;
    Ok(path)
}

/// Evaluates the best checkpoint of a run, and draws its first mini-batch. What is not to be had is told on the page,
/// and in the log.
fn look(
    args: &ReportArgs,
    run: &mut ReportedRun,
    size: JudgementSize,
    most_pictures: usize,
) -> Result<(), Error> {
    let loaded = match run.run.folder.best_or_last() {
        Some(path) => or_reason(checkpoint::load(&path).map_err(Error::from), false)?,
        None => Err("the run has no checkpoint yet; make the page again once it has one".into()),
    };
    let loaded = loaded.map(|checkpoint| {
        let own = OwnImages::of(&checkpoint.metadata, &checkpoint.path);
        (checkpoint, own)
    });
    let (checkpoint, own) = match loaded {
        Ok(loaded) => loaded,
        Err(reason) => {
            tracing::warn!("{}: not evaluated: {reason}", run.name);
            (run.judgement, run.training_pictures) = (Err(reason.clone()), Err(reason));
            return Ok(());
        }
    };
    let must_be_there = args.data_dir.is_some();
    let metadata = checkpoint.metadata.clone();
    run.training_pictures = or_reason(
        own.training_images(&metadata.config, args.data_dir.as_deref())
            .and_then(|samples| training_pictures(&metadata, samples, most_pictures)),
        false,
    )?;
    run.judgement = match args.no_eval {
        true => Err("it was left out with --no-eval; make the page without it".to_owned()),
        false => or_reason(judgement(args, checkpoint, size), must_be_there)?,
    };
    if let (Err(reason), false) = (&run.judgement, args.no_eval) {
        tracing::warn!("{}: not evaluated: {reason}", run.name);
    }
    run.metadata = run.metadata.take().or(Some(metadata));
    Ok(())
}

/// The evaluation of a checkpoint.
fn judgement(
    args: &ReportArgs,
    checkpoint: Checkpoint,
    size: JudgementSize,
) -> Result<Judgement, Error> {
    let config = use_config(&checkpoint, &args.options)?;
    let classes = checkpoint.metadata.classes.clone();
    let member = Member::new(checkpoint, config, None, &classes)?;
    let EvaluatedImages { place, samples, are_of_run } =
        images_of(&[&member], args.data_dir.as_deref(), &classes)?;
    judge(member, JudgedImages { place, samples, are_of_run }, size)
}

/// What was found, or the reason why it was not, for the page. A signal, settings and devices that cannot be used, and
/// with `must_be_there` whatever else is wrong end the command.
fn or_reason<T>(found: Result<T, Error>, must_be_there: bool) -> Result<Shown<T>, Error> {
    match found {
        Ok(found) => Ok(Ok(found)),
        Err(
            error @ (Error::Interrupted { .. }
            | Error::Config(_)
            | Error::Engine(_)
            | Error::Ranks(_)),
        ) => Err(error),
        Err(error) if must_be_there => Err(error),
        Err(error) => Ok(Err(error.to_string())),
    }
}
