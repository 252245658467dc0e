//! Keys of users of other servers, remembered here for as long as those servers tell of changes:
//! while a room is shared with the user.
//!
//! They are asked for when somebody here wants them. Then a server's changes are applied one after
//! the other, each of which names the one before. When one is missing, what is known is *stale*
//! until the server has been asked again. Whatever changes here is told to those who share a room
//! with the user, in the same record. Of somebody nothing is known of, the news alone is kept.
//!
//! Specification: <https://spec.matrix.org/v1.19/server-server-api/#device-management>

use std::collections::BTreeMap;

use bytes::Bytes;
use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{
    Op, StorageError, Store,
    schema::{KnownKeys, StaleKeys, Stored, known_keys as keys},
};

use super::{
    super::{Decision, UserError, Users, sessions::quiet},
    KeyNews, last_change,
};
use crate::commit::{At, Change};

/// How many devices of a user of another server are known. Of whom there are more, none is; that is
/// what Synapse does, too.
pub const MAX_KNOWN_DEVICES: usize = 1_000;

/// How many numbers of changes are remembered: changes may come twice, or not in their order.
const MAX_CHANGES: usize = 20;

/// All public keys of a user of another server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoteUserKeys {
    /// The number of the newest change among them, if the server has told it.
    pub change: Option<u64>,
    /// Keys of devices by their ids.
    pub devices: BTreeMap<String, Bytes>,
    /// Cross-signing keys by their usages.
    pub signing: BTreeMap<String, Bytes>,
}

/// A change of one device, as the user's server tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceChange {
    /// The device.
    pub device: String,
    /// Its keys; `None` if it has none, or is gone.
    pub keys: Option<Bytes>,
    /// The number of this change.
    pub number: u64,
    /// The changes before it.
    pub follows: Vec<u64>,
}

/// What has become of a change that another server has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is known here now.
    Applied,
    /// It was known here already.
    Known,
    /// Something is missing before it: the server has to be asked.
    Stale,
    /// Nothing else is known of the user, so those who are interested in it will ask.
    Noted,
    /// No room is shared with the user.
    Stranger,
}

/// What has become of keys that another server was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// They are known here now.
    Fresh,
    /// They are known here now, but something has changed meanwhile.
    Stale,
    /// They are not remembered: a room was not shared all the time, or others are known meanwhile.
    Nothing,
}

/// What is known of a user.
enum Standing {
    Nothing,
    /// What is there may have changed unnoticed.
    Outdated,
    Stale,
    Fresh(KnownKeys),
}

impl Users {
    /// The keys of a user of another server, if they are known as they are now.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn known_keys(&self, user: &str) -> Result<Option<RemoteUserKeys>, StorageError> {
        match standing(&self.store, user)? {
            Standing::Fresh(head) => read(&self.store, user, &head).map(Some),
            _ => Ok(None),
        }
    }

    /// Takes in that a device of a user of another server has changed.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn device_changed_elsewhere(
        &self,
        user: &str,
        change: DeviceChange,
    ) -> Result<Told, UserError> {
        let name = user.to_owned();
        let decide = move |store: &Store| {
            told(store, &name, |store, head, ops| {
                if head.changes.contains(&change.number) {
                    return Ok(Told::Known);
                }
                let follows = |number| head.changes.contains(number);
                if change.follows.is_empty() || !change.follows.iter().all(follows) {
                    return Ok(Told::Stale);
                }
                let key = keys::device(&name, &change.device);
                let had = put(store, key, change.keys.as_ref(), ops)?;
                head.devices = match (had, change.keys.is_some()) {
                    (false, true) => head.devices + 1,
                    (true, false) => head.devices.saturating_sub(1),
                    _ => head.devices,
                };
                if head.devices as usize > MAX_KNOWN_DEVICES {
                    return Ok(Told::Stale);
                }
                head.changes.push(change.number);
                let surplus = head.changes.len().saturating_sub(MAX_CHANGES);
                head.changes.drain(..surplus);
                Ok(Told::Applied)
            })
        };
        self.change(user, decide).await
    }

    /// Takes in that cross-signing keys of a user of another server have changed.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn signing_keys_changed_elsewhere(
        &self,
        user: &str,
        changed: BTreeMap<String, Bytes>,
    ) -> Result<Told, UserError> {
        let name = user.to_owned();
        let decide = move |store: &Store| {
            told(store, &name, |store, _, ops| {
                for (usage, key) in &changed {
                    put(store, keys::signing_key(&name, usage), Some(key), ops)?;
                }
                Ok(if ops.is_empty() { Told::Known } else { Told::Applied })
            })
        };
        self.change(user, decide).await
    }

    /// Remembers the keys of a user of another server, which was asked for them at a position.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn keep_keys(
        &self,
        user: &str,
        new: RemoteUserKeys,
        asked_at: StreamPos,
    ) -> Result<Kept, UserError> {
        let name = user.to_owned();
        let decide = move |store: &Store| keep(store, &name, new, asked_at);
        self.change(user, decide).await
    }

    /// Forgets the keys of a user of another server.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn forget_keys(&self, user: &str) -> Result<(), UserError> {
        let name = user.to_owned();
        let decide = move |store: &Store| {
            let mut ops = Vec::new();
            forget(store, &name, &mut ops)?;
            Ok::<_, UserError>(match ops.is_empty() {
                true => Decision::Keep(()),
                false => Decision::Write(quiet(ops), ()),
            })
        };
        self.change(user, decide).await
    }
}

