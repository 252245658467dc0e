//! Keys of the index for end-to-end encryption.

use bytes::Bytes;
use parlour_event::{RoomNum, StreamPos};

use super::{E2EE, INBOX, KEY_BACKUP, KEY_FEED, KeyBuilder, KeyReader};

fn of_user(user: &str, kind: u8) -> KeyBuilder {
    KeyBuilder::new(E2EE).text(user).kind(kind)
}

/// [`E2EE`]: the keys of a device, signed by it.
#[must_use]
pub fn device_keys(user: &str, device: &str) -> Bytes {
    of_user(user, b'd').text(device).build()
}

/// The common start of a user's [`device_keys`].
#[must_use]
pub fn device_keys_of(user: &str) -> Bytes {
    of_user(user, b'd').build()
}

/// [`E2EE`]: how many one-time keys a device has.
#[must_use]
pub fn one_time_keys(user: &str, device: &str) -> Bytes {
    of_user(user, b'o').text(device).build()
}

/// [`E2EE`]: a one-time key. They are given out in the order of their numbers.
#[must_use]
pub fn one_time_key(user: &str, device: &str, algorithm: &str, number: u64) -> Bytes {
    of_user(user, b'k').text(device).text(algorithm).number(number).build()
}

/// The common start of a device's [`one_time_key`]s of an algorithm.
#[must_use]
pub fn one_time_keys_in(user: &str, device: &str, algorithm: &str) -> Bytes {
    of_user(user, b'k').text(device).text(algorithm).build()
}

/// The common start of all of a device's [`one_time_key`]s.
#[must_use]
pub fn one_time_keys_of(user: &str, device: &str) -> Bytes {
    of_user(user, b'k').text(device).build()
}

/// [`E2EE`]: a device's fallback key.
#[must_use]
pub fn fallback_key(user: &str, device: &str, algorithm: &str) -> Bytes {
    of_user(user, b'f').text(device).text(algorithm).build()
}

/// The common start of a device's [`fallback_key`]s.
#[must_use]
pub fn fallback_keys_of(user: &str, device: &str) -> Bytes {
    of_user(user, b'f').text(device).build()
}

/// [`E2EE`]: a cross-signing key.
#[must_use]
pub fn cross_signing_key(user: &str, usage: &str) -> Bytes {
    of_user(user, b'x').text(usage).build()
}

/// The common start of a user's [`cross_signing_key`]s.
#[must_use]
pub fn cross_signing_keys_of(user: &str) -> Bytes {
    of_user(user, b'x').build()
}

/// [`E2EE`]: what signatures a user has added to a key of a user: a device's, by the device's id,
/// or a master key, by the key itself.
#[must_use]
pub fn key_signatures(signer: &str, user: &str, key: &str) -> Bytes {
    of_user(signer, b's').text(user).text(key).build()
}

/// The common start of all [`key_signatures`] that a user has made.
#[must_use]
pub fn key_signatures_of(signer: &str) -> Bytes {
    of_user(signer, b's').build()
}

/// The common start of all [`key_signatures`] that a user has made of its own keys.
#[must_use]
pub fn own_key_signatures_of(user: &str) -> Bytes {
    of_user(user, b's').text(user).build()
}

/// [`E2EE`]: when a user's keys last changed for others.
#[must_use]
pub fn keys_changed(user: &str) -> Bytes {
    of_user(user, b'l').build()
}

/// [`E2EE`]: for this user alone, another one's keys (or its own) have changed.
#[must_use]
pub fn own_key_feed(user: &str, pos: StreamPos, changed: &str) -> Bytes {
    of_user(user, b'n').number(pos.0).text(changed).build()
}

/// The common start of a user's [`own_key_feed`] at a position.
#[must_use]
pub fn own_key_feed_at(user: &str, pos: StreamPos) -> Bytes {
    of_user(user, b'n').number(pos.0).build()
}

/// The position in a user's [`own_key_feed`] key.
#[must_use]
pub fn own_key_feed_pos(user: &str, key: &[u8]) -> Option<StreamPos> {
    // A key reader skips one byte, which here is that of the kind.
    let start = of_user(user, b'n').build().len() - 1;
    KeyReader::new(key.get(start..)?).number().map(StreamPos)
}

/// [`E2EE`]: a user's dehydrated device.
#[must_use]
pub fn dehydrated_device(user: &str) -> Bytes {
    of_user(user, b'y').build()
}

/// [`KEY_FEED`]
#[must_use]
pub fn key_feed(room: RoomNum, pos: StreamPos) -> Bytes {
    KeyBuilder::new(KEY_FEED).number(room.0).number(pos.0).build()
}

/// What stands behind a [`key_feed`] and [`own_key_feed`] key: the user, and when the user's keys
/// had changed before. What was told of that time is deleted.
#[must_use]
pub fn key_feed_value(before: StreamPos, user: &str) -> Bytes {
    [&before.0.to_be_bytes()[..], user.as_bytes()].concat().into()
}

/// Reads what stands behind a [`key_feed`] key.
#[must_use]
pub fn read_key_feed(value: &[u8]) -> Option<(StreamPos, String)> {
    let (before, user) = value.split_first_chunk()?;
    Some((StreamPos(u64::from_be_bytes(*before)), String::from_utf8(user.to_vec()).ok()?))
}

/// [`INBOX`]
#[must_use]
pub fn inbox(user: &str, device: &str, pos: StreamPos, number: u64) -> Bytes {
    KeyBuilder::new(INBOX).text(user).text(device).number(pos.0).number(number).build()
}

/// The common start of a device's [`INBOX`] keys.
#[must_use]
pub fn inbox_of(user: &str, device: &str) -> Bytes {
    KeyBuilder::new(INBOX).text(user).text(device).build()
}

/// [`KEY_BACKUP`]: a user's versions.
#[must_use]
pub fn backup_versions(user: &str) -> Bytes {
    KeyBuilder::new(KEY_BACKUP).text(user).build()
}

/// [`KEY_BACKUP`]: one version.
#[must_use]
pub fn backup_version(user: &str, version: u64) -> Bytes {
    KeyBuilder::new(KEY_BACKUP).text(user).kind(b'v').number(version).build()
}

/// [`KEY_BACKUP`]: the common start of a version's keys.
#[must_use]
pub fn backup_keys(user: &str, version: u64) -> Bytes {
    KeyBuilder::new(KEY_BACKUP).text(user).kind(b'k').number(version).build()
}

/// [`KEY_BACKUP`]: the common start of a version's keys of a room.
#[must_use]
pub fn backup_keys_of_room(user: &str, version: u64, room: &str) -> Bytes {
    KeyBuilder::new(KEY_BACKUP).text(user).kind(b'k').number(version).text(room).build()
}

/// [`KEY_BACKUP`]: the key of a session.
#[must_use]
pub fn backup_key(user: &str, version: u64, room: &str, session: &str) -> Bytes {
    let key = KeyBuilder::new(KEY_BACKUP).text(user).kind(b'k').number(version);
    key.text(room).text(session).build()
}
