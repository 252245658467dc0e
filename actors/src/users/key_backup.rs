//! Backups of the keys with which users read their rooms, encrypted by their clients.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups>

use std::{
    cmp::Reverse,
    ops::Bound::{Excluded, Unbounded},
};

use bytes::Bytes;
use parlour_storage::{
    Direction, Entry, Op, StorageError, Store,
    schema::{BackedUpKey, BackupVersion, BackupVersions, Stored, keys, keys::KeyReader},
};
use serde_json::Value;

use super::{Decision, UserError, Users, sessions::quiet};

/// How many backups a user may have.
const MAX_BACKUPS: usize = 100;

/// How many keys a backup may have.
const MAX_KEYS: u64 = 500_000;

/// How long all keys of a backup may be, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// How many keys are deleted at once.
const CHUNK: usize = 5_000;

/// Why a backup was not changed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is no such backup.
    #[error("unknown backup version")]
    Unknown,
    /// Only the newest backup takes keys.
    #[error("wrong backup version")]
    WrongVersion {
        /// The newest one.
        current: u64,
    },
    /// The algorithm of a backup never changes.
    #[error("the algorithm does not match")]
    OtherAlgorithm,
    /// There are very many keys, or backups, already.
    #[error("there is too much in the backup")]
    TooMuch,
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

impl From<StorageError> for BackupError {
    fn from(error: StorageError) -> Self {
        Self::User(error.into())
    }
}

/// A backup.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Its number.
    pub version: u64,
    /// What the client says about it, as JSON text: `algorithm` and `auth_data`.
    pub info: Bytes,
    /// How many keys it has.
    pub count: u64,
    /// Changes whenever its keys do.
    pub etag: u64,
}

/// A key that is to be backed up.
#[derive(Debug, Clone)]
pub struct BackupKey {
    /// The room.
    pub room: String,
    /// The session.
    pub session: String,
    /// Which key is the better one is told by this.
    pub meta: BackedUpKey,
    /// The key, as JSON text.
    pub data: Bytes,
}

/// A key of a backup: room, session, and the key as JSON text.
pub type StoredKey = (String, String, Bytes);

/// Some of the keys of a backup.
#[derive(Debug, Clone)]
pub enum KeysIn {
    /// All.
    Backup,
    /// Those of a room.
    Room(String),
    /// That of a session in a room.
    Session(String, String),
}

impl Users {
    /// Begins a backup; says which number it has.
    ///
    /// # Errors
    ///
    /// [`BackupError`]
    pub async fn create_backup(&self, user: &str, info: Bytes) -> Result<u64, BackupError> {
        let name = user.to_owned();
        let decide = move |store: &Store| {
            if live(store, &name)?.len() >= MAX_BACKUPS {
                return Err(BackupError::TooMuch);
            }
            let head = keys::backup_versions(&name);
            let BackupVersions { newest } = store.typed(&head)?.unwrap_or_default();
            let version = newest + 1;
            let ops = vec![
                Op::Put { key: head, value: BackupVersions { newest: version }.encode() },
                put_version(&name, version, BackupVersion::default(), info),
            ];
            Ok(Decision::Write(quiet(ops), version))
        };
        self.change(user, decide).await
    }

    /// A backup, or the newest one.
    ///
    /// # Errors
    ///
    /// [`BackupError::Unknown`], or if storage cannot be read.
    pub fn backup(&self, user: &str, version: Option<u64>) -> Result<Backup, BackupError> {
        let version = match version {
            Some(version) => Some(version),
            None => live(&self.store, user)?.pop(),
        };
        read(&self.store, user, version.ok_or(BackupError::Unknown)?)
    }

    /// Changes what a client says about a backup.
    ///
    /// # Errors
    ///
    /// [`BackupError`]
    pub async fn update_backup(
        &self,
        user: &str,
        version: u64,
        info: Bytes,
    ) -> Result<(), BackupError> {
        let name = user.to_owned();
        let decide = move |store: &Store| {
            let old = read(store, &name, version)?;
            if algorithm(&old.info) != algorithm(&info) {
                return Err(BackupError::OtherAlgorithm);
            }
            let entry = store.typed(&keys::backup_version(&name, version))?.unwrap_or_default();
            Ok(Decision::Write(quiet(vec![put_version(&name, version, entry, info)]), ()))
        };
        self.change(user, decide).await
    }

