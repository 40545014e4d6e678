//! A thread pool that does not fall asleep between short loops.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::Yield;

/// Rests of a few cycles before an idle thread offers its core to others.
const RESTS: usize = 16;

/// Runs `f` in the current thread pool, whose other threads stay awake until it returns.
///
/// A pass over a model is hundreds of parallel loops of some ten microseconds each. A thread of the pool goes to sleep soon after it
/// finds nothing to do, and is woken through the system for the next loop: that takes longer than many of the loops. Here idle
/// threads go on asking for work, and offer their core to whoever else wants it in between. Results are those of `f`.
pub fn awake<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    let done = AtomicBool::new(false);
    rayon::scope(|scope| {
        for _ in 1..rayon::current_num_threads() {
            scope.spawn(|_| {
                while !done.load(Ordering::Acquire) {
                    if rayon::yield_now() != Some(Yield::Executed) {
                        (0..RESTS).for_each(|_| std::hint::spin_loop());
                        std::thread::yield_now();
                    }
                }
            });
        }
        // Also when `f` panics: the scope waits for its threads.
        let _finish = Finish(&done);
        f()
    })
}

struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use rayon::prelude::*;

    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn work_inside_is_done_on_any_number_of_threads_and_within_itself() {
        for threads in [1, 2, 5] {
            let sum = || (0..1000_u64).into_par_iter().map(|i| i * i).sum::<u64>();
            let (outer, inner) = pool(threads).install(|| awake(|| (sum(), awake(sum))));
            assert_eq!((outer, inner), (332_833_500, 332_833_500));
        }
    }

    #[test]
    fn panic_inside_reaches_the_caller_and_leaves_the_pool_usable() {
        let pool = pool(3);
        let panicked = catch_unwind(AssertUnwindSafe(|| pool.install(|| awake(|| panic!("inside")))));
        assert!(panicked.is_err());
        assert_eq!(pool.install(|| awake(|| 7)), 7);
    }
}
