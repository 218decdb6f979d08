//! What was watched of layers, drawn: the spread of the inputs of nonlinearities over training.

use crate::comparison::recorded_run::RecordedRun;
use crate::figure::{Axis, Band, Figure, Panel, Series};

/// Layers drawn of each run: as many as panels stand in a row.
const MOST_LAYERS: usize = 3;

/// A row of panels for each run, named by the first of the pair, and a panel for each of its watched
/// layers: the median, and the band between the 15th and 85th percentile. `None` if nothing was
/// watched.
pub fn watch_figure(runs: &[(String, &RecordedRun)]) -> Option<Figure> {
    let mut panels = Vec::new();
    for (name, run) in runs {
        for layer in run.config.log.watch.iter().take(MOST_LAYERS) {
            let rows = run.watched.iter().filter(|row| row.layer == *layer);
            let band: Vec<(f64, f64, f64)> = rows
                .clone()
                .map(|row| (row.step as f64, row.percentiles[0], row.percentiles[2]))
                .collect();
            if band.is_empty() {
                continue;
            }
            let median = rows.map(|row| (row.step as f64, row.percentiles[1])).collect();
            panels.push(Panel {
                title: format!("{name}: {layer}"),
                x: Axis::new("training steps"),
                y: Axis::new("input of the nonlinearity"),
                series: vec![Series {
                    name: "median; band: 15th to 85th percentile".to_owned(),
                    points: median,
                    colour: 1,
                    ..Series::default()
                }],
                bands: vec![Band { points: band, colour: 1 }],
                ..Panel::default()
            });
        }
    }
    (!panels.is_empty()).then(|| Figure { title: "Inputs of nonlinearities".to_owned(), panels })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::comparison::recorded_run::Watched;
    use crate::config::{Sources, resolve};
    use crate::run::folder::RunFolder;

    #[test]
    fn a_row_for_each_run_and_a_panel_for_each_layer_that_was_seen() {
        let sets = ["log.watch=[\"a\", \"b\", \"c\", \"d\"]".to_owned()];
        let config = resolve(&Sources { sets: &sets, ..Sources::default() }).unwrap().config;
        let row = |step: u64, layer: &str, median: f64| Watched {
            step,
            layer: layer.to_owned(),
            percentiles: [median - 1.0, median, median + 2.0],
        };
        let run = |watched: Vec<Watched>| RecordedRun {
            folder: RunFolder::at(Path::new("run")),
            config: config.clone(),
            recipe: Default::default(),
            training: Vec::new(),
            evaluations: Vec::new(),
            epochs: Vec::new(),
            watched,
            diverged: false,
        };
        let first =
            run(vec![row(1, "a", 0.0), row(1, "c", 5.0), row(2, "a", 0.5), row(1, "d", 1.0)]);
        let (second, none) = (run(vec![row(1, "b", f64::NAN)]), run(Vec::new()));
        let runs = [("x".to_owned(), &first), ("y".to_owned(), &second), ("z".to_owned(), &none)];
        let figure = watch_figure(&runs).unwrap();
        let titles: Vec<&str> = figure.panels.iter().map(|panel| panel.title.as_str()).collect();
        // The fourth layer of a run is not drawn.
        assert_eq!(titles, ["x: a", "x: c", "y: b"]);
        assert_eq!(figure.panels[0].series[0].points, [(1.0, 0.0), (2.0, 0.5)]);
        assert_eq!(figure.panels[0].bands[0].points, [(1.0, -1.0, 2.0), (2.0, -0.5, 2.5)]);
        assert!(figure.to_svg().unwrap().contains("x: c"));
        assert!(watch_figure(&runs[2..]).is_none());
    }
}
