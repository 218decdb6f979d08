//! What a person sees and sends: results, progress, the log, signals, and how numbers are written.

pub mod color;
pub mod csv_file;
mod log_line;
pub mod logging;
pub mod loss;
pub mod output;
pub mod progress;
pub mod signals;
mod sparkline;
pub mod text;
