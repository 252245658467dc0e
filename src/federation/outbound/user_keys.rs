//! Keys of users of other servers: asked for, and remembered where those servers tell of changes.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption>

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use parlour_actors::{
    federation_queue::FederationQueues,
    per_key::PerKey,
    users::{KEY_USAGES, Kept, MAX_KNOWN_DEVICES, RemoteUserKeys, UserError, Users},
};
use parlour_event::StreamPos;
use parlour_storage::{StorageError, Store};
use prometheus::IntCounterVec;
use ruma::{
    OwnedDeviceId, OwnedServerName, OwnedUserId, ServerName, UserId,
    api::federation::{
        device::get_devices::v1 as get_devices,
        keys::{claim_keys::v1 as claim_keys, get_keys::v1 as get_keys},
    },
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::timeout,
};

use super::{
    client::{AskError, FederationClient},
    remote_key,
    transport::{Limits, TransportError},
};

/// What a user's keys may be, in bytes: a thousand devices with keys of usual length.
const ONE_USER: Limits = Limits { time: Duration::from_secs(20), body: 4 << 20 };

/// What the keys of many users may be.
const MANY_USERS: usize = 16 << 20;

/// The keys of how many users are made durable at the same time.
const KEPT_AT_ONCE: usize = 32;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The server gives none.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// They could not be remembered.
    #[error(transparent)]
    User(#[from] UserError),
}

/// Which devices are wanted, by user; all of a user's if none is named.
pub type Wanted = BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>;

/// What is known of users, and what is not.
#[derive(Debug, Default)]
pub struct Look {
    /// What is known, as far as it is wanted.
    pub known: BTreeMap<OwnedUserId, RemoteUserKeys>,
    /// Who has to be asked about whom.
    pub unknown: BTreeMap<OwnedServerName, BTreeMap<OwnedUserId, Missing>>,
}

/// A user of whom nothing is known.
#[derive(Debug)]
pub struct Missing {
    /// The devices that are wanted; all, if none is named.
    pub devices: Vec<OwnedDeviceId>,
    /// Whether the user's server tells of changes.
    pub is_tracked: bool,
}

/// Asks for keys, about one user once at a time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct UserKeysClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: FederationClient,
    /// Who knows which servers are away.
    queues: FederationQueues,
    users: Users,
    store: Store,
    turns: PerKey<OwnedUserId, Mutex<()>>,
    /// Answers, by what they were good for.
    outcomes: IntCounterVec,
}

/// A user's devices, as far as they are looked at. Those without keys are there, too.
#[derive(Debug, Deserialize)]
struct Devices {
    stream_id: u64,
    #[serde(default)]
    devices: Vec<Device>,
    master_key: Option<Box<RawValue>>,
    self_signing_key: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
struct Device {
    device_id: String,
    keys: Option<Box<RawValue>>,
    device_display_name: Option<String>,
}

/// The keys of several users.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    device_keys: BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>,
    master_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
    self_signing_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
}

impl UserKeysClient {
    /// Asks with this client.
    #[must_use]
    pub fn new(
        client: FederationClient,
        queues: FederationQueues,
        users: Users,
        store: Store,
        outcomes: IntCounterVec,
    ) -> Self {
        let turns = PerKey::default();
        Self(Arc::new(Inner { client, queues, users, store, turns, outcomes }))
    }

    /// Whether a server may be asked at all.
    #[must_use]
    pub fn may_ask(&self, server: &ServerName) -> bool {
        self.0.client.may_ask(server)
    }

    /// Gets what is not known of a user any more.
    ///
    /// # Errors
    ///
    /// [`KeysError`]
    pub async fn refresh(&self, user: &UserId) -> Result<Kept, KeysError> {
        let (_turn, _) = self.turn(user).await;
        let asked_at = self.0.store.applied();
        let mut keys = self.ask_devices(user).await;
        if let Err(AskError::Refused { .. } | AskError::Answer(_)) = keys {
            // It does not have this endpoint, or does not know the user by it.
            let wanted = Wanted::from([(user.to_owned(), Vec::new())]);
            let all = self.ask_keys(user.server_name(), wanted, ONE_USER).await;
            keys = all.map(|mut all| all.remove(user).unwrap_or_default());
        }
        let kept = match keys {
            Ok(keys) => Ok(self.0.users.keep_keys(user.as_str(), keys, asked_at).await?),
            Err(error) => Err(error),
        };
        let outcome = match &kept {
            Ok(Kept::Fresh) => "fresh",
            Ok(Kept::Stale) => "stale",
            Ok(Kept::Nothing) => "not_kept",
            Err(_) => "failed",
        };
        self.0.outcomes.with_label_values(&[outcome]).inc();
        Ok(kept?)
    }

