//! The news that a user's keys have changed: for everybody who shares a room with the user.

use bytes::Bytes;
use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{
    Op, StorageError, Store,
    schema::{KeysChanged, Stored, keys},
};

use crate::commit::{Announcement, Change};

/// That a user's keys change, and who is to know it: members of the rooms that the user is in.
/// Whoever comes into one of them meanwhile learns of the user anyway.
pub(in crate::users) struct KeyNews {
    pub(super) user: String,
    pub(super) rooms: Vec<RoomNum>,
    /// When they changed before: what was told of that is replaced.
    pub(super) old: Option<StreamPos>,
}

impl KeyNews {
    pub(in crate::users) fn plan(store: &Store, user: &str) -> Result<Self, StorageError> {
        let memberships = store.memberships(user)?.into_iter();
        let joined = memberships.filter(|(_, entry)| entry.membership == "join");
        Ok(Self {
            user: user.to_owned(),
            rooms: joined.map(|(room, _)| room).collect(),
            old: super::last_change(store, user)?,
        })
    }

    /// Adds the operations at a position.
    pub(in crate::users) fn write(self, pos: StreamPos, ops: &mut Vec<Op>) -> Announcement {
        let Self { user, rooms, old } = self;
        if let Some(old) = old {
            let own = keys::own_key_feed(&user, old, &user);
            let of_rooms = rooms.iter().map(|room| keys::key_feed(*room, old));
            ops.extend(of_rooms.chain([own]).map(|key| Op::Delete { key }));
        }
        let before = old.unwrap_or_default();
        let value = keys::key_feed_value(before, &user);
        let own = keys::own_key_feed(&user, pos, &user);
        let told = rooms.iter().map(|room| keys::key_feed(*room, pos)).chain([own]);
        ops.extend(told.map(|key| Op::Put { key, value: value.clone() }));
        let value = KeysChanged { pos, before }.encode();
        ops.push(Op::Put { key: keys::keys_changed(&user), value });
        Announcement::Keys { user, rooms }
    }
}

/// A change of a user's data, with the news of it if keys are among them that others see.
pub(in crate::users) fn with_news(
    store: &Store,
    user: &str,
    ops: Vec<Op>,
    announcement: Announcement,
) -> Result<Box<dyn Change>, StorageError> {
    let news = touches_keys(store, user, &ops)?.then(|| KeyNews::plan(store, user)).transpose()?;
    Ok(Box::new(WithNews { ops, news, announcement }))
}

/// Whether keys that others see are written or deleted.
fn touches_keys(store: &Store, user: &str, ops: &[Op]) -> Result<bool, StorageError> {
    let published = [keys::device_keys_of(user), keys::cross_signing_keys_of(user)];
    let is_published = |key: &Bytes| published.iter().any(|start| key.starts_with(start));
    for op in ops {
        match op {
            Op::Put { key, .. } | Op::PutBlob { key, .. } if is_published(key) => return Ok(true),
            Op::Delete { key } if is_published(key) && store.get(key)?.is_some() => {
                return Ok(true);
            }
            _ => {}
        }
    }
    Ok(false)
}

struct WithNews {
    ops: Vec<Op>,
    news: Option<KeyNews>,
    announcement: Announcement,
}

impl Change for WithNews {
    fn write(self: Box<Self>, pos: StreamPos, ops: &mut Vec<Op>) -> Announcement {
        ops.extend(self.ops);
        match self.news {
            Some(news) => news.write(pos, ops),
            None => self.announcement,
        }
    }
}
