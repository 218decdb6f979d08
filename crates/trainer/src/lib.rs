//! Trains, resumes, evaluates and uses BN-Inception.
//!
//! The library behind the binary `bninception`. [`commands`] turns a command line ([`cli`]) into
//! settings ([`config`]), [`setup`] turns those into objects, [`images`] finds what to learn from,
//! and [`mod@training::train`] is the loop.
#![forbid(unsafe_code)]

pub mod cli;
pub mod commands;
pub mod comparison;
pub mod config;
pub mod dashboard;
pub mod device;
pub mod distributed;
pub mod error;
pub mod evaluation;
pub mod export;
pub mod figure;
pub mod file_error;
pub mod images;
pub mod import;
pub mod machine;
#[cfg(feature = "mnist")]
pub mod mnist;
pub mod page;
pub mod probe;
pub mod report;
pub mod run;
pub mod setup;
pub mod terminal;
pub mod training;
