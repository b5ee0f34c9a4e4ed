//! Independent jobs on all processors.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// How many jobs run at a time: one for each processor.
pub fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The results of `work` for every job, in the order of the jobs. `work` also gets the number of the thread that it runs on, below
/// [`threads`]: a name for folders that no two jobs share at a time.
///
/// # Panics
/// Where `work` does, after the other threads have ended.
pub fn run<T: Sync, R: Send>(jobs: &[T], work: impl Fn(usize, &T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(jobs.len())));
    thread::scope(|scope| {
        for thread in 0..threads().min(jobs.len()) {
            let (next, done, work) = (&next, &done, &work);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(at) else { return };
                    let result = work(thread, job);
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_are_in_the_order_of_their_jobs_whichever_ends_first() {
        let jobs: Vec<u64> = (0..20).collect();
        let results = run(&jobs, |thread, job| {
            assert!(thread < threads());
            thread::sleep(Duration::from_millis((20 - job) % 7));
            job * job
        });
        assert_eq!(results, jobs.iter().map(|job| job * job).collect::<Vec<_>>());
        assert!(run(&[0_u64; 0], |_, _| ()).is_empty());
    }
}
