//! From what is written to what makes sense.

mod federation;
mod test;
mod turn;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use ruma::{
    MxcUri, OwnedUserId, RoomVersionId, ServerName, UserId,
    api::client::discovery::discover_support::Contact, serde::Base64,
};

pub(super) use self::test::check_listeners;
pub(crate) use self::test::faults;
use super::{
    Config, ConfigError, DataDir, ListenerConfig, LogConfig, MemoryConfig, Policy, PresenceConfig,
    RegistrationConfig, RegistrationMode, RoomsConfig, ServerConfig, ServerNoticesConfig,
    SessionsConfig, SupportConfig, SyncConfig, ThreadsConfig, TlsFiles, UsersConfig,
    raw::{self, Raw},
};
use crate::limits::{Rate, RateLimitConfig};

/// The least memory a server can run with, in bytes.
const MIN_BUDGET: u64 = 16 << 20;

/// The smallest limit for bodies, in bytes: an event of the largest size must fit.
const MIN_BODY: usize = 65_536;

/// The largest limit for bodies, in bytes: they are held in memory.
const MAX_BODY: usize = 256 << 20;

type Checked<T> = Result<T, ConfigError>;

fn wrong<T>(key: &str, what: impl std::fmt::Display) -> Checked<T> {
    Err(ConfigError(format!("key `{key}`: {what}")))
}

pub(super) fn validate(raw: Raw) -> Checked<Config> {
    let server = server(raw.server)?;
    let listeners = listeners(raw.listeners)?;
    check_listeners(&listeners, server.test_mode)?;
    Ok(Config {
        rate_limits: rate_limits(&raw.limits, server.test_mode)?,
        max_client_body: body("limits.max_client_body", raw.limits.max_client_body)?,
        max_federation_body: body("limits.max_federation_body", raw.limits.max_federation_body)?,
        server_notices: server_notices(raw.server_notices, &server.name)?,
        test: test::test(raw.test, &server)?,
        server,
        listeners,
        registration: registration(raw.registration)?,
        support: support(raw.support)?,
        sessions: sessions(raw.sessions)?,
        rooms: rooms(&raw.rooms)?,
        users: UsersConfig {
            profile_lookup: raw.users.profile_lookup,
            directory_of_all: raw.users.directory == raw::Directory::Users,
        },
        presence: presence(raw.presence)?,
        sync: sync(raw.sync)?,
        turn: turn::turn(raw.turn)?,
        federation: federation::federation(raw.federation)?,
        memory: memory(raw.memory)?,
        threads: ThreadsConfig {
            http: threads(raw.threads.http),
            rooms: threads(raw.threads.rooms),
        },
        log: log(&raw.log)?,
    })
}

fn server(raw: raw::Server) -> Checked<ServerConfig> {
    let Ok(name) = ServerName::parse(&raw.name) else {
        return wrong(
            "server.name",
            format_args!(
                "`{}` is not a server name; write a host name, such as example.org",
                raw.name
            ),
        );
    };
    let data = match raw.data_dir.as_str() {
        "" => return wrong("server.data_dir", "write a directory, or \"memory\""),
        "memory" => DataDir::Memory,
        path => DataDir::Path(path.into()),
    };
    Ok(ServerConfig {
        name,
        data,
        public_url: public_url(&raw.public_url)?,
        trusted_proxies: ranges("server.trusted_proxies", &raw.trusted_proxies)?,
        test_mode: raw.test_mode,
    })
}

fn public_url(text: &str) -> Checked<Option<String>> {
    if text.is_empty() {
        return Ok(None);
    }
    match is_url(text) && !text.contains('?') {
        true => Ok(Some(text.trim_end_matches('/').to_owned())),
        false => wrong(
            "server.public_url",
            format_args!("`{text}` is not a URL; write one such as https://matrix.example.org"),
        ),
    }
}

fn is_url(text: &str) -> bool {
    let is_web = text.starts_with("https://") || text.starts_with("http://");
    is_web && text.parse::<http::Uri>().is_ok_and(|uri| uri.host().is_some())
}

