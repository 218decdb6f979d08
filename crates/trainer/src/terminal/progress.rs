//! Progress of long work on stderr: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{MultiProgress, ProgressDrawTarget, ProgressStyle, TermLike};

use crate::terminal::sparkline::sparkline;
use crate::terminal::text::duration;

/// Where there is no terminal, the first line comes after this long, and so does each further one.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// How often bars are drawn in a second, at most: as often as indicatif does on a terminal.
const DRAWS_PER_SECOND: u8 = 20;

/// From so many columns on, a bar has room for a curve beside it, and for how long data was waited for.
const WIDE: u16 = 100;

/// A share of the time that waiting for data has to have, to be told.
const SOME_WAIT: f64 = 0.01;

/// The same in fewer columns.
const LONG_WAIT: f64 = 0.1;

/// All bars; the log is written past them, so that neither breaks the other.
fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(|| {
        MultiProgress::with_draw_target(match has_bars() {
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

/// Whether progress comes as lines of the log on a terminal too: programs read them.
static IN_LINES: AtomicBool = AtomicBool::new(false);

/// Shows progress as lines of the log from now on.
pub fn progress_in_lines() {
    IN_LINES.store(true, Ordering::Relaxed);
}

/// Whether progress is drawn: stderr is a terminal, one that can draw over a line.
fn has_bars() -> bool {
    let is_dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
    io::stderr().is_terminal() && !is_dumb && !IN_LINES.load(Ordering::Relaxed)
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
    /// Blocks that stand behind it where there is room; may be empty.
    curve: String,
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
        let is_shown = has_bars() && !HIDDEN.load(Ordering::Relaxed);
        let bar = is_shown.then(|| {
            let bar = bars().add(indicatif::ProgressBar::new(total));
            let template = "{prefix:.bold} {wide_bar:.cyan} {pos}/{len} {msg} ETA {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(what.clone());
            bar
        });
        let now = Instant::now();
        ProgressBar {
            what,
            said: String::new(),
            curve: String::new(),
            total,
            done: 0,
            start: now,
            waited: Duration::ZERO,
            bar,
            last_line: now,
        }
    }

    /// Shows `text` in front of the rate from now on.
    pub fn say(&mut self, text: &str) {
        text.clone_into(&mut self.said);
    }

    /// Draws `values` behind what is said from now on, on a terminal that is wide enough.
    pub fn draw(&mut self, values: &[f64]) {
        if self.bar.is_some() {
            self.curve = sparkline(values);
        }
    }

    /// Counts `units` more, for which `wait` was spent waiting for data.
    pub fn advance(&mut self, units: u64, wait: Duration) {
        self.done += units;
        self.waited += wait;
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.done);
                bar.set_message(self.message(Some(Term::stderr().size().1)));
            }
            None if self.last_line.elapsed() >= PLAIN_INTERVAL && self.done < self.total => {
                self.last_line = Instant::now();
                let (what, done, total) = (&self.what, self.done, self.total);
                let (rate, wait) = (self.rate(), self.wait_share());
                let (message, left) = (self.message(None), (total - done) as f64 / rate);
                tracing::info!(
                    done,
                    total,
                    images_per_second = rate,
                    data_wait = wait,
                    seconds_left = left,
                    "{what}: {done}/{total}, {message}, {} left",
                    duration(left)
                );
            }
            None => {}
        }
    }

    /// What stands behind the counts, in a terminal of `columns` or in a line of the log.
    fn message(&self, columns: Option<u16>) -> String {
        let is_wide = columns.is_none_or(|columns| columns >= WIDE);
        let mut parts = Vec::new();
        match is_wide && !self.curve.is_empty() {
            true => parts.push(format!("{} {}", self.said, self.curve)),
            false if self.said.is_empty() => {}
            false => parts.push(self.said.clone()),
        }
        parts.push(format!("{:.1} img/s", self.rate()));
        let wait = self.wait_share();
        if wait >= if is_wide { SOME_WAIT } else { LONG_WAIT } {
            parts.push(format!("data wait {:.0} %", 100.0 * wait));
        }
        parts.join(", ")
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

    #[test]
    fn a_narrow_terminal_has_what_matters() {
        let mut progress = ProgressBar::start("epoch 1/2", 100);
        progress.start = Instant::now().checked_sub(Duration::from_secs(1000)).unwrap();
        progress.done = 50_000;
        // (said, curve, waited, columns, what the message begins with and ends with)
        for (said, curve, waited, columns, start, end) in [
            ("", "", 0, Some(80), "50.0 img/s", "img/s"),
            ("loss 1 top-1 9 %", "▇▁", 0, Some(80), "loss 1 top-1 9 %, 5", "img/s"),
            ("loss 1 top-1 9 %", "▇▁", 0, Some(100), "loss 1 top-1 9 % ▇▁, 5", "img/s"),
            ("loss 1", "", 50, Some(80), "loss 1, 5", "img/s"),
            ("loss 1", "", 50, Some(120), "loss 1, 5", "img/s, data wait 5 %"),
            ("loss 1", "", 50, None, "loss 1, 5", "img/s, data wait 5 %"),
            ("loss 1", "", 2, Some(120), "loss 1, 5", "img/s"),
            ("loss 1", "", 200, Some(80), "loss 1, 5", "img/s, data wait 20 %"),
        ] {
            progress.said = said.to_owned();
            progress.curve = curve.to_owned();
            progress.waited = Duration::from_secs(waited);
            let message = progress.message(columns);
            assert!(message.starts_with(start) && message.ends_with(end), "{message}");
        }
    }

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
