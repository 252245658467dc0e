//! How a server starts, runs and ends.

use std::{future::Future, io, sync::Arc};

use actix_web::dev;
use futures_util::future::join_all;
use parlour_actors::{env::Env, threads::Threads};
use tokio::sync::{oneshot, watch};

use super::{
    Boot, Doors, GRACE, Running, Service, Shutdown, StartError,
    listen::{self, Bound},
};
use crate::{
    config::Config,
    federation::outbound::transport::Transport,
    http::{Authenticators, BoxFuture, HttpShared, Routes},
    limits::RateLimits,
    memory::Budget,
    metrics::Metrics,
};

/// A server that is about to start.
#[derive(Debug)]
pub struct Launch {
    config: Config,
    env: Env,
    transport: Option<Arc<dyn Transport>>,
    has_doors: bool,
}

/// Starts a server on threads of its own and waits until it listens. `assemble` runs inside its
/// actix system: actors that it starts live as long as the server. Must not be called by an
/// asynchronous task, which would keep others waiting: see [`Launch::start`].
///
/// # Errors
/// It does not start, and nothing of it is left.
pub fn launch<F, Fut>(config: Config, env: Env, assemble: F) -> Result<Running, StartError>
where
    F: FnOnce(Boot) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Service, StartError>> + 'static,
{
    Launch::new(config, env).start_blocking(assemble)
}

/// The ways in, or why the server did not start.
type Started = Result<Option<Doors>, StartError>;

/// A server that has its sockets, and nothing else yet.
struct Prepared {
    running: Running,
    parts: Parts,
    ended: oneshot::Sender<()>,
}

/// What it is made of.
struct Parts {
    boot: Boot,
    bound: Vec<Bound>,
    has_doors: bool,
}

impl Launch {
    /// With this configuration. The server gets threads of its own, of the same kind as those in
    /// `env`.
    #[must_use]
    pub fn new(config: Config, env: Env) -> Self {
        Self { config, env, transport: None, has_doors: false }
    }

    /// What carries requests to other servers, if not HTTPS.
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// With ways in that need no socket.
    #[must_use]
    pub fn with_doors(mut self) -> Self {
        self.has_doors = true;
        self
    }

    /// Starts on threads of its own. Any runtime can wait for it.
    ///
    /// # Errors
    /// It does not start, and nothing of it is left.
    pub async fn start<F, Fut>(self, assemble: F) -> Result<Running, StartError>
    where
        F: FnOnce(Boot) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Service, StartError>> + 'static,
    {
        let (mut running, started) = self.spawn(assemble)?;
        let started = started.await.unwrap_or(Err(StartError::Ended));
        if started.is_err() {
            running.ended().await;
        }
        running.with(started)
    }

    /// The same for who has no runtime.
    ///
    /// # Errors
    /// It does not start, and nothing of it is left.
    pub fn start_blocking<F, Fut>(self, assemble: F) -> Result<Running, StartError>
    where
        F: FnOnce(Boot) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Service, StartError>> + 'static,
    {
        let (running, started) = self.spawn(assemble)?;
        running.with(started.blocking_recv().unwrap_or(Err(StartError::Ended)))
    }

    /// Starts on the actix system of this thread, with all that it does: several servers can share
    /// one thread.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_here<F, Fut>(mut self, assemble: F) -> Result<Running, StartError>
    where
        F: FnOnce(Boot) -> Fut + 'static,
        Fut: Future<Output = Result<Service, StartError>> + 'static,
    {
        self.env.threads = Threads::one();
        let Prepared { running, parts, ended } = self.prepare()?;
        let (ready, started) = oneshot::channel();
        actix_web::rt::spawn(async move {
            run(parts, assemble, ready).await;
            // Nobody may wait for it.
            let _ = ended.send(());
        });
        running.with(started.await.unwrap_or(Err(StartError::Ended)))
    }

    fn prepare(self) -> Result<Prepared, StartError> {
        let Self { config, env, transport, has_doors } = self;
        config.check_test_mode().map_err(|error| StartError::Part(error.to_string()))?;
        let bound = listen::bind(&config.listeners)?;
        let metrics = Metrics::new()?;
        let (stop, stopping) = watch::channel(false);
        let (ended, has_ended) = oneshot::channel();
        let running = Running {
            addresses: bound.iter().map(|bound| bound.address.clone()).collect(),
            certificates: bound.iter().filter_map(|bound| bound.tls.clone()).collect(),
            metrics: metrics.clone(),
            doors: None,
            stop,
            ended: Some(has_ended),
            thread: None,
        };
        let env = Env { threads: env.threads.fresh(), ..env };
        let shutdown = Shutdown(stopping);
        let budget = Budget::new(&config.memory);
        let boot = Boot { config: Arc::new(config), env, metrics, budget, shutdown, transport };
        Ok(Prepared { running, parts: Parts { boot, bound, has_doors }, ended })
    }

