//! A running server: listeners, threads, start and stop. Nothing is global, so one process can
//! run many.

mod certificate;
mod connections;
mod doors;
mod launch;
mod line;
mod listen;

use std::{
    collections::BTreeSet, fmt, future::Future, net::SocketAddr, path::PathBuf, sync::Arc,
    thread::JoinHandle, time::Duration,
};

use parlour_actors::env::Env;
use tokio::sync::{oneshot, watch};

use self::certificate::Certificate;
pub use self::{
    doors::{Door, DoorError, Doors},
    launch::{Launch, launch},
};
use crate::{
    config::Config,
    federation::outbound::transport::Transport,
    http::{
        Api, Authenticator, Authenticators, BoxFuture, NoServers, RouteError, Routes,
        ServerAuthenticator,
    },
    memory::Budget,
    metrics::Metrics,
};

/// How long requests in flight may take to finish at a stop. With the closing of the store the stop
/// stays below the ten seconds that service managers give at the least.
const GRACE: Duration = Duration::from_secs(5);

/// Why a server did not start, and what to do, in one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is taken, or the address is not ours.
    #[error(
        "cannot listen on {address}: {source}; is another server running there? change the port in [[listeners]]"
    )]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Certificate or key.
    #[error("cannot use {}: {reason}; check tls_certificate and tls_key in [[listeners]]", file.display())]
    Tls {
        /// Which file.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Endpoints that contradict each other: a mistake in Parlour.
    #[error("the table of endpoints is wrong: {0}; please report this")]
    Routes(#[from] RouteError),
    /// Metrics that contradict each other: a mistake in Parlour.
    #[error("the table of metrics is wrong: {0}; please report this")]
    Metrics(#[from] prometheus::Error),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}; check the limits of this user")]
    Thread(std::io::Error),
    /// A part of the server did not start; says itself what to do.
    #[error("{0}")]
    Part(String),
    /// The server's thread ended before it was ready.
    #[error("the server ended while it started; the log says why")]
    Ended,
}

/// What a service is started with.
#[derive(Debug, Clone)]
pub struct Boot {
    /// The configuration.
    pub config: Arc<Config>,
    /// Clock and randomness.
    pub env: Env,
    /// Where everything is measured.
    pub metrics: Metrics,
    /// How much memory may be taken.
    pub budget: Budget,
    /// Tells when the server stops.
    pub shutdown: Shutdown,
    /// What carries requests to other servers, if not HTTPS: a simulated network, put here before
    /// the server is assembled.
    pub transport: Option<Arc<dyn Transport>>,
}

/// Tells when the server stops, so that what waits (long-polls) can answer at once.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Whether the stop has begun.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the stop begins.
    pub async fn requested(&self) {
        // The sender is gone only when the server is: then it has stopped as well.
        let _ = self.0.clone().wait_for(|stopping| *stopping).await;
    }
}

/// What a server serves.
pub struct Service {
    authenticators: Authenticators,
    routes: Routes,
    on_stop: Option<Box<dyn FnOnce() -> BoxFuture<'static, ()>>>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("routes", &self.routes).finish_non_exhaustive()
    }
}

impl Service {
    /// Endpoints, and who may use them: no other servers, so far.
    #[must_use]
    pub fn new(clients: Arc<dyn Authenticator>, routes: Routes) -> Self {
        let authenticators = Authenticators { clients, servers: Arc::new(NoServers) };
        Self { authenticators, routes, on_stop: None }
    }

    /// Other servers whose requests this one believes may use them, too.
    #[must_use]
    pub fn servers(mut self, servers: Arc<dyn ServerAuthenticator>) -> Self {
        self.authenticators.servers = servers;
        self
    }

    /// The endpoints.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// What is done after the last request: bringing everything to disk.
    #[must_use]
    pub fn on_stop<F>(mut self, stop: impl FnOnce() -> F + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        self.on_stop = Some(Box::new(move || Box::pin(stop())));
        self
    }
}

/// Where a running server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// With the port that was really chosen.
    pub address: SocketAddr,
    /// Which endpoints are there.
    pub apis: BTreeSet<Api>,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<Address>,
    certificates: Vec<Arc<Certificate>>,
    metrics: Metrics,
    doors: Option<Doors>,
    stop: watch::Sender<bool>,
    ended: Option<oneshot::Receiver<()>>,
    /// None if it runs on the thread that started it.
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Where it listens, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The ways in without a socket, if it was launched with them.
    #[must_use]
    pub fn doors(&self) -> Option<&Doors> {
        self.doors.as_ref()
    }

    /// Its metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Reads all certificates again, for the connections that come from now on. One that cannot be
    /// used leaves the old one in its place.
    pub fn reload_certificates(&self) {
        for certificate in &self.certificates {
            match certificate.reload() {
                Ok(()) => tracing::info!("a certificate was read again"),
                Err(error) => tracing::error!(%error, "going on with the old certificate"),
            }
        }
    }

    /// Begins the stop, and does not wait for its end.
    pub fn begin_stop(&self) {
        self.stop.send_replace(true);
    }

    /// Stops: requests in flight have five seconds to finish, then everything is brought to disk.
    /// Afterwards no thread of the server is left.
    pub fn stop(mut self) {
        self.stop_and_join();
    }

    /// The same for who must not wait on this thread: other tasks run there, or the server does.
    pub async fn stopped(mut self) {
        self.begin_stop();
        self.ended().await;
    }

    /// Waits until the server has ended, however that came.
    pub async fn ended(&mut self) {
        if let Some(ended) = self.ended.take() {
            let _ = ended.await;
        }
    }

    fn stop_and_join(&mut self) {
        self.begin_stop();
        // One that runs on the thread that started it stops when that comes to it.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the server's thread panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop_and_join();
    }
}
