//! Where reads run that may take long: never on a thread that answers HTTP.

use std::{sync::Arc, time::Duration};

use parlour_actors::threads::Threads;
use tokio::sync::Semaphore;

use super::View;
use crate::error::ApiError;

/// How many reads may wait for a free thread. Beyond that, clients are asked to come back.
const MAX_WAITING: usize = 1_024;

/// What clients are told to wait when too many reads wait already.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bounds how many reads run at once and how many wait.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    threads: Threads,
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

impl Pool {
    /// As many reads at once as there are cores, so that rooms and HTTP keep getting their turn.
    pub(super) fn new(threads: Threads) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let at_once = cores.max(2);
        Self {
            threads,
            running: Arc::new(Semaphore::new(at_once)),
            admitted: Arc::new(Semaphore::new(at_once.saturating_add(MAX_WAITING))),
        }
    }
}

impl View {
    /// Runs a read on a thread where it may take its time. Dropping the future does not stop a
    /// read that has begun; it keeps its place until it ends.
    ///
    /// # Errors
    ///
    /// What the read says; 429 if too many wait already; 500 if it panics.
    pub async fn run<T, E, W>(&self, work: W) -> Result<T, ApiError>
    where
        T: Send + 'static,
        E: Into<ApiError> + Send + 'static,
        W: FnOnce(&Self) -> Result<T, E> + Send + 'static,
    {
        let admitted = Arc::clone(&self.pool.admitted).try_acquire_owned();
        let admitted = admitted.map_err(|_| ApiError::limit_exceeded(RETRY_AFTER))?;
        let running = Arc::clone(&self.pool.running).acquire_owned().await;
        let running = running.map_err(ApiError::unavailable)?;
        let view = self.clone();
        let done = self.threads().block(move || {
            // Both places are given back when the work ends, even if nobody waits for it any more.
            let _places = (admitted, running);
            work(&view)
        });
        let done = done.await.ok_or_else(|| ApiError::internal("a read panicked"))?;
        done.map_err(Into::into)
    }

    /// What reads run on.
    pub(crate) fn threads(&self) -> &Threads {
        &self.pool.threads
    }
}
