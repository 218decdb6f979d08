//! The runs of a folder, looked at again when somebody asks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::comparison::run_search::{MOST_LEVELS, holds_run};
use crate::dashboard::look::Look;
use crate::dashboard::row::Row;
use crate::dashboard::run_files::Stamp;
use crate::error::Error;
use crate::run::folder::RunFolder;

/// Folders that are looked into at the most: a folder of runs that holds far more is none.
const MOST_FOLDERS: usize = 20_000;

/// A look is followed by this many times its own time without one, so that it takes a fifth of the time at the
/// most, beside a run that trains on the same machine.
const PAUSES: u32 = 4;

/// The least time between two looks.
const LEAST_PAUSE: Duration = Duration::from_millis(900);

/// A list of a folder that was made so soon after the folder's last change may lack what came in the same tick of
/// the file system's clock.
const TICK: Duration = Duration::from_secs(2);

/// The runs of a folder.
#[derive(Debug)]
pub struct Catalogue {
    /// The folder as it was named, with which the paths in messages begin.
    named: PathBuf,
    /// The same without links, for the question what lies in it.
    root: PathBuf,
    listings: BTreeMap<PathBuf, Listing>,
    runs: BTreeMap<String, CataloguedRun>,
    notes: Vec<String>,
    /// When it was looked at, and how long that took.
    looked: Option<(Instant, Duration)>,
}

/// A run of the list.
#[derive(Clone, Debug)]
pub struct CataloguedRun {
    /// Its folder.
    pub folder: RunFolder,
    /// What is known of it, or why it is not read.
    pub look: Result<Look, String>,
}

/// All rows, as JSON has them.
#[derive(Clone, Debug, Serialize)]
pub struct Rows {
    /// The folder, as it was named.
    pub dir: String,
    /// What was not looked at, and why.
    pub notes: Vec<String>,
    /// The runs, by their ids.
    pub runs: Vec<Row>,
}

/// What a folder holds.
#[derive(Debug)]
struct Listing {
    stamp: Stamp,
    made: SystemTime,
    folders: Vec<PathBuf>,
    /// Links to folders outside.
    links: Vec<PathBuf>,
}

impl Catalogue {
    /// Of the folder `dir`. Looks at nothing in it yet.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn new(dir: &Path) -> Result<Catalogue, Error> {
        let root = dir.canonicalize().ok().filter(|root| root.is_dir()).ok_or_else(|| {
            Error::Usage(format!(
                "{} is no folder; name one that holds the folders of runs",
                dir.display()
            ))
        })?;
        Ok(Catalogue {
            named: dir.to_owned(),
            root,
            listings: BTreeMap::new(),
            runs: BTreeMap::new(),
            notes: Vec::new(),
            looked: None,
        })
    }

    /// The folder, without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Looks at the runs, unless that was done a moment ago.
    pub fn refresh_if_due(&mut self) {
        let is_due = self.looked.is_none_or(|(at, took)| at.elapsed() >= pause_behind(took));
        if is_due {
            self.refresh();
        }
    }

    /// Looks at the runs.
    pub fn refresh(&mut self) {
        let start = Instant::now();
        self.notes.clear();
        let mut known = std::mem::take(&mut self.runs);
        for path in self.find() {
            let mut id = id_of(&self.named, &path);
            // Names that are not UTF-8 may look alike.
            while self.runs.contains_key(&id) {
                id.push('~');
            }
            let folder = RunFolder::at(&path);
            let before = known.remove(&id).filter(|run| run.folder == folder);
            let before = before.and_then(|run| run.look.ok());
            let look = match Look::of(&self.root, &folder, before) {
                Ok(Some(look)) => Ok(look),
                // It went away meanwhile.
                Ok(None) => continue,
                Err(reason) => Err(reason),
            };
            self.runs.insert(id, CataloguedRun { folder, look });
        }
        self.looked = Some((Instant::now(), start.elapsed()));
    }

    /// The rows of all runs as they were looked at last.
    pub fn rows(&self) -> Rows {
        let row = |(id, run): (&String, &CataloguedRun)| match &run.look {
            Ok(look) => Row::of(id, look),
            Err(reason) => Row::refused(id, reason),
        };
        Rows {
            dir: self.named.display().to_string(),
            notes: self.notes.clone(),
            runs: self.runs.iter().map(row).collect(),
        }
    }

    /// The run of that id.
    pub fn run(&self, id: &str) -> Option<&CataloguedRun> {
        self.runs.get(id)
    }

    /// The folders of all runs, in the order of their paths. Of a run nothing below is looked at, and no link to a
    /// folder is followed: what it leads to inside of the root is found by its own path.
    fn find(&mut self) -> Vec<PathBuf> {
        let mut old = std::mem::take(&mut self.listings);
        let (mut runs, mut n_folders) = (Vec::new(), 0);
        let mut level = vec![self.named.clone()];
        for depth in 0..=MOST_LEVELS {
            let mut below = Vec::new();
            for folder in level {
                n_folders += 1;
                if n_folders > MOST_FOLDERS {
                    continue;
                }
                if holds_run(&folder) {
                    runs.push(folder);
                    continue;
                }
                if depth == MOST_LEVELS {
                    continue;
                }
                match Listing::of(&self.root, &folder, old.remove(&folder)) {
                    Ok(listing) => {
                        below.extend(listing.folders.iter().cloned());
                        for link in &listing.links {
                            self.notes.push(format!(
                                "{} is a link that leads out of the folder of runs and is not followed",
                                id_of(&self.named, link)
                            ));
                        }
                        self.listings.insert(folder, listing);
                    }
                    Err(error) => {
                        let id = id_of(&self.named, &folder);
                        self.notes.push(format!("{id} cannot be listed: {error}"));
                    }
                }
            }
            level = below;
        }
        if n_folders > MOST_FOLDERS {
            self.notes.push(format!(
                "there are more than {MOST_FOLDERS} folders here, and the rest are not looked at; name a folder of \
                 runs alone"
            ));
        }
        runs.sort();
        runs
    }
}

