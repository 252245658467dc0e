//! Account data: small documents that a client keeps on the server, global or per room.

use bytes::Bytes;
use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::{AccountDataEntry, AccountFeedEntry, Stored, keys, keys::KeyReader},
};

use super::{Decision, UserError, Users};
use crate::commit::{Announcement, At, Change};

/// The list of users whom the user does not want to hear.
pub const IGNORED_USERS: &str = "m.ignored_user_list";

/// Where the list that was there before stands, among the rooms: nobody's, and in no sync. What
/// was sent while it counted is kept from the user's sync even if the new list is shorter.
pub const PREVIOUSLY: RoomNum = RoomNum(u64::MAX);

/// How many pieces of account data a user may have, in total.
const MAX_PIECES: usize = 10_000;

/// How many bytes all of a user's pieces may have: a first sync sends them all.
const MAX_BYTES: usize = 32 << 20;

/// Smaller pieces are not weighed, since their number bounds them well enough.
const SMALL: usize = 2_048;

/// The types, up to the device's id, under which a device tells of its local notifications.
const LOCAL_NOTIFICATIONS: [&str; 2] =
    ["m.local_notification_settings", "org.matrix.msc3890.local_notification_settings"];

/// What clients that knew a piece get when it has been deleted.
const DELETED: Bytes = Bytes::from_static(b"{}");

/// Why account data was not stored.
#[derive(Debug, thiserror::Error)]
pub enum AccountDataError {
    /// The user has very many pieces, or very large ones, already.
    #[error("there is too much account data")]
    TooMuch,
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

impl Users {
    /// A piece of account data, as the JSON text of its content. Room 0 is the global one.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn account_data(
        &self,
        user: &str,
        room: RoomNum,
        data_type: &str,
    ) -> Result<Option<Bytes>, StorageError> {
        read(&self.store, user, room, data_type)
    }

    /// Stores a piece of account data; `content` is JSON text.
    ///
    /// # Errors
    ///
    /// [`AccountDataError`]
    pub async fn set_account_data(
        &self,
        user: &str,
        room: RoomNum,
        data_type: &str,
        content: Bytes,
    ) -> Result<(), AccountDataError> {
        let (name, data_type) = (user.to_owned(), data_type.to_owned());
        let decide = move |store: &Store| {
            let write = PieceWrite::plan(store, &name, room, &data_type, content)?;
            Ok(Decision::Write(write.into_change(), ()))
        };
        self.change(user, decide).await
    }

    /// Stores what is made of a piece of account data, with nobody else changing it meanwhile;
    /// `None` leaves it as it is.
    ///
    /// # Errors
    ///
    /// [`AccountDataError`]
    pub async fn update_account_data<F>(
        &self,
        user: &str,
        room: RoomNum,
        data_type: &str,
        update: F,
    ) -> Result<(), AccountDataError>
    where
        F: FnOnce(Option<Bytes>) -> Result<Option<Bytes>, AccountDataError> + Send + 'static,
    {
        let (name, data_type) = (user.to_owned(), data_type.to_owned());
        let decide = move |store: &Store| {
            let present = read(store, &name, room, &data_type).map_err(UserError::from)?;
            let Some(content) = update(present)? else { return Ok(Decision::Keep(())) };
            let write = PieceWrite::plan(store, &name, room, &data_type, content)?;
            Ok(Decision::Write(write.into_change(), ()))
        };
        self.change(user, decide).await
    }

    /// Deletes a piece of account data, if it is there. What is left of it says that it was there,
    /// for clients that knew it.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn delete_account_data(
        &self,
        user: &str,
        room: RoomNum,
        data_type: &str,
    ) -> Result<(), UserError> {
        let (name, data_type) = (user.to_owned(), data_type.to_owned());
        let decide = move |store: &Store| {
            Ok(match PieceWrite::plan_deletion(store, &name, room, &data_type)? {
                Some(write) => Decision::Write(write.into_change(), ()),
                None => Decision::Keep(()),
            })
        };
        self.change(user, decide).await
    }

    /// Deletes what devices that are gone have told of their local notifications (MSC3890).
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn forget_local_notifications(
        &self,
        user: &str,
        devices: &[String],
    ) -> Result<(), UserError> {
        for device in devices {
            for kind in LOCAL_NOTIFICATIONS {
                self.delete_account_data(user, RoomNum(0), &format!("{kind}.{device}")).await?;
            }
        }
        Ok(())
    }

    /// All of a user's account data of a room as of `until`: type and content.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn account_data_of_room(
        &self,
        user: &str,
        room: RoomNum,
        until: StreamPos,
    ) -> Result<Vec<(String, Bytes)>, StorageError> {
        let prefix = keys::account_data_in(user, room);
        let mut pieces = Vec::new();
        for (key, entry) in self.store.scan_prefix(&prefix, Direction::Forward, MAX_PIECES)? {
            let mut reader = KeyReader::new(&key);
            let data_type = reader.text().and_then(|_user| reader.number());
            let data_type = data_type.and_then(|_room| reader.text());
            if AccountDataEntry::decode(&key, &entry.value)?.pos <= until
                && let (Some(data_type), Some(place)) = (data_type, entry.blob)
            {
                pieces.push((data_type, self.store.blob(&place)?));
            }
        }
        Ok(pieces)
    }

    /// What of a user's account data changed within `(after, until]`, oldest change first: room,
    /// type and content, which is `{}` for what was deleted.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn account_data_changes(
        &self,
        user: &str,
        after: StreamPos,
        until: StreamPos,
    ) -> Result<Vec<(RoomNum, String, Bytes)>, StorageError> {
        use std::ops::Bound::{Excluded, Included};
        let (low, high) = (keys::account_feed(user, after), keys::account_feed(user, until));
        let range = (Excluded(&low[..]), Included(&high[..]));
        let mut changes = Vec::new();
        for (key, entry) in self.store.scan(range, Direction::Forward, usize::MAX)? {
            let AccountFeedEntry { room, data_type } =
                AccountFeedEntry::decode(&key, &entry.value)?;
            let content = self.account_data(user, room, &data_type)?;
            changes.push((room, data_type, content.unwrap_or(DELETED)));
        }
        Ok(changes)
    }
}

