//! A running server: listeners, threads, start and stop. Nothing is global, so one process can
//! run many.

mod certificate;
mod listen;

use std::{
    collections::BTreeSet,
    fmt,
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use parlour_actors::env::Env;
use tokio::sync::{oneshot, watch};

use self::{certificate::Certificate, listen::Bound};
use crate::{
    config::Config,
    federation::outbound::transport::Transport,
    http::{
        Api, Authenticator, Authenticators, BoxFuture, HttpShared, NoServers, RouteError, Routes,
        ServerAuthenticator,
    },
    limits::RateLimits,
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
    stop: watch::Sender<bool>,
    ended: Option<oneshot::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a server on threads of its own and waits until it listens. `assemble` runs inside its
/// actix system: actors that it starts live as long as the server.
///
/// # Errors
/// It does not start, and nothing of it is left.
pub fn launch<F, Fut>(config: Config, env: Env, assemble: F) -> Result<Running, StartError>
where
    F: FnOnce(Boot) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Service, StartError>> + 'static,
{
    let bound = listen::bind(&config.listeners)?;
    let addresses = bound.iter().map(|bound| bound.address.clone()).collect();
    let certificates = bound.iter().filter_map(|bound| bound.tls.clone()).collect();
    let metrics = Metrics::new()?;
    let (stop, stopping) = watch::channel(false);
    let (ready, is_ready) = mpsc::channel();
    let (end, ended) = oneshot::channel();
    let shutdown = Shutdown(stopping);
    let boot =
        Boot { config: Arc::new(config), env, metrics: metrics.clone(), shutdown, transport: None };
    let run = move || {
        let system = actix::System::new();
        system.block_on(run(boot, bound, assemble, ready));
        // Ends the arbiters that the service started, too.
        actix::System::current().stop();
        if let Err(error) = system.run() {
            tracing::warn!(%error, "the actor system did not end cleanly");
        }
        let _ = end.send(());
    };
    let thread = std::thread::Builder::new().name("parlour".to_owned()).spawn(run);
    let thread = thread.map_err(StartError::Thread)?;
    match is_ready.recv() {
        Ok(Ok(())) => {
            let (ended, thread) = (Some(ended), Some(thread));
            Ok(Running { addresses, certificates, metrics, stop, ended, thread })
        }
        Ok(Err(error)) => {
            let _ = thread.join();
            Err(error)
        }
        Err(mpsc::RecvError) => {
            let _ = thread.join();
            Err(StartError::Ended)
        }
    }
}

async fn run<F, Fut>(
    boot: Boot,
    bound: Vec<Bound>,
    assemble: F,
    ready: mpsc::Sender<Result<(), StartError>>,
) where
    F: FnOnce(Boot) -> Fut,
    Fut: Future<Output = Result<Service, StartError>>,
{
    let shutdown = boot.shutdown.clone();
    let started = async {
        let service = assemble(boot.clone()).await?;
        let shared = Arc::new(shared(&boot, service.authenticators));
        let servers = listen::serve(bound, &service.routes, &shared, boot.config.threads.http)?;
        Ok((servers, service.on_stop))
    };
    let (servers, on_stop) = match started.await {
        Ok(started) => started,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let handles: Vec<_> = servers.iter().map(actix_web::dev::Server::handle).collect();
    let served = futures_util::future::join_all(servers.into_iter().map(actix_web::rt::spawn));
    let _ = ready.send(Ok(()));
    shutdown.requested().await;
    tracing::info!("stopping: finishing what is in flight");
    futures_util::future::join_all(handles.iter().map(|handle| handle.stop(true))).await;
    for result in served.await {
        if let Ok(Err(error)) = result {
            tracing::error!(%error, "a listener failed");
        }
    }
    if let Some(on_stop) = on_stop {
        on_stop().await;
    }
}

fn shared(boot: &Boot, authenticators: Authenticators) -> HttpShared {
    let config = &boot.config;
    HttpShared {
        authenticators: Arc::new(authenticators),
        limits: Arc::new(RateLimits::new(config.rate_limits, Arc::clone(&boot.env.clock))),
        metrics: boot.metrics.clone(),
        clock: Arc::clone(&boot.env.clock),
        trusted_proxies: config.server.trusted_proxies.clone(),
        max_client_body: config.max_client_body,
        max_federation_body: config.max_federation_body,
        log_requests: config.log.requests,
        last_request: 0.into(),
    }
}

impl Running {
    /// Where it listens, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
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

    /// Stops: requests in flight have ten seconds to finish, then everything is brought to disk.
    pub fn stop(mut self) {
        self.stop_and_join();
    }

    /// Waits until the server has ended, however that came.
    pub async fn ended(&mut self) {
        if let Some(ended) = self.ended.take() {
            let _ = ended.await;
        }
    }

    fn stop_and_join(&mut self) {
        self.begin_stop();
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