/// How long to wait behind a look that took `took`.
pub fn pause_behind(took: Duration) -> Duration {
    LEAST_PAUSE.max(took * PAUSES)
}

/// The path of a run below the root, with `/` between names on every system; `.` for the root itself.
fn id_of(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    let names = below.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_string_lossy()),
        _ => None,
    });
    let names: Vec<_> = names.collect();
    if names.is_empty() { ".".to_owned() } else { names.join("/") }
}

impl Listing {
    /// What `folder` holds; `old` if it has not changed since.
    fn of(root: &Path, folder: &Path, old: Option<Listing>) -> std::io::Result<Listing> {
        let stamp = Stamp::of(&fs::metadata(folder)?);
        if let Some(old) = old
            && old.stamp == stamp
            && old.made.duration_since(stamp.written).is_ok_and(|age| age > TICK)
        {
            return Ok(old);
        }
        let made = SystemTime::now();
        let (mut folders, mut links) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if folders.len() > MOST_FOLDERS {
                break;
            }
            // The system tells the kind with the name; a data set has a million names.
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_symlink() {
                let path = entry.path();
                let target = path.canonicalize().ok().filter(|target| target.is_dir());
                if target.is_some_and(|target| !target.starts_with(root)) {
                    links.push(path);
                }
            }
        }
        folders.sort();
        links.sort();
        Ok(Listing { stamp, made, folders, links })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(root: &Path, name: &str) {
        fs::create_dir_all(root.join(name)).unwrap();
        fs::write(root.join(name).join("metrics.jsonl"), "").unwrap();
    }

    fn ids(catalogue: &mut Catalogue) -> Vec<String> {
        catalogue.refresh();
        catalogue.rows().runs.into_iter().map(|row| row.run).collect()
    }

    #[test]
    fn runs_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let mut catalogue = Catalogue::new(root).unwrap();
        assert!(ids(&mut catalogue).is_empty());
        for name in ["b", "paper/c-seed-1", "1/2/3/4", "a/inner", "a"] {
            make(root, name);
        }
        assert_eq!(ids(&mut catalogue), ["a", "b", "paper/c-seed-1"]);
        fs::remove_dir_all(root.join("b")).unwrap();
        make(root, "paper/d");
        assert_eq!(ids(&mut catalogue), ["a", "paper/c-seed-1", "paper/d"]);
        assert!(catalogue.run("b").is_none() && catalogue.run("paper/d").is_some());
        for id in ["", "..", "/etc", "paper", "paper/../a", "./a", "A"] {
            assert!(catalogue.run(id).is_none(), "{id}");
        }
        fs::remove_dir_all(root).unwrap();
        assert!(ids(&mut catalogue).is_empty());
        assert!(catalogue.rows().notes[0].starts_with(". cannot be listed"));
        let error = Catalogue::new(&root.join("nowhere")).unwrap_err().to_string();
        assert!(error.contains("nowhere is no folder"), "{error}");
    }

    #[test]
    fn the_folder_of_a_run_is_a_list_of_one() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), "a");
        assert_eq!(ids(&mut Catalogue::new(&dir.path().join("a")).unwrap()), ["."]);
    }

    #[cfg(unix)]
    #[test]
    fn links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("runs");
        make(&root, "a");
        make(dir.path(), "outside/secret");
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, root.join(name)).unwrap();
        link(&dir.path().join("outside"), "out");
        link(Path::new("a"), "in");
        link(Path::new("loop"), "loop");
        let mut catalogue = Catalogue::new(&root).unwrap();
        assert_eq!(ids(&mut catalogue), ["a"]);
        let notes = catalogue.rows().notes;
        assert!(
            notes.len() == 1 && notes[0].starts_with("out is a link that leads out"),
            "{notes:?}"
        );
        // A link in the place of a run is not followed either.
        fs::remove_dir_all(root.join("a")).unwrap();
        link(&dir.path().join("outside/secret"), "a");
        assert!(ids(&mut catalogue).is_empty());
        // The folder itself may be named by a link.
        link(&dir.path().join("outside"), "b");
        assert_eq!(ids(&mut Catalogue::new(&root.join("b")).unwrap()), ["secret"]);
    }

    #[test]
    fn looking_takes_a_small_part_of_the_time() {
        for (took, pause) in [(0, 900), (10, 900), (300, 1200), (3000, 12_000)] {
            let [took, pause] = [took, pause].map(Duration::from_millis);
            assert_eq!(pause_behind(took), pause);
        }
    }
}
