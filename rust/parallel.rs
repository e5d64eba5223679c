//! Work on several threads without a lasting pool.
//!
//! A global pool would be dead in a forked child (data loaders fork), and loading would hang there. Scoped
//! threads cost about 20 µs each, nothing next to what they are started for.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// `threads`, or as many as the machine offers where it is 0.
pub(crate) fn resolve(threads: usize) -> usize {
    if threads > 0 { threads } else { thread::available_parallelism().map_or(1, std::num::NonZero::get) }
}

/// Applies `work` to the blocks of `grain` items that make up 0..`len`; results in order. One block, or one
/// thread, starts nothing.
pub(crate) fn map_blocks<T, F>(len: usize, grain: usize, threads: usize, work: F) -> Vec<T>
where
    T: Send,
    F: Fn(Range<usize>) -> T + Sync,
{
    let grain = grain.max(1);
    let blocks = len.div_ceil(grain);
    let block = |i: usize| i * grain..((i + 1) * grain).min(len);
    let threads = resolve(threads).min(blocks);
    if threads <= 1 {
        return (0..blocks).map(|i| work(block(i))).collect();
    }
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= blocks {
                return done;
            }
            done.push((i, work(block(i))));
        }
    };
    let mut done: Vec<(usize, T)> = thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut done = worker();
        for helper in helpers {
            match helper.join() {
                Ok(part) => done.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|&(i, _)| i);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Rows that a thread takes at a time.
const ROWS: usize = 16;

/// Fills `out`, rows of `width` items, in place: `fill` gets a row's number and the row.
pub(crate) fn fill_rows<T: Send>(out: &mut [T], width: usize, threads: usize, fill: impl Fn(usize, &mut [T]) + Sync) {
    let width = width.max(1);
    let fill_block = |(block, rows): (usize, &mut [T])| {
        rows.chunks_mut(width).enumerate().for_each(|(at, row)| fill(block * ROWS + at, row));
    };
    let threads = resolve(threads).min(out.len().div_ceil(ROWS * width));
    let blocks = out.chunks_mut(ROWS * width).enumerate();
    if threads <= 1 {
        return blocks.for_each(fill_block);
    }
    let blocks = Mutex::new(blocks);
    let worker = || {
        loop {
            let next = blocks.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(block) = next else { return };
            fill_block(block);
        }
    };
    // The scope passes a panic on.
    thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(worker)));
        worker();
    });
}

#[cfg(test)]
mod tests {
    use super::{fill_rows, map_blocks};

    #[test]
    fn blocks_cover_the_range_in_order() {
        for threads in 1..4 {
            let parts = map_blocks(10, 3, threads, Iterator::collect::<Vec<_>>);
            assert_eq!(parts.concat(), (0..10).collect::<Vec<_>>());
        }
        assert!(map_blocks(0, 3, 2, |range| range.len()).is_empty());
    }

    #[test]
    fn every_row_is_filled_by_its_number() {
        for (rows, threads) in [(0, 2), (1, 2), (50, 1), (50, 3)] {
            let mut out = vec![0; rows * 7];
            fill_rows(&mut out, 7, threads, |at, row| row.fill(at));
            assert!(out.iter().enumerate().all(|(at, &value)| value == at / 7));
        }
    }
}
