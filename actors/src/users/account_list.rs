//! All accounts, for administrators.

use std::ops::Bound;

use parlour_storage::{
    Direction, StorageError,
    schema::{Stored, User, keys, keys::KeyReader},
};

use super::Users;

impl Users {
    /// The next accounts behind a user id, in alphabetical order, at most `most`.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn accounts_after(
        &self,
        user: Option<&str>,
        most: usize,
    ) -> Result<Vec<(String, User)>, StorageError> {
        let low = user.map_or_else(|| vec![keys::USER], |user| keys::user(user).to_vec());
        let range = (Bound::Excluded(&low[..]), Bound::Excluded(&[keys::USER + 1][..]));
        let found = self.store.scan(range, Direction::Forward, most)?.into_iter();
        let account = |(key, entry): (bytes::Bytes, parlour_storage::Entry)| {
            let user = KeyReader::new(&key).text().unwrap_or_default();
            Ok((user, User::decode(&key, &entry.value)?))
        };
        found.map(account).collect()
    }
}
