//! End-to-end encryption in the index. The keys themselves are bodies: JSON as clients gave it.

use std::collections::BTreeMap;

use parlour_event::StreamPos;
use serde::{Deserialize, Serialize};

use super::codec::Stored;

/// How many one-time keys a device has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneTimeKeys {
    /// The number of the next one-time key.
    pub next: u64,
    /// How many keys wait, by algorithm.
    pub counts: BTreeMap<String, u64>,
    /// The algorithms with a fallback key, and whether it has been given out.
    pub fallbacks: BTreeMap<String, bool>,
}

impl Stored for OneTimeKeys {}

/// When a user's keys changed for others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysChanged {
    /// The newest change.
    pub pos: StreamPos,
    /// The one before.
    pub before: StreamPos,
}

impl Stored for KeysChanged {}

/// A device that is not there, and gets messages for those to come (MSC3814). Its data are the
/// entry's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DehydratedDevice {
    /// The device's id.
    pub device: String,
}

impl Stored for DehydratedDevice {}

/// Which backups of keys a user has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupVersions {
    /// The number of the newest version that was ever made.
    pub newest: u64,
}

impl Stored for BackupVersions {}

/// A backup of keys. What the client says about it is the entry's body; one without a body has
/// been deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupVersion {
    /// How many keys it has.
    pub count: u64,
    /// Grows with each change of its keys.
    pub etag: u64,
    /// How long its keys are altogether, in bytes.
    pub bytes: u64,
}

impl Stored for BackupVersion {}

/// What is known of a key in a backup. The key, encrypted, is the entry's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUpKey {
    /// Whether the client has it from a device that it has verified.
    pub is_verified: bool,
    /// The first message that it opens.
    pub first_message_index: u64,
    /// How often it was forwarded.
    pub forwarded_count: u64,
}

impl Stored for BackedUpKey {}
