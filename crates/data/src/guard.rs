//! Panics: of the image decoders, and while a lock is held.
//!
//! The decoders are large and meet hostile bytes: a panic of theirs condemns the image, not the run. It
//! becomes an error that has the panic's message, so that the program's panic hook need not print it
//! too. The first call puts a hook in front of the one that is there. It passes on every panic but
//! those of a thread inside [`guarded`], and a hook that is set later replaces it as any other.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use crate::error::DecodeError;

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send>;

thread_local! {
    /// Whether this thread is inside [`guarded`].
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, which calls nothing but decoders, and makes an error of its panic. All that it could
/// leave half-done must be memory that is dropped with it.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    static HOOK: Once = Once::new();
    // A thread that panics already may not change the hook.
    if !std::thread::panicking() {
        HOOK.call_once(|| set_hook(for_others(take_hook())));
    }
    let before = IS_GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    IS_GUARDED.set(before);
    done.unwrap_or_else(|panic| {
        let message = panic_message(panic.as_ref());
        Err(DecodeError::Corrupt(format!("the decoder panicked: {message}")))
    })
}

/// A hook that calls `hook` for all panics but those inside [`guarded`].
fn for_others(hook: Hook) -> Hook {
    Box::new(move |panic| {
        if !IS_GUARDED.get() {
            hook(panic);
        }
    })
}

/// The text of a panic, which is a string in all but odd cases.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// Locks `mutex`; what is behind it is whole at every moment, whoever panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_panic_inside_is_an_error_that_nobody_prints_and_others_reach_the_hook() {
        let printed = Arc::new(Mutex::new(Vec::new()));
        let ours = std::thread::current().id();
        let others = Mutex::new(take_hook());
        let seen = printed.clone();
        set_hook(Box::new(move |panic| match std::thread::current().id() == ours {
            true => seen.lock().unwrap().push(panic_message(panic.payload())),
            false => (others.lock().unwrap())(panic),
        }));
        // The first call may have been that of another test, so that this hook is in front of the guard's.
        set_hook(for_others(take_hook()));
        let error = guarded(|| -> Result<(), _> { panic!("inside") }).unwrap_err();
        assert_eq!(error.to_string(), "the decoder panicked: inside");
        let outside = catch_unwind(|| panic!("outside"));
        assert!(outside.is_err());
        assert_eq!(*printed.lock().unwrap(), ["outside"]);
        assert_eq!(guarded(|| Ok(5)).unwrap(), 5);
    }
}
