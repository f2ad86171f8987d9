//! Many pieces of work on all cores, results in order, memory bounded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

/// More threads than any host gains by.
pub const MOST_JOBS: u16 = 1024;

/// Does `work` on each item with up to `jobs` threads, and at most [`MOST_JOBS`], and hands the results to `sink` in the order of the items, as
/// soon as they are there. Items are taken as they come, so a pipe is read while earlier items are worked on.
/// `sink` says whether to go on.
pub fn ordered<T, R>(
    jobs: usize,
    items: impl Iterator<Item = T> + Send,
    work: impl Fn(T) -> R + Sync,
    mut sink: impl FnMut(R) -> bool,
) where
    T: Send,
    R: Send,
{
    if jobs <= 1 {
        one_by_one(items, work, sink);
        return;
    }
    let jobs = jobs.min(usize::from(MOST_JOBS));
    let items = Mutex::new((0_u64..).zip(items));
    let is_over = AtomicBool::new(false);
    let next = || {
        let mut items = items.lock().unwrap_or_else(PoisonError::into_inner);
        let go_on = || !is_over.load(Ordering::Relaxed);
        // An item may come long after the last result was taken.
        if go_on() { items.next().filter(|_| go_on()) } else { None }
    };
    let (sender, results) = sync_channel::<(u64, R)>(jobs);
    std::thread::scope(|scope| {
        let (next, work) = (&next, &work);
        let worker = |sender: SyncSender<(u64, R)>| {
            move || {
                while let Some((number, item)) = next() {
                    if sender.send((number, work(item))).is_err() {
                        return;
                    }
                }
            }
        };
        // As many threads as the host has; this one does the work itself if there is no other.
        let started = (0..jobs)
            .take_while(|_| Builder::new().spawn_scoped(scope, worker(sender.clone())).is_ok())
            .count();
        drop(sender);
        if started == 0 {
            let items = std::iter::from_fn(|| next().map(|(_, item)| item));
            one_by_one(items, work, sink);
            return;
        }
        let mut early = BTreeMap::new();
        let mut due = 0;
        for (number, result) in results {
            early.insert(number, result);
            while let Some(result) = early.remove(&due) {
                due += 1;
                if !sink(result) {
                    is_over.store(true, Ordering::Relaxed);
                    // Dropping the receiver on return ends the workers.
                    return;
                }
            }
        }
    });
}

fn one_by_one<T, R>(items: impl Iterator<Item = T>, work: impl Fn(T) -> R, mut sink: impl FnMut(R) -> bool) {
    for item in items {
        if !sink(work(item)) {
            return;
        }
    }
}

/// The results of `work` on all items, in their order, by [`ordered`].
pub(crate) fn all<T: Send, R: Send>(
    jobs: usize,
    items: impl Iterator<Item = T> + Send,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let mut results = Vec::new();
    let keep = |result| {
        results.push(result);
        true
    };
    ordered(jobs, items, work, keep);
    results
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn results_keep_the_order_of_the_items() {
        for jobs in [1, 2, 7] {
            let mut seen = Vec::new();
            let work = |n: u64| {
                std::thread::sleep(Duration::from_micros((n * 7919) % 500));
                n * 2
            };
            let keep = |n| {
                seen.push(n);
                true
            };
            ordered(jobs, 0..200, work, keep);
            assert_eq!(seen, (0..200).map(|n| n * 2).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn what_comes_after_the_end_is_not_worked_on() {
        let (sender, items) = std::sync::mpsc::channel();
        let worked = Mutex::new(Vec::new());
        sender.send(0).unwrap();
        let sink = |()| {
            // By now another worker waits for the next item; it comes when this is over.
            let sender = sender.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(200));
                assert!(sender.send(1).is_ok());
            });
            false
        };
        let work = |item: u32| worked.lock().unwrap().push(item);
        ordered(4, items.into_iter(), work, sink);
        assert_eq!(*worked.lock().unwrap(), [0]);
    }

    #[test]
    fn any_number_of_jobs_is_as_good() {
        let mut seen = 0;
        ordered(
            usize::MAX,
            0..3,
            |n| n,
            |_| {
                seen += 1;
                true
            },
        );
        assert_eq!(seen, 3);
    }

    #[test]
    fn a_sink_that_is_full_ends_it_all() {
        for jobs in [1, 4] {
            let mut seen = 0;
            let count = |_| {
                seen += 1;
                seen < 5
            };
            ordered(jobs, 0..u64::MAX, |n| n, count);
            assert_eq!(seen, 5);
        }
    }
}
