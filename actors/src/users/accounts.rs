//! Accounts on their way into storage, together with the words under which people find them.

use parlour_storage::{
    Op,
    schema::{Stored as _, User, keys},
};

use crate::words::words_of_user;

/// Writes an account, and what the user directory has to know of it.
pub(super) fn put_account(user: &str, old: Option<&User>, new: &User, ops: &mut Vec<Op>) {
    ops.push(Op::Put { key: keys::user(user), value: new.encode() });
    let words = |account: &User| words_of_user(user, account.display_name.as_deref());
    let (before, now) = (old.map(words).unwrap_or_default(), words(new));
    for word in before.difference(&now) {
        ops.push(Op::Delete { key: keys::user_word(word, user) });
    }
    for word in now.difference(&before) {
        let value = bytes::Bytes::new();
        ops.push(Op::Put { key: keys::user_word(word, user), value });
    }
}
