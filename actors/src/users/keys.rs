//! Keys of users and their devices for end-to-end encryption.
//!
//! All of them are JSON as clients gave it, since it is signed. Signatures that come later are kept
//! beside the keys, by who made them: who reads decides which of them it may see.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption>

mod claim;
mod known;
mod news;
mod signing;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use parlour_event::StreamPos;
use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::{
        Device, DeviceList, KeysChanged, OneTimeKeys, Stored, device_list, keys, keys::KeyReader,
    },
};
use serde_json::Value;

pub use self::{
    claim::Claimed,
    known::{DeviceChange, Kept, MAX_KNOWN_DEVICES, RemoteUserKeys, Told},
    signing::{CrossSigningKeys, KEY_USAGES, NewSignature, SigningError},
};
pub(super) use self::{
    news::{KeyNews, Touched, with_news},
    signing::is_signing_key,
};
use super::{Decision, UserError, Users};
use crate::commit::Announcement;

/// How many one-time keys a device may have waiting.
const MAX_ONE_TIME_KEYS: usize = 1_000;

/// Of how many algorithms a device may have fallback keys.
const MAX_FALLBACK_KEYS: usize = 16;

/// Why keys were not stored.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The device was deleted meanwhile.
    #[error("the device is gone")]
    NoDevice,
    /// There is another key with this id.
    #[error("the one-time key {0} is there already, and it is another one")]
    Taken(String),
    /// The device's id is a cross-signing key of the user.
    #[error("a device cannot be named like a cross-signing key")]
    NamedLikeKey,
    /// The device has very many keys already.
    #[error("there are too many keys")]
    TooMany,
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

impl From<StorageError> for KeyError {
    fn from(error: StorageError) -> Self {
        Self::User(error.into())
    }
}

/// One-time or fallback keys, by algorithm and id (without the algorithm).
pub type KeysById = BTreeMap<(String, String), Bytes>;

/// What a device publishes.
#[derive(Debug, Clone, Default)]
pub struct NewKeys {
    /// Its identity.
    pub device_keys: Option<Bytes>,
    /// Keys that are given out once each.
    pub one_time: KeysById,
    /// Keys that are given out when there are no others.
    pub fallback: KeysById,
}

impl Users {
    /// Stores keys of a device; says how many one-time keys it has then.
    ///
    /// # Errors
    ///
    /// [`KeyError`]
    pub async fn upload_keys(
        &self,
        user: &str,
        device: &str,
        new: NewKeys,
    ) -> Result<OneTimeKeys, KeyError> {
        let (name, device) = (user.to_owned(), device.to_owned());
        let decide = move |store: &Store| {
            if store.typed::<Device>(&keys::device(&name, &device))?.is_none() {
                return Err(KeyError::NoDevice);
            }
            let mut ops = Vec::new();
            let counts = plan_upload(store, &name, &device, new, &mut ops)?;
            if ops.is_empty() {
                return Ok(Decision::Keep(counts));
            }
            Ok(Decision::Write(with_news(store, &name, ops, Announcement::Nothing)?, counts))
        };
        self.change(user, decide).await
    }

    /// The keys of a device.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn device_keys(&self, user: &str, device: &str) -> Result<Option<Bytes>, StorageError> {
        body(&self.store, &keys::device_keys(user, device))
    }

    /// The keys of all devices of a user that have any.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn all_device_keys(&self, user: &str) -> Result<Vec<(String, Bytes)>, StorageError> {
        let prefix = keys::device_keys_of(user);
        let mut all = Vec::new();
        for (key, entry) in self.store.scan_prefix(&prefix, Direction::Forward, usize::MAX)? {
            // A key reader skips one byte, which here is that of the kind.
            let device = KeyReader::new(key.get(prefix.len() - 1..).unwrap_or_default()).text();
            if let (Some(device), Some(place)) = (device, entry.blob) {
                all.push((device, self.store.blob(&place)?));
            }
        }
        Ok(all)
    }

    /// How many one-time keys a device has.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn one_time_keys(&self, user: &str, device: &str) -> Result<OneTimeKeys, StorageError> {
        Ok(self.store.typed(&keys::one_time_keys(user, device))?.unwrap_or_default())
    }

    /// The newest updates of a user's device list, as other servers are told of them.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn device_list(&self, user: &str) -> Result<DeviceList, StorageError> {
        Ok(self.store.typed(&device_list::device_list(user))?.unwrap_or_default())
    }
}

