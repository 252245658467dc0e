//! Who follows what: the users who sync, their rooms, and the feeds in which they are told.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{StorageError, Store};

use super::{
    bells::Ring,
    feed::{Arrival, Feed, Known, What},
};
use crate::{commit::Announcement, metrics::Metrics};

/// Who follows what.
#[derive(Debug)]
pub(super) struct Board {
    store: Store,
    metrics: Arc<dyn Metrics>,
    /// The feeds, for those who ask for one.
    known: Known,
    watched: HashMap<Arc<str>, Watched>,
    rooms: HashMap<RoomNum, Followers>,
    /// Until here everything has been told.
    told: Arc<AtomicU64>,
    /// What is being told, if anything.
    telling: StreamPos,
}

#[derive(Debug)]
struct Watched {
    feed: Arc<Feed>,
    rooms: HashSet<RoomNum>,
}

/// A room with which watched users have to do.
#[derive(Debug)]
struct Followers {
    /// The newest position at which something may have happened in it.
    newest: StreamPos,
    /// Ordered, so that what happens first does not depend on chance.
    users: BTreeMap<Arc<str>, Follower>,
}

/// A watched user who has to do with a room.
#[derive(Debug)]
struct Follower {
    feed: Arc<Feed>,
    is_joined: bool,
}

impl Board {
    pub(super) fn new(
        store: Store,
        metrics: Arc<dyn Metrics>,
        known: Known,
        told: Arc<AtomicU64>,
    ) -> Self {
        let (watched, rooms) = (HashMap::new(), HashMap::new());
        Self { store, metrics, known, watched, rooms, told, telling: StreamPos(0) }
    }

    /// Tells whom it concerns of what has become durable and readable.
    pub(super) fn tell(&mut self, announcements: &[(StreamPos, Announcement)]) {
        let mut ring = Ring::default();
        for (pos, announcement) in announcements {
            self.telling = *pos;
            self.announce(*pos, announcement, &mut ring);
        }
        if let Some((last, _)) = announcements.last() {
            self.told.store(last.0, Ordering::Release);
        }
    }

    /// How many users who sync these may concern at most.
    pub(super) fn concerned(&self, announcements: &[(StreamPos, Announcement)]) -> usize {
        let in_room = |room| self.rooms.get(room).map_or(0, |followers| followers.users.len());
        let concerned = announcements.iter().map(|(_, announcement)| match announcement {
            Announcement::Event { room, members, .. } => in_room(room) + members.len(),
            Announcement::Receipt { room, .. } => in_room(room),
            Announcement::OutOfBand { .. } | Announcement::User { .. } => 1,
            Announcement::Users { users, .. } => users.len(),
            Announcement::Keys { rooms, .. } => rooms.iter().map(in_room).sum(),
            Announcement::Past { .. } | Announcement::Published { .. } | Announcement::Nothing => 0,
        });
        concerned.sum()
    }

    /// The users who are typing in a room have changed.
    pub(super) fn typing_changed(&self, room: RoomNum, counter: u64) {
        let mut ring = Ring::default();
        self.tell_room(room, |follower| {
            follower.feed.counted(&mut ring, |news| news.typing = counter);
        });
    }

    /// The presence of users in some rooms has changed; returns how many users are woken.
    pub(super) fn presence_changed(&self, rooms: &[RoomNum], counter: u64) -> usize {
        let rooms = rooms.iter().filter_map(|room| self.rooms.get(room));
        // Who shares several rooms with those who changed is woken once.
        let users: BTreeMap<_, _> = rooms.flat_map(|room| &room.users).collect();
        let mut ring = Ring::default();
        for follower in users.values() {
            follower.feed.counted(&mut ring, |news| news.presence = counter);
        }
        self.metrics.woken(users.len());
        users.len()
    }

    /// Nothing will ever be told again.
    pub(super) fn close(&mut self) {
        let mut ring = Ring::default();
        self.known.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.watched.values().for_each(|watched| watched.feed.close(&mut ring));
    }

    /// The feed of a user, who is watched from now on.
    pub(super) fn watch(&mut self, user: &str) -> Result<Arc<Feed>, StorageError> {
        if let Some(watched) = self.watched.get(user) {
            return Ok(watched.feed.clone());
        }
        // Changes are in the index before they are announced, so nothing is missed between this
        // look and the next announcement.
        let memberships = self.store.memberships(user)?;
        let user: Arc<str> = user.into();
        let feed = Arc::new(Feed::default());
        let mut watched = Watched { feed: feed.clone(), rooms: HashSet::new() };
        for (room, entry) in memberships {
            if follows(&entry.membership) {
                watched.rooms.insert(room);
                self.follow(room, &user, &feed, &entry.membership);
            }
        }
        self.watched.insert(user.clone(), watched);
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(user, feed.clone());
        Ok(feed)
    }

