//! Accounts, devices, tokens, account data and receipts in the index.

use parlour_event::{RoomNum, StreamPos};
use serde::{Deserialize, Serialize};

use super::codec::Stored;

/// An account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Argon2id in PHC string format; `None` if the account has no password.
    pub password_hash: Option<String>,
    /// Creation, milliseconds since the epoch.
    pub created_ts: u64,
    /// Whether the user may use the admin API.
    pub admin: bool,
    /// Whether the user is a guest.
    pub guest: bool,
    /// Whether the account is gone for good.
    pub deactivated: bool,
    /// Whether an administrator has locked the account: its logins are kept, and do nothing.
    pub locked: bool,
    /// Whether an administrator has suspended the account: it can read, and hardly more.
    pub suspended: bool,
    /// Display name.
    pub display_name: Option<String>,
    /// Avatar, an `mxc:` URI.
    pub avatar_url: Option<String>,
    /// Further profile fields: name and JSON text.
    pub profile: Vec<(String, String)>,
    /// Which documents were accepted at the registration: id and version.
    pub accepted_terms: Vec<(String, String)>,
}

impl Stored for User {}

/// A device of a user: one login.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Name for people.
    pub display_name: Option<String>,
    /// Creation, milliseconds since the epoch.
    pub created_ts: u64,
    /// When and from where it was last heard of; some minutes behind the truth.
    pub last_seen: LastSeen,
    /// The tokens that it uses.
    pub current: Option<Tokens>,
    /// What a refresh has made and nobody has used yet. When one of them is used, they become the
    /// current ones.
    pub next: Option<Tokens>,
    /// What was current before the last refresh. They are good for nothing any more, but whoever
    /// comes with them still has a session.
    pub spent: Option<Tokens>,
}

impl Stored for Device {}

impl Device {
    /// The hashes of all tokens under which the device can be found.
    pub fn token_hashes(&self) -> impl Iterator<Item = [u8; 32]> {
        let all = [&self.current, &self.next, &self.spent];
        all.into_iter().flatten().flat_map(Tokens::hashes)
    }
}

/// When and from where a device was last heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSeen {
    /// Milliseconds since the epoch.
    pub ts: u64,
    /// The address, as text.
    pub ip: String,
    /// What the client says it is.
    pub user_agent: Option<String>,
}

/// An access token and, if the client can use one, a refresh token: hashed, both of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// The access token.
    pub access: [u8; 32],
    /// When it ends, milliseconds since the epoch.
    pub expires_ts: Option<u64>,
    /// The refresh token.
    pub refresh: Option<[u8; 32]>,
}

impl Tokens {
    /// Both hashes.
    pub fn hashes(&self) -> impl Iterator<Item = [u8; 32]> {
        std::iter::once(self.access).chain(self.refresh)
    }
}

/// Whose an access token or a refresh token is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEntry {
    /// The user.
    pub user: String,
    /// The device.
    pub device: String,
}

impl Stored for TokenEntry {}

/// The answer that a client transaction got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionEntry {
    /// The event that the transaction made, or whatever else its answer was made of.
    pub result: String,
    /// When, milliseconds since the epoch; old ones may be dropped.
    pub ts: u64,
}

impl Stored for TransactionEntry {}

/// A piece of account data; the content is the entry's body. Without a body the piece was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountDataEntry {
    /// When it was last changed.
    pub pos: StreamPos,
}

impl Stored for AccountDataEntry {}

/// Which piece of account data changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountFeedEntry {
    /// The room; 0 for global account data.
    pub room: RoomNum,
    /// The `type`.
    pub data_type: String,
}

impl Stored for AccountFeedEntry {}

/// A receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptEntry {
    /// The reader.
    pub user: String,
    /// `m.read` or `m.read.private`.
    pub receipt_type: String,
    /// The thread: empty for an unthreaded receipt, else `main` or the root's event id.
    pub thread: String,
    /// The event that was read.
    pub event_id: String,
    /// When, milliseconds since the epoch.
    pub ts: u64,
}

impl Stored for ReceiptEntry {}

/// What a user wants to hear of a thread (MSC4306).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subscription {
    /// The user has subscribed to the thread.
    Manual,
    /// A client has, since the user was mentioned there.
    Automatic,
    /// The user has unsubscribed.
    Ended,
}

/// A user's subscription to a thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadSubscriptionEntry {
    /// What it is now.
    pub subscription: Subscription,
    /// Since when.
    pub pos: StreamPos,
}

impl Stored for ThreadSubscriptionEntry {}

/// Which thread a user's subscription has changed for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadSubscriptionFeedEntry {
    /// The room.
    pub room: RoomNum,
    /// The thread's root.
    pub root: String,
}

impl Stored for ThreadSubscriptionFeedEntry {}

/// What is kept of a user's presence beyond a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceEntry {
    /// What the user says about it.
    pub status_msg: Option<String>,
    /// When the user was last active, milliseconds since the epoch; 0 for never.
    pub last_active_ts: u64,
}

impl Stored for PresenceEntry {}
