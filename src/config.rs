//! The configuration: where it comes from, and what it is once it has been checked.
//!
//! `raw` is what can be written in a file, `validate` turns it into [`Config`], which holds only
//! what makes sense; nothing behind it checks again.

mod layers;
mod raw;
mod servers;
mod validate;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use parlour_actors::keyring::OldKey;
use parlour_storage::faults::FaultPlan;
use ruma::{
    OwnedServerName, OwnedUserId, RoomVersionId, api::client::discovery::discover_support::Contact,
    serde::Base64,
};
use tracing_subscriber::filter::Targets;

pub(crate) use self::validate::faults;
pub use self::{layers::Source, servers::ServerFilter};
use crate::{http::Api, limits::RateLimitConfig};

/// The commented default, as it is shipped.
pub const DEFAULT: &str = include_str!("../config/parlour.toml");

/// Why there is no configuration: one line that says what is wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

/// A configuration that makes sense.
#[derive(Debug, Clone)]
pub struct Config {
    /// Ourselves.
    pub server: ServerConfig,
    /// At least one, but for servers that are asked without sockets.
    pub listeners: Vec<ListenerConfig>,
    /// Who may make an account.
    pub registration: RegistrationConfig,
    /// Where users find help.
    pub support: SupportConfig,
    /// Logins.
    pub sessions: SessionsConfig,
    /// How the server talks to users, if it does.
    pub server_notices: Option<ServerNoticesConfig>,
    /// Rooms.
    pub rooms: RoomsConfig,
    /// What users may know of each other.
    pub users: UsersConfig,
    /// Who is online.
    pub presence: PresenceConfig,
    /// Syncing.
    pub sync: SyncConfig,
    /// Calls, if there are servers for them.
    pub turn: Option<TurnConfig>,
    /// Rate limits; off in test mode.
    pub rate_limits: RateLimitConfig,
    /// The largest body of a client's request, in bytes.
    pub max_client_body: usize,
    /// The largest body of another server's request, in bytes.
    pub max_federation_body: usize,
    /// Other servers.
    pub federation: FederationConfig,
    /// How much memory may be taken.
    pub memory: MemoryConfig,
    /// How many threads.
    pub threads: ThreadsConfig,
    /// Logging.
    pub log: LogConfig,
    /// What counts in test mode alone.
    pub test: TestConfig,
}

/// The server itself.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The part after the colon in user ids.
    pub name: OwnedServerName,
    /// Where everything is kept.
    pub data: DataDir,
    /// What clients are told to connect to, without a slash at its end.
    pub public_url: Option<String>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Rate limits off, cheap password hashing, endpoints that fill the server; see [`TestConfig`].
    pub test_mode: bool,
}

/// Where everything is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataDir {
    /// Nowhere: it is forgotten at the stop.
    Memory,
    /// In this directory.
    Path(PathBuf),
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Address and port; port 0 chooses a free one.
    pub address: SocketAddr,
    /// Which endpoints it serves, at least one.
    pub apis: BTreeSet<Api>,
    /// Certificate and key; none for plain HTTP.
    pub tls: Option<TlsFiles>,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Who may make an account.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistrationConfig {
    /// Over the client-server API.
    pub mode: RegistrationMode,
    /// With `/_synapse/admin/v1/register`, by who knows this secret.
    pub shared_secret: Option<String>,
    /// What has to be accepted first.
    pub terms: Vec<Policy>,
    /// Whether there may be guests.
    pub guests: bool,
}

/// A document that new users have to accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What it is, for programs.
    pub id: String,
    /// Which version of it.
    pub version: String,
    /// By language, at least one.
    pub languages: BTreeMap<String, PolicyText>,
}

/// A document in one language.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyText {
    /// Its title.
    pub name: String,
    /// Where it can be read.
    pub url: String,
}

/// Who may make an account over the client-server API.
#[derive(Clone, PartialEq, Eq)]
pub enum RegistrationMode {
    /// Everybody.
    Open,
    /// Programs on this machine.
    Local,
    /// Who has one of these tokens (`m.login.registration_token`).
    Token(Vec<String>),
    /// Nobody.
    Closed,
}

impl std::fmt::Debug for RegistrationConfig {
    // Tokens and secret are not for logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistrationConfig").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RegistrationMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Local => "Local",
            Self::Token(_) => "Token",
            Self::Closed => "Closed",
        })
    }
}

/// Where users find help.
#[derive(Debug, Clone, Default)]
pub struct SupportConfig {
    /// A page on the web.
    pub page: Option<String>,
    /// People.
    pub contacts: Vec<Contact>,
}

/// How long access tokens are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionsConfig {
    /// Those of clients that cannot refresh them; for ever without.
    pub access: Option<Duration>,
    /// Those of clients that can.
    pub refreshable: Duration,
}

/// How the server talks to users.
#[derive(Debug, Clone)]
pub struct ServerNoticesConfig {
    /// As whom.
    pub user: OwnedUserId,
    /// How that user is called.
    pub display_name: String,
    /// How that user looks.
    pub avatar_url: Option<String>,
    /// What the rooms are called.
    pub room_name: String,
}

