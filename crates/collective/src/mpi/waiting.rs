//! What a rank does while it waits: it lets the library work, and after a while says for whom it waits.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

/// Seconds behind which a rank says for whom it waits, in place of [`PATIENCE`].
const VARIABLE: &str = "BNINCEPTION_MPI_PATIENCE";

/// Horovod's stall inspector warns after the same time (`horovod/common/stall_inspector.h`).
const PATIENCE: Duration = Duration::from_secs(60);

/// Behind this part of the patience a rank tells the others that it is waiting.
const NOTICE: u32 = 6;

/// Up to here a waiting rank asks the library again and again; behind, other threads of the machine come first.
const EAGER: Duration = Duration::from_millis(2);

/// Behind this a rank sleeps between two questions: the others are late by much more than a sleep.
const LAZY: Duration = Duration::from_secs(2);

/// How long it sleeps then.
const NAP: Duration = Duration::from_micros(500);

/// A wait for a call.
pub(super) struct Waiting {
    start: Instant,
    patience: Duration,
    has_told: bool,
    has_warned: bool,
}

/// What a waiting rank should do before it asks the library again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask.
    Ask,
    /// Tell the others that it waits.
    Tell,
    /// Say for whom it waits.
    Warn,
}

impl Waiting {
    pub(super) fn start(patience: Duration) -> Waiting {
        Waiting { start: Instant::now(), patience, has_told: false, has_warned: false }
    }

    /// Lets others have the core, the more the longer it waits.
    pub(super) fn pause(&mut self) -> Next {
        let waited = self.start.elapsed();
        match waited {
            _ if waited < EAGER => std::hint::spin_loop(),
            _ if waited < LAZY => thread::yield_now(),
            _ => thread::sleep(NAP),
        }
        if !self.has_told && waited >= self.patience / NOTICE {
            self.has_told = true;
            return Next::Tell;
        }
        if !self.has_warned && waited >= self.patience {
            self.has_warned = true;
            return Next::Warn;
        }
        Next::Ask
    }

    /// How long it has waited.
    pub(super) fn waited(&self) -> Duration {
        self.start.elapsed()
    }

    /// Whether it has said that it waits.
    pub(super) fn has_warned(&self) -> bool {
        self.has_warned
    }
}

/// How long ranks wait before they say so.
pub(super) fn patience() -> Duration {
    let asked = env::var(VARIABLE).ok().and_then(|text| text.trim().parse::<f64>().ok());
    asked.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(PATIENCE)
}

/// Ranks in words, such as `rank 2` or `ranks 1, 2 and 5`; of many the first.
pub(super) fn ranks_in_words(ranks: &[usize]) -> String {
    const MOST: usize = 8;
    let names: Vec<String> = ranks.iter().take(MOST).map(usize::to_string).collect();
    match (names.as_slice(), ranks.len()) {
        ([], _) => "no rank".to_owned(),
        ([one], 1) => format!("rank {one}"),
        (names, n) if n > MOST => format!("ranks {} and {} more", names.join(", "), n - MOST),
        ([first @ .., last], _) => format!("ranks {} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_tells_and_then_warns_once() {
        let mut waiting = Waiting::start(Duration::ZERO);
        let found: Vec<Next> = (0..4).map(|_| waiting.pause()).collect();
        assert_eq!(found, [Next::Tell, Next::Warn, Next::Ask, Next::Ask]);
        let mut waiting = Waiting::start(Duration::from_secs(3600));
        assert_eq!(waiting.pause(), Next::Ask);
    }

    #[test]
    fn ranks_are_listed() {
        let many: Vec<usize> = (0..12).collect();
        for (ranks, text) in [
            (&[][..], "no rank"),
            (&[2], "rank 2"),
            (&[1, 2], "ranks 1 and 2"),
            (&[1, 2, 5], "ranks 1, 2 and 5"),
            (&many, "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 4 more"),
        ] {
            assert_eq!(ranks_in_words(ranks), text);
        }
    }
}
