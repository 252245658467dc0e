//! What is known of the keys of users of other servers, and which rooms are shared with them.
//!
//! Other servers tell of changes of those of their users who share a room with a user of this one.
//! So what is known of somebody is right for as long as there has been such a room all the time.

use std::ops::Bound::Excluded;

use bytes::Bytes;
use parlour_event::{RoomNum, StreamPos};
use serde::{Deserialize, Serialize};

use super::{
    codec::{Stored, decode_number},
    keys::{KNOWN_KEYS, KeyBuilder, KeyReader, REMOTE_MEMBER, last_number},
};
use crate::{Direction, Entry, StorageError, Store};

/// How many rooms of a user are looked at to find one that is shared.
const PAGE: usize = 500;

/// That the keys of a user of another server are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownKeys {
    /// The numbers of the last changes that are known, as the user's server counts them, the newest
    /// last. None, if the server was asked for keys alone, without their number.
    pub changes: Vec<u64>,
    /// What has changed since then is known, if a room was shared all the time.
    pub since: StreamPos,
    /// How many devices have keys.
    pub devices: u32,
}

impl Stored for KnownKeys {}

/// That keys have changed in a way that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaleKeys {
    /// When this server last heard of it.
    pub at: StreamPos,
}

impl Stored for StaleKeys {}

fn of_kind(kind: u8) -> KeyBuilder {
    KeyBuilder::new(KNOWN_KEYS).kind(kind)
}

/// [`KNOWN_KEYS`]: that there are any of a user.
#[must_use]
pub fn known(user: &str) -> Bytes {
    of_kind(b'h').text(user).build()
}

/// [`KNOWN_KEYS`]: the keys of a device.
#[must_use]
pub fn device(user: &str, device: &str) -> Bytes {
    of_kind(b'd').text(user).text(device).build()
}

/// [`KNOWN_KEYS`]: a cross-signing key.
#[must_use]
pub fn signing_key(user: &str, usage: &str) -> Bytes {
    of_kind(b'x').text(user).text(usage).build()
}

/// [`KNOWN_KEYS`]: that a user of a server has to be asked about anew.
#[must_use]
pub fn stale(server: &str, user: &str) -> Bytes {
    of_kind(b'q').text(server).text(user).build()
}

/// [`REMOTE_MEMBER`]: since when a user of another server is joined to a room.
#[must_use]
pub fn remote_member(user: &str, room: RoomNum) -> Bytes {
    KeyBuilder::new(REMOTE_MEMBER).kind(b'u').text(user).number(room.0).build()
}

/// [`REMOTE_MEMBER`]: since when this server has users in a room.
#[must_use]
pub fn own_stay(room: RoomNum) -> Bytes {
    KeyBuilder::new(REMOTE_MEMBER).kind(b'o').number(room.0).build()
}

/// The second text of a key with a kind.
fn second_text(key: &[u8]) -> Option<String> {
    // A key reader skips one byte, which here is that of the kind.
    let mut reader = KeyReader::new(key.get(1..)?);
    reader.text().and_then(|_| reader.text())
}

impl Store {
    /// What is known of the keys of a user of another server.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn known_keys(&self, user: &str) -> Result<Option<KnownKeys>, StorageError> {
        self.typed(&known(user))
    }

    /// The keys of the devices of a user of another server, as far as they are known.
    ///
    /// # Errors
    ///
    /// If the index or the log cannot be read.
    pub fn known_devices(&self, user: &str) -> Result<Vec<(String, Bytes)>, StorageError> {
        self.bodies(&of_kind(b'd').text(user).build())
    }

    /// The cross-signing keys of a user of another server by their usage, as far as they are known.
    ///
    /// # Errors
    ///
    /// If the index or the log cannot be read.
    pub fn known_signing_keys(&self, user: &str) -> Result<Vec<(String, Bytes)>, StorageError> {
        self.bodies(&of_kind(b'x').text(user).build())
    }

    /// The bodies behind keys of a user, by the text at the end of the key.
    fn bodies(&self, prefix: &[u8]) -> Result<Vec<(String, Bytes)>, StorageError> {
        let entries = self.scan_prefix(prefix, Direction::Forward, usize::MAX)?;
        let places: Vec<_> = entries.iter().filter_map(|(_, entry)| entry.blob).collect();
        let names = entries.iter().filter(|(_, entry)| entry.blob.is_some());
        let names = names.map(|(key, _)| second_text(key).unwrap_or_default());
        Ok(names.zip(self.blobs(&places)?).collect())
    }

    /// Some of the users whose keys are known, after one of them by name.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn known_users(&self, after: &str, limit: usize) -> Result<Vec<String>, StorageError> {
        let (low, end) = (known(after), of_kind(b'h' + 1).build());
        let found =
            self.scan((Excluded(&low[..]), Excluded(&end[..])), Direction::Forward, limit)?;
        let user = |key: &[u8]| KeyReader::new(key.get(1..)?).text();
        Ok(found.iter().filter_map(|(key, _)| user(key)).collect())
    }

    /// Whether and since when the keys of a user of a server are not known any more.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn stale_keys(&self, server: &str, user: &str) -> Result<Option<StaleKeys>, StorageError> {
        self.typed(&stale(server, user))
    }

    /// Some of a server's users who have to be asked about anew, after one of them by name.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn stale_users(
        &self,
        server: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        let (low, end) = (stale(server, after), after_server(server));
        let found =
            self.scan((Excluded(&low[..]), Excluded(&end[..])), Direction::Forward, limit)?;
        Ok(found.iter().filter_map(|(key, _)| second_text(key)).collect())
    }

    /// The first server after another by name some of whose users have to be asked about anew.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn stale_server(&self, after: Option<&str>) -> Result<Option<String>, StorageError> {
        let low = after.map_or_else(|| of_kind(b'q').build(), after_server);
        let end = of_kind(b'q' + 1).build();
        let found = self.scan((Excluded(&low[..]), Excluded(&end[..])), Direction::Forward, 1)?;
        let server = |key: &[u8]| KeyReader::new(key.get(1..)?).text();
        Ok(found.first().and_then(|(key, _)| server(key)))
    }

    /// The rooms that a user of another server and users of this one are joined to.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn rooms_with(&self, user: &str) -> Result<Vec<RoomNum>, StorageError> {
        let mut rooms = Vec::new();
        self.each_room_with(user, |room, _| {
            rooms.push(room);
            false
        })?;
        Ok(rooms)
    }

    /// Whether a user of another server shares a room with one of this server, and has done so all
    /// the time since a position. Where one room followed another this may be denied.
    ///
    /// # Errors
    ///
    /// If the index cannot be read.
    pub fn shares_room_since(&self, user: &str, since: StreamPos) -> Result<bool, StorageError> {
        self.each_room_with(user, |_, shared| shared <= since)
    }

    /// Looks at shared rooms and since when they are shared, until one is found; says whether it is.
    fn each_room_with(
        &self,
        user: &str,
        mut is_found: impl FnMut(RoomNum, StreamPos) -> bool,
    ) -> Result<bool, StorageError> {
        let end = remote_member(user, RoomNum(u64::MAX));
        let mut low = remote_member(user, RoomNum(0));
        loop {
            let range = (Excluded(&low[..]), Excluded(&end[..]));
            let page = self.scan(range, Direction::Forward, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(false) };
            let rooms: Vec<_> =
                page.iter().map(|(key, _)| RoomNum(last_number(key).unwrap_or_default())).collect();
            let stays: Vec<_> = rooms.iter().map(|room| own_stay(*room)).collect();
            let joined = rooms.into_iter().zip(&page).zip(self.multi_get(&stays)?);
            for ((room, (key, entry)), own) in joined {
                let Some(own) = own else { continue };
                let shared = position(key, entry)?.max(position(key, &own)?);
                if is_found(room, shared) {
                    return Ok(true);
                }
            }
            low = last.clone();
        }
    }
}

