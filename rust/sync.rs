//! Shared values that a forked child does not hang on.
//!
//! A child of `fork` has only the thread that forked. A lock that another thread held at that moment stays locked there for
//! ever, and what another thread was making is never finished. So a lock that cannot be had is passed by (a cache that was
//! locked stays so in the child, which then computes what it needs anew), and making is taken over. What is left is the
//! moment in which a finished value is stored, a move of some nanoseconds.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, TryLockError};
use std::thread;
use std::time::Duration;

/// Tries before a lock is given up; it is only ever held for a look-up or an insertion.
const TRIES: usize = 1 << 10;
/// How long to sleep while another thread makes a value: making takes milliseconds to a second.
const NAP: Duration = Duration::from_micros(200);

/// A cache that is passed by where its lock cannot be had.
#[derive(Debug, Default)]
pub(crate) struct Cache<T>(Mutex<T>);

impl<T> Cache<T> {
    /// `work` on what is kept, or `None` where another thread has it (or had it when the process forked).
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        for _ in 0..TRIES {
            match self.0.try_lock() {
                Ok(mut kept) => return Some(work(&mut kept)),
                Err(TryLockError::Poisoned(poisoned)) => return Some(work(&mut poisoned.into_inner())),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        None
    }
}

/// A value made when it is first needed: once, by one thread, while others wait for it.
#[derive(Debug)]
pub(crate) struct Lazy<T> {
    value: OnceLock<T>,
    /// The process in which a thread is making the value; 0: none is.
    maker: AtomicU32,
}

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self { value: OnceLock::new(), maker: AtomicU32::new(0) }
    }
}

impl<T> Lazy<T> {
    /// The value, made by `make` if nobody has made it. Where a thread of a parent process was at it, this one is.
    pub fn get_or_make(&self, make: impl FnOnce() -> T) -> &T {
        loop {
            if let Some(value) = self.value.get() {
                return value;
            }
            let here = process::id();
            let maker = self.maker.load(Ordering::Acquire);
            if maker == here {
                thread::sleep(NAP);
            } else if self.maker.compare_exchange(maker, here, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                // Also after a panic in `make`: then the next thread tries.
                let _done = Done(&self.maker);
                if let Some(value) = self.value.get() {
                    return value;
                }
                let made = make();
                return self.value.get_or_init(|| made);
            }
        }
    }
}

/// Says, when dropped, that nobody is making a value any more.
struct Done<'a>(&'a AtomicU32);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn a_value_is_made_once_and_a_maker_of_another_process_is_not_waited_for() {
        let (lazy, made) = (Lazy::default(), AtomicUsize::new(0));
        lazy.maker.store(process::id() + 1, Ordering::Release); // left behind by a fork
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let value = lazy.get_or_make(|| {
                        thread::sleep(Duration::from_millis(5));
                        made.fetch_add(1, Ordering::Relaxed) + 7
                    });
                    assert_eq!(*value, 7);
                });
            }
        });
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn after_a_panic_the_next_one_makes_it() {
        let lazy: Lazy<u8> = Lazy::default();
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| *lazy.get_or_make(|| panic!("no"))));
        assert!(failed.is_err());
        assert_eq!(*lazy.get_or_make(|| 3), 3);
    }

    #[test]
    fn a_cache_that_is_held_is_passed_by() {
        let cache = Cache(Mutex::new(1));
        let held = cache.0.lock();
        assert_eq!(cache.with(|kept| *kept), None);
        drop(held);
        assert_eq!(cache.with(|kept| *kept), Some(1));
    }
}