/// The operations that store keys of a device. Those that are there already cost nothing.
pub(super) fn plan_upload(
    store: &Store,
    user: &str,
    device: &str,
    new: NewKeys,
    ops: &mut Vec<Op>,
) -> Result<OneTimeKeys, KeyError> {
    if let Some(blob) = new.device_keys {
        let key = keys::device_keys(user, device);
        let old = body(store, &key)?;
        if is_signing_key(store, user, device)? {
            return Err(KeyError::NamedLikeKey);
        }
        if old.as_deref() != Some(&blob[..]) {
            if old.is_some() {
                // What was signed was another key.
                ops.push(Op::Delete { key: keys::key_signatures(user, user, device) });
            }
            ops.push(Op::PutBlob { key, value: Bytes::new(), blob });
        }
    }
    let head = keys::one_time_keys(user, device);
    let old = store.typed::<OneTimeKeys>(&head)?.unwrap_or_default();
    let mut counts = old.clone();
    add_one_time_keys(store, (user, device), new.one_time, &mut counts, ops)?;
    for ((algorithm, id), blob) in new.fallback {
        let key = keys::fallback_key(user, device, &algorithm);
        let known = store.get(&key)?;
        if known.as_ref().is_some_and(|known| known.value == id.as_bytes()) {
            // The client has not heard that it was there.
            continue;
        }
        counts.fallbacks.insert(algorithm, false);
        ops.push(Op::PutBlob { key, value: Bytes::from(id), blob });
    }
    if counts.fallbacks.len() > MAX_FALLBACK_KEYS {
        return Err(KeyError::TooMany);
    }
    if counts != old {
        ops.push(Op::Put { key: head, value: counts.encode() });
    }
    Ok(counts)
}

fn add_one_time_keys(
    store: &Store,
    (user, device): (&str, &str),
    new: KeysById,
    counts: &mut OneTimeKeys,
    ops: &mut Vec<Op>,
) -> Result<(), KeyError> {
    let mut known = HashMap::new();
    if !new.is_empty() {
        let prefix = keys::one_time_keys_of(user, device);
        for (key, entry) in store.scan_prefix(&prefix, Direction::Forward, MAX_ONE_TIME_KEYS)? {
            let algorithm = KeyReader::new(key.get(prefix.len() - 1..).unwrap_or_default()).text();
            let id = String::from_utf8_lossy(&entry.value).into_owned();
            known.insert((algorithm.unwrap_or_default(), id), entry.blob);
        }
    }
    for (id, blob) in new {
        if let Some(place) = known.get(&id) {
            let old = place.map(|place| store.blob(&place)).transpose()?;
            if old.is_some_and(|old| is_same_key(&old, &blob)) {
                continue;
            }
            return Err(KeyError::Taken(format!("{}:{}", id.0, id.1)));
        }
        let (algorithm, id) = id;
        let key = keys::one_time_key(user, device, &algorithm, counts.next);
        counts.next += 1;
        *counts.counts.entry(algorithm).or_default() += 1;
        ops.push(Op::PutBlob { key, value: Bytes::from(id), blob });
    }
    match counts.counts.values().sum::<u64>() > MAX_ONE_TIME_KEYS as u64 {
        true => Err(KeyError::TooMany),
        false => Ok(()),
    }
}

/// Whether two texts are the same one-time key, whoever has signed it when.
fn is_same_key(one: &[u8], other: &[u8]) -> bool {
    let parse = |text: &[u8]| {
        let mut key = serde_json::from_slice::<Value>(text).ok()?;
        if let Some(fields) = key.as_object_mut() {
            fields.remove("signatures");
        }
        Some(key)
    };
    one == other || parse(one).is_some_and(|one| Some(one) == parse(other))
}

/// The end of a device's keys.
pub(super) fn remove_keys(
    store: &Store,
    user: &str,
    device: &str,
    ops: &mut Vec<Op>,
) -> Result<(), StorageError> {
    let head = keys::one_time_keys(user, device);
    let mut gone = Vec::new();
    if store.get(&head)?.is_some() {
        for prefix in [keys::one_time_keys_of(user, device), keys::fallback_keys_of(user, device)] {
            let entries = store.scan_prefix(&prefix, Direction::Forward, usize::MAX)?;
            gone.extend(entries.into_iter().map(|(key, _)| key));
        }
        gone.push(head);
    }
    let key = keys::device_keys(user, device);
    if store.get(&key)?.is_some() {
        gone.extend([key, keys::key_signatures(user, user, device)]);
    }
    ops.extend(gone.into_iter().map(|key| Op::Delete { key }));
    Ok(())
}

/// The body of an entry.
fn body(store: &Store, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
    store.get(key)?.and_then(|entry| entry.blob).map(|place| store.blob(&place)).transpose()
}

fn last_change(store: &Store, user: &str) -> Result<Option<StreamPos>, StorageError> {
    Ok(store.typed::<KeysChanged>(&keys::keys_changed(user))?.map(|changed| changed.pos))
}
