//! Finds out which servers are to be told of users' devices: those that share a room with a user
//! whose keys have changed, and those to which a user comes.
//!
//! A server that has not shared a room with a user so far does not know the user's devices, or
//! knows that its list is old; it asks for them when it needs them. So when the first user of a
//! server comes into a room, nothing is said of all who are there.

use std::{collections::BTreeSet, sync::Arc};

use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{StorageError, schema::KeyNewsEntry};
use ruma::{OwnedServerName, ServerName};

use super::Queues;

/// How many pieces of news are looked at before others get their turn.
const BATCH: usize = 20;

impl Queues {
    /// Looks at the next pieces of news. Returns whether there are more.
    pub(super) fn dispatch_keys(self: &Arc<Self>) -> Result<bool, StorageError> {
        let last = self.lock().keys_dispatched;
        let entries = self.store.key_news(last, BATCH)?;
        for (pos, entry) in &entries {
            let mut said = Vec::new();
            for user in &entry.users {
                said.push((user.as_str(), self.who_is_told(user, entry)?));
            }
            self.say(*pos, entry.have_come, said)?;
        }
        Ok(entries.len() == BATCH)
    }

    fn who_is_told(
        &self,
        user: &str,
        entry: &KeyNewsEntry,
    ) -> Result<BTreeSet<OwnedServerName>, StorageError> {
        let mut servers = BTreeSet::new();
        for room in &entry.rooms {
            servers.extend(self.servers_in(*room)?);
        }
        if !entry.have_come {
            return Ok(servers);
        }
        // Those that share another room with the user are told of all changes.
        for (room, membership) in self.store.memberships(user)? {
            if servers.is_empty() {
                break;
            }
            if membership.membership == "join" && !entry.rooms.contains(&room) {
                let known = self.servers_in(room)?;
                servers.retain(|server| !known.contains(server));
            }
        }
        Ok(servers)
    }

    /// The other servers in a room that are spoken to, there or not.
    pub(super) fn servers_in(
        &self,
        room: RoomNum,
    ) -> Result<BTreeSet<OwnedServerName>, StorageError> {
        let mut audiences = self.audiences();
        let returns = self.lock().returns;
        let may_send = |server: &ServerName| self.options.courier.may_send(server);
        let audience = audiences.of(&self.store, room, returns, may_send)?;
        Ok(audience.servers().cloned().collect())
    }

    fn say(
        self: &Arc<Self>,
        pos: StreamPos,
        have_come: bool,
        said: Vec<(&str, BTreeSet<OwnedServerName>)>,
    ) -> Result<(), StorageError> {
        let (now, mut table) = (self.now(), self.lock());
        for (user, servers) in said {
            for server in servers {
                let line = table.line(&self.store, &server)?;
                let was_behind = line.owed.unheard.is_behind();
                line.owed.say(|unheard| unheard.push(user, pos, have_come), now);
                line.is_unsaved |= !was_behind && line.owed.unheard.is_behind();
                if table.begin(&server, now, self.jitter()) {
                    self.start_sending(server);
                }
            }
        }
        table.keys_dispatched = pos;
        Ok(())
    }
}
