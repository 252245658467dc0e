//! One-time keys are given out, each of them once.

use bytes::Bytes;
use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::{OneTimeKeys, Stored, keys},
};

use super::{super::sessions::quiet, Decision, UserError, Users};

/// A key that was given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The device that it opens a session with.
    pub device: String,
    /// Its id, without the algorithm.
    pub id: String,
    /// Its algorithm.
    pub algorithm: String,
    /// The key.
    pub key: Bytes,
}

impl Users {
    /// Gives out one key of each of these devices of a user, for an algorithm: the oldest one-time
    /// key, which nobody gets any more then, or else the fallback key. Devices without either are
    /// passed over.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn claim_keys(
        &self,
        user: &str,
        wanted: Vec<(String, String)>,
    ) -> Result<Vec<Claimed>, UserError> {
        let name = user.to_owned();
        let decide = move |store: &Store| {
            let (mut ops, mut claimed) = (Vec::new(), Vec::new());
            for (device, algorithm) in wanted {
                claimed.extend(claim(store, &name, device, algorithm, &mut ops)?);
            }
            Ok(match ops.is_empty() {
                true => Decision::Keep(claimed),
                false => Decision::Write(quiet(ops), claimed),
            })
        };
        self.change(user, decide).await
    }
}

fn claim(
    store: &Store,
    user: &str,
    device: String,
    algorithm: String,
    ops: &mut Vec<Op>,
) -> Result<Option<Claimed>, StorageError> {
    let head = keys::one_time_keys(user, &device);
    let Some(mut counts) = store.typed::<OneTimeKeys>(&head)? else { return Ok(None) };
    let prefix = keys::one_time_keys_in(user, &device, &algorithm);
    let oldest = store.scan_prefix(&prefix, Direction::Forward, 1)?.pop();
    let entry = match oldest {
        Some((key, entry)) => {
            ops.push(Op::Delete { key });
            let left = counts.counts.remove(&algorithm).unwrap_or_default().saturating_sub(1);
            if left > 0 {
                counts.counts.insert(algorithm.clone(), left);
            }
            ops.push(Op::Put { key: head, value: counts.encode() });
            entry
        }
        None => {
            let fallback = store.get(&keys::fallback_key(user, &device, &algorithm))?;
            let Some(entry) = fallback else { return Ok(None) };
            if counts.fallbacks.insert(algorithm.clone(), true) == Some(false) {
                ops.push(Op::Put { key: head, value: counts.encode() });
            }
            entry
        }
    };
    let Some(place) = entry.blob else { return Ok(None) };
    let (id, key) = (String::from_utf8_lossy(&entry.value).into_owned(), store.blob(&place)?);
    Ok(Some(Claimed { device, id, algorithm, key }))
}