/// Rooms.
#[derive(Debug, Clone)]
pub struct RoomsConfig {
    /// The version of new rooms.
    pub default_version: RoomVersionId,
    /// After how long a room leaves memory.
    pub idle_timeout: Duration,
    /// For how long at most events may be delayed; zero if they may not.
    pub max_event_delay: Duration,
    /// How many requests may wait for one room.
    pub max_queue: usize,
    /// The public key of this host's policy server.
    pub policy_server_key: Option<Base64>,
}

/// What users may know of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsersConfig {
    /// Who may look a profile up.
    pub profile_lookup: ProfileLookup,
    /// Whether the user directory shows all users of this server to all others.
    pub directory_of_all: bool,
}

/// Who may look a profile up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProfileLookup {
    /// Everybody, without a login, too.
    Everybody,
    /// This server's users.
    Users,
    /// This server's users who share a room with the other, or could.
    Acquaintances,
}

/// Who is online.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceConfig {
    /// Whether that is told at all.
    pub enabled: bool,
    /// After how long without activity a user is `unavailable`.
    pub idle: Duration,
    /// After how long without a sync a user is `offline`.
    pub grace: Duration,
}

/// Syncing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncConfig {
    /// How long a client may wait at most.
    pub max_wait: Duration,
}

/// Servers through which calls find a way.
#[derive(Debug, Clone)]
pub struct TurnConfig {
    /// Where they are, at least one.
    pub uris: Vec<String>,
    /// How clients get in.
    pub credentials: TurnCredentials,
    /// After how long a client has to ask again.
    pub lifetime: Duration,
}

/// How clients get into TURN servers.
#[derive(Clone, PartialEq, Eq)]
pub enum TurnCredentials {
    /// By credentials of their own, made with a secret that the TURN servers share.
    Shared(String),
    /// All by the same.
    Fixed {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
}

impl std::fmt::Debug for TurnCredentials {
    // They are not for logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Shared(_) => "Shared",
            Self::Fixed { .. } => "Fixed",
        })
    }
}

/// Other servers.
#[derive(Debug, Clone)]
pub struct FederationConfig {
    /// Whether there are other servers at all; see [`FederationConfig::enable`].
    pub enabled: bool,
    /// What `/.well-known/matrix/server` says.
    pub delegate_to: Option<OwnedServerName>,
    /// Which servers are spoken to.
    pub servers: ServerFilter,
    /// Servers that are asked for the keys of those that don't answer.
    pub trusted_key_servers: Vec<OwnedServerName>,
    /// Keys with which this server signed once.
    pub old_keys: Vec<OldKey>,
    /// PEM files with certificate authorities that are trusted besides the usual ones.
    pub extra_ca_files: Vec<PathBuf>,
    /// Private ranges that requests may go to.
    pub allowed_private_ranges: Vec<IpNet>,
    /// Whether they are told who is online here.
    pub send_presence: bool,
    /// The longest pause between two attempts to reach a server.
    pub longest_retry: Duration,
}

impl FederationConfig {
    /// Has the server speak to others.
    pub fn enable(&mut self) {
        self.enabled = true;
        self.servers.nobody = false;
    }
}

/// How much memory may be taken, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryConfig {
    /// The index's cache.
    pub index_cache: u64,
    /// The cache of room states.
    pub state_cache: u64,
    /// Awake rooms.
    pub rooms: u64,
    /// Clients that sync.
    pub syncs: u64,
    /// The bodies of requests that are not answered yet.
    pub requests: u64,
    /// What many clients are told.
    pub deliveries: u64,
    /// Other servers' events that are not in their rooms yet.
    pub federation: u64,
    /// The search index's cache.
    pub search: u64,
}

/// How many threads, at least one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadsConfig {
    /// That serve HTTP.
    pub http: usize,
    /// That run rooms.
    pub rooms: usize,
}

/// Logging.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// What is logged.
    pub filter: Targets,
    /// How it looks.
    pub format: LogFormat,
    /// Whether each request is.
    pub requests: bool,
}

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object per line.
    Json,
}

/// What counts in test mode alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TestConfig {
    /// What ids and tokens are drawn from. 0 where data are on disk: they don't repeat.
    pub seed: u64,
    /// What the disk does wrong on purpose.
    pub faults: FaultPlan,
}

impl Config {
    /// Reads the layers (default, file, environment) and checks them.
    ///
    /// # Errors
    /// A file cannot be read, a key is unknown, a value makes no sense.
    pub fn load(source: &Source) -> Result<Self, ConfigError> {
        validate::validate(layers::read(source)?)
    }

    /// Checks what a program may have changed behind [`Config::load`]: that nobody else can reach a
    /// server in test mode.
    ///
    /// # Errors
    /// It listens at an address of others.
    pub(crate) fn check_test_mode(&self) -> Result<(), ConfigError> {
        validate::check_listeners(&self.listeners, self.server.test_mode)
    }

    /// What ids and tokens are drawn from, if they are to repeat.
    #[must_use]
    pub fn seed(&self) -> Option<u64> {
        let repeats = self.server.data == DataDir::Memory || self.test.seed != 0;
        (self.server.test_mode && repeats).then_some(self.test.seed)
    }
}
