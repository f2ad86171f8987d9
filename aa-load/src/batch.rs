//! Many pieces of work on all cores, results in order, memory bounded.

use std::collections::BTreeMap;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

/// Does `work` on each item with up to `jobs` threads and hands the results to `sink` in the order of the items, as
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
    let items = Mutex::new((0_u64..).zip(items));
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
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
        let started = (0..if jobs > 1 { jobs } else { 0 })
            .take_while(|_| Builder::new().spawn_scoped(scope, worker(sender.clone())).is_ok())
            .count();
        drop(sender);
        if started == 0 {
            while let Some((_, item)) = next() {
                if !sink(work(item)) {
                    return;
                }
            }
            return;
        }
        let mut early = BTreeMap::new();
        let mut due = 0;
        for (number, result) in results {
            early.insert(number, result);
            while let Some(result) = early.remove(&due) {
                due += 1;
                if !sink(result) {
                    // Dropping the receiver on return ends the workers.
                    return;
                }
            }
        }
    });
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
