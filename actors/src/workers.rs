//! Threads for work that may take long: resolving room states, checking events' signatures.
//!
//! They run at a lower priority than everything else, so that on a machine whose cores are all in
//! use a room with a conflict waits for the others, not the other way round.

use std::{fmt, sync::Arc};

use tokio::sync::oneshot;

/// How much nicer than the rest of the server the threads are, in the kernel's scale of 0 to 19.
const NICENESS: i32 = 10;

/// The threads. Cheap to clone; they end with the last clone.
#[derive(Clone)]
pub struct Workers(Arc<rayon::ThreadPool>);

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Workers({})", self.0.current_num_threads())
    }
}

impl Workers {
    /// Starts this many threads of this name.
    ///
    /// # Errors
    ///
    /// If the system gives no threads.
    pub fn start(name: &'static str, threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(move |number| format!("{name}-{number}"))
            .start_handler(|_| {
                // Linux counts niceness by thread. Where that is refused, the work is done all the same.
                let _niceness = rustix::process::nice(NICENESS);
            })
            .build()?;
        Ok(Self(Arc::new(pool)))
    }

    /// Runs something on one of the threads, when one is free. `None` if it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        self.0.spawn(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // Whoever asked may have gone.
            drop(sender.send(result.ok()));
        });
        receiver.await.ok().flatten()
    }
}
