//! The file of TensorBoard's hparams plugin: what settings a run has, and how it ended.
//!
//! TensorBoard keeps the first record that it reads of a run and passes over later ones. A run that goes on, or
//! ends a second time, could therefore not mend what stands in earlier files of events. So these records have a file
//! of their own, which each process that trains begins anew: a folder holds one session, with its present settings
//! and no end until the run has one. The file's name is read before all files of events.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use prost::Message;

use super::hyperparameters::{Hyperparameters, experiment};
use super::record;
use super::schema::{
    DT_FLOAT, EventContent, EventMessage, HparamsContent, HparamsData, PluginData, SessionEnd,
    SessionStart, ShapeDimension, ShapeMessage, SummaryContent, SummaryMessage, SummaryMetadata,
    SummaryValue, TensorMessage,
};

/// The file. TensorBoard reads the files of a folder in the order of their names, where others have the second of
/// their start.
pub(super) const NAME: &str = "events.out.tfevents.0000000000.bninception.hparams";

const PLUGIN: &str = "hparams";
const EXPERIMENT_TAG: &str = "_hparams_/experiment";
const START_TAG: &str = "_hparams_/session_start_info";
const END_TAG: &str = "_hparams_/session_end_info";

/// How a run ended. One that only stopped will go on, and has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionStatus {
    /// At its last step, or earlier because it no longer improved.
    Success = 1,
    /// With a number that is not finite.
    Failure = 2,
}

/// Begins the file in `dir`, which is made if it is missing, in the place of an earlier one. The start stays that of
/// the first process that trained the run. `wall_time` is in seconds since 1970.
///
/// # Errors
/// The folder or the file cannot be written.
pub fn begin_session(
    dir: &Path,
    hyperparameters: &Hyperparameters,
    wall_time: f64,
) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let path = dir.join(NAME);
    let start_time_secs = start_in(&read(&path)?).map_or(wall_time, |start| start.start_time_secs);
    let start = SessionStart { hparams: hyperparameters.to_message(), start_time_secs };
    let bytes = [
        record::version(wall_time),
        bytes_of(EXPERIMENT_TAG, HparamsContent::Experiment(experiment()), wall_time),
        bytes_of(START_TAG, HparamsContent::Start(start), wall_time),
    ];
    // Another file, not the same one cut: a reader that is at work keeps what it has open.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    file.write_all(&bytes.concat())
}

/// Adds the end of the run to the file in `dir`, unless it has one, or was never begun. `wall_time` is in seconds
/// since 1970.
///
/// # Errors
/// The file cannot be read or written.
pub fn end_session(dir: &Path, status: SessionStatus, wall_time: f64) -> io::Result<()> {
    let path = dir.join(NAME);
    let events = read(&path)?;
    let has_end = contents(&events).any(|content| matches!(content, HparamsContent::End(_)));
    if start_in(&events).is_none() || has_end {
        return Ok(());
    }
    let end = SessionEnd { status: status as i32, end_time_secs: wall_time };
    let bytes = bytes_of(END_TAG, HparamsContent::End(end), wall_time);
    OpenOptions::new().append(true).open(&path)?.write_all(&bytes)
}

/// The events of the file; none where it is missing.
fn read(path: &Path) -> io::Result<Vec<EventMessage>> {
    match fs::read(path) {
        Ok(bytes) => Ok(record::read_all(&bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn start_in(events: &[EventMessage]) -> Option<SessionStart> {
    contents(events).find_map(|content| match content {
        HparamsContent::Start(start) => Some(start),
        HparamsContent::Experiment(_) | HparamsContent::End(_) => None,
    })
}

/// What the events hold for the plugin.
fn contents(events: &[EventMessage]) -> impl Iterator<Item = HparamsContent> {
    let values = events.iter().flat_map(|event| match &event.content {
        Some(EventContent::Summary(summary)) => summary.value.as_slice(),
        Some(EventContent::FileVersion(_) | EventContent::SessionLog(_)) | None => &[],
    });
    values.filter_map(|value| {
        let plugin = value.metadata.as_ref()?.plugin_data.as_ref()?;
        HparamsData::decode(plugin.content.as_slice()).ok()?.content
    })
}

/// A record of the plugin: it stands in the description of a list of no numbers.
fn bytes_of(tag: &str, content: HparamsContent, wall_time: f64) -> Vec<u8> {
    let content = HparamsData { content: Some(content) }.encode_to_vec();
    let plugin_data = PluginData { plugin_name: PLUGIN.to_owned(), content };
    let value = SummaryValue {
        tag: tag.to_owned(),
        metadata: Some(SummaryMetadata {
            plugin_data: Some(plugin_data),
            ..SummaryMetadata::default()
        }),
        content: Some(SummaryContent::Tensor(TensorMessage {
            dtype: DT_FLOAT,
            tensor_shape: Some(ShapeMessage { dim: vec![ShapeDimension { size: 0 }] }),
            string_val: Vec::new(),
        })),
    };
    record::to_bytes(wall_time, 0, EventContent::Summary(SummaryMessage { value: vec![value] }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Recipe, Sources, resolve};

    fn hyperparameters(lr: f64) -> Hyperparameters {
        let sets = [format!("optimizer.lr={lr}")];
        let sources = Sources { preset: Some("smoke"), sets: &sets, ..Sources::default() };
        Hyperparameters::of(&resolve(&sources).unwrap().config, &Recipe::default())
    }

    fn found(dir: &Path) -> Vec<HparamsContent> {
        contents(&read(&dir.join(NAME)).unwrap()).collect()
    }

    /// A run that begins, goes on with another setting, ends, and is opened again at its end.
    #[test]
    fn a_run_has_one_session_whatever_became_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = &dir.path().join("tensorboard");
        // Nothing was trained yet.
        end_session(dir, SessionStatus::Success, 1.0).unwrap();
        assert!(!dir.exists());

        let check = |lr: f64, end: Option<SessionEnd>| {
            let hparams = hyperparameters(lr).to_message();
            let start = SessionStart { hparams, start_time_secs: 10.0 };
            let mut expected =
                vec![HparamsContent::Experiment(experiment()), HparamsContent::Start(start)];
            expected.extend(end.map(HparamsContent::End));
            assert_eq!(found(dir), expected);
        };
        begin_session(dir, &hyperparameters(0.5), 10.0).unwrap();
        check(0.5, None);
        begin_session(dir, &hyperparameters(0.25), 20.0).unwrap();
        check(0.25, None);
        end_session(dir, SessionStatus::Failure, 30.0).unwrap();
        check(0.25, Some(SessionEnd { status: 2, end_time_secs: 30.0 }));
        // It goes on after all.
        begin_session(dir, &hyperparameters(0.125), 40.0).unwrap();
        check(0.125, None);
        for later in [50.0, 60.0] {
            end_session(dir, SessionStatus::Success, later).unwrap();
            check(0.125, Some(SessionEnd { status: 1, end_time_secs: 50.0 }));
        }
    }

    #[test]
    fn a_torn_file_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        begin_session(dir.path(), &hyperparameters(0.5), 10.0).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in [0, 5, 40, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            // Without a start there is no end.
            end_session(dir.path(), SessionStatus::Success, 20.0).unwrap();
            assert_eq!(fs::read(&path).unwrap().len(), cut);
            begin_session(dir.path(), &hyperparameters(0.5), 10.0).unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }
}
