//! Tells other servers who is online here: once a second what has changed, and again from time to
//! time, since others forget it. A server that comes into a room hears of who is there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use parlour_event::RoomNum;
use parlour_storage::StorageError;
use ruma::{OwnedServerName, ServerName};

use super::{Queues, edus::Edu};
use crate::presence::State;

/// After so many milliseconds it is said again who is online: Synapse takes those for offline of
/// whom it has heard nothing for half an hour.
const AGAIN: u64 = 20 * 60_000;

/// How many servers are told of all who are online with one tick.
const SERVERS: usize = 50;

/// How many of the rooms that are shared with a server are looked at for that.
const ROOMS: usize = 200;

/// How many users' presence in one room is told.
const MAX_PRESENT: usize = 100;

/// Which servers have been told again.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// When the next round begins, milliseconds since the epoch; 0 before the first one.
    next: u64,
    /// The last server that was told in this round.
    last: String,
}

impl Queues {
    /// Tells what has changed since a counter, which is set to the one now.
    pub(super) fn tell_presence(self: &Arc<Self>, told: &mut u64) -> Result<(), StorageError> {
        let since = std::mem::replace(told, self.presence.counter());
        let rooms = self.presence.rooms_since(since).unwrap_or_default();
        let mut statuses = HashMap::new();
        let mut audience = BTreeMap::<OwnedServerName, BTreeSet<Arc<str>>>::new();
        for room in rooms {
            let users = self.local_in(room, since);
            for user in &users {
                if !statuses.contains_key(user) {
                    let status = self.presence.status(user)?;
                    statuses.insert(user.clone(), Edu::Presence { user: user.clone(), status });
                }
            }
            for server in self.present_in(room)? {
                audience.entry(server).or_default().extend(users.iter().cloned());
            }
        }
        for (server, users) in audience {
            let edus = users.iter().filter_map(|user| statuses.get(user));
            self.tell(&mut self.lock(), &server, edus)?;
        }
        Ok(())
    }

    /// Tells some servers of all who are online: those that have just come into a room, and the next
    /// ones of those that have not heard of it for long.
    pub(super) fn tell_presence_again(
        self: &Arc<Self>,
        again: &mut Again,
    ) -> Result<(), StorageError> {
        let mut servers = self.audiences().take_arrived(SERVERS);
        let (now, most) = (self.now(), SERVERS - servers.len());
        if again.next == 0 {
            again.next = now + AGAIN;
        }
        if again.next <= now {
            let page = self.store.servers_with_rooms(&again.last, most)?;
            let is_end = page.len() < most;
            match page.last().filter(|_| !is_end) {
                Some(last) => again.last.clone_from(last),
                None => *again = Self::later(now),
            }
            servers.extend(page.into_iter().filter_map(|name| name.try_into().ok()));
        }
        servers.iter().try_for_each(|server| self.tell_who_is_online(server))
    }

    fn later(now: u64) -> Again {
        Again { next: now + AGAIN, last: String::new() }
    }

    fn tell_who_is_online(self: &Arc<Self>, server: &ServerName) -> Result<(), StorageError> {
        let is_failing = |line: &super::line::Line| line.health.is_failing();
        if !self.options.courier.may_send(server)
            || self.lock().lines.get(server).is_some_and(is_failing)
        {
            return Ok(());
        }
        let shared = self.store.rooms_of_server(server.as_str(), (RoomNum(0), None), ROOMS)?;
        let shared = shared.into_iter().filter(|(_, until)| until.is_none());
        let users: BTreeSet<_> = shared.flat_map(|(room, _)| self.local_in(room, 0)).collect();
        let mut edus = Vec::new();
        for user in users {
            let status = self.presence.status(&user)?;
            if status.state != State::Offline {
                edus.push(Edu::Presence { user, status });
            }
        }
        if !edus.is_empty() {
            self.tell(&mut self.lock(), server, &edus)?;
        }
        Ok(())
    }

    /// Users of this server in a room whose presence has changed after `since`.
    fn local_in(&self, room: RoomNum, since: u64) -> Vec<Arc<str>> {
        let users = self.presence.changed_in(room, since, MAX_PRESENT).into_iter();
        users.filter(|user| self.is_local(user)).collect()
    }
}