    fn follow(&mut self, room: RoomNum, user: &Arc<str>, feed: &Arc<Feed>, membership: &str) {
        let follower = Follower { feed: feed.clone(), is_joined: membership == "join" };
        let newest = StreamPos(self.told.load(Ordering::Relaxed)).max(self.telling);
        let nobody = || Followers { newest, users: BTreeMap::new() };
        self.rooms.entry(room).or_insert_with(nobody).users.insert(user.clone(), follower);
    }

    /// Something happens in a room; says when something may have happened there before.
    fn touch(&mut self, room: RoomNum, pos: StreamPos) -> StreamPos {
        let followers = self.rooms.get_mut(&room);
        followers.map_or(pos, |followers| std::mem::replace(&mut followers.newest, pos))
    }

    fn announce(&mut self, pos: StreamPos, announcement: &Announcement, ring: &mut Ring) {
        match announcement {
            Announcement::Event { room, event, members, .. } => {
                let after = self.touch(*room, pos);
                let arrival = Arrival { pos, room: *room, what: What::Event(*event), after };
                self.tell_room(*room, |follower| match follower.is_joined && members.is_empty() {
                    true => follower.feed.arrived(arrival, ring),
                    false => follower.feed.happened(pos, ring),
                });
                for (user, membership) in members {
                    self.tell_user(user, pos, ring);
                    self.membership_changed(*room, user, membership);
                }
            }
            Announcement::OutOfBand { room, user, membership } => {
                self.tell_user(user, pos, ring);
                self.membership_changed(*room, user, membership);
            }
            Announcement::Receipt { room, private_to } => {
                let after = self.touch(*room, pos);
                let arrival = Arrival { pos, room: *room, what: What::Receipt, after };
                match private_to {
                    Some(user) => self.tell_user(user, pos, ring),
                    None => self.tell_room(*room, |follower| match follower.is_joined {
                        true => follower.feed.arrived(arrival, ring),
                        false => follower.feed.happened(pos, ring),
                    }),
                }
            }
            Announcement::User { user } => self.tell_user(user, pos, ring),
            Announcement::Users { users, .. } => {
                users.iter().for_each(|user| self.tell_user(user, pos, ring));
            }
            Announcement::Keys { user, rooms } => {
                self.tell_user(user, pos, ring);
                for room in rooms {
                    self.tell_room(*room, |follower| follower.feed.happened(pos, ring));
                }
            }
            Announcement::Past { .. } | Announcement::Published { .. } | Announcement::Nothing => {}
        }
    }

    fn membership_changed(&mut self, room: RoomNum, user: &str, membership: &str) {
        let Some((user, watched)) = self.watched.get_key_value(user) else { return };
        let (user, feed) = (user.clone(), watched.feed.clone());
        let Some(watched) = self.watched.get_mut(&user) else { return };
        if follows(membership) {
            watched.rooms.insert(room);
            self.follow(room, &user, &feed, membership);
        } else {
            watched.rooms.remove(&room);
            self.forget_in_room(room, &user);
        }
    }

    fn forget_in_room(&mut self, room: RoomNum, user: &str) {
        if let Some(Followers { users, .. }) = self.rooms.get_mut(&room) {
            users.remove(user);
            if users.is_empty() {
                self.rooms.remove(&room);
            }
        }
    }

    fn tell_room(&self, room: RoomNum, tell: impl FnMut(&Follower)) {
        let Some(Followers { users, .. }) = self.rooms.get(&room) else { return };
        users.values().for_each(tell);
        self.metrics.woken(users.len());
    }

    fn tell_user(&self, user: &str, pos: StreamPos, ring: &mut Ring) {
        if let Some(watched) = self.watched.get(user) {
            watched.feed.happened(pos, ring);
        }
    }

    /// Forgets users who have not synced for a while.
    pub(super) fn sweep(&mut self) {
        let gone = self.watched.iter().filter(|(_, watched)| watched.feed.has_been_left());
        let gone: Vec<_> = gone.map(|(user, _)| user.clone()).collect();
        for user in gone {
            self.known.write().unwrap_or_else(PoisonError::into_inner).remove(&user);
            if let Some(watched) = self.watched.remove(&user) {
                for room in watched.rooms {
                    self.forget_in_room(room, &user);
                }
            }
        }
    }
}

/// Whether somebody with this membership is told what happens in a room.
fn follows(membership: &str) -> bool {
    matches!(membership, "join" | "invite" | "knock")
}
