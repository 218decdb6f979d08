//! `info`.

use bninception_engine::model::Network;
use bninception_engine::model::layer::Shape;
use bninception_engine::model::summary::{LayerSummary, summarise};
use serde_json::json;

use crate::cli::InfoArgs;
use crate::commands::print;
use crate::error::Error;
use crate::evaluation::statistics::lag_note;
use crate::run::checkpoint;
use crate::run::folder::RunFolder;
use crate::setup;
use crate::terminal::text::{counted, grouped, table};

pub(super) fn info(args: &InfoArgs) -> Result<(), Error> {
    let mut about = String::new();
    let network = match &args.checkpoint {
        Some(path) => {
            let checkpoint = checkpoint::load(&RunFolder::checkpoint_in(path)?)?;
            about = describe(&checkpoint);
            checkpoint.network
        }
        None => {
            let config = args.config.resolve(None, None)?.config;
            setup::network(&config, setup::classes_without_data(&config))?
        }
    };
    let layers = summarise(&network);
    if args.json {
        return print::json(&to_json(&layers));
    }
    print::text(&format!("{}{about}", to_text(&network, &layers)))
}

fn describe(checkpoint: &checkpoint::Checkpoint) -> String {
    let metadata = &checkpoint.metadata;
    let best = metadata.progress.best.map_or(String::new(), |best| {
        let by = metadata.config.checkpoint.best_by;
        format!(", best {} {} at step {}", by.name(), best.shown(by), best.step)
    });
    let statistics = metadata.calibration.map_or(String::new(), |made| {
        format!(
            "population statistics over {} of {}\n",
            counted(made.batches, "batch"),
            counted(made.batch_size as u64, "training image")
        )
    });
    let initial = metadata.initial.as_ref().map_or(String::new(), |source| {
        format!("first weights: {} (step {}, BLAKE3 {})\n", source.path, source.step, source.blake3)
    });
    let sources = metadata.averaged.iter().map(|source| {
        format!("mean of: {} (step {}, BLAKE3 {})\n", source.path, source.step, source.blake3)
    });
    let averaged: String = sources.collect();
    let trained = metadata.trained_image_size.map_or(String::new(), |trained| {
        let own = metadata.preprocessing.image_size;
        format!("calibrated at {own} px; trained, with its running statistics, at {trained} px\n")
    });
    let lag = lag_note(checkpoint).map_or(String::new(), |note| format!("{note}\n"));
    let mut names: Vec<&str> = metadata.classes.iter().take(10).map(String::as_str).collect();
    if metadata.classes.len() > names.len() {
        names.push("...");
    }
    format!(
        "\n{}: epoch {}, step {}{best}\nrecipe {}\n{}: {}\n{initial}{averaged}{trained}{statistics}{lag}",
        checkpoint.path.display(),
        metadata.epoch,
        metadata.step,
        metadata.recipe,
        counted(metadata.classes.len() as u64, "class"),
        names.join(", ")
    )
}

fn totals(layers: &[LayerSummary]) -> (usize, usize) {
    let parameters = layers.iter().map(|layer| layer.parameters).sum();
    (parameters, layers.iter().map(|layer| layer.macs).sum())
}

fn to_json(layers: &[LayerSummary]) -> serde_json::Value {
    let (parameters, macs) = totals(layers);
    let layers: Vec<serde_json::Value> = layers
        .iter()
        .map(|layer| {
            json!({
                "name": layer.name,
                "kind": layer.kind,
                "input": dims(layer.input),
                "output": dims(layer.output),
                "parameters": layer.parameters,
                "macs": layer.macs,
            })
        })
        .collect();
    json!({ "parameters": parameters, "macs": macs, "layers": layers })
}

/// Channels, rows, columns.
fn dims(shape: Shape) -> [usize; 3] {
    [shape.channels, shape.height, shape.width]
}

fn to_text(network: &Network, layers: &[LayerSummary]) -> String {
    let rows: Vec<Vec<String>> = layers
        .iter()
        .map(|layer| {
            vec![
                layer.name.clone(),
                layer.kind.to_owned(),
                layer.input.to_string(),
                layer.output.to_string(),
                or_blank(layer.parameters),
                or_blank(layer.macs),
            ]
        })
        .collect();
    let (parameters, macs) = totals(layers);
    let heads: usize =
        layers.iter().filter(|layer| layer.auxiliary).map(|layer| layer.parameters).sum();
    let heads = match heads {
        0 => String::new(),
        heads => {
            format!(
                "; {} of the parameters are auxiliary heads', of training",
                grouped(heads as u64)
            )
        }
    };
    let header = ["layer", "kind", "input", "output", "parameters", "MACs"];
    format!(
        "{}\n{} parameters, {} multiply-accumulates for one image of {} x {} px{heads}\n",
        table(&header, &rows),
        or_blank(parameters),
        or_blank(macs),
        network.options.image_size,
        network.options.image_size,
    )
}

/// A count for a table; nothing for zero.
fn or_blank(count: usize) -> String {
    match count {
        0 => String::new(),
        count => grouped(count as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::or_blank;

    #[test]
    fn numbers_are_grouped() {
        let cases = [(0, ""), (7, "7"), (999, "999"), (1000, "1,000"), (11_194_984, "11,194,984")];
        for (number, text) in cases {
            assert_eq!(or_blank(number), text);
        }
    }
}
