//! Trains, resumes, evaluates and uses BN-Inception.
//!
//! The library behind the binary `bninception`. [`commands`] turns a command line ([`cli`]) into
//! settings ([`config`]), [`setup`] turns those into objects, and [`mod@train`] is the loop.
#![forbid(unsafe_code)]

pub mod atomic_file;
pub mod calibrate;
pub mod checkpoint;
pub mod classes;
pub mod cli;
pub mod commands;
pub mod comparison;
pub mod config;
pub mod course;
pub mod csv;
pub mod data_dirs;
pub mod divergence;
pub mod ensemble;
pub mod error;
pub mod evaluate;
pub mod figure;
pub mod image_lists;
pub mod journal;
pub mod logging;
pub mod memory_limit;
pub mod metadata;
pub mod metrics;
#[cfg(feature = "mnist")]
pub mod mnist;
pub mod needs;
pub mod output;
pub mod own_images;
pub mod progress;
pub mod recorded_run;
pub mod report;
pub mod report_folder;
pub mod run_folder;
pub mod run_lock;
pub mod run_log;
pub mod saver;
pub mod schedule;
pub mod setup;
pub mod signals;
pub mod state;
pub mod statistics;
pub mod tensorboard;
pub mod text;
pub mod train;
pub mod watch;
pub mod watch_figure;
