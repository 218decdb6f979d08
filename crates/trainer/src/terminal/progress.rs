//! Progress of long work on stderr: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{MultiProgress, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::terminal::text::duration;

/// Where there is no terminal, the first line comes after this long, and so does each further one.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// How often bars are drawn in a second, at most: as often as indicatif does on a terminal.
const DRAWS_PER_SECOND: u8 = 20;

/// All bars; the log is written past them, so that neither breaks the other.
fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(|| {
        MultiProgress::with_draw_target(match io::stderr().is_terminal() {
            true => ProgressDrawTarget::term_like_with_hz(
                Box::new(Terminal { term: Term::buffered_stderr(), gone: AtomicBool::new(false) }),
                DRAWS_PER_SECOND,
            ),
            false => ProgressDrawTarget::hidden(),
        })
    })
}

/// The terminal on which bars are drawn, or nothing once it cannot be written: whoever closes it does
/// not end the run. (indicatif panics if it cannot clear a bar, and its buffer would grow.)
#[derive(Debug)]
struct Terminal {
    term: Term,
    gone: AtomicBool,
}

impl Terminal {
    fn draw(&self, draw: impl FnOnce(&Term) -> io::Result<()>) -> io::Result<()> {
        if !self.gone.load(Ordering::Relaxed) && draw(&self.term).is_err() {
            self.gone.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        self.term.size().1
    }

    fn height(&self) -> u16 {
        self.term.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.draw(|term| term.move_cursor_up(n))
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.draw(|term| term.move_cursor_down(n))
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.draw(|term| term.move_cursor_right(n))
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.draw(|term| term.move_cursor_left(n))
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.draw(|term| term.write_line(text))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.draw(|term| term.write_str(text))
    }

    fn clear_line(&self) -> io::Result<()> {
        self.draw(Term::clear_line)
    }

    fn flush(&self) -> io::Result<()> {
        self.draw(Term::flush)
    }
}

/// Whether nothing is shown: another process of the run shows it.
static HIDDEN: AtomicBool = AtomicBool::new(false);

/// Shows no progress from now on.
pub fn hide_progress() {
    HIDDEN.store(true, Ordering::Relaxed);
}

/// Stderr for the log: lines appear above the bars. A terminal that is closed or a file on a full disk
/// must not end a run for want of a log line, so errors of writing are not passed on.
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = bars().suspend(|| io::stderr().write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts units of work (images) and shows rate, time left and the share of waiting for data.
pub struct ProgressBar {
    what: String,
    /// Stands in front of the rate; may be empty.
    said: String,
    total: u64,
    done: u64,
    start: Instant,
    waited: Duration,
    bar: Option<indicatif::ProgressBar>,
    last_line: Instant,
}

impl ProgressBar {
    /// Starts showing `total` units of `what`.
    pub fn start(what: impl Into<String>, total: u64) -> ProgressBar {
        let what = what.into();
        let is_shown = io::stderr().is_terminal() && !HIDDEN.load(Ordering::Relaxed);
        let bar = is_shown.then(|| {
            let bar = bars().add(indicatif::ProgressBar::new(total));
            let template = "{prefix} {wide_bar} {pos}/{len} {msg} ETA {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(what.clone());
            bar
        });
        let now = Instant::now();
        let waited = Duration::ZERO;
        let said = String::new();
        ProgressBar { what, said, total, done: 0, start: now, waited, bar, last_line: now }
    }

    /// Shows `text` in front of the rate from now on.
    pub fn say(&mut self, text: &str) {
        text.clone_into(&mut self.said);
    }

    /// Counts `units` more, for which `wait` was spent waiting for data.
    pub fn advance(&mut self, units: u64, wait: Duration) {
        self.done += units;
        self.waited += wait;
        let gap = if self.said.is_empty() { "" } else { ", " };
        let mut rate = format!("{}{gap}{:.1} img/s", self.said, self.rate());
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
                let (what, done, total) = (&self.what, self.done, self.total);
                let left = (total - done) as f64 / self.rate();
                tracing::info!("{what}: {done}/{total}, {rate}, {} left", duration(left));
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

impl Drop for ProgressBar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            bars().remove(bar);
        }
    }
}

/// A [`ProgressBar`] that several threads advance, and that begins when the total is known.
pub struct SharedProgress {
    what: &'static str,
    shown: Mutex<Option<ProgressBar>>,
}

impl SharedProgress {
    /// Shows nothing yet.
    pub fn new(what: &'static str) -> SharedProgress {
        SharedProgress { what, shown: Mutex::new(None) }
    }

    /// Starts showing `total` units.
    pub fn start(&self, total: usize) {
        *self.lock() = Some(ProgressBar::start(self.what, total as u64));
    }

    /// Counts `units` more.
    pub fn advance(&self, units: usize) {
        if let Some(progress) = self.lock().as_mut() {
            progress.advance(units as u64, Duration::ZERO);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_terminal_that_is_gone_ends_nothing() {
        use std::fs::{File, OpenOptions};
        // A file that takes nothing, as a terminal that was closed.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let term = Term::read_write_pair(File::open("/dev/null").unwrap(), full);
        assert!(term.write_str("x").is_err());
        let terminal = Box::new(Terminal { term, gone: AtomicBool::new(false) });
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::term_like(terminal));
        let bar = bars.add(indicatif::ProgressBar::new(10));
        for position in 1..10 {
            bar.set_position(position);
            bar.tick();
            assert_eq!(bars.suspend(|| position), position);
        }
        bar.finish_and_clear();
        bars.remove(&bar);
    }
}
