//! Accounts: their beginning, and what changes in them.

use std::collections::BTreeSet;

use bytes::Bytes;
use parlour_storage::{
    Op, StorageError, Store,
    schema::{Stored, User, keys, people},
};

use super::{
    Decision, NewDevice, Session, UserError, Users,
    keys::with_news,
    sessions::{quiet, remove_all, told},
};
use crate::{commit::Announcement, words::words_of_user};

/// Why an account was not created.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// There is or was such a user.
    #[error("the user name is taken")]
    Taken,
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

/// Which logins end with a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Logout {
    /// None.
    Nobody,
    /// All but this device's.
    AllBut(String),
    /// All.
    All,
}

impl Users {
    /// An account.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn account(&self, user: &str) -> Result<Option<User>, StorageError> {
        self.store.typed(&keys::user(user))
    }

    /// Creates an account and, if asked for, a first device with a token.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]
    pub async fn register(
        &self,
        user: &str,
        account: User,
        device: Option<NewDevice>,
    ) -> Result<Option<Session>, RegisterError> {
        let (users, name) = (self.clone(), user.to_owned());
        let decide = move |store: &Store| {
            if store.get(&keys::user(&name)).map_err(UserError::from)?.is_some() {
                return Err(RegisterError::Taken);
            }
            let mut ops = Vec::new();
            put_account(&name, None, &account, BTreeSet::new(), &mut ops);
            if account.guest {
                ops.push(Op::Put { key: keys::guest(&name), value: Bytes::new() });
            }
            let session = device
                .map(|device| users.new_session(store, &name, device, &mut ops))
                .transpose()
                .map_err(UserError::from)?;
            Ok(Decision::Write(quiet(ops), session))
        };
        self.change(user, decide).await
    }

    /// Changes an account by a function of what it is now; `None` if there is no such account.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn update_account(
        &self,
        user: &str,
        update: impl FnOnce(&mut User) + Send + 'static,
    ) -> Result<Option<User>, UserError> {
        let name = user.to_owned();
        let decide = move |store: &Store| {
            let old = store.typed::<User>(&keys::user(&name))?;
            let Some(old) = old else { return Ok(Decision::Keep(None)) };
            let mut new = old.clone();
            update(&mut new);
            if new == old {
                return Ok(Decision::Keep(Some(new)));
            }
            let mut ops = Vec::new();
            put_account(&name, Some(&old), &new, store.open_words_of(&name)?, &mut ops);
            Ok(Decision::Write(told(&name, ops), Some(new)))
        };
        self.change(user, decide).await
    }

    /// Sets a password and ends logins, both or neither; says whether there is such an account.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn set_password(
        &self,
        user: &str,
        password_hash: String,
        logout: Logout,
    ) -> Result<bool, UserError> {
        let name = user.to_owned();
        let decide = move |store: &Store| {
            let key = keys::user(&name);
            let account = store.typed::<User>(&key)?.filter(|account| !account.deactivated);
            let Some(mut account) = account else { return Ok(Decision::Keep(None)) };
            account.password_hash = Some(password_hash);
            let mut ops = vec![Op::Put { key, value: account.encode() }];
            let removed = match &logout {
                Logout::Nobody => Vec::new(),
                Logout::AllBut(device) => remove_all(store, &name, Some(device), &mut ops)?,
                Logout::All => remove_all(store, &name, None, &mut ops)?,
            };
            let told = Announcement::User { user: name.clone() };
            Ok::<_, UserError>(Decision::Write(with_news(store, &name, ops, told)?, Some(removed)))
        };
        match self.change(user, decide).await? {
            None => Ok(false),
            Some(removed) => {
                self.forget_local_notifications(user, &removed).await?;
                Ok(true)
            }
        }
    }
}

/// Writes an account, and what the user directory has to know of it. `open` are the words under
/// which everybody finds the user.
pub(super) fn put_account(
    user: &str,
    old: Option<&User>,
    new: &User,
    open: BTreeSet<String>,
    ops: &mut Vec<Op>,
) {
    ops.push(Op::Put { key: keys::user(user), value: new.encode() });
    let (before, now) = (old.map(|old| words(user, old)).unwrap_or_default(), words(user, new));
    for word in before.difference(&now) {
        ops.push(Op::Delete { key: keys::user_word(word, user) });
    }
    for word in now.difference(&before) {
        ops.push(Op::Put { key: keys::user_word(word, user), value: Bytes::new() });
    }
    if !open.is_empty() {
        ops.extend(people::open_ops(user, &open, &now));
    }
}

/// Under which words a user of this server is found.
pub(super) fn words(user: &str, account: &User) -> BTreeSet<String> {
    match account.deactivated {
        true => BTreeSet::new(),
        false => words_of_user(user, account.display_name.as_deref()),
    }
}