fn server_of(user: &str) -> &str {
    user.split_once(':').map_or("", |(_, server)| server)
}

fn standing(store: &Store, user: &str) -> Result<Standing, StorageError> {
    let Some(head) = store.known_keys(user)? else { return Ok(Standing::Nothing) };
    if !store.shares_room_since(user, head.since)? {
        return Ok(Standing::Outdated);
    }
    Ok(match store.stale_keys(server_of(user), user)? {
        Some(_) => Standing::Stale,
        None => Standing::Fresh(head),
    })
}

fn read(store: &Store, user: &str, head: &KnownKeys) -> Result<RemoteUserKeys, StorageError> {
    Ok(RemoteUserKeys {
        change: head.changes.last().copied(),
        devices: store.known_devices(user)?.into_iter().collect(),
        signing: store.known_signing_keys(user)?.into_iter().collect(),
    })
}

/// Decides about a change that a server tells; `apply` does where the keys before it are known.
fn told(
    store: &Store,
    user: &str,
    apply: impl FnOnce(&Store, &mut KnownKeys, &mut Vec<Op>) -> Result<Told, StorageError>,
) -> Result<Decision<Told>, UserError> {
    let rooms = store.rooms_with(user)?;
    if rooms.is_empty() {
        return Ok(Decision::Keep(Told::Stranger));
    }
    let mut ops = Vec::new();
    let mut head = match standing(store, user)? {
        Standing::Nothing => return write(store, user, rooms, ops, Told::Noted),
        Standing::Outdated => {
            forget(store, user, &mut ops)?;
            return write(store, user, rooms, ops, Told::Noted);
        }
        Standing::Stale => return Ok(Decision::Write(stale_again(user), Told::Stale)),
        Standing::Fresh(head) => head,
    };
    match apply(store, &mut head, &mut ops)? {
        Told::Applied => {}
        Told::Stale => return Ok(Decision::Write(stale_again(user), Told::Stale)),
        other => return Ok(Decision::Keep(other)),
    }
    let is_news = !ops.is_empty();
    // Nothing has been missed until now.
    head.since = store.applied();
    ops.push(Op::Put { key: keys::known(user), value: head.encode() });
    match is_news {
        true => write(store, user, rooms, ops, Told::Applied),
        false => Ok(Decision::Write(quiet(ops), Told::Known)),
    }
}

