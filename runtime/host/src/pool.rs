//! Worker threads for plugin calls. WebAssembly runs synchronously and for bounded time, so that plain threads and one bounded
//! queue are all it takes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::error::{Error, Result};

/// Stack of a worker: the guest's 1 MiB and plenty for the host below it.
const STACK_BYTES: usize = 8 << 20;
/// Jobs that wait. Whoever submits more waits too, which bounds what waiting batches take to about this many times 4 MiB.
const QUEUE: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

/// Dedicated threads that run jobs in the order they came.
pub struct Pool {
    queue: Option<Sender<Job>>,
    workers: Vec<thread::JoinHandle<()>>,
    closing: Arc<AtomicBool>,
}

impl Pool {
    /// Starts `threads` workers.
    pub fn start(threads: usize) -> Result<Self> {
        let (queue, jobs) = bounded(QUEUE);
        let mut pool = Pool { queue: Some(queue), workers: Vec::new(), closing: Arc::default() };
        for index in 0..threads {
            let jobs: Receiver<Job> = jobs.clone();
            let closing = Arc::clone(&pool.closing);
            let worker = thread::Builder::new()
                .name(format!("plumb-plugin-{index}"))
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    for job in jobs {
                        if closing.load(Ordering::Relaxed) {
                            continue;
                        }
                        // The job's reply channel is dropped by the unwinding, which tells whoever waits; the worker goes on.
                        let _ = catch_unwind(AssertUnwindSafe(job));
                    }
                })
                .map_err(|error| Error::Host { message: format!("cannot start a thread: {error}") })?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Queues a job and returns a channel with its result; waits while the queue is full. The channel is closed without a
    /// result if the job panics.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
        let (reply, result) = bounded(1);
        if let Some(queue) = &self.queue {
            // Fails only once the workers are gone, and then `result` is closed: as after a panic.
            let _ = queue.send(Box::new(move || {
                // Nobody may be waiting any more.
                let _ = reply.send(job());
            }));
        }
        result
    }
}

impl Drop for Pool {
    /// Lets the workers finish the jobs they are at, and drops those that wait: whoever could use an answer has gone, or sees its
    /// channel closed.
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        drop(self.queue.take());
        for worker in self.workers.drain(..) {
            // Jobs' panics are caught above.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn pool_survives_a_panicking_job() {
        let pool = Pool::start(1).unwrap();
        let failed = pool.run(|| panic!("a job of the test"));
        let worked = pool.run(|| 7);
        assert!(failed.recv().is_err());
        assert_eq!(worked.recv(), Ok(7));
    }

    #[test]
    fn pool_drops_waiting_jobs_when_it_goes() {
        let done = Arc::new(AtomicUsize::new(0));
        let pool = Pool::start(1).unwrap();
        let (go, gate) = bounded::<()>(0);
        let (begun, first) = bounded(1);
        let running = pool.run(move || {
            begun.send(()).unwrap();
            // Until the pool is closing.
            let _ = gate.recv();
            7
        });
        first.recv().unwrap();
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let done = Arc::clone(&done);
                pool.run(move || done.fetch_add(1, Ordering::Relaxed))
            })
            .collect();
        let closing = Arc::clone(&pool.closing);
        let dropped = thread::spawn(move || drop(pool));
        while !closing.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        drop(go);
        dropped.join().unwrap();
        assert_eq!(running.recv(), Ok(7));
        assert!(waiting.iter().all(|job| job.recv().is_err()));
        assert_eq!(done.load(Ordering::Relaxed), 0);
    }
}
