//! The news that a user's keys have changed: for everybody who shares a room with the user.

use std::collections::BTreeSet;

use bytes::Bytes;
use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{
    Op, StorageError, Store,
    schema::{DeviceList, KeyNewsEntry, KeysChanged, Stored, device_list, keys, keys::KeyReader},
};

use crate::commit::{Announcement, Change};

/// That a user's keys change, and who is to know it: members of the rooms that the user is in.
/// Whoever comes into one of them meanwhile learns of the user anyway.
pub(in crate::users) struct KeyNews {
    pub(super) user: String,
    pub(super) rooms: Vec<RoomNum>,
    /// When they changed before: what was told of that is replaced.
    pub(super) old: Option<StreamPos>,
    /// What other servers are told, if it is a user of this one.
    pub(super) told: Option<(DeviceList, Touched)>,
}

/// Which of a user's keys change that others see.
#[derive(Debug, Default)]
pub(in crate::users) struct Touched {
    devices: BTreeSet<String>,
    /// Cross-signing keys that are told to other servers.
    signing: bool,
    /// That which signs other users.
    user_signing: bool,
}

impl Touched {
    /// A device changes.
    pub(in crate::users) fn device(device: &str) -> Self {
        Self { devices: BTreeSet::from([device.to_owned()]), ..Self::default() }
    }

    /// What operations change.
    pub(in crate::users) fn by(
        store: &Store,
        user: &str,
        ops: &[Op],
    ) -> Result<Self, StorageError> {
        let mut touched = Self::default();
        let (devices, signing) = (keys::device_keys_of(user), keys::cross_signing_keys_of(user));
        let signatures = keys::own_key_signatures_of(user);
        let mut signed = BTreeSet::new();
        for op in ops {
            let key = match op {
                Op::Put { key, .. } | Op::PutBlob { key, .. } => key,
                Op::Delete { key } => key,
            };
            let is_gone = matches!(op, Op::Delete { .. });
            let [of_device, of_signing, of_signed] =
                [&devices, &signing, &signatures].map(|start| name_behind(start, key));
            if of_device.is_none() && of_signing.is_none() && of_signed.is_none()
                || is_gone && store.get(key)?.is_none()
            {
                continue;
            }
            touched.devices.extend(of_device);
            signed.extend(of_signed);
            match of_signing.as_deref() {
                Some("user_signing") => touched.user_signing = true,
                usage => touched.signing |= usage.is_some(),
            }
        }
        for name in signed {
            // A device, or the master key.
            match store.get(&keys::device_keys(user, &name))? {
                Some(_) => drop(touched.devices.insert(name)),
                None => touched.signing = true,
            }
        }
        Ok(touched)
    }

    fn is_any(&self) -> bool {
        self.signing || self.user_signing || !self.devices.is_empty()
    }
}

/// The text behind the common start of keys.
fn name_behind(start: &Bytes, key: &Bytes) -> Option<String> {
    // A key reader skips one byte, which here is the last one of the start.
    key.starts_with(start).then(|| KeyReader::new(&key[start.len() - 1..]).text()).flatten()
}

impl KeyNews {
    pub(in crate::users) fn plan(store: &Store, user: &str) -> Result<Self, StorageError> {
        let memberships = store.memberships(user)?.into_iter();
        let joined = memberships.filter(|(_, entry)| entry.membership == "join");
        Ok(Self {
            user: user.to_owned(),
            rooms: joined.map(|(room, _)| room).collect(),
            old: super::last_change(store, user)?,
            told: None,
        })
    }

    /// The same, for other servers as well.
    pub(in crate::users) fn of(
        store: &Store,
        user: &str,
        touched: Touched,
    ) -> Result<Self, StorageError> {
        let list = store.typed(&device_list::device_list(user))?.unwrap_or_default();
        Ok(Self { told: Some((list, touched)), ..Self::plan(store, user)? })
    }

    /// Adds the operations at a position.
    pub(in crate::users) fn write(self, pos: StreamPos, ops: &mut Vec<Op>) -> Announcement {
        let Self { user, rooms, old, told } = self;
        if let Some(old) = old {
            let own = keys::own_key_feed(&user, old, &user);
            let of_rooms = rooms.iter().map(|room| keys::key_feed(*room, old));
            ops.extend(of_rooms.chain([own]).map(|key| Op::Delete { key }));
        }
        let before = old.unwrap_or_default();
        let value = keys::key_feed_value(before, &user);
        let own = keys::own_key_feed(&user, pos, &user);
        let of_rooms = rooms.iter().map(|room| keys::key_feed(*room, pos));
        let all = of_rooms.chain([own]);
        ops.extend(all.map(|key| Op::Put { key, value: value.clone() }));
        let value = KeysChanged { pos, before }.encode();
        ops.push(Op::Put { key: keys::keys_changed(&user), value });
        if let Some((list, touched)) = told {
            touched.write(&user, &rooms, list, pos, ops);
        }
        Announcement::Keys { user, rooms }
    }
}

impl Touched {
    /// What other servers are to be told.
    fn write(
        self,
        user: &str,
        rooms: &[RoomNum],
        mut list: DeviceList,
        pos: StreamPos,
        ops: &mut Vec<Op>,
    ) {
        if !self.signing && self.devices.is_empty() {
            return;
        }
        if self.signing {
            list.signing = pos;
        }
        list.add(pos, self.devices);
        ops.push(Op::Put { key: device_list::device_list(user), value: list.encode() });
        if !rooms.is_empty() {
            let (users, rooms) = (vec![user.to_owned()], rooms.to_vec());
            let value = KeyNewsEntry { users, rooms, have_come: false }.encode();
            ops.push(Op::Put { key: device_list::key_news(pos), value });
        }
    }
}

/// A change of a user's data, with the news of it if keys are among them that others see.
pub(in crate::users) fn with_news(
    store: &Store,
    user: &str,
    ops: Vec<Op>,
    announcement: Announcement,
) -> Result<Box<dyn Change>, StorageError> {
    let touched = Touched::by(store, user, &ops)?;
    let news = touched.is_any().then(|| KeyNews::of(store, user, touched)).transpose()?;
    Ok(Box::new(WithNews { ops, news, announcement }))
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
