//! Parlour as a library: homeservers inside another program, as many as it likes.
//!
//! Each has its own threads, data, clock and randomness; nothing is global. They are asked without
//! sockets, and speak to each other without sockets if they are on one [`Network`]: signatures,
//! limits and errors are the same as on the wire. Any runtime will do, or none.
//!
//! ```
//! use parlour::embed::{Bytes, Homeserver, http::Request};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Homeserver::builder("example.org")?.start_blocking()?;
//! let request = Request::get("/_matrix/client/versions").body(Bytes::new())?;
//! let answer = server.client().call_blocking(request)?;
//! assert_eq!(answer.status(), 200);
//! server.stop_blocking();
//! # Ok(())
//! # }
//! ```

mod network;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

pub use bytes::Bytes;
pub use http;
use parlour_actors::{
    env::{Clock, Entropy, Env},
    threads::Threads,
};
use ruma::{OwnedServerName, ServerName};

pub use self::network::Network;
use self::network::Place;
use crate::{
    assemble::assemble,
    config::{Config, ConfigError, DataDir, ListenerConfig, Source},
    federation::outbound::transport::Transport,
    http::Api,
    metrics::Metrics,
    server::{Address, Door, DoorError, Doors, Launch, Running, StartError},
};

/// What an embedded server starts from, besides the default: little of everything.
const SMALL: &str = "memory.budget = 33554432\nthreads = { http = 1, rooms = 1 }\n\
                     federation = { enabled = false, trusted_key_servers = [] }\n";

/// Whom the program itself is taken for, which need not be limited by its address.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server before its start.
#[derive(Debug)]
pub struct Builder {
    config: Config,
    env: Env,
    transport: Option<Arc<dyn Transport>>,
    network: Option<Network>,
}

/// A running server. Dropping it stops it, and waits for that.
#[derive(Debug)]
pub struct Homeserver {
    name: OwnedServerName,
    client: Client,
    /// Given up before the server stops.
    place: Option<Place>,
    running: Running,
}

/// Asks a server what clients and administrators may ask. Cheap to clone; can be used on any
/// thread.
#[derive(Debug, Clone)]
pub struct Client(Door);

impl Homeserver {
    /// A server of this name with its data in memory, no listener, no other servers, and small
    /// caches. Whoever asks without a socket may register.
    ///
    /// # Errors
    /// It is not a server name.
    pub fn builder(name: &str) -> Result<Builder, ConfigError> {
        let name = serde_json::Value::from(name);
        let text = format!("{SMALL}server = {{ name = {name}, data_dir = \"memory\" }}\n");
        let mut config = Config::load(&Source::text(text))?;
        config.listeners.clear();
        Ok(Self::with(config))
    }

    /// A server with a configuration that was loaded before.
    #[must_use]
    pub fn with(config: Config) -> Builder {
        Builder { config, env: Env::system(), transport: None, network: None }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ServerName {
        &self.name
    }

    /// Where it listens, in the order in which that was asked for.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        self.running.addresses()
    }

    /// Its metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        self.running.metrics()
    }

    /// Who asks it without a socket.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Stops it: what is in flight has five seconds, then everything is brought to disk. Afterwards
    /// none of its threads is left, and its data directory can be opened again.
    pub async fn stop(self) {
        drop(self.place);
        self.running.stopped().await;
    }

    /// The same for who has no runtime.
    pub fn stop_blocking(self) {
        drop(self);
    }
}

impl Builder {
    /// Keeps the data in this directory, which is made if there is none.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.config.server.data = DataDir::Path(dir.into());
        self
    }

    /// Changes anything about the configuration.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Rate limits off, and passwords that cost nothing: for tests.
    #[must_use]
    pub fn test_mode(self) -> Self {
        self.configure(|config| {
            config.server.test_mode = true;
            config.rate_limits.enabled = false;
        })
    }

    /// Listens at this address, too, without TLS; port 0 chooses a free one.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr, apis: impl IntoIterator<Item = Api>) -> Self {
        let apis = apis.into_iter().collect();
        self.config.listeners.push(ListenerConfig { address, apis, tls: None });
        self
    }

    /// Speaks to the other servers on this network, and to no others.
    #[must_use]
    pub fn network(mut self, network: &Network) -> Self {
        self.config.federation.enable();
        self.transport.get_or_insert_with(|| Arc::new(network.line()));
        self.network = Some(network.clone());
        self
    }

    /// Sends requests to other servers this way, whether it is on a [`Network`] or not.
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.config.federation.enable();
        self.transport = Some(transport);
        self
    }

    /// Takes the time from here. It has to pass as real time does.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.env.clock = clock;
        self
    }

    /// Takes randomness from here: keys, tokens, ids.
    #[must_use]
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.env.secrets = entropy.clone();
        self.env.entropy = entropy;
        self
    }

    /// Does everything on one thread. It takes least memory; while it writes to a disk or checks a
    /// password, nobody is answered.
    #[must_use]
    pub fn on_one_thread(mut self) -> Self {
        self.env.threads = Threads::one();
        self
    }

    /// Starts it on threads of its own.
    ///
    /// # Errors
    /// It does not start, and nothing of it is left.
    pub async fn start(self) -> Result<Homeserver, StartError> {
        let (name, place, launch) = self.prepare()?;
        launch.start(assemble).await.and_then(|running| Homeserver::of(name, place, running))
    }

    /// The same for who has no runtime.
    ///
    /// # Errors
    /// It does not start, and nothing of it is left.
    pub fn start_blocking(self) -> Result<Homeserver, StartError> {
        let (name, place, launch) = self.prepare()?;
        launch.start_blocking(assemble).and_then(|running| Homeserver::of(name, place, running))
    }

    /// Starts it on this thread, which must have an actix system, and beside whatever runs there:
    /// for simulations. It ends with that system, or some time after [`Homeserver::stop`].
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_here(self) -> Result<Homeserver, StartError> {
        let (name, place, launch) = self.prepare()?;
        launch.start_here(assemble).await.and_then(|running| Homeserver::of(name, place, running))
    }

    fn prepare(self) -> Result<(OwnedServerName, Option<Place>, Launch), StartError> {
        let Self { config, env, transport, network } = self;
        let name = config.server.name.clone();
        let place = network.map(|network| network.take_place(&name)).transpose()?;
        let mut launch = Launch::new(config, env).with_doors();
        if let Some(transport) = transport {
            launch = launch.transport(transport);
        }
        Ok((name, place, launch))
    }
}

impl Homeserver {
    fn of(
        name: OwnedServerName,
        place: Option<Place>,
        running: Running,
    ) -> Result<Self, StartError> {
        let Some(Doors { clients, servers }) = running.doors().cloned() else {
            return Err(StartError::Ended);
        };
        if let Some(place) = &place {
            place.open(servers);
        }
        Ok(Self { name, client: Client(clients), place, running })
    }
}

impl Client {
    /// Sends a request, whose URI is path and query alone, and waits for the whole answer. Access
    /// tokens come in the header `Authorization`, as over HTTP.
    ///
    /// # Errors
    /// The server has stopped, or the request is not HTTP; what it refuses is an answer.
    pub async fn call(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, DoorError> {
        self.0.ask(request, HERE, usize::MAX).await
    }

    /// The same for who has no runtime.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn call_blocking(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, DoorError> {
        futures_executor::block_on(self.call(request))
    }
}