    /// Looks at what is known of users of other servers, and whom else their servers tell of: what
    /// those are asked for can be remembered.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn look(&self, wanted: Wanted) -> Result<Look, StorageError> {
        let Inner { users, store, .. } = &*self.0;
        let (mut look, now) = (Look::default(), store.applied());
        for (user, devices) in wanted {
            let may_ask = self.may_ask(user.server_name());
            if let Some(keys) = users.known_keys(user.as_str())?.filter(|_| may_ask) {
                look.known.insert(user, only(keys, &devices));
                continue;
            }
            let is_tracked = may_ask && store.shares_room_since(user.as_str(), now)?;
            let of_server = look.unknown.entry(user.server_name().to_owned()).or_default();
            of_server.insert(user, Missing { devices, is_tracked });
        }
        Ok(look)
    }

    /// Asks a server for the keys of some of its users. Users whom it does not know are missing.
    ///
    /// # Errors
    ///
    /// [`KeysError`], if the server gives no answer within this time, or is away.
    pub async fn query(
        &self,
        server: &ServerName,
        missing: BTreeMap<OwnedUserId, Missing>,
        time: Duration,
    ) -> Result<BTreeMap<OwnedUserId, RemoteUserKeys>, KeysError> {
        self.check_present(server)?;
        match timeout(time, self.query_in_turn(server, missing, time)).await {
            Ok(found) => found,
            Err(_) => Err(AskError::from(TransportError::Timeout).into()),
        }
    }

    async fn query_in_turn(
        &self,
        server: &ServerName,
        missing: BTreeMap<OwnedUserId, Missing>,
        time: Duration,
    ) -> Result<BTreeMap<OwnedUserId, RemoteUserKeys>, KeysError> {
        let (mut found, mut wanted) = (BTreeMap::new(), Wanted::new());
        let (mut turns, mut tracked) = (Vec::new(), BTreeMap::new());
        // In the order of their names, as everybody takes their turns.
        for (user, Missing { devices, is_tracked }) in missing {
            if !is_tracked {
                wanted.insert(user, devices);
                continue;
            }
            let (turn, had_to_wait) = self.turn(&user).await;
            let known = match had_to_wait {
                // Somebody else has asked meanwhile.
                true => self.0.users.known_keys(user.as_str()).map_err(UserError::from)?,
                false => None,
            };
            turns.push(turn);
            match known {
                Some(keys) => drop(found.insert(user.clone(), keys)),
                // What is remembered is all.
                None => drop(wanted.insert(user.clone(), Vec::new())),
            }
            tracked.insert(user, devices);
        }
        if !wanted.is_empty() {
            let asked_at = self.0.store.applied();
            let limits = Limits { time, body: MANY_USERS };
            let answer = self.ask_keys(server, wanted, limits).await?;
            self.keep(answer.iter().filter(|(user, _)| tracked.contains_key(*user)), asked_at)
                .await;
            found.extend(answer);
        }
        let narrow = |(user, keys): (OwnedUserId, RemoteUserKeys)| {
            let keys = only(keys, tracked.get(&user).map_or(&[], Vec::as_slice));
            (user, keys)
        };
        Ok(found.into_iter().map(narrow).collect())
    }

    /// Has a server give out one-time keys: each of them once, so nothing is remembered.
    ///
    /// # Errors
    ///
    /// [`AskError`]
    pub async fn claim(
        &self,
        server: &ServerName,
        request: claim_keys::Request,
        time: Duration,
    ) -> Result<claim_keys::Response, AskError> {
        self.check_present(server)?;
        self.0.client.ask(server, request, Limits { time, body: MANY_USERS }).await
    }

    /// Nobody is to wait for a server that could not be reached again and again, until it is tried
    /// the next time or contacts this server.
    fn check_present(&self, server: &ServerName) -> Result<(), AskError> {
        match self.0.queues.is_silent(server) {
            true => Err(TransportError::Connection("it could not be reached".to_owned()).into()),
            false => Ok(()),
        }
    }

    /// Forgets a user.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn forget(&self, user: &str) -> Result<(), UserError> {
        self.0.users.forget_keys(user).await
    }

    /// Remembers keys of users; where that fails they are asked for again.
    async fn keep(
        &self,
        answer: impl Iterator<Item = (&OwnedUserId, &RemoteUserKeys)>,
        asked_at: StreamPos,
    ) {
        let kept = stream::iter(answer).for_each_concurrent(KEPT_AT_ONCE, async |(user, keys)| {
            let kept = self.0.users.keep_keys(user.as_str(), keys.clone(), asked_at).await;
            if let Err(error) = kept {
                tracing::warn!(%error, "keys were not remembered");
            }
        });
        kept.await;
    }

    /// The turn to ask about a user, and whether somebody else had it.
    async fn turn(&self, user: &UserId) -> (OwnedMutexGuard<()>, bool) {
        let turn = self.0.turns.get(user, Mutex::default);
        match turn.clone().try_lock_owned() {
            Ok(guard) => (guard, false),
            Err(_) => (turn.lock_owned().await, true),
        }
    }

    /// `GET /_matrix/federation/v1/user/devices/{userId}`
    async fn ask_devices(&self, user: &UserId) -> Result<RemoteUserKeys, AskError> {
        let request = get_devices::Request::new(user.to_owned());
        let answer: Devices = self.0.client.ask_json(user.server_name(), request, ONE_USER).await?;
        let device = |Device { device_id, keys, device_display_name }| {
            let keys: Box<RawValue> = keys?;
            let keys = remote_key::device(user, &device_id, &keys, device_display_name)?;
            Some((device_id, keys))
        };
        let mut keys = RemoteUserKeys {
            change: Some(answer.stream_id),
            devices: answer.devices.into_iter().filter_map(device).collect(),
            signing: BTreeMap::new(),
        };
        let signing = [answer.master_key, answer.self_signing_key];
        add_signing(&mut keys, user, signing.each_ref().map(Option::as_deref));
        bound(&mut keys);
        Ok(keys)
    }

    /// `POST /_matrix/federation/v1/user/keys/query`
    async fn ask_keys(
        &self,
        server: &ServerName,
        wanted: Wanted,
        limits: Limits,
    ) -> Result<BTreeMap<OwnedUserId, RemoteUserKeys>, AskError> {
        let request = get_keys::Request::new(wanted.clone());
        let mut answer: Keys = self.0.client.ask_json(server, request, limits).await?;
        let mut found = BTreeMap::new();
        for user in wanted.into_keys() {
            let devices = answer.device_keys.remove(&user);
            let signing = [&answer.master_keys, &answer.self_signing_keys];
            let signing = signing.map(|keys| keys.get(&user).map(|key| &**key));
            if devices.is_none() && signing.iter().all(Option::is_none) {
                continue;
            }
            let mut keys = RemoteUserKeys::default();
            let device = |(id, keys): (String, Box<RawValue>)| {
                let keys = remote_key::device(&user, &id, &keys, None)?;
                Some((id, keys))
            };
            keys.devices = devices.into_iter().flatten().filter_map(device).collect();
            add_signing(&mut keys, &user, signing);
            bound(&mut keys);
            found.insert(user, keys);
        }
        Ok(found)
    }
}

fn add_signing(keys: &mut RemoteUserKeys, user: &UserId, [master, own]: [Option<&RawValue>; 2]) {
    let [of_user, of_devices, _] = KEY_USAGES;
    for (usage, key) in [(of_user, master), (of_devices, own)] {
        let key = key.and_then(|key| remote_key::signing(user, usage, key));
        keys.signing.extend(key.map(|key| (usage.to_owned(), key)));
    }
}

/// Of whom there are too many devices there is none.
fn bound(keys: &mut RemoteUserKeys) {
    if keys.devices.len() > MAX_KNOWN_DEVICES {
        keys.devices.clear();
    }
}

/// A user with these devices alone, if any are named.
fn only(mut keys: RemoteUserKeys, wanted: &[OwnedDeviceId]) -> RemoteUserKeys {
    keys.devices.retain(|device, _| wanted.is_empty() || wanted.iter().any(|id| id == device));
    keys
}
