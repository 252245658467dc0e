//! Which rooms and users have changed since a position, from memory.
//!
//! An incremental sync asks this instead of looking at every room that its user is in. The record
//! is bounded and starts empty; for questions that reach back before its start it says so, and the
//! asker looks at storage.

use std::sync::{
    PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use parlour_event::{RoomNum, StreamPos};
use tokio::sync::{broadcast, watch};

use crate::{commit::Announcement, latest::Latest};

/// How many rooms are remembered, and how many users.
const CAPACITY: usize = 100_000;

/// How many receipts may wait for who tells other servers of them; older ones are lost.
const RECEIPTS: usize = 1_024;

/// How many servers for which EDUs wait may be told of; who is too slow looks into storage.
const POSTED: usize = 1_024;

/// The record of the newest change per room and per user.
#[derive(Debug)]
pub struct Changes {
    rooms: RwLock<Latest<RoomNum>>,
    users: RwLock<Latest<String>>,
    keys: RwLock<Latest<RoomNum>>,
    current: AtomicU64,
    moved: watch::Sender<StreamPos>,
    /// The newest change of which other servers are told.
    outgoing: watch::Sender<StreamPos>,
    /// Receipts that others may see.
    receipts: broadcast::Sender<(RoomNum, StreamPos)>,
    /// Servers for which EDUs wait that must not be lost.
    posted: broadcast::Sender<String>,
}

impl Changes {
    /// Starts empty after `start`.
    #[must_use]
    pub fn new(start: StreamPos) -> Self {
        Self {
            rooms: RwLock::new(Latest::new(start.0, CAPACITY)),
            users: RwLock::new(Latest::new(start.0, CAPACITY)),
            keys: RwLock::new(Latest::new(start.0, CAPACITY)),
            current: AtomicU64::new(start.0),
            moved: watch::Sender::new(start),
            outgoing: watch::Sender::new(start),
            receipts: broadcast::Sender::new(RECEIPTS),
            posted: broadcast::Sender::new(POSTED),
        }
    }

    /// The rooms that have changed after `since`, or `None` if that is not known any more.
    #[must_use]
    pub fn rooms_since(&self, since: StreamPos) -> Option<Vec<RoomNum>> {
        self.rooms.read().unwrap_or_else(PoisonError::into_inner).since(since.0)
    }

    /// Whether a user's own data has changed after `since`; `true` if that is not known any more.
    #[must_use]
    pub fn user_changed(&self, user: &str, since: StreamPos) -> bool {
        self.users.read().unwrap_or_else(PoisonError::into_inner).changed(user, since.0)
    }

    /// The rooms with members whose keys have changed after `since`, or `None` if that is not known
    /// any more.
    #[must_use]
    pub fn rooms_with_keys_since(&self, since: StreamPos) -> Option<Vec<RoomNum>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).since(since.0)
    }

    /// The position up to which everything is durable, readable and in this record: what a sync
    /// takes as "now".
    #[must_use]
    pub fn current(&self) -> StreamPos {
        StreamPos(self.current.load(Ordering::Acquire))
    }

    /// Tells when [`Changes::current`] moves on, for those who follow everything.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<StreamPos> {
        self.moved.subscribe()
    }

    /// Tells when there are events or changes of keys of which other servers are told.
    #[must_use]
    pub fn outgoing(&self) -> watch::Receiver<StreamPos> {
        self.outgoing.subscribe()
    }

    /// Tells of each receipt that others may see. Whoever is too slow misses some.
    #[must_use]
    pub fn receipts(&self) -> broadcast::Receiver<(RoomNum, StreamPos)> {
        self.receipts.subscribe()
    }

    /// Tells of each server for which an EDU has come to wait. Whoever is too slow misses some.
    #[must_use]
    pub fn posted(&self) -> broadcast::Receiver<String> {
        self.posted.subscribe()
    }

    /// Takes in what has just become durable. The persister calls this before it tells anybody,
    /// so that no sync can be told of a position and then miss what happened there.
    pub(crate) fn apply(&self, announcements: &[(StreamPos, Announcement)]) {
        for (pos, announcement) in announcements {
            self.tell_outwards(*pos, announcement);
            match announcement {
                Announcement::Event { room, .. }
                | Announcement::Past { room }
                | Announcement::OutOfBand { room, .. }
                | Announcement::Receipt { room, .. }
                | Announcement::Published { room } => {
                    self.room_changed_at(*room, *pos);
                }
                Announcement::User { user } => self.user_changed_at(user, *pos),
                Announcement::Users { users, .. } => {
                    users.iter().for_each(|user| self.user_changed_at(user, *pos));
                }
                Announcement::Keys { user, rooms } => {
                    self.user_changed_at(user, *pos);
                    self.keys_changed_at(rooms, *pos);
                }
                Announcement::Nothing => {}
            }
        }
        if let Some((pos, _)) = announcements.last() {
            self.current.store(pos.0, Ordering::Release);
            self.moved.send_replace(*pos);
        }
    }

    fn tell_outwards(&self, pos: StreamPos, announcement: &Announcement) {
        match announcement {
            Announcement::Event { outgoing: true, .. } | Announcement::Keys { .. } => {
                self.outgoing.send_replace(pos);
            }
            // Nobody may listen.
            Announcement::Receipt { room, private_to: None } => {
                drop(self.receipts.send((*room, pos)));
            }
            Announcement::Users { servers, .. } => {
                servers.iter().for_each(|server| drop(self.posted.send(server.clone())));
            }
            _ => {}
        }
    }

    fn room_changed_at(&self, room: RoomNum, pos: StreamPos) {
        self.rooms.write().unwrap_or_else(PoisonError::into_inner).set(room, pos.0);
    }

    fn keys_changed_at(&self, rooms: &[RoomNum], pos: StreamPos) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        rooms.iter().for_each(|room| keys.set(*room, pos.0));
    }

    fn user_changed_at(&self, user: &str, pos: StreamPos) {
        self.users.write().unwrap_or_else(PoisonError::into_inner).set(user.to_owned(), pos.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_what_it_knows_and_admits_what_it_does_not() {
        let changes = Changes::new(StreamPos(10));
        changes.room_changed_at(RoomNum(1), StreamPos(11));
        changes.room_changed_at(RoomNum(2), StreamPos(12));
        changes.room_changed_at(RoomNum(1), StreamPos(13));
        assert_eq!(changes.rooms_since(StreamPos(10)), Some(vec![RoomNum(1), RoomNum(2)]));
        assert_eq!(changes.rooms_since(StreamPos(12)), Some(vec![RoomNum(1)]));
        assert_eq!(changes.rooms_since(StreamPos(13)), Some(vec![]));
        assert_eq!(changes.rooms_since(StreamPos(9)), None);
    }

    #[test]
    fn unknown_users_count_as_changed_before_the_start_only() {
        let changes = Changes::new(StreamPos(10));
        changes.user_changed_at("@a:x", StreamPos(11));
        assert!(changes.user_changed("@a:x", StreamPos(10)));
        assert!(!changes.user_changed("@a:x", StreamPos(11)));
        assert!(!changes.user_changed("@b:x", StreamPos(10)));
        assert!(changes.user_changed("@b:x", StreamPos(9)));
    }
}
