//! `eval`.

mod baseline;
mod images;
mod json;
mod text;

pub(super) use self::images::{EvaluatedImages, images_of};
pub(super) use self::json::to_json as result_to_json;
pub(super) use self::text::to_text as result_to_text;

use std::path::Path;

use bninception_data::Crops;

use super::stored::{check_same, use_config};
use crate::cli::EvalArgs;
use crate::commands::print;
use crate::distributed::Ranks;
use crate::error::Error;
use crate::evaluation::changes::Changes;
use crate::evaluation::ensemble::{self, Member};
use crate::evaluation::pictures;
use crate::evaluation::statistics::StatisticsSizes;
use crate::evaluation::tables::OutcomeTables;
use crate::images::data_dirs::check_outside;
use crate::run::checkpoint;
use crate::run::folder::RunFolder;
use crate::terminal::signals;
use crate::terminal::text::counted;

pub(super) fn eval(args: &EvalArgs, ranks: &mut Ranks) -> Result<(), Error> {
    signals::listen()?;
    let crops = crops(args)?;
    let (classes, models) = load_models(args)?;
    let baseline = args.baseline.as_deref();
    let baseline = baseline.map(|path| load(args, path, Some(&classes))).transpose()?;
    let all: Vec<&Member> = models.iter().chain(&baseline).collect();
    let EvaluatedImages { place, samples, .. } =
        images_of(&all, args.data_dir.as_deref(), &classes)?;
    if let Some(out) = &args.out {
        check_outside(&place, out, "--out")?;
    }
    let files = samples.iter().map(|sample| sample.path.as_path());
    check_same(ranks, all.iter().map(|model| model.checksum.as_str()), files)?;
    let out = args.out.as_deref().filter(|_| ranks.is_first());
    let folder = out.map(OutcomeTables::create).transpose()?;
    tracing::info!("evaluating {} of {}", counted(samples.len() as u64, "image"), place.display());
    let of_baseline = match &baseline {
        Some(baseline) => {
            let models = std::slice::from_ref(baseline);
            Some(ensemble::evaluate(models, &classes, samples.clone(), crops, ranks)?)
        }
        None => None,
    };
    let outcomes = ensemble::evaluate(&models, &classes, samples, crops, ranks)?;
    if !ranks.is_first() {
        return Ok(());
    }
    for failure in &outcomes.evaluation.failed {
        tracing::warn!("counted as wrong: {}", failure.error);
    }
    let changes = of_baseline.as_ref().map(|other| Changes::between(&outcomes, other));
    let beside = changes.as_ref().zip(baseline.as_ref());
    if let Some(folder) = folder {
        folder.write(&outcomes)?;
        folder.write_changes(changes.as_ref())?;
        if let (Some(out), [first, ..]) = (&args.out, models.as_slice()) {
            pictures::write(out, &outcomes, first)?;
            tracing::info!("tables, mistakes.png and confusion.png are in {}", out.display());
        }
    }
    if args.options.json {
        let mut result = json::to_json(&outcomes, &models);
        if let Some((changes, baseline)) = beside {
            result["baseline"] = baseline::to_json(changes, baseline);
        }
        return print::json(&result);
    }
    let mut result = text::to_text(&outcomes, &models, args.top);
    if let Some((changes, baseline)) = beside {
        result.push_str(&baseline::to_text(changes, baseline, args.top));
    }
    print::text(&result)
}

/// What of each image is looked at.
fn crops(args: &EvalArgs) -> Result<Crops, Error> {
    match (args.flip, args.crops) {
        (true, Crops::One) => Ok(Crops::Mirrored),
        (true, crops) => Err(Error::Usage(format!(
            "--flip: half of the {} crops are mirror images already; leave out --flip, or take --crops 1",
            crops.count()
        ))),
        (false, crops) => Ok(crops),
    }
}

/// The models, and the classes of the first, in whose order all of them answer.
fn load_models(args: &EvalArgs) -> Result<(Vec<String>, Vec<Member>), Error> {
    let mut models: Vec<Member> = Vec::new();
    for path in &args.checkpoints {
        let classes = models.first().map(Member::classes);
        models.push(load(args, path, classes)?);
    }
    let classes = models.first().map(|first| first.classes().to_vec());
    Ok((classes.unwrap_or_default(), models))
}

/// The model of a checkpoint or run; without `classes` it answers in the order of its own.
fn load(args: &EvalArgs, path: &Path, classes: Option<&[String]>) -> Result<Member, Error> {
    let checkpoint = checkpoint::load(&RunFolder::checkpoint_in(path)?)?;
    let sizes = StatisticsSizes::of(&checkpoint.metadata);
    let checkpoint = match args.image_size {
        Some(image_size) => checkpoint.at_image_size(image_size)?,
        None => checkpoint,
    };
    let config = use_config(&checkpoint, &args.options)?;
    let classes = classes.map_or_else(|| checkpoint.metadata.classes.clone(), <[String]>::to_vec);
    let member = Member::new(checkpoint, config, args.statistics, &classes)?;
    if let Some(note) = sizes.note(&member.path, member.statistics, member.preprocessing.image_size)
    {
        tracing::warn!("{note}");
    }
    Ok(member)
}