    /// Deletes a backup with all its keys. One that was deleted before stays so.
    ///
    /// # Errors
    ///
    /// [`BackupError`]
    pub async fn delete_backup(&self, user: &str, version: u64) -> Result<(), BackupError> {
        loop {
            let name = user.to_owned();
            let decide = move |store: &Store| {
                let key = keys::backup_version(&name, version);
                let entry = store.get(&key)?.ok_or(BackupError::Unknown)?;
                let prefix = keys::backup_keys(&name, version);
                let gone = store.scan_prefix(&prefix, Direction::Forward, CHUNK)?;
                if gone.is_empty() && entry.blob.is_none() {
                    return Ok(Decision::Keep(true));
                }
                // Without its body it is not there any more, whatever is left of its keys.
                let mut ops = vec![Op::Put { key, value: BackupVersion::default().encode() }];
                let is_last = gone.len() < CHUNK;
                ops.extend(gone.into_iter().map(|(key, _)| Op::Delete { key }));
                Ok::<_, BackupError>(Decision::Write(quiet(ops), is_last))
            };
            if self.change(user, decide).await? {
                return Ok(());
            }
        }
    }

    /// Puts keys into the newest backup, each if it is better than the one that is there.
    ///
    /// # Errors
    ///
    /// [`BackupError`]
    pub async fn put_backup_keys(
        &self,
        user: &str,
        version: u64,
        new: Vec<BackupKey>,
    ) -> Result<Backup, BackupError> {
        let name = user.to_owned();
        let decide = move |store: &Store| {
            let mut backup = read(store, &name, version)?;
            if let Some(current) = live(store, &name)?.pop().filter(|newest| *newest != version) {
                return Err(BackupError::WrongVersion { current });
            }
            let key = keys::backup_version(&name, version);
            let mut entry: BackupVersion = store.typed(&key)?.unwrap_or_default();
            let mut ops = Vec::new();
            for new in new {
                put_key(store, &name, version, new, &mut entry, &mut ops)?;
            }
            if ops.is_empty() {
                return Ok(Decision::Keep(backup));
            }
            if entry.count > MAX_KEYS || entry.bytes > MAX_BYTES {
                return Err(BackupError::TooMuch);
            }
            entry.etag += 1;
            (backup.count, backup.etag) = (entry.count, entry.etag);
            ops.push(put_version(&name, version, entry, backup.info.clone()));
            Ok(Decision::Write(quiet(ops), backup))
        };
        self.change(user, decide).await
    }

    /// Keys of a backup behind the place `after`, at most `limit`, and the place behind which the
    /// others are, if there may be any.
    ///
    /// # Errors
    ///
    /// [`BackupError`]
    pub fn backup_keys(
        &self,
        user: &str,
        version: u64,
        which: &KeysIn,
        after: Option<&Bytes>,
        limit: usize,
    ) -> Result<(Vec<StoredKey>, Option<Bytes>), BackupError> {
        read(&self.store, user, version)?;
        let entries = entries(&self.store, user, version, which, after, limit)?;
        let next = entries.last().map(|(key, _)| key.clone()).filter(|_| entries.len() == limit);
        let prefix = keys::backup_keys(user, version);
        let mut found = Vec::with_capacity(entries.len());
        for (key, entry) in entries {
            let mut reader = KeyReader::new(key.get(prefix.len() - 1..).unwrap_or_default());
            if let (Some(room), Some(session)) = (reader.text(), reader.text())
                && let Some(place) = entry.blob
            {
                found.push((room, session, self.store.blob(&place)?));
            }
        }
        Ok((found, next))
    }

