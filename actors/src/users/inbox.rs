//! Messages that wait for devices, in the order in which they came.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>

use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Included},
};

use bytes::Bytes;
use parlour_event::StreamPos;
use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::{Stored, TransactionEntry, keys},
};

use super::{
    Decision, UserError, Users,
    edu_outbox::{OutgoingEdu, Posted},
};
use crate::commit::{Announcement, At};

/// How many messages may wait for a device. When there are more, the oldest are dropped: most
/// likely nobody has the device any more.
const MAX_WAITING: u64 = 50_000;

/// How many messages, and how many EDUs for other servers, one request may make.
const MAX_AT_ONCE: usize = 10_000;

/// Why messages were not sent.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// They are too many for one request.
    #[error("these are too many messages for one request")]
    TooMany,
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

impl From<StorageError> for InboxError {
    fn from(error: StorageError) -> Self {
        Self::User(error.into())
    }
}

/// Messages for devices of one user.
#[derive(Debug, Clone)]
pub struct Messages {
    /// Whose devices they are for.
    pub user: String,
    /// For all devices but those that get another message.
    pub for_all: Option<Bytes>,
    /// For single devices.
    pub by_device: Vec<(String, Bytes)>,
}

/// A message that waits, and where.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// When it came.
    pub pos: StreamPos,
    /// The event, as JSON text.
    pub message: Bytes,
}

impl Users {
    /// Puts messages into the inboxes of devices, all of them or none; devices that are not there
    /// get none. What the same transaction has done before is not done again. `sender` is whose
    /// transaction it is: a user, or a server.
    ///
    /// # Errors
    ///
    /// [`InboxError`]
    pub async fn send_to_devices(
        &self,
        sender: &str,
        transaction: [u8; 16],
        messages: Vec<Messages>,
    ) -> Result<(), InboxError> {
        self.post_to_devices(sender, transaction, messages, Vec::new()).await?;
        Ok(())
    }

    /// The same, with EDUs that go to other servers: all are kept with one record. Returns how many
    /// older EDUs were dropped, since too many wait for their servers.
    ///
    /// # Errors
    ///
    /// [`InboxError`]
    pub async fn post_to_devices(
        &self,
        sender: &str,
        transaction: [u8; 16],
        messages: Vec<Messages>,
        edus: Vec<OutgoingEdu>,
    ) -> Result<usize, InboxError> {
        let (now, metrics) = (self.env.clock.now_ms(), self.metrics.clone());
        if edus.len() > MAX_AT_ONCE {
            return Err(InboxError::TooMany);
        }
        let decide = move |store: &Store| {
            let done = keys::transaction(&transaction);
            if store.get(&done)?.is_some() {
                return Ok(Decision::Keep(0));
            }
            let (mut letters, mut ops) = (Vec::new(), Vec::new());
            for messages in messages {
                address(store, messages, &mut letters)?;
                if letters.len() > MAX_AT_ONCE {
                    return Err(InboxError::TooMany);
                }
            }
            let mut numbered = Vec::with_capacity(letters.len());
            for letter in letters {
                let (number, dropped) = make_room(store, &letter, &mut ops)?;
                metrics.messages_dropped(dropped);
                numbered.push((letter, number));
            }
            let posted = Posted::plan(store, edus, &mut ops)?;
            let dropped = posted.dropped;
            let entry = TransactionEntry { result: String::new(), ts: now };
            ops.push(Op::Put { key: done, value: entry.encode() });
            let change = At(move |pos: StreamPos, all: &mut Vec<Op>| {
                all.extend(ops);
                let mut users = BTreeSet::new();
                for (Letter { user, device, message }, number) in numbered {
                    let key = keys::inbox(&user, &device, pos, number);
                    all.push(Op::PutBlob { key, value: Bytes::new(), blob: message });
                    users.insert(user);
                }
                let servers = posted.write(pos, all);
                Announcement::Users { users: users.into_iter().collect(), servers }
            });
            Ok(Decision::Write(Box::new(change), dropped))
        };
        self.change(sender, decide).await
    }

