//! The configuration as it is written: every key of `config/parlour.toml`, and no other.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{LogFormat, PolicyText, ProfileLookup};
use crate::http::Api;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Raw {
    pub(crate) server: Server,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) registration: Registration,
    pub(crate) support: Support,
    pub(crate) sessions: Sessions,
    pub(crate) server_notices: ServerNotices,
    pub(crate) rooms: Rooms,
    pub(crate) users: Users,
    pub(crate) presence: Presence,
    pub(crate) sync: Sync,
    pub(crate) turn: Turn,
    pub(crate) limits: Limits,
    pub(crate) federation: Federation,
    pub(crate) memory: Memory,
    pub(crate) threads: Threads,
    pub(crate) log: Log,
    pub(crate) test: Test,
}

/// `[server]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) data_dir: String,
    pub(crate) public_url: String,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) test_mode: bool,
}

/// `[[listeners]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) apis: Vec<Api>,
    #[serde(default)]
    pub(crate) tls_certificate: String,
    #[serde(default)]
    pub(crate) tls_key: String,
}

/// Who may make an account over the client-server API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RegistrationMode {
    Open,
    Local,
    Token,
    Closed,
}

/// `[registration]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registration {
    pub(crate) mode: RegistrationMode,
    pub(crate) tokens: Vec<String>,
    pub(crate) shared_secret: String,
    pub(crate) terms: Vec<Policy>,
    pub(crate) guests: bool,
}

/// An entry of `registration.terms`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) languages: BTreeMap<String, PolicyText>,
}

impl std::fmt::Debug for Registration {
    // Tokens and secret are not for logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// `[support]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Support {
    pub(crate) page: String,
    pub(crate) contacts: Vec<Contact>,
}

/// One of `support.contacts`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contact {
    pub(crate) role: String,
    #[serde(default)]
    pub(crate) email_address: String,
    #[serde(default)]
    pub(crate) matrix_id: String,
}

/// `[sessions]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sessions {
    pub(crate) access_token_lifetime_seconds: u64,
    pub(crate) refreshable_token_lifetime_seconds: u64,
}

/// `[server_notices]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerNotices {
    pub(crate) localpart: String,
    pub(crate) display_name: String,
    pub(crate) avatar_url: String,
    pub(crate) room_name: String,
}

/// `[rooms]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rooms {
    pub(crate) default_version: String,
    pub(crate) idle_seconds: u64,
    pub(crate) max_event_delay_seconds: u64,
    pub(crate) max_queue: usize,
    pub(crate) policy_server_key: String,
}

/// Whom the user directory shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Directory {
    Users,
    Acquaintances,
}

/// `[users]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Users {
    pub(crate) profile_lookup: ProfileLookup,
    pub(crate) directory: Directory,
}

/// `[presence]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Presence {
    pub(crate) enabled: bool,
    pub(crate) idle_seconds: u64,
    pub(crate) offline_seconds: u64,
}

/// `[sync]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sync {
    pub(crate) max_wait_seconds: u64,
}

/// `[turn]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Turn {
    pub(crate) uris: Vec<String>,
    pub(crate) shared_secret: String,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) lifetime_seconds: u64,
}

impl std::fmt::Debug for Turn {
    // Secret and password are not for logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn").field("uris", &self.uris).finish_non_exhaustive()
    }
}

/// A rate limit.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) burst: u32,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) enabled: bool,
    pub(crate) max_keys: usize,
    pub(crate) login: Rate,
    pub(crate) registration: Rate,
    pub(crate) message: Rate,
    pub(crate) join: Rate,
    pub(crate) other: Rate,
    pub(crate) federation: Rate,
    pub(crate) max_client_body: usize,
    pub(crate) max_federation_body: usize,
}

/// `[federation]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Federation {
    pub(crate) enabled: bool,
    pub(crate) delegate_to: String,
    pub(crate) allow_servers: Vec<String>,
    pub(crate) deny_servers: Vec<String>,
    pub(crate) trusted_key_servers: Vec<String>,
    pub(crate) old_keys: Vec<OldKey>,
    pub(crate) extra_ca_files: Vec<String>,
    pub(crate) allowed_private_ranges: Vec<String>,
    pub(crate) send_presence: bool,
    pub(crate) longest_retry_seconds: u64,
}

/// A key with which this server signed once.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OldKey {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) expired_ts: u64,
}

/// `[memory]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Memory {
    pub(crate) budget: u64,
    pub(crate) index_cache_percent: u64,
    pub(crate) state_cache_percent: u64,
    pub(crate) rooms_percent: u64,
    pub(crate) syncs_percent: u64,
    pub(crate) requests_percent: u64,
    pub(crate) deliveries_percent: u64,
    pub(crate) federation_percent: u64,
    pub(crate) search_percent: u64,
}

/// `[threads]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Threads {
    pub(crate) http: usize,
    pub(crate) rooms: usize,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) level: String,
    pub(crate) format: LogFormat,
    pub(crate) requests: bool,
}

/// `[test]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Test {
    pub(crate) seed: u64,
    pub(crate) flush_delay_ms: u64,
    pub(crate) failing_flushes: i64,
    pub(crate) failing_writes: i64,
}
