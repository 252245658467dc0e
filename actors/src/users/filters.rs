//! Stored filters.

use bytes::Bytes;
use parlour_storage::{Direction, Op, StorageError, Store, schema::keys};
use sha2::{Digest, Sha256};

use super::{Decision, UserError, Users};
use crate::commit::{Announcement, Ops};

/// How many filters a user may store.
const MAX_FILTERS: usize = 1_000;

/// Why a filter was not stored.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The user has very many filters already.
    #[error("there are too many stored filters")]
    TooMany,
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

impl Users {
    /// Stores a filter (JSON text) and returns its id. The same filter has the same id.
    ///
    /// # Errors
    ///
    /// [`FilterError`]
    pub async fn add_filter(&self, user: &str, filter: Bytes) -> Result<String, FilterError> {
        let digest = Sha256::digest(&filter);
        let id: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let name = user.to_owned();
        let decide = move |store: &Store| {
            let key = keys::filter(&name, &id);
            if store.get(&key).map_err(UserError::from)?.is_some() {
                return Ok(Decision::Keep(id));
            }
            let prefix = keys::KeyBuilder::new(keys::FILTER).text(&name).build();
            let known = store.scan_prefix(&prefix, Direction::Forward, MAX_FILTERS);
            if known.map_err(UserError::from)?.len() >= MAX_FILTERS {
                return Err(FilterError::TooMany);
            }
            let ops = vec![Op::PutBlob { key, value: Bytes::new(), blob: filter }];
            let change = Ops { ops, announcement: Announcement::Nothing };
            Ok(Decision::Write(Box::new(change), id))
        };
        self.change(user, decide).await
    }

    /// A stored filter, as JSON text.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn filter(&self, user: &str, id: &str) -> Result<Option<Bytes>, StorageError> {
        let entry = self.store.get(&keys::filter(user, id))?;
        entry.and_then(|entry| entry.blob).map(|place| self.store.blob(&place)).transpose()
    }
}