    /// The messages for a device that came within `(after, until]`, at most `limit`, oldest first.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn inbox(
        &self,
        user: &str,
        device: &str,
        (after, until): (StreamPos, StreamPos),
        limit: usize,
    ) -> Result<Vec<Waiting>, StorageError> {
        let low = keys::inbox(user, device, after, u64::MAX);
        let high = keys::inbox(user, device, until, u64::MAX);
        if low >= high {
            return Ok(Vec::new());
        }
        let range = (Excluded(&low[..]), Included(&high[..]));
        let mut waiting = Vec::new();
        for (key, entry) in self.store.scan(range, Direction::Forward, limit)? {
            let (Some((pos, _)), Some(place)) = (keys::last_numbers(&key), entry.blob) else {
                continue;
            };
            waiting.push(Waiting { pos: StreamPos(pos), message: self.store.blob(&place)? });
        }
        Ok(waiting)
    }

    /// Deletes what came for a device until a position, since the device has it.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn acknowledge(
        &self,
        user: &str,
        device: &str,
        until: StreamPos,
    ) -> Result<(), UserError> {
        let (name, device) = (user.to_owned(), device.to_owned());
        let decide = move |store: &Store| {
            let read = read_keys(store, &name, &device, until, MAX_AT_ONCE)?;
            if read.is_empty() {
                return Ok(Decision::Keep(()));
            }
            let ops = read.into_iter().map(|key| Op::Delete { key }).collect();
            Ok::<_, UserError>(Decision::Write(super::sessions::quiet(ops), ()))
        };
        self.change(user, decide).await
    }

    /// Whether something waits for a device that came until a position.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn has_read(
        &self,
        user: &str,
        device: &str,
        until: StreamPos,
    ) -> Result<bool, StorageError> {
        Ok(!read_keys(&self.store, user, device, until, 1)?.is_empty())
    }
}

/// A message for one device.
struct Letter {
    user: String,
    device: String,
    message: Bytes,
}

fn address(
    store: &Store,
    messages: Messages,
    letters: &mut Vec<Letter>,
) -> Result<(), StorageError> {
    let Messages { user, for_all, by_device } = messages;
    let mut named = BTreeSet::new();
    for (device, message) in by_device {
        if store.get(&keys::device(&user, &device))?.is_some() {
            letters.push(Letter { user: user.clone(), device: device.clone(), message });
            named.insert(device);
        }
    }
    if let Some(message) = for_all {
        for (device, _) in super::devices::all(store, &user)? {
            if !named.contains(&device) {
                letters.push(Letter { user: user.clone(), device, message: message.clone() });
            }
        }
    }
    Ok(())
}

/// The number of the next message for a device, and how many of the oldest are dropped for it.
/// Those that come at the same time from others may get the same number, so that it bounds how
/// many there are only roughly.
fn make_room(
    store: &Store,
    letter: &Letter,
    ops: &mut Vec<Op>,
) -> Result<(u64, usize), StorageError> {
    let prefix = keys::inbox_of(&letter.user, &letter.device);
    let number = |key: &Bytes| keys::last_numbers(key).map_or(0, |(_, number)| number);
    let newest = store.scan_prefix(&prefix, Direction::Backward, 1)?;
    let next = newest.first().map_or(0, |(key, _)| number(key) + 1);
    let before = ops.len();
    if next >= MAX_WAITING {
        if next == MAX_WAITING {
            let Letter { user, device, .. } = letter;
            tracing::warn!(%user, %device, "too many messages wait for a device: the oldest go");
        }
        // Two at a time, so that there are fewer of them some day, whatever was counted wrong.
        let oldest = store.scan_prefix(&prefix, Direction::Forward, 2)?;
        let surplus = oldest.into_iter().filter(|(key, _)| number(key) + MAX_WAITING <= next);
        ops.extend(surplus.map(|(key, _)| Op::Delete { key }));
    }
    Ok((next, ops.len() - before))
}

fn read_keys(
    store: &Store,
    user: &str,
    device: &str,
    until: StreamPos,
    limit: usize,
) -> Result<Vec<Bytes>, StorageError> {
    let (low, high) = (keys::inbox_of(user, device), keys::inbox(user, device, until, u64::MAX));
    let range = (Included(&low[..]), Included(&high[..]));
    let read = store.scan(range, Direction::Forward, limit)?;
    Ok(read.into_iter().map(|(key, _)| key).collect())
}

/// The end of a device's inbox.
pub(super) fn empty(
    store: &Store,
    user: &str,
    device: &str,
    ops: &mut Vec<Op>,
) -> Result<(), StorageError> {
    let all = read_keys(store, user, device, StreamPos(u64::MAX), usize::MAX)?;
    ops.extend(all.into_iter().map(|key| Op::Delete { key }));
    Ok(())
}
