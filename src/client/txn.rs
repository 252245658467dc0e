//! Client transactions: the same request of the same device, sent again, is done once.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers>

use parlour_actors::Transaction;
use parlour_storage::{
    StorageError, Store,
    schema::{TransactionEntry, keys},
};
use ruma::OwnedEventId;
use sha2::{Digest, Sha256};

use crate::{error::ApiError, http::Caller};

/// The longest transaction id, in bytes: it is kept with its event.
const MAX_TXN_ID: usize = 255;

/// A device's transaction at an endpoint. `endpoint` is one name for all versions of its path,
/// `path` the variables in it.
///
/// # Errors
///
/// `M_INVALID_PARAM` for an id that is too long.
pub(crate) fn transaction(
    caller: &Caller,
    endpoint: &str,
    path: &[&str],
    txn_id: &str,
) -> Result<Transaction, ApiError> {
    if txn_id.len() > MAX_TXN_ID {
        let message = format!("A transaction id has at most {MAX_TXN_ID} bytes");
        return Err(ApiError::invalid_param(message));
    }
    let scope = [caller.user_id.as_str(), caller.device_id.as_str(), endpoint];
    let hash = hash(&[&scope, path, &[txn_id]].concat());
    Ok(Transaction { hash, device: caller.device_id.to_string(), txn_id: txn_id.to_owned() })
}

/// The name under which it is kept that something has been done.
pub(crate) fn hash(parts: &[&str]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        // With its length in front, no two lists of parts are the same bytes.
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let digest: [u8; 32] = hasher.finalize().into();
    let mut hash = [0; 16];
    hash.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    hash
}

/// The event that a transaction has made already, if it is durable.
pub(crate) fn known(
    store: &Store,
    transaction: &Transaction,
) -> Result<Option<OwnedEventId>, StorageError> {
    let entry = store.typed::<TransactionEntry>(&keys::transaction(&transaction.hash))?;
    Ok(entry.and_then(|entry| OwnedEventId::try_from(entry.result).ok()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ruma::{device_id, user_id};

    use super::*;
    use crate::http::Standing;

    #[test]
    fn every_part_of_the_scope_counts() {
        let caller = |user: &str, device: &str| Caller {
            user_id: user.try_into().expect("a user id"),
            device_id: device.into(),
            admin: false,
            guest: false,
            standing: Standing::Active,
        };
        let hash = |caller: &Caller, endpoint: &str, path: &[&str], txn: &str| {
            transaction(caller, endpoint, path, txn).expect("short enough").hash
        };
        let (user, device) = (user_id!("@a:x").as_str(), device_id!("D").as_str());
        let alice = caller(user, device);
        let all = [
            hash(&alice, "send", &["!r:x", "t"], "1"),
            hash(&alice, "send", &["!r:x", "t"], "2"),
            hash(&alice, "send", &["!r:x", "t1"], ""),
            hash(&alice, "send", &["!r:xt"], "1"),
            hash(&alice, "redact", &["!r:x", "t"], "1"),
            hash(&caller(user, "E"), "send", &["!r:x", "t"], "1"),
            hash(&caller("@b:x", device), "send", &["!r:x", "t"], "1"),
        ];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(hash(&alice, "send", &["!r:x", "t"], "1"), all[0]);
        let long = "x".repeat(256);
        let refused = transaction(&alice, "send", &[], &long).expect_err("it is too long");
        assert_eq!(refused.status().as_u16(), 400);
    }
}