/// A range, or one address.
fn ranges(key: &str, texts: &[String]) -> Checked<Vec<IpNet>> {
    let parse = |text: &String| {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.or_else(|_| {
            wrong(
                key,
                format_args!("`{text}` is not an address range; write one such as 10.0.0.0/8"),
            )
        })
    };
    texts.iter().map(parse).collect()
}

fn listeners(raw: Vec<raw::Listener>) -> Checked<Vec<ListenerConfig>> {
    if raw.is_empty() {
        return wrong("listeners", "there is none; write at least one [[listeners]]");
    }
    let listeners: Vec<ListenerConfig> = raw
        .into_iter()
        .enumerate()
        .map(|(number, raw)| listener(number, raw))
        .collect::<Checked<_>>()?;
    for (number, listener) in listeners.iter().enumerate() {
        let address = listener.address;
        if address.port() != 0 && listeners.iter().take(number).any(|l| l.address == address) {
            return wrong("listeners", format_args!("{address} stands there twice; remove one"));
        }
    }
    Ok(listeners)
}

fn listener(number: usize, raw: raw::Listener) -> Checked<ListenerConfig> {
    let key = |name: &str| format!("listeners[{number}].{name}");
    let Ok(ip) = raw.address.parse::<IpAddr>() else {
        return wrong(
            &key("address"),
            format_args!(
                "`{}` is not an address; write 127.0.0.1, ::1, 0.0.0.0 or ::",
                raw.address
            ),
        );
    };
    if raw.apis.is_empty() {
        return wrong(
            &key("apis"),
            "it is empty; name at least one of client, federation, admin, metrics",
        );
    }
    let tls = match (raw.tls_certificate.is_empty(), raw.tls_key.is_empty()) {
        (true, true) => None,
        (false, false) => {
            Some(TlsFiles { certificate: raw.tls_certificate.into(), key: raw.tls_key.into() })
        }
        (false, true) => {
            return wrong(&key("tls_key"), "there is a certificate, so the key is needed, too");
        }
        (true, false) => {
            return wrong(
                &key("tls_certificate"),
                "there is a key, so the certificate is needed, too",
            );
        }
    };
    let address = SocketAddr::new(ip, raw.port);
    Ok(ListenerConfig { address, apis: raw.apis.into_iter().collect(), tls })
}

fn registration(raw: raw::Registration) -> Checked<RegistrationConfig> {
    let mode = match raw.mode {
        raw::RegistrationMode::Open => RegistrationMode::Open,
        raw::RegistrationMode::Local => RegistrationMode::Local,
        raw::RegistrationMode::Closed => RegistrationMode::Closed,
        raw::RegistrationMode::Token => RegistrationMode::Token(raw.tokens.clone()),
    };
    // The grammar of CS API, "Token-authenticated registration".
    let good = |token: &String| {
        let letters = |c: char| c.is_ascii_alphanumeric() || "._~-".contains(c);
        (1..=64).contains(&token.len()) && token.chars().all(letters)
    };
    if !raw.tokens.iter().all(good) {
        return wrong(
            "registration.tokens",
            "a token has 1 to 64 of the characters A-Z a-z 0-9 . _ ~ -",
        );
    }
    let shared_secret = Some(raw.shared_secret).filter(|secret| !secret.is_empty());
    let terms = terms(raw.terms)?;
    Ok(RegistrationConfig { mode, shared_secret, terms, guests: raw.guests })
}

fn terms(raw: Vec<raw::Policy>) -> Checked<Vec<Policy>> {
    const KEY: &str = "registration.terms";
    let mut policies: Vec<Policy> = Vec::new();
    for raw::Policy { id, version, languages } in raw {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if id.is_empty() || !id.chars().all(good) {
            return wrong(KEY, format_args!("id `{id}`: it has the characters A-Z a-z 0-9 _"));
        }
        if policies.iter().any(|policy| policy.id == id) {
            return wrong(KEY, format_args!("id `{id}` stands there twice; remove one"));
        }
        if version.is_empty() || languages.is_empty() {
            return wrong(KEY, format_args!("`{id}` needs a version and at least one language"));
        }
        for text in languages.values() {
            if text.name.is_empty() || !is_url(&text.url) {
                return wrong(KEY, format_args!("`{id}`: each language needs a name and a URL"));
            }
        }
        policies.push(Policy { id, version, languages });
    }
    Ok(policies)
}

