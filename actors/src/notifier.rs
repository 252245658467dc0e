//! The notifier: knows which waiting clients a change concerns, and wakes those alone.
//!
//! A user who syncs is *watched*: the notifier keeps the list of the user's rooms and a channel
//! with the position of the newest thing that concerns the user. Parked syncs hold the channel's
//! other end and are told "there is something past N", never what; they read that from storage.
//! Users who have not synced for a while are forgotten.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use actix::{Actor, AsyncContext, Context, Handler, Message, MessageResult};
use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{StorageError, Store};
use tokio::sync::watch;

use crate::{commit::Announcement, metrics::Metrics};

/// How often users without parked syncs are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// The newest thing that concerns a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct News {
    /// Position in the stream.
    pub pos: StreamPos,
    /// The value of the typing counter.
    pub typing: u64,
    /// The value of the presence counter.
    pub presence: u64,
}

/// The actor. One per process.
#[derive(Debug)]
pub struct Notifier {
    store: Store,
    metrics: Arc<dyn Metrics>,
    watched: HashMap<String, Watched>,
    rooms: HashMap<RoomNum, HashSet<String>>,
}

#[derive(Debug)]
struct Watched {
    sender: watch::Sender<News>,
    rooms: HashSet<RoomNum>,
    /// Swept once without a parked sync; the next time it goes.
    idle: bool,
}

impl Notifier {
    /// A notifier that nobody waits at yet.
    #[must_use]
    pub fn new(store: Store, metrics: Arc<dyn Metrics>) -> Self {
        Self { store, metrics, watched: HashMap::new(), rooms: HashMap::new() }
    }

    fn watch(&mut self, user: &str) -> Result<watch::Receiver<News>, StorageError> {
        if let Some(watched) = self.watched.get_mut(user) {
            watched.idle = false;
            return Ok(watched.sender.subscribe());
        }
        // Changes are in the index before they are announced, so nothing is missed between this
        // look and the next announcement.
        let memberships = self.store.memberships(user)?;
        let rooms: HashSet<_> = memberships
            .into_iter()
            .filter(|(_, entry)| matches!(&*entry.membership, "join" | "invite" | "knock"))
            .map(|(room, _)| room)
            .collect();
        for room in &rooms {
            self.rooms.entry(*room).or_default().insert(user.to_owned());
        }
        let (sender, receiver) = watch::channel(News::default());
        self.watched.insert(user.to_owned(), Watched { sender, rooms, idle: false });
        Ok(receiver)
    }

    fn announce(&mut self, pos: StreamPos, announcement: &Announcement) {
        match announcement {
            Announcement::Event { room, members, .. } => {
                self.wake_room(*room, |news| news.pos = pos);
                for (user, membership) in members {
                    self.wake_user(user, |news| news.pos = pos);
                    self.membership_changed(*room, user, membership);
                }
            }
            Announcement::OutOfBand { room, user, membership } => {
                self.wake_user(user, |news| news.pos = pos);
                self.membership_changed(*room, user, membership);
            }
            Announcement::Receipt { room, private_to } => match private_to {
                Some(user) => self.wake_user(user, |news| news.pos = pos),
                None => self.wake_room(*room, |news| news.pos = pos),
            },
            Announcement::User { user } => {
                self.wake_user(user, |news| news.pos = pos);
            }
            Announcement::Users { users, .. } => {
                for user in users {
                    self.wake_user(user, |news| news.pos = pos);
                }
            }
            Announcement::Keys { user, rooms } => {
                self.wake_user(user, |news| news.pos = pos);
                for room in rooms {
                    self.wake_room(*room, |news| news.pos = pos);
                }
            }
            Announcement::Past { .. } | Announcement::Published { .. } | Announcement::Nothing => {}
        }
    }

    fn membership_changed(&mut self, room: RoomNum, user: &str, membership: &str) {
        let Some(watched) = self.watched.get_mut(user) else { return };
        if matches!(membership, "join" | "invite" | "knock") {
            watched.rooms.insert(room);
            self.rooms.entry(room).or_default().insert(user.to_owned());
        } else {
            watched.rooms.remove(&room);
            self.forget_in_room(room, user);
        }
    }

    fn forget_in_room(&mut self, room: RoomNum, user: &str) {
        if let Some(users) = self.rooms.get_mut(&room) {
            users.remove(user);
            if users.is_empty() {
                self.rooms.remove(&room);
            }
        }
    }

    fn wake_room(&self, room: RoomNum, update: impl Fn(&mut News)) {
        let Some(users) = self.rooms.get(&room) else { return };
        for user in users {
            self.wake_user(user, &update);
        }
        self.metrics.woken(users.len());
    }

    fn wake_user(&self, user: &str, update: impl Fn(&mut News)) {
        if let Some(watched) = self.watched.get(user) {
            watched.sender.send_modify(update);
        }
    }

    fn sweep(&mut self) {
        let mut gone = Vec::new();
        for (user, watched) in &mut self.watched {
            if watched.sender.receiver_count() > 0 {
                watched.idle = false;
            } else if watched.idle {
                gone.push(user.clone());
            } else {
                watched.idle = true;
            }
        }
        for user in gone {
            if let Some(watched) = self.watched.remove(&user) {
                for room in watched.rooms {
                    self.forget_in_room(room, &user);
                }
            }
        }
    }
}

impl Actor for Notifier {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(SWEEP, |notifier, _| notifier.sweep());
    }
}

/// Changes have become durable and readable.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Announce(pub Vec<(StreamPos, Announcement)>);

impl Handler<Announce> for Notifier {
    type Result = ();

    fn handle(&mut self, Announce(announcements): Announce, _: &mut Self::Context) {
        for (pos, announcement) in &announcements {
            self.announce(*pos, announcement);
        }
    }
}

/// The users who are typing in a room have changed.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct TypingChanged {
    /// The room.
    pub room: RoomNum,
    /// The new value of the typing counter.
    pub counter: u64,
}

impl Handler<TypingChanged> for Notifier {
    type Result = ();

    fn handle(&mut self, message: TypingChanged, _: &mut Self::Context) {
        self.wake_room(message.room, |news| news.typing = message.counter);
    }
}

/// The presence of users in some rooms has changed. The answer is how many users were woken.
#[derive(Message, Debug)]
#[rtype(result = "usize")]
pub struct PresenceChanged {
    /// The rooms.
    pub rooms: Vec<RoomNum>,
    /// The value of the presence counter.
    pub counter: u64,
}

impl Handler<PresenceChanged> for Notifier {
    type Result = usize;

    fn handle(&mut self, message: PresenceChanged, _: &mut Self::Context) -> usize {
        let users = message.rooms.iter().filter_map(|room| self.rooms.get(room)).flatten();
        // Who shares several rooms with those who changed is woken once.
        let users: HashSet<_> = users.collect();
        for user in &users {
            self.wake_user(user, |news| news.presence = message.counter);
        }
        self.metrics.woken(users.len());
        users.len()
    }
}

/// Asks for the channel that tells of news for a user.
#[derive(Message, Debug)]
#[rtype(result = "Result<watch::Receiver<News>, StorageError>")]
pub struct Watch {
    /// The user id.
    pub user: String,
}

impl Handler<Watch> for Notifier {
    type Result = MessageResult<Watch>;

    fn handle(&mut self, message: Watch, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.watch(&message.user))
    }
}
