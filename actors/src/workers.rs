//! Threads for work that may take long: resolving room states, checking events' signatures.
//!
//! They run at a lower priority than everything else, so that on a machine whose cores are all in
//! use a room with a conflict waits for the others, not the other way round.

use std::{
    fmt, io,
    sync::{Arc, PoisonError, RwLock},
    thread,
};

use tokio::sync::oneshot;

use crate::threads::Threads;

/// How much nicer than the rest of the server the threads are, in the kernel's scale of 0 to 19.
const NICENESS: i32 = 10;

/// The threads. Cheap to clone.
#[derive(Clone)]
pub struct Workers(Option<Pool>);

/// Threads until they are closed.
#[derive(Clone)]
pub(crate) struct Pool(Arc<RwLock<Option<rayon::ThreadPool>>>);

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Workers")
    }
}

impl Pool {
    /// What runs comes to its end, nothing else begins.
    pub(crate) fn close(&self) {
        drop(self.0.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Whether it was taken.
    fn spawn(&self, work: impl FnOnce() + Send + 'static) -> bool {
        let pool = self.0.read().unwrap_or_else(PoisonError::into_inner);
        pool.as_ref().map(|pool| pool.spawn(work)).is_some()
    }
}

impl Workers {
    /// Starts this many threads of this name; none where all runs on one.
    ///
    /// # Errors
    ///
    /// If the system gives no threads.
    pub fn start(threads: &Threads, name: &'static str, count: usize) -> io::Result<Self> {
        if threads.is_one() {
            return Ok(Self(None));
        }
        let mut started = Vec::new();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(count.max(1))
            .thread_name(move |number| format!("{name}-{number}"))
            .spawn_handler(|worker| {
                let name = worker.name().unwrap_or_default().to_owned();
                let thread = thread::Builder::new().name(name);
                started.push(thread.spawn(|| {
                    // Linux counts niceness by thread. Where it is refused, the work is done all
                    // the same.
                    let _niceness = rustix::process::nice(NICENESS);
                    worker.run();
                })?);
                Ok(())
            })
            .build()
            .map_err(io::Error::other)?;
        let pool = Pool(Arc::new(RwLock::new(Some(pool))));
        threads.keep_pool(pool.clone(), started);
        Ok(Self(Some(pool)))
    }

    /// Runs something on one of the threads, when one is free. `None` if it panicked, or if the
    /// server stops.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        let work = move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // Whoever asked may have gone.
            drop(sender.send(result.ok()));
        };
        match &self.0 {
            Some(pool) => drop(pool.spawn(work)),
            None => work(),
        }
        receiver.await.ok().flatten()
    }
}
