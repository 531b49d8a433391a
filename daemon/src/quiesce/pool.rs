//! Threads for calls that block in the kernel: one job each at a time, started before the first freeze.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

/// Enough for an ioctl and a little bookkeeping; every thread's stack stays locked in memory.
const STACK: usize = 128 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// A bounded number of threads. Dropping it lets them go when their job is done; a stuck one is not waited for.
#[derive(Debug)]
pub struct Pool {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queue")
    }
}

impl Pool {
    /// Starts `threads` threads.
    ///
    /// # Errors
    /// What the kernel says to the start of a thread.
    pub fn start(threads: usize) -> io::Result<Self> {
        let pool = Self {
            queue: Arc::default(),
        };
        for _ in 0..threads {
            pool.add_thread()?;
        }
        Ok(pool)
    }

    /// One thread more, in place of one that does not come back.
    ///
    /// # Errors
    /// What the kernel says to the start of a thread.
    pub fn add_thread(&self) -> io::Result<()> {
        let queue = Arc::clone(&self.queue);
        thread::Builder::new()
            .name("freeze".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                while let Some(job) = queue.next() {
                    job();
                }
            })
            .map(drop)
    }

    /// Queues `job` for the next free thread.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) {
        self.queue.lock().jobs.push_back(Box::new(job));
        self.queue.changed.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; waits for one, and ends once the pool is dropped and all jobs are taken.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_stuck_job_does_not_keep_the_others_once_a_thread_is_added() {
        let pool = Pool::start(1).unwrap();
        let (release, stuck) = mpsc::channel::<()>();
        let (done, results) = mpsc::channel();
        pool.submit(move || assert!(stuck.recv().is_err()));
        let sender = done.clone();
        pool.submit(move || sender.send(1).unwrap());
        assert!(results.recv_timeout(Duration::from_millis(20)).is_err());
        pool.add_thread().unwrap();
        assert_eq!(results.recv_timeout(Duration::from_secs(20)), Ok(1));
        drop(release);
    }

    #[test]
    fn jobs_queued_before_the_end_are_still_done() {
        let (done, results) = mpsc::channel();
        let pool = Pool::start(2).unwrap();
        for number in 0..100 {
            let done = done.clone();
            pool.submit(move || done.send(number).unwrap());
        }
        drop((pool, done));
        assert_eq!(results.iter().count(), 100);
    }
}
