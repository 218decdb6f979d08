//! The charts of runs, kept until a run has new rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::comparison::recorded_run::RecordedRun;
use crate::dashboard::catalogue::pause_behind;
use crate::dashboard::run_files::{RunFiles, Stamp};
use crate::page::charts::{Chart, Role, charts};
use crate::run::folder::RunFolder;

/// Runs that can be drawn side by side: there are as many colours.
pub const MOST_RUNS: usize = 8;

/// Points of a curve.
const MOST_POINTS: usize = 1000;

/// Runs whose charts are kept.
const MOST_KEPT: usize = 2 * MOST_RUNS;

/// The charts of a run alone, or why there are none.
pub type RunCharts = Result<Arc<Vec<Chart>>, String>;

/// The charts of the runs that were asked for lately. A run's rows are dropped as soon as they are thinned.
#[derive(Debug, Default)]
pub struct CurveCache {
    drawn: BTreeMap<PathBuf, Drawn>,
    n_asked: u64,
}

#[derive(Debug)]
struct Drawn {
    files: [Option<Stamp>; 4],
    read: Instant,
    took: Duration,
    asked: u64,
    charts: RunCharts,
}

impl CurveCache {
    /// The charts of the run in `folder`, whose files were `files` when they were looked at.
    pub fn of(&mut self, folder: &RunFolder, files: &RunFiles) -> RunCharts {
        self.n_asked += 1;
        let files = files.of_curves();
        if let Some(drawn) = self.drawn.get_mut(folder.path()) {
            // A long record that grows is read anew for a small part of the time only.
            let is_young = drawn.read.elapsed() < pause_behind(drawn.took);
            if drawn.files == files || (is_young && drawn.charts.is_ok() && has_grown(drawn, files))
            {
                drawn.asked = self.n_asked;
                return drawn.charts.clone();
            }
        }
        let start = Instant::now();
        let charts = draw(folder.path());
        let drawn = Drawn {
            files,
            read: Instant::now(),
            took: start.elapsed(),
            asked: self.n_asked,
            charts: charts.clone(),
        };
        self.drawn.insert(folder.path().to_owned(), drawn);
        while self.drawn.len() > MOST_KEPT {
            let oldest = self.drawn.iter().min_by_key(|(_, drawn)| drawn.asked);
            let Some(path) = oldest.map(|(path, _)| path.clone()) else { break };
            self.drawn.remove(&path);
        }
        charts
    }
}

/// Whether these are the files of the same run, with more in them.
fn has_grown(drawn: &Drawn, files: [Option<Stamp>; 4]) -> bool {
    let pairs = drawn.files.iter().zip(&files);
    pairs.into_iter().all(|pair| match pair {
        (Some(old), Some(new)) => old.identity() == new.identity() && old.length <= new.length,
        (old, new) => old == new,
    })
}

fn draw(folder: &Path) -> RunCharts {
    let run = RecordedRun::read(folder).map_err(|error| error.to_string())?;
    Ok(Arc::new(charts(&[&run], MOST_POINTS)))
}

/// The charts of several runs as those of one page: the curves of a run have its place in `runs`, and bands about
/// curves are left out where there is more than one. A run without charts has no curve.
pub fn side_by_side(runs: &[RunCharts]) -> Vec<Chart> {
    let mut all: Vec<Chart> = Vec::new();
    for (place, charts) in runs.iter().enumerate() {
        for chart in charts.iter().flat_map(|charts| charts.iter()) {
            let curves =
                chart.curves.iter().filter(|curve| runs.len() == 1 || curve.role != Role::Edge);
            let curves = curves.cloned().map(|mut curve| {
                curve.run = place;
                curve
            });
            match all.iter_mut().find(|known| known.id == chart.id) {
                Some(known) => {
                    known.curves.extend(curves);
                    known.log |= chart.log;
                }
                None => {
                    let curves = curves.collect();
                    all.push(Chart {
                        title: chart.title.clone(),
                        id: chart.id.clone(),
                        curves,
                        ..*chart
                    });
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Sources, resolve};

    fn line(step: u64) -> String {
        format!(
            "{{\"kind\":\"train\",\"step\":{step},\"epoch\":{step}.0,\"loss\":2.5,\"top1\":0.5,\"lr\":0.1}}\n"
        )
    }

    fn run_of(dir: &Path, name: &str, n_lines: u64) -> RunFolder {
        let folder = RunFolder::at(&dir.join(name));
        fs::create_dir_all(folder.path()).unwrap();
        let config = resolve(&Sources::default()).unwrap().config.to_toml().unwrap();
        fs::write(folder.config(), config).unwrap();
        fs::write(folder.metrics(), (1..=n_lines).map(line).collect::<String>()).unwrap();
        folder
    }

    #[test]
    fn curves_are_the_rows_and_are_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = run_of(dir.path(), "a", 3);
        let mut cache = CurveCache::default();
        let look = || RunFiles::look(dir.path(), &folder).unwrap();
        let first = cache.of(&folder, &look()).unwrap();
        assert_eq!(first[0].curves[0].step, [1, 2, 3]);
        assert!(Arc::ptr_eq(&first, &cache.of(&folder, &look()).unwrap()));
        // New rows wait for their turn, another file does not.
        fs::write(folder.metrics(), (1..=4).map(line).collect::<String>()).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.of(&folder, &look()).unwrap()));
        fs::write(folder.metrics(), line(1)).unwrap();
        assert_eq!(cache.of(&folder, &look()).unwrap()[0].curves[0].step, [1]);
        fs::write(folder.metrics(), "no record\n").unwrap();
        let error = cache.of(&folder, &look()).unwrap_err();
        assert!(error.contains("line 1 is not a record"), "{error}");
        fs::write(folder.metrics(), line(7)).unwrap();
        assert_eq!(cache.of(&folder, &look()).unwrap()[0].curves[0].step, [7]);
    }

    #[test]
    fn few_runs_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = CurveCache::default();
        for place in 0..MOST_KEPT + 3 {
            let folder = run_of(dir.path(), &format!("run-{place:02}"), 1);
            cache.of(&folder, &RunFiles::look(dir.path(), &folder).unwrap()).unwrap();
        }
        assert_eq!(cache.drawn.len(), MOST_KEPT);
        assert!(!cache.drawn.contains_key(&dir.path().join("run-02")));
    }

    #[test]
    fn curves_side_by_side_name_their_runs() {
        let dir = tempfile::tempdir().unwrap();
        let folders = [run_of(dir.path(), "a", 2), run_of(dir.path(), "b", 5)];
        let mut cache = CurveCache::default();
        let mut runs: Vec<RunCharts> = Vec::new();
        for folder in &folders {
            runs.push(cache.of(folder, &RunFiles::look(dir.path(), folder).unwrap()));
        }
        runs.insert(1, Err("torn".to_owned()));
        let all = side_by_side(&runs);
        let of: Vec<(usize, usize)> =
            all[0].curves.iter().map(|curve| (curve.run, curve.step.len())).collect();
        assert_eq!(of, [(0, 2), (2, 5)]);
        assert!(side_by_side(&[]).is_empty());
    }
}
