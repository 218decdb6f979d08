//! Progress of long work on stderr: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where there is no terminal, the first line comes after this long, and so does each further one.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// All bars; the log is written past them, so that neither breaks the other.
fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
}

/// Stderr for the log: lines appear above the bars.
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bars().suspend(|| io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Counts units of work (images) and shows rate, time left and the share of waiting for data.
pub struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    start: Instant,
    waited: Duration,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Progress {
    /// Starts showing `total` units of `what`.
    pub fn start(what: &'static str, total: u64) -> Progress {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = bars().add(ProgressBar::new(total));
            let template = "{prefix} {wide_bar} {pos}/{len} {msg} ETA {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(what);
            bar
        });
        let now = Instant::now();
        let waited = Duration::ZERO;
        Progress { what, total, done: 0, start: now, waited, bar, last_line: now }
    }

    /// Counts `units` more, for which `wait` was spent waiting for data.
    pub fn advance(&mut self, units: u64, wait: Duration) {
        self.done += units;
        self.waited += wait;
        let mut rate = format!("{:.1} img/s", self.rate());
        if !self.waited.is_zero() {
            rate.push_str(&format!(", data wait {:.0} %", 100.0 * self.wait_share()));
        }
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.done);
                bar.set_message(rate);
            }
            None if self.last_line.elapsed() >= PLAIN_INTERVAL && self.done < self.total => {
                self.last_line = Instant::now();
                let (what, done, total) = (self.what, self.done, self.total);
                let left = (total - done) as f64 / self.rate();
                tracing::info!("{what} {done}/{total}, {rate}, {} left", duration(left));
            }
            None => {}
        }
    }

    /// Units per second so far.
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.start.elapsed().as_secs_f64().max(1e-9)
    }

    /// Fraction of the time so far that was spent waiting for data.
    pub fn wait_share(&self) -> f64 {
        self.waited.as_secs_f64() / self.start.elapsed().as_secs_f64().max(1e-9)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            bars().remove(bar);
        }
    }
}

/// A [`Progress`] that several threads advance, and that begins when the total is known.
pub struct SharedProgress {
    what: &'static str,
    shown: Mutex<Option<Progress>>,
}

impl SharedProgress {
    /// Shows nothing yet.
    pub fn new(what: &'static str) -> SharedProgress {
        SharedProgress { what, shown: Mutex::new(None) }
    }

    /// Starts showing `total` units.
    pub fn start(&self, total: usize) {
        *self.lock() = Some(Progress::start(self.what, total as u64));
    }

    /// Counts `units` more.
    pub fn advance(&self, units: usize) {
        if let Some(progress) = self.lock().as_mut() {
            progress.advance(units as u64, Duration::ZERO);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Progress>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds as a person says them: `45s`, `12m05s`, `3h20m`, `2d04h`.
pub fn duration(seconds: f64) -> String {
    let seconds = if seconds.is_finite() { seconds.round() as u64 } else { 0 };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        for (seconds, text) in [
            (0.4, "0s"),
            (59.4, "59s"),
            (60.0, "1m00s"),
            (725.0, "12m05s"),
            (12_000.0, "3h20m"),
            (187_200.0, "2d04h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
