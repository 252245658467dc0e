//! Ways into a server without a socket, for whoever runs it in their own process.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parlour_actors::threads::Thread;
use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};

use crate::http::{Api, Direct, DirectError, HttpShared, RouteError, Router, Routes};

/// How many requests may be under way through one door; others wait.
const AT_ONCE: u32 = 10_000;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// The server is stopping, or has stopped.
    #[error("the server has stopped")]
    Closed,
    /// There cannot be one.
    #[error(transparent)]
    Direct(#[from] DirectError),
}

/// A way in. Cheap to clone; can be used on any thread, of any runtime or of none.
#[derive(Clone)]
pub struct Door(Arc<Inner>);

struct Inner {
    direct: Direct,
    /// Where requests are answered, in turn.
    threads: Arc<[Thread]>,
    next: AtomicUsize,
    places: Arc<Semaphore>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}

impl Door {
    fn open(
        routes: &Routes,
        apis: impl Into<BTreeSet<Api>>,
        shared: &Arc<HttpShared>,
        threads: &Arc<[Thread]>,
    ) -> Result<Self, RouteError> {
        let router = Arc::new(Router::new(routes.clone(), &apis.into())?);
        Ok(Self(Arc::new(Inner {
            direct: Direct::new(router, shared.clone()),
            threads: threads.clone(),
            next: AtomicUsize::new(0),
            places: Arc::new(Semaphore::new(AT_ONCE as usize)),
        })))
    }

    /// Sends a request and waits for its answer, of at most `max_answer` bytes. Who stops waiting
    /// takes the request back, as who closes a connection does.
    ///
    /// # Errors
    ///
    /// [`DoorError`]; what the server refuses is an answer.
    pub async fn ask(
        &self,
        request: http::Request<Bytes>,
        from: IpAddr,
        max_answer: usize,
    ) -> Result<http::Response<Bytes>, DoorError> {
        let inner = &self.0;
        let place = inner.places.clone().acquire_owned().await.map_err(|_| DoorError::Closed)?;
        let (mut reply, answer) = oneshot::channel();
        let direct = inner.direct.clone();
        let number = inner.next.fetch_add(1, Ordering::Relaxed) % inner.threads.len();
        inner.threads[number].spawn_here(move || async move {
            let _place = place;
            tokio::select! {
                biased;
                answer = direct.answer(request, from, max_answer) => drop(reply.send(answer)),
                () = reply.closed() => {}
            }
        });
        Ok(answer.await.map_err(|_| DoorError::Closed)??)
    }

    async fn close(&self, grace: Duration) {
        drop(timeout(grace, self.0.places.acquire_many(AT_ONCE)).await);
        self.0.places.close();
    }
}

/// The ways into one server.
#[derive(Debug, Clone)]
pub struct Doors {
    /// For clients and administrators, and for metrics.
    pub clients: Door,
    /// For other servers.
    pub servers: Door,
}

impl Doors {
    /// Opens them; who comes in is answered on these threads, of which there is at least one.
    pub(super) fn open(
        routes: &Routes,
        shared: &Arc<HttpShared>,
        threads: Vec<Thread>,
    ) -> Result<Self, RouteError> {
        let threads = threads.into();
        Ok(Self {
            clients: Door::open(routes, [Api::Client, Api::Admin, Api::Metrics], shared, &threads)?,
            servers: Door::open(routes, [Api::Federation], shared, &threads)?,
        })
    }

    /// Lets nobody in any more, and gives those inside this long.
    pub(super) async fn close(&self, grace: Duration) {
        tokio::join!(self.clients.close(grace), self.servers.close(grace));
    }
}
