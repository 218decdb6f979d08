//! `mnist`.

use crate::cli::{MnistArgs, MnistModel};
use crate::commands::print;
use crate::error::Error;
use crate::mnist::experiment::{Settings, compare};
use crate::mnist::images;
use crate::mnist::network::Model;
use crate::mnist::report::{self, CurvePair};
use crate::terminal::progress::SharedProgress;
use crate::terminal::signals;
use crate::terminal::text::counted;

pub(super) fn mnist(args: &MnistArgs) -> Result<(), Error> {
    for (flag, value) in [("--lr", args.lr), ("--sigma", Some(args.sigma))] {
        let Some(value) = value else { continue };
        if !(value > 0.0 && value.is_finite()) {
            return Err(Error::Usage(format!("{flag} {value}: expected a number above 0")));
        }
    }
    signals::listen()?;
    let stop = || signals::received().is_some();
    let digits = images::read(&args.data_dir)?;
    let settings = |model: Model| Settings {
        steps: args.steps as usize,
        batch_size: args.batch_size as usize,
        lr: args.lr.unwrap_or(model.default_lr()),
        sigma: args.sigma,
        seed: args.seed,
    };
    if args.batch_size > digits.train.len() as u64 {
        let (size, images) = (args.batch_size, digits.train.len());
        let message = format!(
            "--batch-size {size}: there are only {}",
            counted(images as u64, "training image")
        );
        return Err(Error::Usage(message));
    }
    let (n_train, n_test) = (digits.train.len(), digits.test.len());
    tracing::info!("{n_train} training and {n_test} test digits");
    let models: &[Model] = match args.model {
        MnistModel::Mlp => &[Model::Mlp],
        MnistModel::Lenet => &[Model::Lenet],
        MnistModel::Both => &[Model::Mlp, Model::Lenet],
    };
    let mut pairs = Vec::new();
    for &model in models {
        if stop() {
            break;
        }
        let settings = settings(model);
        // Both networks together.
        let progress = SharedProgress::new(model.name());
        progress.start(2 * settings.steps * settings.batch_size);
        pairs.push(compare(&digits, model, &settings, &|done| progress.advance(done), &stop)?);
    }
    let result = report::result(&digits, &pairs, !stop());
    report::write(&args.out, &pairs, &result)?;
    if stop() {
        tracing::info!("what there is so far lies in {}", args.out.display());
        return Ok(signals::check()?);
    }
    if args.json {
        return print::json(&result);
    }
    let mut text = report::table(&pairs);
    for comparison in pairs.iter().filter_map(CurvePair::new) {
        text.push_str(&format!("\n{}", comparison.sentence()));
    }
    print::text(&format!("{text}\ncurves and figures: {}", args.out.display()))
}
