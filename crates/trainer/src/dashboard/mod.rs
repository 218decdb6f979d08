//! `dashboard`: the runs of a folder as a page that a program on this machine serves while they train.
//!
//! It reads and never writes. A request names a run by its id in the list of runs, and no path is made of what
//! a request says.
//!
//! ```text
//! run_files: a folder             -> which files of a run it has, and whether one of them changed
//! tail:      a file               -> its last lines
//! eta:       how far, how fast    -> when a run ends
//! catalogue: a folder             -> its runs, and a row on each (row) with what is read for it (look)
//! log_tail:  train.log            -> what was said last, and what is new since
//! curves:    runs                 -> their charts, thinned and kept
//! details:   a run                -> its settings
//! page:                              the document
//! server:    requests             -> answers
//! beside:    a run that trains    -> the same from a thread of it
//! ```

pub mod beside;
pub mod catalogue;
pub mod curves;
pub mod details;
pub mod eta;
pub mod log_tail;
pub mod look;
pub mod page;
pub mod row;
pub mod run_files;
pub mod server;
pub mod tail;