fn sessions(raw: raw::Sessions) -> Checked<SessionsConfig> {
    let seconds = raw.access_token_lifetime_seconds;
    if raw.refreshable_token_lifetime_seconds == 0 {
        return wrong("sessions.refreshable_token_lifetime_seconds", "write 1 or more");
    }
    Ok(SessionsConfig {
        access: (seconds > 0).then(|| Duration::from_secs(seconds)),
        refreshable: Duration::from_secs(raw.refreshable_token_lifetime_seconds),
    })
}

fn server_notices(
    raw: raw::ServerNotices,
    server: &ServerName,
) -> Checked<Option<ServerNoticesConfig>> {
    let raw::ServerNotices { localpart, display_name, avatar_url, room_name } = raw;
    if localpart.is_empty() {
        return Ok(None);
    }
    let user = UserId::parse(format!("@{localpart}:{server}")).ok();
    let user = user.filter(|user| user.validate_strict().is_ok() && user.server_name() == server);
    let Some(user) = user else {
        return wrong(
            "server_notices.localpart",
            format_args!("`{localpart}` is not the name of a user; write one such as server"),
        );
    };
    if !avatar_url.is_empty() && !<&MxcUri>::from(avatar_url.as_str()).is_valid() {
        return wrong(
            "server_notices.avatar_url",
            format_args!("`{avatar_url}` is not an mxc: URI; write one, or nothing"),
        );
    }
    let avatar_url = Some(avatar_url).filter(|url| !url.is_empty());
    Ok(Some(ServerNoticesConfig { user, display_name, avatar_url, room_name }))
}

fn rooms(raw: &raw::Rooms) -> Checked<RoomsConfig> {
    let known = (1..=12).any(|version: u8| version.to_string() == raw.default_version);
    let version = RoomVersionId::try_from(raw.default_version.as_str());
    let (true, Ok(default_version)) = (known, version) else {
        return wrong(
            "rooms.default_version",
            format_args!("`{}` is not one of \"1\" to \"12\"", raw.default_version),
        );
    };
    if raw.max_queue == 0 {
        return wrong("rooms.max_queue", "0 would refuse everything; write 1 or more");
    }
    if raw.idle_seconds == 0 {
        return wrong("rooms.idle_seconds", "0 would drop rooms at once; write 1 or more");
    }
    Ok(RoomsConfig {
        default_version,
        idle_timeout: Duration::from_secs(raw.idle_seconds),
        max_event_delay: Duration::from_secs(raw.max_event_delay_seconds),
        max_queue: raw.max_queue,
        policy_server_key: policy_server_key(&raw.policy_server_key)?,
    })
}

fn policy_server_key(text: &str) -> Checked<Option<Base64>> {
    if text.is_empty() {
        return Ok(None);
    }
    match Base64::parse(text) {
        Ok(key) if key.as_bytes().len() == 32 => Ok(Some(key)),
        _ => wrong(
            "rooms.policy_server_key",
            format_args!("`{text}` is not an ed25519 key; write its 32 bytes in base64"),
        ),
    }
}

fn support(raw: raw::Support) -> Checked<SupportConfig> {
    let contacts = raw.contacts.into_iter().enumerate().map(|(number, raw)| contact(number, raw));
    Ok(SupportConfig {
        page: Some(raw.page).filter(|page| !page.is_empty()),
        contacts: contacts.collect::<Checked<_>>()?,
    })
}

fn contact(number: usize, raw: raw::Contact) -> Checked<Contact> {
    let key = |name: &str| format!("support.contacts[{number}].{name}");
    let raw::Contact { role, email_address, matrix_id } = raw;
    if role.is_empty() {
        return wrong(&key("role"), "it is empty; write one such as m.role.admin");
    }
    if email_address.is_empty() && matrix_id.is_empty() {
        return wrong(&key("email_address"), "write this or matrix_id, since both are empty");
    }
    let mut contact = Contact::with_email_address(role.into(), email_address);
    contact.email_address = contact.email_address.filter(|address| !address.is_empty());
    if !matrix_id.is_empty() {
        let Ok(user) = OwnedUserId::try_from(matrix_id.as_str()) else {
            return wrong(&key("matrix_id"), format_args!("`{matrix_id}` is not a user id"));
        };
        contact.matrix_id = Some(user);
    }
    Ok(contact)
}