    fn spawn<F, Fut>(self, assemble: F) -> Result<(Running, oneshot::Receiver<Started>), StartError>
    where
        F: FnOnce(Boot) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Service, StartError>> + 'static,
    {
        let Prepared { mut running, parts, ended } = self.prepare()?;
        let (ready, started) = oneshot::channel();
        let work = move || {
            let threads = parts.boot.env.threads.clone();
            let system = actix::System::new();
            system.block_on(run(parts, assemble, ready));
            // Ends the arbiters that the service started, too.
            actix::System::current().stop();
            if let Err(error) = system.run() {
                tracing::warn!(%error, "the actor system did not end cleanly");
            }
            threads.join();
            // Nobody may wait for it.
            let _ = ended.send(());
        };
        let thread = std::thread::Builder::new().name("parlour".to_owned()).spawn(work);
        running.thread = Some(thread.map_err(StartError::Thread)?);
        Ok((running, started))
    }
}

impl Running {
    fn with(mut self, started: Started) -> Result<Self, StartError> {
        self.doors = started?;
        Ok(self)
    }
}

/// What serves.
struct Serving {
    listeners: Vec<dev::Server>,
    doors: Option<Doors>,
    on_stop: Option<Box<dyn FnOnce() -> BoxFuture<'static, ()>>>,
}

async fn run<F, Fut>(parts: Parts, assemble: F, ready: oneshot::Sender<Started>)
where
    F: FnOnce(Boot) -> Fut,
    Fut: Future<Output = Result<Service, StartError>>,
{
    let shutdown = parts.boot.shutdown.clone();
    let Serving { listeners, doors, on_stop } = match serve(parts, assemble).await {
        Ok(serving) => serving,
        Err(error) => return drop(ready.send(Err(error))),
    };
    let handles: Vec<_> = listeners.iter().map(dev::Server::handle).collect();
    let served = join_all(listeners.into_iter().map(actix_web::rt::spawn));
    // Who has started it may have given up; then it stops at once.
    drop(ready.send(Ok(doors.clone())));
    shutdown.requested().await;
    tracing::info!("stopping: finishing what is in flight");
    let close_doors = async {
        if let Some(doors) = doors {
            doors.close(GRACE).await;
        }
    };
    tokio::join!(join_all(handles.iter().map(|handle| handle.stop(true))), close_doors);
    for result in served.await {
        if let Ok(Err(error)) = result {
            tracing::error!(%error, "a listener failed");
        }
    }
    if let Some(on_stop) = on_stop {
        on_stop().await;
    }
}

/// Assembles the server and opens its listeners and doors.
async fn serve<F, Fut>(parts: Parts, assemble: F) -> Result<Serving, StartError>
where
    F: FnOnce(Boot) -> Fut,
    Fut: Future<Output = Result<Service, StartError>>,
{
    let Parts { boot, bound, has_doors } = parts;
    let Service { authenticators, routes, on_stop } = assemble(boot.clone()).await?;
    let shared = Arc::new(shared(&boot, authenticators));
    let http = boot.config.threads.http;
    let open = || {
        let doors = match has_doors {
            true => Some(open_doors(&boot, &routes, &shared)?),
            false => None,
        };
        Ok((listen::serve(bound, &routes, &shared, &boot.shutdown, http)?, doors))
    };
    match open() {
        Ok((listeners, doors)) => Ok(Serving { listeners, doors, on_stop }),
        Err(error) => {
            if let Some(on_stop) = on_stop {
                on_stop().await;
            }
            Err(error)
        }
    }
}

fn open_doors(boot: &Boot, routes: &Routes, shared: &Arc<HttpShared>) -> Result<Doors, StartError> {
    let threads = (0..boot.config.threads.http.max(1)).map(|_| boot.env.threads.start(c"doors"));
    let threads = threads.collect::<io::Result<_>>().map_err(StartError::Thread)?;
    Ok(Doors::open(routes, shared, threads)?)
}

fn shared(boot: &Boot, authenticators: Authenticators) -> HttpShared {
    let config = &boot.config;
    HttpShared {
        authenticators: Arc::new(authenticators),
        limits: Arc::new(RateLimits::new(config.rate_limits, Arc::clone(&boot.env.clock))),
        metrics: boot.metrics.clone(),
        bodies: boot.budget.requests.clone(),
        clock: Arc::clone(&boot.env.clock),
        trusted_proxies: config.server.trusted_proxies.clone(),
        max_client_body: config.max_client_body,
        max_federation_body: config.max_federation_body,
        log_requests: config.log.requests,
        last_request: 0.into(),
    }
}
