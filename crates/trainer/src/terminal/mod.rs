//! What a person sees and sends: results, progress, the log, signals, and how numbers are written.

pub mod csv_file;
pub mod logging;
pub mod loss;
pub mod output;
pub mod progress;
pub mod signals;
pub mod text;
