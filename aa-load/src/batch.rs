//! Many pieces of work on all cores, results in order, memory bounded.

use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};

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
    if jobs <= 1 {
        for item in items {
            if !sink(work(item)) {
                return;
            }
        }
        return;
    }
    let (item_sender, item_receiver) = sync_channel::<(u64, T)>(jobs);
    let (result_sender, result_receiver) = sync_channel::<(u64, R)>(jobs);
    let item_receiver = Mutex::new(item_receiver);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for item in (0..).zip(items) {
                if item_sender.send(item).is_err() {
                    return;
                }
            }
        });
        let receiver = std::sync::Arc::new(item_receiver);
        for _ in 0..jobs {
            let (receiver, sender, work) = (std::sync::Arc::clone(&receiver), result_sender.clone(), &work);
            scope.spawn(move || {
                loop {
                    let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((number, item)) = next else { return };
                    if sender.send((number, work(item))).is_err() {
                        return;
                    }
                }
            });
        }
        drop((receiver, result_sender));
        let mut early = BTreeMap::new();
        let mut due = 0;
        for (number, result) in result_receiver {
            early.insert(number, result);
            while let Some(result) = early.remove(&due) {
                due += 1;
                if !sink(result) {
                    // Dropping the receiver on return ends the workers, and they the reader.
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