fn keep(
    store: &Store,
    user: &str,
    new: RemoteUserKeys,
    asked_at: StreamPos,
) -> Result<Decision<Kept>, UserError> {
    let mut ops = Vec::new();
    if !store.shares_room_since(user, asked_at)? {
        forget(store, user, &mut ops)?;
        return Ok(match ops.is_empty() {
            true => Decision::Keep(Kept::Nothing),
            false => Decision::Write(quiet(ops), Kept::Nothing),
        });
    }
    let overtaken = last_change(store, user)?.filter(|changed| *changed > asked_at);
    let old = match store.known_keys(user)? {
        Some(_) if overtaken.is_some() => return Ok(Decision::Keep(Kept::Nothing)),
        Some(head) => Some(read(store, user, &head)?),
        None => None,
    };
    // Where news came while nothing was known, what comes now is better than nothing.
    let stale = store.stale_keys(server_of(user), user)?.map(|stale| stale.at).max(overtaken);
    let had = old.as_ref().map(|old| (&old.devices, &old.signing));
    if stale.is_none() && new.change.is_none() && had == Some((&new.devices, &new.signing)) {
        // What is known has its number.
        return Ok(Decision::Keep(Kept::Fresh));
    }
    replace(user, old.as_ref(), &new, &mut ops);
    let is_news = old.is_some() && !ops.is_empty();
    let head = KnownKeys {
        changes: new.change.into_iter().collect(),
        since: asked_at,
        devices: u32::try_from(new.devices.len()).unwrap_or(u32::MAX),
    };
    ops.push(Op::Put { key: keys::known(user), value: head.encode() });
    let key = keys::stale(server_of(user), user);
    let kept = match stale {
        Some(at) if at > asked_at => {
            ops.push(Op::Put { key, value: StaleKeys { at }.encode() });
            Kept::Stale
        }
        Some(_) => {
            ops.push(Op::Delete { key });
            Kept::Fresh
        }
        None => Kept::Fresh,
    };
    match is_news {
        true => write(store, user, store.rooms_with(user)?, ops, kept),
        false => Ok(Decision::Write(quiet(ops), kept)),
    }
}

/// The operations that make the old keys the new ones.
fn replace(user: &str, old: Option<&RemoteUserKeys>, new: &RemoteUserKeys, ops: &mut Vec<Op>) {
    let none = RemoteUserKeys::default();
    let old = old.unwrap_or(&none);
    let mut differences = |old: &BTreeMap<String, Bytes>,
                           new: &BTreeMap<String, Bytes>,
                           key: &dyn Fn(&str) -> Bytes| {
        let gone = old.keys().filter(|name| !new.contains_key(*name));
        ops.extend(gone.map(|name| Op::Delete { key: key(name) }));
        let other = new.iter().filter(|(name, blob)| old.get(*name) != Some(blob));
        let put = |(name, blob): (&String, &Bytes)| Op::PutBlob {
            key: key(name),
            value: Bytes::new(),
            blob: blob.clone(),
        };
        ops.extend(other.map(put));
    };
    differences(&old.devices, &new.devices, &|device| keys::device(user, device));
    differences(&old.signing, &new.signing, &|usage| keys::signing_key(user, usage));
}

/// Puts a key in the place of what is there, if it is another one; says whether there was any.
fn put(
    store: &Store,
    key: Bytes,
    new: Option<&Bytes>,
    ops: &mut Vec<Op>,
) -> Result<bool, StorageError> {
    let old = super::body(store, &key)?;
    match new {
        Some(blob) if old.as_ref() != Some(blob) => {
            ops.push(Op::PutBlob { key, value: Bytes::new(), blob: blob.clone() });
        }
        None if old.is_some() => ops.push(Op::Delete { key }),
        _ => {}
    }
    Ok(old.is_some())
}

fn forget(store: &Store, user: &str, ops: &mut Vec<Op>) -> Result<(), StorageError> {
    let stale = keys::stale(server_of(user), user);
    if store.get(&stale)?.is_some() {
        ops.push(Op::Delete { key: stale });
    }
    if let Some(head) = store.known_keys(user)? {
        let old = read(store, user, &head)?;
        replace(user, Some(&old), &RemoteUserKeys::default(), ops);
        ops.push(Op::Delete { key: keys::known(user) });
    }
    Ok(())
}

/// Operations, and the news of them.
fn write<T>(
    store: &Store,
    user: &str,
    rooms: Vec<RoomNum>,
    ops: Vec<Op>,
    answer: T,
) -> Result<Decision<T>, UserError> {
    let news = KeyNews { rooms, ..KeyNews::plan(store, user)? };
    let change = At(move |pos: StreamPos, all: &mut Vec<Op>| {
        all.extend(ops);
        news.write(pos, all)
    });
    Ok(Decision::Write(Box::new(change), answer))
}

/// Notes that a server has to be asked again, also if it is being asked at this moment.
fn stale_again(user: &str) -> Box<dyn Change> {
    let key = keys::stale(server_of(user), user);
    Box::new(At(move |at: StreamPos, ops: &mut Vec<Op>| {
        ops.push(Op::Put { key, value: StaleKeys { at }.encode() });
        crate::commit::Announcement::Nothing
    }))
}
