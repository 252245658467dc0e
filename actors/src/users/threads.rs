//! Which threads a user has subscribed to (MSC4306).
//!
//! Specification: <https://github.com/matrix-org/matrix-spec-proposals/pull/4306>

use std::ops::Bound::{Excluded, Included};

use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{
    Direction, Op, StorageError, Store,
    schema::{
        Stored, Subscription, ThreadSubscriptionEntry, ThreadSubscriptionFeedEntry, keys,
        keys::KeyReader,
    },
};
use ruma::UserId;

use super::{AccountDataError, Decision, UserError, Users, push_rules::begin_threads};
use crate::commit::{Announcement, At};

/// How many threads a user may have subscribed to, those that have ended included.
const MAX_THREADS: usize = 10_000;

/// Why a subscription was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// A client has subscribed because of an event that came before the user unsubscribed.
    #[error("the user has unsubscribed after that event")]
    Unsubscribed,
    /// The user has very many of them.
    #[error("there are too many thread subscriptions")]
    TooMany,
    /// See there.
    #[error(transparent)]
    Data(#[from] AccountDataError),
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

/// A thread that a user has subscribed to or left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadChange {
    /// The room.
    pub room: RoomNum,
    /// The thread's root.
    pub root: String,
    /// What the subscription is now.
    pub entry: ThreadSubscriptionEntry,
}

impl Users {
    /// A user's subscription to a thread, if there ever was one.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn thread_subscription(
        &self,
        user: &str,
        room: RoomNum,
        root: &str,
    ) -> Result<Option<ThreadSubscriptionEntry>, StorageError> {
        self.store.typed(&keys::thread_subscription(user, room, root))
    }

    /// Subscribes to a thread; by itself, if a `cause` is given: the position of an event.
    ///
    /// # Errors
    ///
    /// [`ThreadError`]
    pub async fn subscribe_to_thread(
        &self,
        user: &UserId,
        room: RoomNum,
        root: &str,
        cause: Option<StreamPos>,
    ) -> Result<(), ThreadError> {
        let (owner, root) = (user.to_owned(), root.to_owned());
        let decide = move |store: &Store| {
            let key = keys::thread_subscription(owner.as_str(), room, &root);
            let old = store.typed::<ThreadSubscriptionEntry>(&key).map_err(UserError::from)?;
            let new = match (old.as_ref().map(|old| old.subscription), cause) {
                (Some(Subscription::Manual), _) => return Ok(Decision::Keep(())),
                (Some(Subscription::Automatic), Some(_)) => return Ok(Decision::Keep(())),
                (Some(Subscription::Ended), Some(cause))
                    if old.as_ref().is_some_and(|old| cause <= old.pos) =>
                {
                    return Err(ThreadError::Unsubscribed);
                }
                (_, Some(_)) => Subscription::Automatic,
                (_, None) => Subscription::Manual,
            };
            let rules = match old {
                Some(_) => None,
                None => make_room(store, &owner)?,
            };
            let old = old.map(|old| old.pos);
            let change = At(move |pos: StreamPos, ops: &mut Vec<Op>| {
                write(owner.as_str(), room, root, new, old, pos, ops);
                if let Some(rules) = rules {
                    rules.write(pos, ops);
                }
                Announcement::User { user: owner.to_string() }
            });
            Ok(Decision::Write(Box::new(change), ()))
        };
        self.change(user.as_str(), decide).await
    }

    /// Ends the subscription to a thread, if there is one.
    ///
    /// # Errors
    ///
    /// [`UserError`]
    pub async fn unsubscribe_from_thread(
        &self,
        user: &str,
        room: RoomNum,
        root: &str,
    ) -> Result<(), UserError> {
        let (owner, root) = (user.to_owned(), root.to_owned());
        let decide = move |store: &Store| {
            let key = keys::thread_subscription(&owner, room, &root);
            let old = store.typed::<ThreadSubscriptionEntry>(&key)?;
            let Some(old) = old.filter(|old| old.subscription != Subscription::Ended) else {
                return Ok(Decision::Keep(()));
            };
            let change = At(move |pos: StreamPos, ops: &mut Vec<Op>| {
                write(&owner, room, root, Subscription::Ended, Some(old.pos), pos, ops);
                Announcement::User { user: owner }
            });
            Ok(Decision::Write(Box::new(change), ()))
        };
        self.change(user, decide).await
    }

    /// The threads whose subscription changed within `(after, until]`, newest change first.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn thread_changes(
        &self,
        user: &str,
        after: StreamPos,
        until: StreamPos,
        limit: usize,
    ) -> Result<Vec<ThreadChange>, StorageError> {
        let key = |pos| keys::thread_subscription_feed(user, pos);
        let (low, high) = (key(after), key(until));
        if low >= high {
            return Ok(Vec::new());
        }
        let range = (Excluded(&low[..]), Included(&high[..]));
        let mut changes = Vec::new();
        for (key, entry) in self.store.scan(range, Direction::Backward, limit)? {
            let ThreadSubscriptionFeedEntry { room, root } =
                ThreadSubscriptionFeedEntry::decode(&key, &entry.value)?;
            let entry = self.thread_subscription(user, room, &root)?;
            changes.extend(entry.map(|entry| ThreadChange { room, root, entry }));
        }
        Ok(changes)
    }

    /// When any of a user's subscriptions changed last.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn threads_changed(&self, user: &str) -> Result<StreamPos, StorageError> {
        let prefix = keys::KeyBuilder::new(keys::THREAD_SUBSCRIPTION_FEED).text(user).build();
        let newest = self.store.scan_prefix(&prefix, Direction::Backward, 1)?;
        let pos = newest.first().and_then(|(key, _)| {
            let mut reader = KeyReader::new(key);
            reader.text().and_then(|_user| reader.number())
        });
        Ok(StreamPos(pos.unwrap_or_default()))
    }
}

/// Looks whether one more thread may be subscribed to. For the first one, the user's rules change.
fn make_room(
    store: &Store,
    user: &UserId,
) -> Result<Option<super::account_data::PieceWrite>, ThreadError> {
    let prefix = keys::thread_subscriptions_of(user.as_str());
    let known = store.scan_prefix(&prefix, Direction::Forward, MAX_THREADS);
    match known.map_err(UserError::from)?.len() {
        0 => Ok(Some(begin_threads(store, user)?)),
        MAX_THREADS.. => Err(ThreadError::TooMany),
        _ => Ok(None),
    }
}

fn write(
    user: &str,
    room: RoomNum,
    root: String,
    subscription: Subscription,
    old: Option<StreamPos>,
    pos: StreamPos,
    ops: &mut Vec<Op>,
) {
    if let Some(old) = old {
        ops.push(Op::Delete { key: keys::thread_subscription_feed(user, old) });
    }
    let key = keys::thread_subscription(user, room, &root);
    let value = ThreadSubscriptionEntry { subscription, pos }.encode();
    ops.push(Op::Put { key, value });
    let value = ThreadSubscriptionFeedEntry { room, root }.encode();
    ops.push(Op::Put { key: keys::thread_subscription_feed(user, pos), value });
}