fn read(
    store: &Store,
    user: &str,
    room: RoomNum,
    data_type: &str,
) -> Result<Option<Bytes>, StorageError> {
    let entry = store.get(&keys::account_data(user, room, data_type))?;
    entry.and_then(|entry| entry.blob).map(|place| store.blob(&place)).transpose()
}

/// What is to become of one piece.
pub(super) struct PieceWrite {
    user: String,
    room: RoomNum,
    data_type: String,
    /// `None` deletes it.
    content: Option<Bytes>,
    /// When it was changed last.
    old: Option<StreamPos>,
    /// What is to be kept of what was there.
    previous: Option<Bytes>,
}

impl PieceWrite {
    /// New content for a piece, if there is room for it.
    pub(super) fn plan(
        store: &Store,
        user: &str,
        room: RoomNum,
        data_type: &str,
        content: Bytes,
    ) -> Result<Self, AccountDataError> {
        let key = keys::account_data(user, room, data_type);
        let old = store.typed::<AccountDataEntry>(&key).map_err(UserError::from)?;
        let grows = old.is_none() || content.len() > SMALL;
        if grows && !has_room(store, user, &key, content.len()).map_err(UserError::from)? {
            return Err(AccountDataError::TooMuch);
        }
        Ok(Self {
            user: user.to_owned(),
            room,
            data_type: data_type.to_owned(),
            content: Some(content),
            old: old.map(|old| old.pos),
            previous: previous_list(store, room, data_type, &key).map_err(UserError::from)?,
        })
    }

    /// The end of a piece; `None` if it is not there.
    fn plan_deletion(
        store: &Store,
        user: &str,
        room: RoomNum,
        data_type: &str,
    ) -> Result<Option<Self>, StorageError> {
        let key = keys::account_data(user, room, data_type);
        let Some(entry) = store.get(&key)?.filter(|entry| entry.blob.is_some()) else {
            return Ok(None);
        };
        let old = Some(AccountDataEntry::decode(&key, &entry.value)?.pos);
        let previous = previous_list(store, room, data_type, &key)?;
        let (user, data_type) = (user.to_owned(), data_type.to_owned());
        Ok(Some(Self { user, room, data_type, content: None, old, previous }))
    }

    /// Adds the operations at a position.
    pub(super) fn write(self, pos: StreamPos, ops: &mut Vec<Op>) {
        let Self { user, room, data_type, content, old, previous } = self;
        if let Some(blob) = previous {
            let key = keys::account_data(&user, PREVIOUSLY, &data_type);
            ops.push(Op::PutBlob { key, value: AccountDataEntry { pos }.encode(), blob });
        }
        if let Some(old) = old {
            ops.push(Op::Delete { key: keys::account_feed(&user, old) });
        }
        let key = keys::account_data(&user, room, &data_type);
        let value = AccountDataEntry { pos }.encode();
        ops.push(match content {
            Some(blob) => Op::PutBlob { key, value, blob },
            None => Op::Put { key, value },
        });
        let feed = AccountFeedEntry { room, data_type };
        ops.push(Op::Put { key: keys::account_feed(&user, pos), value: feed.encode() });
    }

    pub(super) fn into_change(self) -> Box<dyn Change> {
        Box::new(At(move |pos: StreamPos, ops: &mut Vec<Op>| {
            let user = self.user.clone();
            self.write(pos, ops);
            Announcement::User { user }
        }))
    }
}

/// The list of ignored users that is about to be replaced, if it is that.
fn previous_list(
    store: &Store,
    room: RoomNum,
    data_type: &str,
    key: &[u8],
) -> Result<Option<Bytes>, StorageError> {
    if room != RoomNum(0) || data_type != IGNORED_USERS {
        return Ok(None);
    }
    store.get(key)?.and_then(|entry| entry.blob).map(|place| store.blob(&place)).transpose()
}

/// Whether a piece of this length may take its place among the user's others.
fn has_room(store: &Store, user: &str, key: &[u8], len: usize) -> Result<bool, StorageError> {
    let prefix = keys::KeyBuilder::new(keys::ACCOUNT_DATA).text(user).build();
    let pieces = store.scan_prefix(&prefix, Direction::Forward, MAX_PIECES)?;
    let others = pieces.iter().filter(|(other, _)| other != key);
    let sizes = others.map(|(_, entry)| entry.blob.map_or(0, |blob| blob.len as usize));
    let (count, bytes) = sizes.fold((1, len), |(count, sum), size| (count + 1, sum + size));
    Ok(count <= MAX_PIECES && bytes <= MAX_BYTES)
}
