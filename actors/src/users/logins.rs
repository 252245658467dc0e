//! Who comes with which token: read from storage once, and again when any account, device or token
//! has been written since. Nearly every request asks, and hardly any writes.

use std::{fmt, sync::Arc};

use parlour_storage::{
    StorageError, Store,
    schema::{Device, TokenEntry, User, keys},
};
use quick_cache::sync::Cache;

/// How many tokens are remembered: some 600 bytes each.
const MAX_TOKENS: usize = 4_096;

/// Whose a token is.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) user: String,
    pub(super) device_id: String,
    pub(super) device: Device,
    pub(super) account: User,
}

/// What was read when so much had been written.
#[derive(Debug, Clone)]
struct Known {
    revision: u64,
    owner: Arc<Owner>,
}

pub(super) struct Logins(Cache<[u8; 32], Known>);

impl Default for Logins {
    fn default() -> Self {
        Self(Cache::new(MAX_TOKENS))
    }
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logins").field("cached", &self.0.len()).finish_non_exhaustive()
    }
}

impl Logins {
    /// The owner of a token with this hash.
    pub(super) fn owner(
        &self,
        store: &Store,
        hash: &[u8; 32],
    ) -> Result<Option<Arc<Owner>>, StorageError> {
        // Taken before anything is read: what is written meanwhile makes this stale at once.
        let revision = store.login_revision();
        if let Some(known) = self.0.get(hash).filter(|known| known.revision == revision) {
            return Ok(Some(known.owner));
        }
        let owner = read(store, hash)?.map(Arc::new);
        match &owner {
            Some(owner) => self.0.insert(*hash, Known { revision, owner: owner.clone() }),
            None => drop(self.0.remove(hash)),
        }
        Ok(owner)
    }
}

fn read(store: &Store, hash: &[u8; 32]) -> Result<Option<Owner>, StorageError> {
    let Some(entry) = store.typed::<TokenEntry>(&keys::token(hash))? else { return Ok(None) };
    let TokenEntry { user, device: device_id } = entry;
    let Some(device) = store.typed::<Device>(&keys::device(&user, &device_id))? else {
        return Ok(None);
    };
    let Some(account) = store.typed::<User>(&keys::user(&user))? else { return Ok(None) };
    Ok(Some(Owner { user, device_id, device, account }))
}
