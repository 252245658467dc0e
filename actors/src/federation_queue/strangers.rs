//! Servers that are given up: those that were never reached and with which no room is shared. Anybody
//! can make up the name of a server and send its users messages, and each such name would be tried
//! for ever.

use parlour_event::{RoomNum, StreamPos};
use parlour_storage::{
    Op, StorageError,
    schema::{
        DestinationEntry,
        edu_outbox::{self, EduPlace, FIRST},
        outbox,
    },
};
use ruma::{OwnedServerName, ServerName};

use super::{Queues, line::Line, table::Table};
use crate::commit::{Announcement, Ops};

/// For how long such a server is tried, in milliseconds: a day.
const PATIENCE: u64 = 86_400_000;

/// How many such servers are tried at all.
const MOST: usize = 1_000;

/// How many EDUs are removed at once.
const BATCH: usize = 1_000;

/// After all places.
const END: EduPlace = (StreamPos(u64::MAX), u64::MAX);

impl Line {
    /// Whether it is useless to try any longer, if no room is shared.
    pub(super) fn is_hopeless(&self, now: u64) -> bool {
        let health = &self.health;
        !self.was_reached && health.is_failing() && now.saturating_sub(health.since) >= PATIENCE
    }
}

impl Table {
    fn has_too_many_strangers(&self) -> bool {
        let strangers = self.lines.values().filter(|line| !line.was_reached);
        strangers.count() >= MOST
    }
}

impl Queues {
    /// Whether nothing is to be sent to a server since too many others are tried that nobody has
    /// heard of. What waits for it is thrown away soon.
    pub(super) fn is_one_too_many(
        &self,
        table: &mut Table,
        server: &OwnedServerName,
    ) -> Result<bool, StorageError> {
        let is_too_much = !table.lines.contains_key(server)
            && table.has_too_many_strangers()
            && self.is_stranger(server)?;
        if is_too_much {
            table.hopeless.insert(server.clone());
            self.wake.notify_one();
        }
        Ok(is_too_much)
    }

    fn is_stranger(&self, server: &ServerName) -> Result<bool, StorageError> {
        let key = outbox::destination(server.as_str());
        let was_reached =
            self.store.typed::<DestinationEntry>(&key)?.unwrap_or_default().was_reached;
        let first = (RoomNum(0), None);
        Ok(!was_reached && self.store.rooms_of_server(server.as_str(), first, 1)?.is_empty())
    }

    /// Gives up the servers about which this has been decided, unless they share a room.
    pub(super) async fn give_up_strangers(&self) {
        while let Some(server) = self.next_hopeless() {
            match self.give_up(&server).await {
                Ok(0) => {}
                Ok(edus) => {
                    tracing::info!(%server, edus, "a server that was never reached is given up");
                    self.options.metrics.posted_dropped("unreachable", edus);
                }
                Err(error) => {
                    tracing::warn!(%server, error, "what waits for a server cannot be removed");
                }
            }
        }
    }

    fn next_hopeless(&self) -> Option<OwnedServerName> {
        self.lock().hopeless.pop_first()
    }

    /// Removes all that waits for a server; says how much that was.
    async fn give_up(&self, server: &OwnedServerName) -> Result<usize, String> {
        if !self.is_stranger(server).map_err(|error| error.to_string())? {
            return Ok(0);
        }
        {
            let mut table = self.lock();
            let is_idle = |line: &Line| !line.was_reached && !line.is_running;
            if !table.lines.get(server).is_none_or(is_idle) {
                return Ok(0);
            }
            table.lines.remove(server);
        }
        let mut removed = 0;
        loop {
            let edus = self.store.waiting_edus(server.as_str(), (FIRST, END), BATCH);
            let edus = edus.map_err(|error| error.to_string())?;
            let key = |place| edu_outbox::waiting_edu(server.as_str(), place);
            let mut ops: Vec<_> =
                edus.iter().map(|(place, _)| Op::Delete { key: key(*place) }).collect();
            ops.push(Op::Delete { key: outbox::destination(server.as_str()) });
            let change = Ops { ops, announcement: Announcement::Nothing };
            let done = self.persister.commit(Box::new(change)).await;
            done.map_err(|error| error.to_string())?;
            removed += edus.len();
            if edus.len() < BATCH {
                return Ok(removed);
            }
        }
    }
}