fn presence(raw: raw::Presence) -> Checked<PresenceConfig> {
    if raw.idle_seconds == 0 || raw.offline_seconds == 0 {
        return wrong(
            "presence",
            "idle_seconds and offline_seconds must be at least 1; to have no presence, set \
             presence.enabled = false",
        );
    }
    Ok(PresenceConfig {
        enabled: raw.enabled,
        idle: Duration::from_secs(raw.idle_seconds),
        grace: Duration::from_secs(raw.offline_seconds),
    })
}

fn sync(raw: raw::Sync) -> Checked<SyncConfig> {
    if raw.max_wait_seconds == 0 {
        return wrong(
            "sync.max_wait_seconds",
            "with 0 no client could wait, and all would ask all the time; write 1 or more",
        );
    }
    Ok(SyncConfig { max_wait: Duration::from_secs(raw.max_wait_seconds) })
}

fn rate_limits(raw: &raw::Limits, test_mode: bool) -> Checked<RateLimitConfig> {
    let rate = |name: &str, raw: raw::Rate| {
        let key = format!("limits.{name}");
        if !(raw.per_second.is_finite() && raw.per_second > 0.0) {
            return wrong(
                &key,
                "per_second must be above 0; to have no limits, set limits.enabled = false",
            );
        }
        if raw.burst == 0 {
            return wrong(&key, "burst must be at least 1");
        }
        Ok(Rate { per_second: raw.per_second, burst: raw.burst })
    };
    if raw.max_keys == 0 {
        return wrong("limits.max_keys", "must be at least 1");
    }
    Ok(RateLimitConfig {
        enabled: raw.enabled && !test_mode,
        max_keys: raw.max_keys,
        login: rate("login", raw.login)?,
        registration: rate("registration", raw.registration)?,
        message: rate("message", raw.message)?,
        join: rate("join", raw.join)?,
        other: rate("other", raw.other)?,
        federation: rate("federation", raw.federation)?,
    })
}

fn body(key: &str, bytes: usize) -> Checked<usize> {
    if (MIN_BODY..=MAX_BODY).contains(&bytes) {
        return Ok(bytes);
    }
    wrong(key, format_args!("{bytes} is not between {MIN_BODY} and {MAX_BODY}"))
}

fn memory(raw: raw::Memory) -> Checked<MemoryConfig> {
    if raw.budget < MIN_BUDGET {
        return wrong(
            "memory.budget",
            format_args!("{} bytes are too few; write at least {MIN_BUDGET}", raw.budget),
        );
    }
    let parts = [
        raw.index_cache_percent,
        raw.state_cache_percent,
        raw.rooms_percent,
        raw.syncs_percent,
        raw.requests_percent,
        raw.deliveries_percent,
        raw.federation_percent,
        raw.search_percent,
    ];
    let sum = parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(*part));
    if sum != Some(100) || parts.contains(&0) {
        return wrong("memory", "the eight percentages must be above 0 and add up to 100");
    }
    let share = |percent: u64| raw.budget / 100 * percent;
    Ok(MemoryConfig {
        index_cache: share(raw.index_cache_percent),
        state_cache: share(raw.state_cache_percent),
        rooms: share(raw.rooms_percent),
        syncs: share(raw.syncs_percent),
        requests: share(raw.requests_percent),
        deliveries: share(raw.deliveries_percent),
        federation: share(raw.federation_percent),
        search: share(raw.search_percent),
    })
}

fn threads(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        some => some,
    }
}

fn log(raw: &raw::Log) -> Checked<LogConfig> {
    match raw.level.parse() {
        Ok(filter) => Ok(LogConfig { filter, format: raw.format, requests: raw.requests }),
        Err(error) => {
            wrong("log.level", format_args!("`{}`: {error}; write one such as info", raw.level))
        }
    }
}