    /// Deletes keys of a backup.
    ///
    /// # Errors
    ///
    /// [`BackupError`]
    pub async fn delete_backup_keys(
        &self,
        user: &str,
        version: u64,
        which: KeysIn,
    ) -> Result<Backup, BackupError> {
        loop {
            let (name, which) = (user.to_owned(), which.clone());
            let decide = move |store: &Store| {
                let mut backup = read(store, &name, version)?;
                let gone = entries(store, &name, version, &which, None, CHUNK)?;
                if gone.is_empty() {
                    return Ok(Decision::Keep((backup, true)));
                }
                let key = keys::backup_version(&name, version);
                let mut entry: BackupVersion = store.typed(&key)?.unwrap_or_default();
                let length = |entry: &Entry| entry.blob.map_or(0, |blob| u64::from(blob.len));
                let bytes: u64 = gone.iter().map(|(_, entry)| length(entry)).sum();
                entry.count = entry.count.saturating_sub(gone.len() as u64);
                entry.bytes = entry.bytes.saturating_sub(bytes);
                entry.etag += 1;
                (backup.count, backup.etag) = (entry.count, entry.etag);
                let is_last = gone.len() < CHUNK;
                let mut ops: Vec<_> = gone.into_iter().map(|(key, _)| Op::Delete { key }).collect();
                ops.push(put_version(&name, version, entry, backup.info.clone()));
                Ok::<_, BackupError>(Decision::Write(quiet(ops), (backup, is_last)))
            };
            if let (backup, true) = self.change(user, decide).await? {
                return Ok(backup);
            }
        }
    }
}

fn put_version(user: &str, version: u64, entry: BackupVersion, info: Bytes) -> Op {
    let key = keys::backup_version(user, version);
    Op::PutBlob { key, value: entry.encode(), blob: info }
}

/// The numbers of a user's backups, the newest last.
fn live(store: &Store, user: &str) -> Result<Vec<u64>, StorageError> {
    let first = keys::backup_version(user, 0);
    let prefix = first.get(..first.len() - 8).unwrap_or_default();
    let versions = store.scan_prefix(prefix, Direction::Forward, usize::MAX)?.into_iter();
    let live = versions.filter(|(_, entry)| entry.blob.is_some());
    Ok(live.filter_map(|(key, _)| keys::last_number(&key)).collect())
}

fn read(store: &Store, user: &str, version: u64) -> Result<Backup, BackupError> {
    let key = keys::backup_version(user, version);
    let entry = store.get(&key)?.ok_or(BackupError::Unknown)?;
    let place = entry.blob.ok_or(BackupError::Unknown)?;
    let BackupVersion { count, etag, .. } = BackupVersion::decode(&key, &entry.value)?;
    Ok(Backup { version, info: store.blob(&place)?, count, etag })
}

fn algorithm(info: &[u8]) -> Option<Value> {
    serde_json::from_slice::<Value>(info).ok()?.get("algorithm").cloned()
}

fn put_key(
    store: &Store,
    user: &str,
    version: u64,
    new: BackupKey,
    backup: &mut BackupVersion,
    ops: &mut Vec<Op>,
) -> Result<(), StorageError> {
    let BackupKey { room, session, meta, data } = new;
    let key = keys::backup_key(user, version, &room, &session);
    match store.get(&key)? {
        Some(old) => {
            if worth(&meta) <= worth(&BackedUpKey::decode(&key, &old.value)?) {
                return Ok(());
            }
            let old = old.blob.map_or(0, |blob| u64::from(blob.len));
            backup.bytes = backup.bytes.saturating_sub(old);
        }
        None => backup.count += 1,
    }
    backup.bytes += data.len() as u64;
    ops.push(Op::PutBlob { key, value: meta.encode(), blob: data });
    Ok(())
}

/// Of two keys of a session, the one that is worth more is kept.
fn worth(key: &BackedUpKey) -> (bool, Reverse<u64>, Reverse<u64>) {
    (key.is_verified, Reverse(key.first_message_index), Reverse(key.forwarded_count))
}

fn entries(
    store: &Store,
    user: &str,
    version: u64,
    which: &KeysIn,
    after: Option<&Bytes>,
    limit: usize,
) -> Result<Vec<(Bytes, Entry)>, StorageError> {
    let prefix = match which {
        KeysIn::Backup => keys::backup_keys(user, version),
        KeysIn::Room(room) => keys::backup_keys_of_room(user, version, room),
        KeysIn::Session(room, session) => keys::backup_key(user, version, room, session),
    };
    let Some(after) = after else { return store.scan_prefix(&prefix, Direction::Forward, limit) };
    let found = store.scan((Excluded(&after[..]), Unbounded), Direction::Forward, limit)?;
    Ok(found.into_iter().take_while(|(key, _)| key.starts_with(&prefix)).collect())
}
