//! The threads of one server: all of them are known here, so that whoever stops it can wait until
//! none is left. Or there are none, and all of it runs on the thread that it is started on.

use std::{
    ffi::CStr,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use actix::{Actor, Addr, Arbiter, ArbiterHandle, Context};
use tokio::runtime::Builder;

use crate::workers::Pool;

/// What a server's parts are given to run on. Cheap to clone.
#[derive(Clone)]
pub struct Threads(Arc<Inner>);

struct Inner {
    is_one: bool,
    started: Mutex<Vec<Started>>,
}

enum Started {
    Arbiter(Arbiter),
    Pool(Pool, Vec<JoinHandle<()>>),
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("is_one", &self.0.is_one).finish_non_exhaustive()
    }
}

impl Threads {
    /// Each part gets what it asks for.
    #[must_use]
    pub fn many() -> Self {
        Self(Arc::new(Inner { is_one: false, started: Mutex::default() }))
    }

    /// Everything runs on the thread that asks, long work too: for servers that are to cost little,
    /// and for simulations, where one thing must happen after the other.
    #[must_use]
    pub fn one() -> Self {
        Self(Arc::new(Inner { is_one: true, started: Mutex::default() }))
    }

    /// Others of the same kind, for another server.
    #[must_use]
    pub fn fresh(&self) -> Self {
        if self.0.is_one { Self::one() } else { Self::many() }
    }

    /// Whether everything runs on one thread.
    #[must_use]
    pub fn is_one(&self) -> bool {
        self.0.is_one
    }

    /// A thread for actors and tasks, under this name. Must be called on a thread with an actix system.
    ///
    /// # Errors
    ///
    /// If the system gives none.
    pub fn start(&self, name: &'static CStr) -> io::Result<Thread> {
        if self.0.is_one {
            return Ok(Thread { handle: Arbiter::current(), is_own: false });
        }
        let arbiter = Arbiter::try_with_tokio_rt(|| {
            name_thread(name);
            Builder::new_current_thread().enable_all().thread_name("blocking").build()
        })?;
        let handle = arbiter.handle();
        self.keep(Started::Arbiter(arbiter));
        Ok(Thread { handle, is_own: true })
    }

    /// Runs something that may take long. `None` if it panicked.
    pub async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if self.0.is_one {
            return catch_unwind(AssertUnwindSafe(work)).ok();
        }
        tokio::task::spawn_blocking(work).await.ok()
    }

    /// Ends all threads, and waits for their ends. Must be called on none of them.
    pub fn join(&self) {
        let started = std::mem::take(&mut *self.lock());
        for started in &started {
            match started {
                Started::Arbiter(arbiter) => drop(arbiter.stop()),
                Started::Pool(pool, _) => pool.close(),
            }
        }
        for started in started {
            let ends = match started {
                Started::Arbiter(arbiter) => vec![arbiter.join()],
                Started::Pool(_, threads) => threads.into_iter().map(JoinHandle::join).collect(),
            };
            if ends.iter().any(Result::is_err) {
                tracing::error!("a thread ended by a panic");
            }
        }
    }

    pub(crate) fn keep_pool(&self, pool: Pool, threads: Vec<JoinHandle<()>>) {
        self.keep(Started::Pool(pool, threads));
    }

    fn keep(&self, started: Started) {
        self.lock().push(started);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Started>> {
        self.0.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says what the calling thread is called where the kernel lists threads (`top -H`, `perf`): others
/// who make threads do not let one choose.
pub fn name_thread(name: &CStr) {
    // A name is for readers: nothing depends on it.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_name(name);
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}

/// Where actors and tasks run. Cheap to clone.
#[derive(Clone)]
pub struct Thread {
    handle: ArbiterHandle,
    /// Whether nobody else's tasks run there.
    is_own: bool,
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("is_own", &self.is_own).finish_non_exhaustive()
    }
}

impl Thread {
    /// Runs a task there, until the thread stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(task);
    }

    /// The same for a task that stays on its thread, where it is made.
    pub fn spawn_here<T: Future<Output = ()> + 'static>(
        &self,
        make: impl FnOnce() -> T + Send + 'static,
    ) {
        self.handle.spawn_fn(move || drop(actix::spawn(make())));
    }

    /// Starts an actor there.
    pub fn start<A>(&self, make: impl FnOnce() -> A + Send + 'static) -> Addr<A>
    where
        A: Actor<Context = Context<A>>,
    {
        A::start_in_arbiter(&self.handle, move |_| make())
    }

    /// Ends the thread with all that runs there, if it is for itself.
    pub fn stop(&self) {
        if self.is_own {
            self.handle.stop();
        }
    }
}
