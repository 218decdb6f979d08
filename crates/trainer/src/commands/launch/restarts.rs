//! How a run that failed goes on.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use super::mpi_job::End;
use crate::cli::Command;
use crate::error::Error;
use crate::run::folder::RunFolder;

/// Exit codes that another try would not change: a wrong command line, and a run that has diverged, which would
/// diverge again, because a run repeats bit by bit.
const SAME_AGAIN: [u8; 2] = [2, 4];

/// A run that can go on.
pub(super) struct Restarts {
    /// The words of the first try.
    first: Vec<OsString>,
    folder: RunFolder,
    /// The words with which it goes on from a checkpoint.
    resume: Vec<OsString>,
    max_time: Option<Duration>,
    /// The checkpoint that was there before the first try, if it is another run's.
    others: Option<FileId>,
}

impl Restarts {
    /// Those of a command and its words.
    pub(super) fn of(command: &Command, words: &[OsString]) -> Result<Restarts, Error> {
        let first = without_max_time(words);
        match command {
            Command::Train(args) => {
                let Some(dir) = &args.run_dir else {
                    return Err(Error::Usage(
                        "--restarts has to know where the run is: add --run-dir DIR behind `train`, such as \
                         --run-dir checkpoints/NAME"
                            .to_owned(),
                    ));
                };
                // With the flags that stand in front of the verb.
                let mut resume: Vec<OsString> =
                    words.iter().take_while(|word| *word != "train").cloned().collect();
                resume.extend([OsString::from("resume"), dir.clone().into()]);
                resume.extend(args.json.then(|| OsString::from("--json")));
                let folder = RunFolder::at(dir);
                let others = FileId::of(&folder.last());
                Ok(Restarts { first, folder, resume, max_time: args.max_time, others })
            }
            Command::Resume(args) => {
                let (folder, max_time) = (RunFolder::around(&args.run), args.max_time);
                Ok(Restarts { resume: first.clone(), first, folder, max_time, others: None })
            }
            _ => Err(Error::Usage(
                "--restarts is for `train` and `resume`: other commands leave nothing to go on from"
                    .to_owned(),
            )),
        }
    }

    /// The words of the next try behind `end`; none where there is to be no other. `elapsed` is the time since
    /// the first.
    pub(super) fn after(&self, end: &End, elapsed: Duration) -> Option<Vec<OsString>> {
        let stops = [SIGHUP, SIGINT, SIGTERM, SIGUSR1].map(|signal| 128 + signal);
        let was_asked = end.signal.is_some() || stops.contains(&i32::from(end.code));
        if was_asked || SAME_AGAIN.contains(&end.code) {
            return None;
        }
        let last = FileId::of(&self.folder.last());
        let has_checkpoint = last.is_some() && last != self.others;
        let mut words = if has_checkpoint { self.resume.clone() } else { self.first.clone() };
        if let Some(max_time) = self.max_time {
            // All tries share the time.
            let left = max_time.checked_sub(elapsed).filter(|left| left.as_secs() > 0)?;
            words.extend([OsString::from("--max-time"), format!("{}s", left.as_secs()).into()]);
        }
        Some(words)
    }
}

/// The words without `--max-time TIME` and `--max-time=TIME`.
fn without_max_time(words: &[OsString]) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--max-time") => {
                words.next();
            }
            Some(word) if word.starts_with("--max-time=") => {}
            _ => kept.push(word.clone()),
        }
    }
    kept
}

/// What tells a file from one that replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileId {
    path: PathBuf,
    inode: u64,
    modified: (i64, i64),
}

impl FileId {
    fn of(path: &Path) -> Option<FileId> {
        let about: Metadata = path.metadata().ok()?;
        let modified = (about.mtime(), about.mtime_nsec());
        Some(FileId { path: path.to_owned(), inode: about.ino(), modified })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn restarts(words: &[&str]) -> Result<Restarts, Error> {
        let cli = Cli::try_parse_from([&["bninception"], words].concat()).unwrap();
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Restarts::of(&cli.command, &words)
    }

    fn next(restarts: &Restarts, code: u8, elapsed: u64) -> Option<Vec<OsString>> {
        restarts.after(&End { code, signal: None }, Duration::from_secs(elapsed))
    }

    #[test]
    fn a_run_goes_on_from_its_own_checkpoint_alone() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("run");
        let name = dir.to_str().unwrap();
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("last.safetensors"), "of another run").unwrap();
        let train = ["train", "--run-dir", name, "--overwrite", "--max-time", "10m", "--json"];
        let run = restarts(&train).unwrap();
        let again = ["train", "--run-dir", name, "--overwrite", "--json", "--max-time", "540s"];
        assert_eq!(next(&run, 137, 60).unwrap(), again);
        fs::remove_file(dir.join("last.safetensors")).unwrap();
        assert_eq!(next(&run, 137, 60).unwrap(), again);
        fs::write(dir.join("last.safetensors"), "its own").unwrap();
        let resume = ["resume", name, "--json", "--max-time", "1s"];
        assert_eq!(next(&run, 9, 599).unwrap(), resume);
        assert_eq!(next(&run, 9, 600), None);
        for code in [2, 4, 129, 130, 138, 143] {
            assert_eq!(next(&run, code, 60), None, "{code}");
        }
        let end = End { code: 1, signal: Some((15, "SIGTERM")) };
        assert_eq!(run.after(&end, Duration::ZERO), None);

        let words = ["resume", name, "--threads", "1"];
        assert_eq!(next(&restarts(&words).unwrap(), 1, 60).unwrap(), words);
    }

    #[test]
    fn restarts_need_a_run_that_is_known() {
        for (words, part) in [(&["train"][..], "--run-dir"), (&["doctor"], "`train` and `resume`")]
        {
            let error = restarts(words).err().unwrap();
            assert!(error.to_string().contains(part) && error.exit_code() == 2, "{error}");
        }
    }
}
