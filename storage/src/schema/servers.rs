//! What is known of other servers, in the index.

use serde::{Deserialize, Serialize};

use super::codec::Stored;

/// The keys of another server; the entry's body is the newest document that says so, as the server
/// signed it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteKeys {
    /// When that document was fetched, milliseconds since the epoch.
    pub fetched_ts: u64,
    /// Until when it says that it holds.
    pub valid_until_ts: u64,
    /// The keys, also those of earlier documents, by their ids.
    pub keys: Vec<(String, RemoteKey)>,
}

impl Stored for RemoteKeys {}

/// A key of another server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteKey {
    /// The public key.
    pub public: [u8; 32],
    /// Until when what it signs holds, as far as is known.
    pub valid_until_ts: u64,
    /// Whether the server has stopped signing with it: then it is good for old events alone.
    pub retired: bool,
}