fn position(key: &[u8], entry: &Entry) -> Result<StreamPos, StorageError> {
    decode_number(key, &entry.value).map(StreamPos)
}

/// Behind all [`stale`] keys of a server.
fn after_server(server: &str) -> Bytes {
    let mut key = of_kind(b'q').text(server).build().to_vec();
    // The separator becomes one that sorts behind it, and before all that a longer name goes on with.
    if let Some(separator) = key.last_mut() {
        *separator = 1;
    }
    key.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Op, Record};

    fn store(puts: Vec<(Bytes, Bytes)>) -> Store {
        let (store, mut writer) = Store::in_memory();
        let ops = puts.into_iter().map(|(key, value)| Op::Put { key, value }).collect();
        let record = Record { pos: writer.next_pos(), ops, announcement: Bytes::new() };
        writer.commit(&[record]).expect("commit");
        store
    }

    #[test]
    fn who_has_to_be_asked_about_is_found_by_server() {
        let entry = StaleKeys { at: StreamPos(1) }.encode();
        let of = [
            ("a.org", "@a:a.org"),
            ("a.org", "@b:a.org"),
            ("a.org:8448", "@c:a.org:8448"),
            ("a.organic", "@d:a.organic"),
        ];
        let mut puts: Vec<_> = of.map(|(at, user)| (stale(at, user), entry.clone())).into();
        puts.push((known("@a:a.org"), KnownKeys::default().encode()));
        puts.push((known("@b:b.org"), KnownKeys::default().encode()));
        let store = store(puts);
        let mut servers = Vec::new();
        while let Some(next) = store.stale_server(servers.last().map(String::as_str)).expect("read")
        {
            servers.push(next);
        }
        assert_eq!(servers, ["a.org", "a.org:8448", "a.organic"]);
        assert_eq!(store.stale_users("a.org", "", 9).expect("read"), ["@a:a.org", "@b:a.org"]);
        assert_eq!(store.stale_users("a.org", "@a:a.org", 9).expect("read"), ["@b:a.org"]);
        assert_eq!(store.known_users("", 9).expect("read"), ["@a:a.org", "@b:b.org"]);
        assert_eq!(store.known_users("@a:a.org", 9).expect("read"), ["@b:b.org"]);
    }

    #[test]
    fn a_room_is_shared_while_both_are_in_it() {
        let at = |pos: u64| Bytes::from(pos.to_be_bytes().to_vec());
        let (one, two, three) = (RoomNum(1), RoomNum(2), RoomNum(3));
        let user = "@a:a.org";
        let store = store(vec![
            (remote_member(user, one), at(5)),
            (remote_member(user, two), at(3)),
            (remote_member(user, three), at(1)),
            (remote_member("@a:a.organic", three), at(1)),
            (own_stay(one), at(4)),
            (own_stay(two), at(8)),
        ]);
        assert_eq!(store.rooms_with(user).expect("read"), [one, two]);
        let shares = |pos| store.shares_room_since(user, StreamPos(pos)).expect("read");
        assert_eq!([4, 5, 9].map(shares), [false, true, true]);
        assert!(store.rooms_with("@a:a.organic").expect("read").is_empty());
    }
}
