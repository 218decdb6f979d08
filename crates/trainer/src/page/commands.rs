//! Commands to go on with a run.

use crate::comparison::inventory::RunStatus;
use crate::run::folder::RunFolder;
use crate::terminal::text::quoted;

/// Commands that make sense for a run that stands so, with what each does.
pub fn commands(folder: &RunFolder, status: &RunStatus) -> Vec<(&'static str, String)> {
    let run = quoted(folder.path());
    let command = |what: &'static str, words: String| (what, format!("bninception {words}"));
    let mut commands = Vec::new();
    if matches!(status, RunStatus::Stopped | RunStatus::Diverged) {
        commands.push(command("Go on with the run", format!("resume {run}")));
    }
    let has_checkpoint = match status {
        // Its newest checkpoint cannot be read.
        RunStatus::Damaged(_) => folder.best().is_file(),
        _ => folder.best_or_last().is_some(),
    };
    if has_checkpoint {
        commands.extend([
            command("Evaluate it; other images by --data-dir DIR", format!("eval {run}")),
            command("Name pictures", format!("predict {run} IMAGE...")),
            command("See what speaks for a class", format!("explain {run} IMAGE...")),
            command("Hand the network on", format!("export {run} --onnx FILE.onnx")),
        ]);
    }
    commands.push(command("Write its page", format!("report {run}")));
    commands
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn commands_are_those_that_can_be_done() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::at(&dir.path().join("a run"));
        fs::create_dir(folder.path()).unwrap();
        let found = |status: RunStatus| -> String {
            let commands = commands(&folder, &status);
            let verb =
                |(_, command): &(&str, String)| command.split(' ').nth(1).unwrap().to_owned();
            commands.iter().map(verb).collect::<Vec<_>>().join(" ")
        };
        let damaged = || RunStatus::Damaged("torn".to_owned());
        assert_eq!(found(RunStatus::Training), "report");
        assert_eq!(found(damaged()), "report");
        fs::write(folder.last(), "").unwrap();
        assert_eq!(found(RunStatus::Stopped), "resume eval predict explain export report");
        assert_eq!(found(RunStatus::Finished), "eval predict explain export report");
        // What cannot be read is no help; the best checkpoint beside it is.
        assert_eq!(found(damaged()), "report");
        fs::write(folder.best(), "").unwrap();
        assert_eq!(found(damaged()), "eval predict explain export report");
        assert!(commands(&folder, &damaged())[0].1.ends_with("a run'"), "a name with a space");
    }
}
